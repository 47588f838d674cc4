"""What must hold of a loaded model: one vector a photo, the same in every process, or an error."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.weights import write_random_weights
from verger.errors import (
    ConfigError,
    ContractError,
    EnvironmentNotReadyError,
    UnknownModelError,
    VergerError,
    WeightsError,
    WeightsNotFoundError,
)
from verger.features.contract import FeatureContract
from verger.features.model import (
    CARDS,
    GOLDEN_TOLERANCE,
    N_SESSIONS,
    Model,
    find_card,
    golden_pixels,
    load_model,
    open_cached,
    published_golden,
)
from verger.features.model.session import ModelSession, import_onnxruntime
from verger.features.preprocess import PREPROCESS_VERSION, DecodeError, decode_photo
from verger.schema import Reason

CONTRACT = FeatureContract(
    model="mobilenet_v2",
    weights_sha256="a" * 64,
    graph="test",
    input_size=224,
    n_features=1280,
    mean=(127.5,),
    std=(127.5,),
)


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.h5"
    write_random_weights(path)
    return path


@pytest.fixture(scope="session")
def random_model(random_weights: Path) -> Model:
    """MobileNetV2 with random weights: the built-in model that needs no download."""
    return load_model("mobilenet_v2", weights=random_weights)


def jpeg(seed: int, size: tuple[int, int] = (60, 40)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


# ---- which model ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet50", "", "MobileNet_V2", "model.h5"])
def test_unknown_model_lists_the_models(name: str) -> None:
    """A name of no model is refused with the names that there are, and the way to one's own."""
    match = (
        f"model={name!r} must be one of mobilenet_v2, efficientnet_lite0, or the path of an .onnx"
    )
    with pytest.raises(UnknownModelError, match=re.escape(match)):
        load_model(name)


def test_missing_onnx_file_is_an_unknown_model(tmp_path: Path) -> None:
    """A path that ends in .onnx, in any case, is looked for as a file."""
    with pytest.raises(UnknownModelError, match=r"own\.ONNX': no such file"):
        load_model(str(tmp_path / "own.ONNX"))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A file of weights that is not there, or is a folder, is refused before anything is read."""
    for path, says in (
        (tmp_path / "none.h5", "no such file"),
        (tmp_path, "is a folder; name the file in it"),
    ):
        with pytest.raises(WeightsNotFoundError, match=f"weights {path}: {says}"):
            load_model("mobilenet_v2", weights=path)


def test_weights_may_be_in_the_users_home(
    monkeypatch: pytest.MonkeyPatch, random_weights: Path, random_model: Model
) -> None:
    """A ~ in the path of weights is the user's home."""
    monkeypatch.setenv("HOME", str(random_weights.parent))
    model = load_model("mobilenet_v2", weights=f"~/{random_weights.name}")
    assert model.contract == random_model.contract


def test_weights_of_an_onnx_model_are_refused(tmp_path: Path) -> None:
    """Weights given for an ONNX file, which has its own, are refused instead of ignored."""
    path = tmp_path / "own.onnx"
    path.write_bytes(b"never read")
    with pytest.raises(ConfigError, match=r"weights='.*/none\.h5': model='.*' has its weights ins"):
        load_model(str(path), weights=tmp_path / "none.h5")


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
@pytest.mark.parametrize("size", [192, 160, 128, 96])
def test_a_smaller_input_is_another_contract(name: str, size: int, random_weights: Path) -> None:
    """The same weights on smaller photos: features of the same length, and of their own."""
    weights = random_weights if name == "mobilenet_v2" else None
    whole, smaller = (load_model(name, weights=weights, input_size=s) for s in (None, size))
    assert smaller.contract == dataclasses.replace(whole.contract, input_size=size)
    assert smaller.contract.hash != whole.contract.hash
    assert smaller.published == whole.published
    photo = jpeg(1, (300, 200))
    features = smaller.predict(photo)
    assert features.shape == (1280,)
    assert not np.allclose(features, whole.predict(photo), atol=1e-3)


