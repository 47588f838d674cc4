"""What must hold of EfficientNet-Lite0: it sees what is on a photo, and its file runs no code.

The proof of the preprocessing is the network's own 1000-class top: three photos that pip
packages carry must be named right under ``(x - 127) / 128``. Nothing here can tell 127 and 128
from 127.5 and 127.5; that pair is TensorFlow's, and the contract holds it.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import sklearn.datasets

from verger.errors import WeightsError
from verger.features.model import CARDS, golden_pixels
from verger.features.model.efficientnet_lite0 import read_legacy_torch, write_graph
from verger.features.preprocess import decode_photo, normalize

Scores = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]

RIGHT = ((127.0,), (128.0,))
WRONG = {
    "torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "0 to 1": ((0.0,), (255.0,)),
    "0 to 255": ((0.0,), (1.0,)),
}

# What is on the three photos, in ImageNet's classes. flower.jpg is a dahlia, for which daisy is
# the nearest class. china.jpg is a temple of the Summer Palace in Beijing, for which there is no
# one class: the network says bell cote (0.23), boathouse, monastery, palace, castle.
SEEN = {
    "grace_hopper.jpg": {652: "military uniform"},
    "flower.jpg": {985: "daisy"},
    "china.jpg": {663: "monastery", 698: "palace"},
}


@pytest.fixture(scope="session")
def weights() -> Path:
    found = CARDS["efficientnet_lite0"].weights.find()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def with_top(weights: Path) -> ort.InferenceSession:
    graph = write_graph(weights, size=224, with_top=True)
    onnx_bytes = graph.to_bytes({"features": 1280, "logits": 1000})
    return ort.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def pixels() -> dict[str, npt.NDArray[np.uint8]]:
    """The three photos that scikit-learn and matplotlib carry, decoded."""
    images = Path(sklearn.datasets.__file__).parent / "images"
    samples = Path(matplotlib.get_data_path()) / "sample_data"
    paths = [samples / "grace_hopper.jpg", images / "flower.jpg", images / "china.jpg"]
    return {path.name: decode_photo(path.read_bytes(), size=224).pixels for path in paths}


def log_shares(
    session: ort.InferenceSession, photo: npt.NDArray[np.uint8], norm: tuple[Any, Any] = RIGHT
) -> Scores:
    """Log-probabilities of the 1000 classes."""
    image = normalize(photo[None], mean=norm[0], std=norm[1])
    scores = session.run(["logits"], {"image": image})[0][0].astype(np.float64)
    scores -= scores.max()
    logs: Scores = scores - np.log(np.exp(scores).sum())
    return logs


# ---- it sees what is on a photo ------------------------------------------------------------


@pytest.mark.parametrize("name", ["grace_hopper.jpg", "flower.jpg"])
def test_photos_are_named_right(
    with_top: ort.InferenceSession, pixels: dict[str, Any], name: str
) -> None:
    """The likeliest of 1000 classes is what is on the photo."""
    assert log_shares(with_top, pixels[name]).argmax() in SEEN[name]


def test_temple_is_named_among_the_first(
    with_top: ort.InferenceSession, pixels: dict[str, Any]
) -> None:
    """Of the temple's photo both monastery and palace are among the five likeliest classes."""
    top_5 = np.argsort(-log_shares(with_top, pixels["china.jpg"]))[:5]
    assert set(SEEN["china.jpg"]) <= set(top_5.tolist())


@pytest.mark.parametrize("wrong", WRONG)
def test_right_normalisation_wins(
    with_top: ort.InferenceSession, pixels: dict[str, Any], wrong: str
) -> None:
    """Over the photos, what is on them is likelier under (x - 127) / 128 than under another."""

    def evidence(norm: tuple[Any, Any]) -> float:
        logs = {name: log_shares(with_top, photo, norm) for name, photo in pixels.items()}
        return sum(np.logaddexp.reduce(logs[name][list(SEEN[name])]) for name in SEEN)

    assert evidence(RIGHT) > evidence(WRONG[wrong]) + 0.5


