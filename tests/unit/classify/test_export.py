"""One ONNX file for apps: the pipeline's resize and numbers, and the proof before it is kept."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from support.results import train, write_result
from verger import cli, quantize
from verger.classify.export import app as export
from verger.classify.export.app import export_app
from verger.classify.export.check import ExportCheck, LabelledPhoto, Promise, check_app
from verger.classify.export.graph import in_half, write_app_graph, write_nearest_graph
from verger.classify.predict import Predictor
from verger.errors import (
    ConfigError,
    OutputError,
    OutputExistsError,
    SourceError,
    ValidationError,
    WeightsError,
)
from verger.features.model import Model, import_onnxruntime
from verger.features.precision import keep_model
from verger.features.preprocess import decode_full_size, decode_photo, resize_image
from verger.result.output import Output
from verger.serve.browser import RUNTIME


def start(graph: onnx.ModelProto | bytes) -> Any:
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])


# The resize


@pytest.fixture(scope="module")
def resizer(trained: Path) -> Any:
    """A session of the graph that also tells what the model is given of a photo."""
    found = Predictor.load(trained)
    graph = write_app_graph(found.model, found.classifier)
    shape = [1, 3, 224, 224]
    resized = onnx.helper.make_tensor_value_info("image/resized", onnx.TensorProto.UINT8, shape)
    graph.graph.output.append(resized)
    return start(graph)


def difference(resizer: Any, image: np.ndarray) -> np.ndarray:
    """Return by how many levels every pixel differs from Pillow's."""
    (found,) = resizer.run(["image/resized"], {"image": image})
    ours = found[0].transpose(1, 2, 0).astype(int)
    return np.abs(ours - np.asarray(resize_image(Image.fromarray(image), 224)))


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (224, 224),
        (1, 1),
        (2, 900),
        (100, 100),
        (480, 640),
        (640, 480),
        (225, 224),
        (300, 262),
        (301, 262),  # Pillow takes the height first from the second on
        (900, 3),
        (641, 223),
        (223, 641),
        (224, 300),
        (300, 224),
        (1500, 1100),
    ],
)
def test_photos_are_resized_as_by_pillow(resizer: Any, height: int, width: int) -> None:
    """On noise, the hardest there is: nearly never a level apart.

    Two where the second pass makes a photo larger, and so a rounding of the first.
    """
    rng = np.random.default_rng(height * width)
    found = difference(resizer, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    assert found.max() <= 1 + (min(height, width) < 224)
    assert (found > 0).mean() < 1e-3


@settings(max_examples=40)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 99))
def test_any_size_is_resized_as_by_pillow(resizer: Any, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = difference(resizer, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    assert found.max() <= 2


# The numbers


@pytest.mark.parametrize("on", ["features", "pca"])
@pytest.mark.parametrize("method", ["logistic", "centroid", "knn"])
def test_every_classifier_goes_into_the_file(
    trained: Path, photos: Path, tmp_path: Path, method: str, on: str
) -> None:
    """Probabilities and features of the file are those of the pipeline, whatever was trained."""
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    train(Output.at(out), method, on)
    found = Predictor.load(out)
    app = start(write_app_graph(found.model, found.classifier))
    files = sorted(photos.rglob("*.jpg"))[::4]
    expected = found.model.predict(files)
    wanted = found.classifier.probabilities(expected)
    for file, row, features in zip(files, wanted, expected, strict=True):
        image = decode_full_size(file.read_bytes())
        probabilities, vector = app.run(["probabilities", "features"], {"image": image})
        assert probabilities.shape == (6,)
        np.testing.assert_allclose(probabilities, row, atol=2e-3)
        np.testing.assert_allclose(vector, features, atol=0.02)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("on", ["features", "pca"])
def test_an_app_finds_the_known_photos_that_the_pipeline_finds(
    trained: Path, tmp_path: Path, on: str, half: bool
) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    train(Output.at(out), on=on)
    known = Predictor.load(out).classifier
    graph = write_nearest_graph(known, 3)
    app = start(in_half(graph) if half else graph)
    rng = np.random.default_rng(0)
    axes = np.eye(1280) if known.components is None else known.components
    centre = 0 if known.pca_mean is None else known.pca_mean
    for row in known.references[::7]:  # near one known photo, and near no other as much
        x = row + rng.normal(0, 0.1, row.shape) / len(row) ** 0.5
        features = (x @ axes + centre).astype(np.float32)
        (found,) = app.run(["known"], {"features": features})
        assert found.tolist() == known.nearest(features[None], 3)[1][0].tolist()


def test_features_far_from_zero_do_not_cancel(trained: Path, photos: Path, tmp_path: Path) -> None:
    """A mean a thousand deviations away: folded into one matrix naively, float32 is lost."""
    found = Predictor.load(trained)
    near = dataclasses.replace(
        found.classifier,
        scale=found.classifier.scale / 1000,
        references=found.classifier.references * np.float32(1000),
        temperature=found.classifier.temperature * 1e6,
        coefficients=found.classifier.coefficients * 1000,
    )
    file = sorted(photos.rglob("*.jpg"))[0]
    app = start(write_app_graph(found.model, near))
    image = decode_full_size(file.read_bytes())
    probabilities, vector = app.run(["probabilities", "features"], {"image": image})
    wanted = near.probabilities(vector[None])[0]
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_the_file_says_what_it_is(trained: Path) -> None:
    found = Predictor.load(trained)
    app = start(write_app_graph(found.model, found.classifier))
    held = app.get_modelmeta().custom_metadata_map
    assert json.loads(held["labels"]) == list(found.classifier.labels)
    assert json.loads(held["contract"]) == found.model.contract.as_dict()
    assert held["contract_hash"] == found.model.contract.hash
    assert float(held["threshold"]) == found.classifier.threshold
    assert held["verger"]
    (image,) = app.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape[2] == 3
    assert not any(isinstance(size, int) for size in image.shape[:2])
    outputs = {value.name: (value.type, value.shape) for value in app.get_outputs()}
    assert outputs == {
        "probabilities": ("tensor(float)", [6]),
        "features": ("tensor(float)", [1280]),
    }


def test_only_standard_operators_are_used(trained: Path) -> None:
    """Those of ONNX itself, which the web and mobile builds have; no constant goes unused."""
    found = Predictor.load(trained)
    graph = write_app_graph(found.model, found.classifier)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert {node.domain for node in graph.graph.node} == {""}
    taken = {name for node in graph.graph.node for name in node.input}
    assert {tensor.name for tensor in graph.graph.initializer} <= taken


def test_half_precision_halves_the_file(trained: Path) -> None:
    found = Predictor.load(trained)
    graph = write_app_graph(found.model, found.classifier)
    half = in_half(graph)
    assert half.ByteSize() < 0.55 * graph.ByteSize()
    assert start(half).get_outputs()[0].type == "tensor(float)"


# Its proof


def photos_of(photos: Path, n: int = 8) -> list[LabelledPhoto]:
    contents = [(f.parent.name, f.read_bytes()) for f in sorted(photos.rglob("*.jpg"))[:n]]
    return [LabelledPhoto(label, c, decode_photo(c, size=224).views) for label, c in contents]


def test_a_good_file_keeps_its_promise(trained: Path, photos: Path) -> None:
    found = Predictor.load(trained)
    graph = write_app_graph(found.model, found.classifier).SerializeToString()
    check = check_app(graph, found, photos_of(photos))
    assert check.n_photos == 8
    assert check.probability_difference < 2e-3
    assert check.features_difference < 5e-3
    assert check.agreement == check.agreement_on_files == 1
    assert check.accuracy == check.accuracy_of_run
    assert check.accuracy_of_run is not None
    assert check.accuracy_of_run > 0.8


def test_photos_without_labels_have_no_accuracy(trained: Path, photos: Path) -> None:
    found = Predictor.load(trained)
    graph = write_app_graph(found.model, found.classifier).SerializeToString()
    check = check_app(graph, found, [replace(p, label=None) for p in photos_of(photos, 2)])
    assert (check.accuracy, check.accuracy_of_run) == (None, None)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("probability_difference", 0.2, r"probabilities differ by 0\.2 \(at most 0\.1\)"),
        ("features_difference", float("nan"), r"features differ by nan \(at most 0\.1\)"),
        ("agreement", 0.8, r"labels that differ: 0\.2 \(at most 0\.1\)"),
    ],
)
def test_each_part_of_a_promise_can_break(name: str, value: float, text: str) -> None:
    kept = ExportCheck(
        n_photos=1,
        probability_difference=0.1,
        features_difference=0.1,
        agreement=0.9,
        agreement_on_files=0.0,
        accuracy=None,
        accuracy_of_run=None,
    )
    promise = Promise(0.1, 0.1, 0.9)
    assert kept.broken(promise) is None
    said = dataclasses.replace(kept, **{name: value}).broken(promise)
    assert re.fullmatch(text, str(said))