def test_the_models_own_size_is_the_default(random_weights: Path, random_model: Model) -> None:
    """Asked for by its number it is the same contract."""
    asked = load_model("mobilenet_v2", weights=random_weights, input_size=224)
    assert asked.contract == random_model.contract


@pytest.mark.parametrize("size", [0, -224, 100, 256])
def test_no_other_size_is_taken(size: int, tmp_path: Path) -> None:
    """A size that no weights were published for is refused; so is any for a model of one's own."""
    with pytest.raises(ConfigError, match=rf"input_size={size} must be one of 224, 192, 160"):
        load_model("mobilenet_v2", input_size=size)
    (tmp_path / "own.onnx").touch()
    with pytest.raises(ConfigError, match="has a size of its own"):
        load_model(str(tmp_path / "own.onnx"), input_size=size)


def test_wrong_sum_of_weights_is_refused(random_weights: Path) -> None:
    """Weights with another sha256 than asked for are refused with both sums."""
    with pytest.raises(
        WeightsError, match=rf"sha256 [0-9a-f]{{64}} is not the expected {'0' * 64}"
    ):
        load_model("mobilenet_v2", weights=random_weights, weights_sha256="0" * 64)


def test_right_sum_of_weights_is_in_the_contract(random_weights: Path) -> None:
    """The contract holds the sha256 of the file as it was read, in small letters."""
    digest = hashlib.sha256(random_weights.read_bytes()).hexdigest()
    model = load_model("mobilenet_v2", weights=random_weights, weights_sha256=digest.upper())
    assert model.contract.weights_sha256 == digest


def test_wrong_sum_of_an_onnx_file_is_refused(tmp_path: Path) -> None:
    """The sum is checked before an ONNX file is read."""
    path = tmp_path / "own.onnx"
    path.write_bytes(b"never read")
    with pytest.raises(WeightsError, match="is not the expected"):
        load_model(str(path), weights_sha256="0" * 64)


def test_weights_of_the_other_model_are_refused(random_weights: Path) -> None:
    """Each model refuses the other's weights."""
    lite = CARDS["efficientnet_lite0"].weights.find()
    assert lite is not None
    with pytest.raises(WeightsError, match="not a PyTorch file of weights"):
        load_model("efficientnet_lite0", weights=random_weights)
    with pytest.raises(WeightsError, match="not a readable file of Keras weights"):
        load_model("mobilenet_v2", weights=lite)


@pytest.mark.parametrize("name", CARDS)
def test_cards_say_what_a_user_should_know(name: str) -> None:
    """Every built-in model has a card with name, title, licence and origin, and 1280 features."""
    card = find_card(name)
    assert card.name == name
    assert (card.input_size, card.n_features) == (224, 1280)
    assert card.title
    assert card.origin
    assert card.license == "Apache-2.0"


# ---- published weights ---------------------------------------------------------------------


def test_random_weights_are_not_published_ones(random_model: Model) -> None:
    """Features that are not those of the ImageNet weights are told as such."""
    assert random_model.published is False


def test_packaged_weights_are_published_ones(model: Model) -> None:
    """EfficientNet-Lite0 of the package gives the golden features of the published weights."""
    assert model.published is True
    expected = published_golden("efficientnet_lite0")
    assert expected is not None
    np.testing.assert_allclose(model.golden, expected, atol=GOLDEN_TOLERANCE)


def test_golden_vectors_are_kept_for_the_built_in_models() -> None:
    """There is a golden vector of 1280 features for each built-in model, and for no other."""
    for name in CARDS:
        golden = published_golden(name)
        assert golden is not None
        assert golden.shape == (1280,)
        assert golden.std() > 100 * GOLDEN_TOLERANCE  # so that other weights are told apart
    assert published_golden("own.onnx") is None


# ---- prediction ----------------------------------------------------------------------------