def test_turned_photo_is_not_named(with_top: ort.InferenceSession, pixels: dict[str, Any]) -> None:
    """Upside down the officer is far less of one: what the top says depends on the picture."""
    upright = log_shares(with_top, pixels["grace_hopper.jpg"])[652]
    turned = log_shares(with_top, pixels["grace_hopper.jpg"][::-1])[652]
    assert upright > turned + 1


def test_first_batch_norm_knows_the_normalisation(weights: Path, pixels: dict[str, Any]) -> None:
    """The variances of the first convolution are those that BatchNorm met in training.

    That holds under (x - 127) / 128 alone: under the wrong scales they are off by the square
    of the scale, a factor of 5 for torch's and of 1/4 for 0 to 1.
    """
    tensors = read_legacy_torch(weights)
    kernel = tensors["_conv_stem.weight"].astype(np.float64)
    trained = tensors["_bn0.running_var"]
    alive = trained > 1e-6  # a few channels are dead

    def factor(norm: tuple[Any, Any]) -> float:
        images = (np.stack(list(pixels.values())) - np.array(norm[0])) / np.array(norm[1])
        images = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
        view = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
        found = np.einsum("nyxcij,ocij->nyxo", view[:, ::2, ::2], kernel, optimize=True)
        return float(np.median(found.var(axis=(0, 1, 2))[alive] / trained[alive]))

    assert 1 / 1.5 < factor(RIGHT) < 1.5
    for wrong in WRONG.values():
        assert not 1 / 2 < factor(wrong) < 2


def test_features_do_not_depend_on_the_batch(
    with_top: ort.InferenceSession, pixels: dict[str, Any]
) -> None:
    """A photo has the same features alone and among others."""
    images = normalize(np.stack(list(pixels.values())), mean=(127.0,), std=(128.0,))
    (together,) = with_top.run(["features"], {"image": images})
    alone = [with_top.run(["features"], {"image": image[None]})[0][0] for image in images]
    assert together.shape == (3, 1280)
    np.testing.assert_allclose(np.stack(alone), together, atol=1e-5)


def test_top_changes_no_feature(weights: Path, with_top: ort.InferenceSession) -> None:
    """With and without its top the network gives the same features."""
    graph = write_graph(weights, size=224).to_bytes()
    without = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    image = normalize(golden_pixels(224)[None], mean=(127.0,), std=(128.0,))
    one, other = (s.run(["features"], {"image": image})[0] for s in (with_top, without))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_other_input_sizes_are_written_too(weights: Path) -> None:
    """A graph for another input size runs on it."""
    graph = ort.InferenceSession(
        write_graph(weights, size=96).to_bytes(), providers=["CPUExecutionProvider"]
    )
    image = normalize(golden_pixels(96)[None], mean=(127.0,), std=(128.0,))
    (features,) = graph.run(["features"], {"image": image})
    assert features.shape == (1, 1280)
    assert np.isfinite(features).all()


# ---- the summary ---------------------------------------------------------------------------


def test_summary_counts_the_parameters(weights: Path) -> None:
    """The summary has the 3,413,024 parameters of EfficientNet-Lite0 without top."""
    layers = write_graph(weights, size=224).layers
    assert sum(layer.n_params for layer in layers) == 3_413_024
    assert layers[-1].shape == (1280,)


def test_every_tensor_of_the_file_is_in_the_network(weights: Path) -> None:
    """No weight is left over: the file holds the network, its top and BatchNorm's counters."""
    by_name = read_legacy_torch(weights)
    top = 1280 * 1000 + 1000
    counted = sum(a.size for name, a in by_name.items() if not name.endswith("num_batches_tracked"))
    assert counted == 3_413_024 + top


# ---- its file runs no code -----------------------------------------------------------------

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class TorchName:
    """Pickles as the global ``module.name``, which need not exist here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Storage(SimpleNamespace):
    """Pickles as a persistent id."""


class TorchPickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes pickles as torch does, with globals that are not importable here."""

    def persistent_id(self, obj: object) -> Any:
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj: object, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, TorchName):
            return self.write(f"c{obj.module}\n{obj.name}\n".encode())
        return super().save(obj, save_persistent_id)


