"""An encoder of another width, resize and crop: everything behind the features works with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.encoder import N_FEATURES, write_encoder
from support.hub import NAME, SECOND, open_hub
from support.runs import new_bucket
from verger import Config
from verger.classify.export.app import export_app
from verger.classify.export.check import EXACT
from verger.classify.predict import Predictor
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.features.contract import FeatureContract
from verger.features.model import load_model
from verger.features.model.checksum import sha256_of
from verger.features.model.load import model_files
from verger.job.pipeline import run, run_featurize, run_validate
from verger.job.plan import describe_plan
from verger.result.output import Output
from verger.similar.photo import find_similar

CARD = """mean = 127.5
std = 63.75
input_size = 32
output = "last_hidden_state"
pool = "cls"
resize = "shortest_edge"
resize_size = 40
crop = "center_even"
resample = "bilinear"
"""


@pytest.fixture(scope="module")
def output(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return a result with a PCA, a report and a classifier, in three odd shapes of photos."""
    folder = tmp_path_factory.mktemp("encoder")
    path = write_encoder(folder / "encoder.onnx")
    path.with_suffix(".toml").write_text(CARD)
    for place in photos.rglob("*.jpg"):
        image = Image.open(place)
        target = folder / "photos" / place.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize((image.width + 33, image.height - 20)).save(target, "PNG")
        target.rename(target.with_suffix(".png"))
    config = Config(model=str(path), components=5, views="center")
    run(str(folder / "photos"), folder / "out", config)
    train_classifier(folder / "out", config, Recipe())
    return Output.at(folder / "out")


def test_a_run_names_the_encoder_and_holds(output: Output) -> None:
    record = output.read_run()
    contract = FeatureContract.from_dict(record.contract)
    assert (contract.n_features, contract.resize_rule, contract.resize_size) == (
        N_FEATURES,
        "shortest_edge",
        40,
    )
    assert contract.hash == record.contract_hash
    assert run_validate(output.root, Config(model=str(record.model.weights_path))).holds


def test_new_photos_are_found_and_named(output: Output) -> None:
    path = next(Path(output.read_run().source).rglob("*.png"))
    (prediction,) = Predictor.load(output.root).predict([path.read_bytes()], [str(path)])
    assert prediction.prediction == path.parent.name
    found = find_similar(path.read_bytes(), output.root, k=2)
    assert found[0].path == str(path)
    assert np.isclose(found[0].similarity, 1, atol=1e-5)


def test_an_exported_file_resizes_and_crops_by_itself(output: Output, tmp_path: Path) -> None:
    check = export_app(output.root, tmp_path / "app.onnx").check
    assert check.probability_difference < EXACT.probability
    assert check.features_difference < EXACT.features
    assert check.agreement == 1


def test_a_model_of_ones_own_goes_into_a_bucket_and_comes_back(tmp_path: Path, s3: str) -> None:
    """As EMR's package has it: the graph, its card and its data, by the address of the graph."""
    path = write_encoder(tmp_path / "encoder.onnx", external=True)
    names = "encoder.onnx", "encoder.onnx_data"
    sums = "".join(f'"{name}" = "{sha256_of(tmp_path / name)}"\n' for name in names)
    path.with_suffix(".toml").write_text(f"{CARD}[sha256]\n{sums}")
    graph, beside = model_files(str(path), None)
    assert [file.name for file in beside] == ["encoder.toml", "encoder.onnx_data"]
    bucket = new_bucket(s3, tmp_path)
    there = load_model(f"s3://{bucket}/out/encoder.onnx")
    assert there.contract == load_model(str(graph)).contract
    assert Path(there.weights_path) != path


def test_a_result_keeps_the_commit_that_a_branch_had(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos that come later meet the same encoder; --overwrite takes what the branch is now."""
    source = tmp_path / "photos"
    source.mkdir()
    files = sorted(photos.rglob("*.jpg"))
    (source / "1.jpg").write_bytes(files[0].read_bytes())
    with open_hub(tmp_path, monkeypatch) as hub:
        config = Config(model=NAME, max_error_rate=1)
        plan = describe_plan(str(source), tmp_path / "out", config, reduce=False)
        assert f"fetch {NAME} from its hub" in plan["steps"]
        first = run_featurize(str(source), tmp_path / "out", config)
        hub.commit, n_asked = SECOND, len(hub.seen)
        (source / "2.jpg").write_bytes(files[1].read_bytes())
        second = run_featurize(str(source), tmp_path / "out", config)
        assert len(hub.seen) == n_asked
        third = run_featurize(str(source), tmp_path / "out", replace(config, overwrite=True))
    assert second.contract == first.contract
    assert second.counts.featurized == 2
    assert third.contract["model"] == f"{NAME}@{SECOND}:onnx/model.onnx"