def test_one_photo_gives_one_vector(random_model: Model, tmp_path: Path) -> None:
    """Bytes, a path and the path's text give the same vector, that of the decoded pixels."""
    content = jpeg(0)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    expected = random_model.open().predict(decode_photo(content, size=224).pixels[None])[0]
    for photo in (content, path, str(path)):
        features = random_model.predict(photo)
        assert features.shape == (1280,)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, expected)


def test_several_photos_give_a_row_each_in_order(random_model: Model, tmp_path: Path) -> None:
    """A list of paths and bytes of several sizes gives a row each, as each would give alone."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(1, (10, 90)))
    photos = [jpeg(0), path, str(path), jpeg(2, (300, 7))]
    features = random_model.predict(photos)
    assert features.shape == (4, 1280)
    np.testing.assert_array_equal(features, np.stack([random_model.predict(p) for p in photos]))
    np.testing.assert_array_equal(features[1], features[2])
    assert np.abs(features[0] - features[3]).max() > 1e-3


@pytest.mark.parametrize("none", [[], ()])
def test_no_photos_give_no_rows(random_model: Model, none: Any) -> None:
    """An empty list gives (0, 1280) float32."""
    features = random_model.predict(none)
    assert features.shape == (0, 1280)
    assert features.dtype == np.float32


def test_photo_that_cannot_be_decoded_is_an_error_here(random_model: Model) -> None:
    """Without Spark there is no table of rejects: the DecodeError reaches the caller."""
    with pytest.raises(DecodeError, match="not an image") as caught:
        random_model.predict([jpeg(0), b"no photo"])
    assert isinstance(caught.value, VergerError)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_pixels_are_photos_too(random_model: Model) -> None:
    """An image of Pillow and an array give the vector of a file with these pixels."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(jpeg(3))).convert("RGB")
    image.save(file, "PNG")
    expected = random_model.predict(file.getvalue())
    np.testing.assert_array_equal(random_model.predict(image), expected)
    two = random_model.predict(np.stack([np.asarray(image)] * 2))
    np.testing.assert_array_equal(two, np.stack([expected] * 2))


@pytest.mark.parametrize("odd", [3, [None], np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_photo_is_named(random_model: Model, odd: Any) -> None:
    """The error says what a photo may be."""
    with pytest.raises(TypeError, match="is no photo: must be a path, bytes, a PIL image"):
        random_model.predict(odd)


def test_missing_photo_is_an_error(random_model: Model, tmp_path: Path) -> None:
    """A path of no file is Python's own FileNotFoundError."""
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        random_model.predict(tmp_path / "none.jpg")


def test_model_crosses_processes(random_model: Model) -> None:
    """A pickled model predicts the same to the bit, whether it had been used before or not."""
    content = jpeg(0)
    before = random_model.predict(content)  # now it holds a session, which no pickle can
    copy = pickle.loads(pickle.dumps(random_model))
    assert copy.contract == random_model.contract
    assert copy.layers == random_model.layers
    np.testing.assert_array_equal(copy.predict(content), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(copy)).predict(content), before)


def test_models_can_be_compared(random_model: Model) -> None:
    """A model equals itself and no other, and can be a key; equal work is equal contracts."""
    copy = pickle.loads(pickle.dumps(random_model))
    assert random_model == random_model
    assert copy != random_model
    assert copy.contract == random_model.contract
    assert len({random_model, random_model, copy}) == 2


def test_session_is_opened_once_a_process(random_model: Model) -> None:
    """The same contract gives the same session again."""
    assert open_cached(random_model) is open_cached(pickle.loads(pickle.dumps(random_model)))


def test_a_process_keeps_few_sessions(random_model: Model) -> None:
    """However many models a process has opened, it keeps the sessions of the last few."""
    models = [
        dataclasses.replace(random_model, golden=random_model.golden + np.float32(i * 1e-6))
        for i in range(1, N_SESSIONS + 2)
    ]
    first = weakref.ref(open_cached(models[0]))
    last = [open_cached(model) for model in models[1:]]
    assert first() is None
    assert [open_cached(model) for model in models[1:]] == last


def test_threads_share_one_session(random_model: Model) -> None:
    """Threads that ask for a model at the same time get the same session."""
    model = dataclasses.replace(random_model, golden=random_model.golden + np.float32(1e-5))
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(open_cached, [model] * 8))
    assert len(set(map(id, sessions))) == 1