def test_a_wrong_file_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels in another order: every shape is right, and every answer wrong."""

    def shuffled(*parts: Any) -> onnx.ModelProto:
        graph = write_app_graph(*parts)
        for tensor in graph.graph.initializer:
            if tensor.name in ("classifier/slopes", "classifier/offsets"):
                values = onnx.numpy_helper.to_array(tensor)
                turned = np.roll(values, 1, axis=0)
                tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
        return graph

    monkeypatch.setattr(export, "write_app_graph", shuffled)
    with pytest.raises(ValidationError, match=r"not written: on 30 photos .*labels that differ: 1"):
        export_app(trained, tmp_path / "app.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_run_is_an_error(trained: Path, photos: Path) -> None:
    with pytest.raises(WeightsError, match="onnxruntime refuses the graph"):
        check_app(b"no graph", Predictor.load(trained), photos_of(photos, 1))


# The command


def test_the_file_is_written_and_checked(trained: Path, tmp_path: Path) -> None:
    written = export_app(trained, tmp_path / "app.onnx")
    assert written.size_bytes == (tmp_path / "app.onnx").stat().st_size
    assert (written.precision, written.n_labels, written.check.n_photos) == (None, 6, 30)
    assert written.check.agreement == 1


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.55), ("int8", 0.45)])
def test_a_smaller_file_tells_what_it_costs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, share: float
) -> None:
    monkeypatch.setattr(export, "N_CALIBRATION", 6)
    done = CliRunner().invoke(
        cli.app,
        ["export", str(trained), str(tmp_path / "a.onnx"), "--precision", precision, "--json"],
    )
    found = json.loads(done.stdout)
    whole = Predictor.load(trained)
    assert found["precision"] == precision
    size = write_app_graph(whole.model, whole.classifier).ByteSize()
    assert found["size_bytes"] < share * size
    check = found["check"]
    assert 0 < check["features_difference"] < 1
    assert check["agreement"] >= 0.8


def test_people_are_told_size_and_accuracy(trained: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["export", str(trained), str(tmp_path / "app.onnx")])
    assert done.exit_code == 0, done.exception
    assert "app.onnx, 13." in done.stdout
    assert "30 photos: the same label for 100%" in done.stdout
    assert "by the run itself" in done.stdout


def test_people_are_told_what_a_site_of_less_precision_costs(trained: Path, tmp_path: Path) -> None:
    for name in RUNTIME:
        (tmp_path / name).touch()
    options = ["--site", str(tmp_path / "site"), "--ort-web", str(tmp_path), "--precision", "fp16"]
    done = CliRunner().invoke(cli.app, ["export", str(trained), *options])
    assert done.exit_code == 0, done.exception
    assert "30 photos: the same label for" in done.stdout
    assert "by the run itself" in done.stdout


def test_an_option_that_does_not_fit_is_named_as_it_was_given(tmp_path: Path) -> None:
    options = ["--to", "atlas", "--extractor", "mobilenet_v2"]
    done = CliRunner().invoke(cli.app, ["export", "out", str(tmp_path / "a.parquet"), *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--to atlas needs no --extractor" in done.stderr


@pytest.mark.parametrize("options", [["c.onnx", "--to", "atlas"], ["a.txt"], ["--to", "atlas"]])
def test_the_suffix_says_what_is_written(options: list[str]) -> None:
    """Parquet named .onnx would be refused by an app, and the other way round."""
    done = CliRunner().invoke(cli.app, ["export", "out", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "name FILE." in done.stderr


def test_an_int8_result_is_exported_as_it_is(photos: Path, model: Model, tmp_path: Path) -> None:
    known = photos_of(photos, 30)
    int8 = quantize(model, [photo.views[0] for photo in known[::6]])
    output = write_result(tmp_path / "out", photos, int8)
    keep_model(output, int8)
    train(output)
    assert export_app(output.root, tmp_path / "app.onnx").check.agreement >= 0.99
    with pytest.raises(ConfigError, match="precision='fp16': the model of OUT is in int8 already"):
        export_app(output.root, tmp_path / "half.onnx", precision="fp16")


def test_mistakes_are_found_first(trained: Path, tmp_path: Path) -> None:
    there = tmp_path / "app.onnx"
    there.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        export_app(trained, there)
    assert there.read_bytes() == b"mine"
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        export_app(trained, tmp_path)
    with pytest.raises(OutputError, match="there is no folder"):
        export_app(trained, tmp_path / "none" / "app.onnx")
    with pytest.raises(ConfigError, match="precision='int4' must be one of fp16, int8"):
        export_app(trained, tmp_path / "new.onnx", precision="int4")
    export_app(trained, there, overwrite=True)
    assert there.stat().st_size > 1e6


def test_photos_that_are_gone_are_left_out_of_the_check(
    photos: Path, model: Model, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    output = write_result(tmp_path / "out", source, model)
    train(output)
    for file in sorted(source.rglob("*.jpg"))[:10]:
        file.unlink()
    assert export_app(output.root, tmp_path / "app.onnx").check.n_photos == 20
    shutil.rmtree(source)
    with pytest.raises(SourceError, match="no photo of OUT can be read any more"):
        export_app(output.root, tmp_path / "other.onnx")