class Call:
    """Pickles as a call of a torch name."""

    def __init__(self, name: TorchName, *args: object) -> None:
        self.name, self.args = name, args


def pickled(obj: object) -> bytes:
    file = io.BytesIO()
    pickler = TorchPickler(file, protocol=2)

    def save_call(self: Any, call: Call) -> None:
        self.save(call.name)
        self.save(call.args)
        self.write(pickle.REDUCE)

    pickler.dispatch = {**pickle._Pickler.dispatch, Call: save_call}  # type: ignore[attr-defined]
    pickler.dump(obj)
    return file.getvalue()


FLOATS = TorchName("torch", "FloatStorage")
REBUILD = TorchName("torch._utils", "_rebuild_tensor_v2")


def storage(
    key: str = "0", count: int = 6, kind: str = "storage", of: TorchName = FLOATS
) -> Storage:
    return Storage(pid=(kind, of, key, "cpu", count, None))


def tensor(
    of: object, offset: int = 0, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1)
) -> Call:
    return Call(REBUILD, of, offset, shape, strides, False, OrderedDict())


def torch_file(
    views: object,
    *,
    magic: int = MAGIC,
    protocol: int = PROTOCOL,
    keys: Any = ("0",),
    count: int = 6,
) -> bytes:
    """Write what ``torch.save`` did before 1.6, with one storage of 0, 1, 2 and so on."""
    heads = [magic, protocol, {"little_endian": True}, views, list(keys)]
    values = np.arange(count, dtype="<f4").tobytes()
    return b"".join(pickled(head) for head in heads) + struct.pack("<q", count) + values


def read(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return read_legacy_torch(path)


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_tensor_is_a_window_on_its_storage(pth: Path) -> None:
    """Offset, shape and strides pick a tensor's numbers out of its storage."""
    views = OrderedDict(
        whole=tensor(storage()),
        turned=tensor(storage(), 0, (3, 2), (1, 3)),
        tail=tensor(storage(), 4, (2,), (1,)),
        one=tensor(storage(), 5, (), ()),
    )
    found = read(pth, torch_file(views))
    assert {name: value.tolist() for name, value in found.items()} == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "tail": [4, 5],
        "one": 5,
    }


class Evil:
    """Calls ``function`` when it is unpickled by a reader that lets it."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (Evil(os.system, "touch run"), r"(posix|nt)\.system"),
        (Evil(eval, "open('run', 'w')"), "eval"),
        (Evil(getattr, "a", "b"), "getattr"),
        (TorchName("builtins", "exec"), r"builtins\.exec"),
        (TorchName("numpy", "load"), r"numpy\.load"),
        (TorchName("torch", "load"), r"torch\.load"),
        (TorchName("collections", "OrderedDict.__init__"), r"collections\.OrderedDict\.__init__"),
        (TorchName("verger.features.model.efficientnet_lite0", "io"), r"efficientnet_lite0\.io"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("place", ["magic", "views", "storage type"])
def test_pickles_that_name_anything_else_are_refused(
    pth: Path, monkeypatch: pytest.MonkeyPatch, evil: object, name: str, place: str
) -> None:
    """No global but torch's four is loaded, wherever in the file it is named, and no code runs."""
    monkeypatch.chdir(pth.parent)
    content = {
        "magic": pickled(evil) + torch_file({}),
        "views": torch_file({"a": evil}),
        "storage type": torch_file(
            {"a": tensor(Storage(pid=("storage", evil, "0", "cpu", 6, None)))}
        ),
    }[place]
    with pytest.raises(
        WeightsError, match=f"not a PyTorch file of weights: refused to load .*{name}"
    ):
        read(pth, content)
    assert not Path("run").exists()