# ---- in a notebook -------------------------------------------------------------------------


def test_a_model_is_shown_in_a_line(model: Model, random_model: Model) -> None:
    """A model's repr is one line with its name, size and contract, and none of its bytes."""
    assert re.fullmatch(
        r"Model\(name=efficientnet_lite0, input=224x224, features=1280, contract=[0-9a-f]{12}, "
        r"weights=published, graph=\d+\.\d MB\)",
        repr(model),
    )
    assert "weights=not the published ones" in repr(random_model)


def test_a_notebook_shows_a_model_as_a_table(model: Model) -> None:
    """A notebook gets the same facts as a small table, escaped."""
    named = dataclasses.replace(model.contract, model="<b>.onnx")
    html = dataclasses.replace(model, contract=named)._repr_html_()
    assert html.startswith(
        "<table><caption>Model</caption><tr><th>name</th><td>&lt;b&gt;.onnx</td></tr>"
    )
    assert len(html) < 1000


# ---- the golden vector ---------------------------------------------------------------------


def test_golden_photo_never_changes() -> None:
    """The golden photo is the same on every machine, to the bit."""
    pixels = golden_pixels(224)
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    digest = "46a0fd39e45d68c431b24978b1178dcad51aeddf90ccd43a1c7500131d923a5c"
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest


def test_process_that_computes_otherwise_is_stopped(random_model: Model) -> None:
    """A process whose features differ from the driver's by more than 1e-3 starts no session."""
    golden = random_model.golden.copy()
    golden[7] += 2 * GOLDEN_TOLERANCE
    tampered = dataclasses.replace(random_model, golden=golden)
    with pytest.raises(
        ContractError, match=r"differ by 0\.002 \(at most 0\.001\) on the golden"
    ) as caught:
        tampered.open()
    assert random_model.contract.short_hash in str(caught.value)
    with pytest.raises(ContractError, match="golden photo"):
        tampered.predict(jpeg(0))


def test_rounding_is_let_through(random_model: Model) -> None:
    """Differences as kernels of other processors make them are no mismatch."""
    golden = random_model.golden + np.float32(GOLDEN_TOLERANCE / 4)
    dataclasses.replace(random_model, golden=golden).open()


def test_golden_vector_with_nan_stops_too(random_model: Model) -> None:
    """NaN is no match, though it compares as neither more nor less."""
    golden = random_model.golden.copy()
    golden[0] = np.nan
    with pytest.raises(ContractError, match="differ by nan"):
        dataclasses.replace(random_model, golden=golden).open()


def test_graph_that_cannot_be_run_is_refused(random_model: Model) -> None:
    """Bytes that onnxruntime refuses are a WeightsError that names the model."""
    with pytest.raises(WeightsError, match="model mobilenet_v2: onnxruntime refuses it"):
        dataclasses.replace(random_model, onnx=b"no graph").open()


# ---- the contract --------------------------------------------------------------------------


OTHER_VALUES: dict[str, Any] = {
    "model": "efficientnet_lite0",
    "weights_sha256": "b" * 64,
    "input_size": 96,
    "n_features": 1000,
    "mean": (127.0,),
    "std": (128.0,),
    "graph": "other",
    "preprocess_version": 99,
    "decoder": "x",
    "exif": "x",
    "transparency": "x",
    "color": "x",
    "resize": "x",
    "dtype": "x",
}
#: Those that a contract names only where they are not the usual ones; by others older hashes are.
UNUSUAL_VALUES: dict[str, Any] = {
    "views": "five",
    "resize_rule": "shortest_edge",
    "resize_size": 300,
    "resample": "bilinear",
    "crop": "center",
}


def test_every_field_of_the_contract_is_tried() -> None:
    """The next tests leave no field out."""
    assert OTHER_VALUES.keys() | UNUSUAL_VALUES.keys() == {
        field.name for field in dataclasses.fields(FeatureContract)
    }


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_hash_depends_on_every_field(name: str) -> None:
    """A contract that differs in one field has another hash."""
    other = dataclasses.replace(CONTRACT, **{name: OTHER_VALUES[name]})
    assert other != CONTRACT
    assert other.hash != CONTRACT.hash
    assert other.short_hash != CONTRACT.short_hash


def test_hash_depends_on_what_is_unusual() -> None:
    """Each of them alone, beside a crop: without one a photo is made a square of the usual side."""
    usual = dataclasses.replace(CONTRACT, crop="center_even")
    others = [dataclasses.replace(usual, **{name: v}) for name, v in UNUSUAL_VALUES.items()]
    assert len({other.hash for other in (CONTRACT, usual, *others)}) == len(others) + 2


def test_hash_is_stable() -> None:
    """A contract that is spelled out has the hash it has always had, as in every stored table."""
    spelled_out = dataclasses.replace(CONTRACT, **OTHER_VALUES)
    assert spelled_out.hash == "d6d6412d97398ec46791a524a2aecb32d38a0047fccd725ef3a6e48719a9b9be"
    assert spelled_out.short_hash == spelled_out.hash[:12]


def test_contract_counts_changes_of_preprocessing() -> None:
    """A contract is of today's preprocessing where nothing else is said."""
    assert CONTRACT.preprocess_version == PREPROCESS_VERSION


def test_contract_comes_back_from_its_dict() -> None:
    """A contract, written as JSON values and read, is the same and hashes the same."""
    values = CONTRACT.as_dict()
    assert values["mean"] == [127.5]
    again = FeatureContract.from_dict(values)
    assert again == CONTRACT
    assert again.hash == CONTRACT.hash


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_contract_with_a_missing_key_is_refused(name: str) -> None:
    """A dict without one of the keys is no contract: today's way is not filled in for it."""
    values = CONTRACT.as_dict()
    del values[name]
    with pytest.raises(ContractError, match=f"not a whole feature contract: '{name}' is missing"):
        FeatureContract.from_dict(values)


def test_contract_says_its_graph() -> None:
    """What is computed with the weights has no default: every contract is told it."""
    values = {k: v for k, v in vars(CONTRACT).items() if k != "graph"}
    with pytest.raises(TypeError, match="graph"):
        FeatureContract(**values)


@pytest.mark.parametrize("change", [{"sharpness": 1}, {"mean": None}, {"std": 1.0}])
def test_contract_with_a_wrong_key_is_refused(change: dict[str, Any]) -> None:
    """A dict with an unknown key, or a mean that is no list, is of another version."""
    with pytest.raises(ContractError, match="not a feature contract of this version of Verger"):
        FeatureContract.from_dict(CONTRACT.as_dict() | change)


def test_loaded_contract_says_how_features_were_made(random_model: Model, model: Model) -> None:
    """The contract of a built-in model holds the card's name, size and normalisation."""
    for loaded, name in ((random_model, "mobilenet_v2"), (model, "efficientnet_lite0")):
        card, contract = CARDS[name], loaded.contract
        assert contract.model == name
        assert (contract.input_size, contract.n_features) == (224, 1280)
        assert (contract.mean, contract.std) == (card.mean, card.std)
    assert CARDS["mobilenet_v2"].mean == CARDS["mobilenet_v2"].std == (127.5,)
    assert (CARDS["efficientnet_lite0"].mean, CARDS["efficientnet_lite0"].std) == (
        (127.0,),
        (128.0,),
    )


# ---- without Spark -------------------------------------------------------------------------