def test_truncated_file_is_refused(weights: Path, pth: Path) -> None:
    """The published file cut off anywhere is refused: in its pickles, its keys, its storages."""
    content = weights.read_bytes()
    for n_bytes in (0, 1, 10, 1000, 50_000, len(content) // 2, len(content) - 1):
        with pytest.raises(WeightsError, match="not a PyTorch file of weights"):
            read(pth, content[:n_bytes])


REFUSED = {
    "magic": (torch_file({}, magic=1), "no magic number"),
    "protocol": (torch_file({}, protocol=1002), "no magic number"),
    "text": (b"Dear reader, these are no weights.", "not a PyTorch file of weights"),
    "new layout": (b"PK\x03\x04" + bytes(100), "not a PyTorch file of weights"),
    "memo of 1 GB": (b"Nr\0\0\0\4.", "memo index 67108864 in a file of 7 bytes"),
    "persistent id": (
        torch_file({"a": tensor(storage(kind="module"))}),
        "unknown persistent id 'module'",
    ),
    "short persistent id": (
        torch_file({"a": tensor(Storage(pid=("storage",)))}),
        "not a PyTorch file",
    ),
    "id is no tuple": (torch_file({"a": tensor(Storage(pid=5))}), "not a PyTorch file"),
    "too many rows": (torch_file({"a": tensor(storage(), 0, (3, 3))}), "beyond its storage"),
    "offset too far": (torch_file({"a": tensor(storage(), 1)}), "beyond its storage"),
    "offset past the end": (torch_file({"a": tensor(storage(), 99)}), "beyond its storage"),
    "offset below 0": (torch_file({"a": tensor(storage(), -3, (2,), (1,))}), "beyond its storage"),
    "stride below 0": (torch_file({"a": tensor(storage(), 3, (2,), (-1,))}), "beyond its storage"),
    "stride too far": (
        torch_file({"a": tensor(storage(), 0, (2, 3), (30, 1))}),
        "beyond its storage",
    ),
    "strides too few": (
        torch_file({"a": tensor(storage(), 0, (2, 3), (1,))}),
        "not a PyTorch file",
    ),
    "storage missing": (torch_file({"a": tensor(storage("1"))}), "not a PyTorch file"),
    "storage without a view": (torch_file({}, keys=("0",)), "not a PyTorch file"),
    "tensor of no storage": (torch_file({"a": tensor(5)}), "not a PyTorch file"),
    "no dict": (torch_file([1, 2]), "not a PyTorch file"),
    "dict of numbers": (torch_file({"a": 1}), "not a PyTorch file"),
}


@pytest.mark.parametrize(("content", "match"), REFUSED.values(), ids=REFUSED)
def test_damaged_files_are_refused(pth: Path, content: bytes, match: str) -> None:
    """Whatever does not fit the layout is a WeightsError that names the file."""
    with pytest.raises(WeightsError, match=rf"weights\.pth: .*{match}"):
        read(pth, content)


def test_missing_file_is_refused(pth: Path) -> None:
    """A file that is not there is a WeightsError too."""
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_legacy_torch(pth)


def test_weights_of_another_network_are_refused(pth: Path) -> None:
    """A whole file without this network's tensors is refused by the first one missing."""
    pth.write_bytes(torch_file({"layer1.weight": tensor(storage())}))
    with pytest.raises(WeightsError, match=r"not EfficientNet-Lite0: '_bn0.weight' needs.*nothing"):
        write_graph(pth, size=224)


def test_wrong_shape_is_refused(pth: Path) -> None:
    """A tensor of another shape is refused with both shapes."""
    pth.write_bytes(torch_file({"_bn0.weight": tensor(storage())}))
    with pytest.raises(WeightsError, match=r"'_bn0.weight' needs shape \(32,\).*shape \(2, 3\)"):
        write_graph(pth, size=224)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(weights: Path, pth: Path, value: float) -> None:
    """One NaN or infinity in the published file is found and its tensor named."""
    means = read_legacy_torch(weights)["_bn1.running_mean"].tobytes()
    content = bytearray(weights.read_bytes())
    place = content.index(means)
    content[place : place + 4] = struct.pack("<f", value)
    pth.write_bytes(content)
    with pytest.raises(WeightsError, match=r"'_bn1\.running_mean' holds NaN or infinity"):
        write_graph(pth, size=224)