def test_one_photo_needs_no_spark(tmp_path: Path) -> None:
    """Loading a model and predicting a photo imports neither Spark nor a framework."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(0))
    code = (
        "import sys; from verger.features.model import load_model; "
        "shape = load_model('efficientnet_lite0').predict(sys.argv[1]).shape; "
        "heavy = {'pyspark', 'py4j', 'torch', 'tensorflow', 'keras', 'sklearn', 'matplotlib'}; "
        "print(shape, sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("(1280,) []", "", 0)


def test_prediction_leaves_the_home_folder_alone(tmp_path: Path) -> None:
    """No library keeps an identifier or a report in the user's home, where no CI forbids it."""
    (tmp_path / "home").mkdir()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(0))
    code = (
        "import os, sys; from verger.features.model import load_model; "
        "load_model('efficientnet_lite0').predict(sys.argv[1]); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environ = {
        "PATH": os.defpath,
        "HOME": str(tmp_path / "home"),
        "PYTHONUTF8": "1",
        "VERGER_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(photo)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("1", "", 0)
    assert list((tmp_path / "home").rglob("*")) == []


# Memory


def bound_memory(monkeypatch: pytest.MonkeyPatch, *, most: int) -> list[int]:
    """Give onnxruntime no memory for more photos at once; return a list of what it is asked."""
    asked: list[int] = []
    ort = import_onnxruntime()

    class Bounded(ort.InferenceSession):
        def run(self, outputs: list[str], inputs: dict[str, Any], options: Any = None) -> Any:
            (photos,) = inputs.values()
            asked.append(len(photos))
            if len(photos) > most:
                raise RuntimeError("Non-zero status code ... bad allocation")
            return super().run(outputs, inputs, options)

    monkeypatch.setattr(ort, "InferenceSession", Bounded)
    return asked


def test_a_model_without_memory_takes_half_as_many_photos(
    random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocation that fails halves the photos of a call, for good, and changes no feature."""
    pixels = np.stack([golden_pixels(224) ^ i for i in range(11)]).astype(np.uint8)
    expected = random_model.open().predict(pixels)
    asked = bound_memory(monkeypatch, most=3)
    session = ModelSession(random_model.contract, random_model.onnx)
    np.testing.assert_array_equal(session.predict(pixels), expected)
    assert asked == [11, 5, 2, 2, 2, 2, 2, 1]
    asked.clear()
    session.predict(pixels[:4])
    assert asked == [2, 2]


def test_other_errors_of_the_model_are_not_taken_for_memory(random_model: Model) -> None:
    """A wrong input is an error at once."""
    session = random_model.open()
    with pytest.raises(Exception, match=r"(?i)invalid|dimension"):
        session.predict(np.zeros((2, 100, 100, 3), np.uint8))


def test_a_model_without_memory_for_one_photo_says_what_to_do(
    random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to halve: fewer cores, or more memory."""
    bound_memory(monkeypatch, most=0)
    session = ModelSession(random_model.contract, random_model.onnx)
    with pytest.raises(EnvironmentNotReadyError, match=r"no memory for a single photo; .*local"):
        session.predict(np.zeros((2, 224, 224, 3), np.uint8))


def test_a_process_that_is_really_out_of_memory_goes_on(tmp_path: Path) -> None:
    """With 300 MB of address space left, 96 photos at once are too many, and all are computed."""
    code = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from verger.features.model import golden_pixels, load_model
from verger.features.model.session import import_onnxruntime
asked, ort = [], import_onnxruntime()
class Noting(ort.InferenceSession):
    def run(self, outputs, inputs, options=None):
        asked.append(len(*inputs.values()))
        return super().run(outputs, inputs, options)
ort.InferenceSession = Noting
session = load_model("efficientnet_lite0").open()
one = golden_pixels(224)
expected = session.predict(one[None])[0]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**8, used + 3 * 10**8))
found = session.predict(np.broadcast_to(one, (96, *one.shape)))
assert 96 in asked and len(asked) > 2, asked
assert found.shape == (96, 1280)
assert (found == expected).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
