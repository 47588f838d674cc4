"""Crops beside the whole photo: computed once, trained on, and averaged wherever one predicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verger import Config
from verger.classify.classifier import Classifier
from verger.classify.export.app import export_app
from verger.classify.export.check import EXACT
from verger.classify.predict import Predictor
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.errors import ContractError
from verger.features.contract import FeatureContract
from verger.features.isolate import decode_apart
from verger.features.model import Model, open_cached
from verger.features.preprocess import cut_views, decode_photo
from verger.files.tables import read_part
from verger.files.vectors import vectors_of
from verger.job.pipeline import run_featurize, run_validate
from verger.result.output import Output

FIVE = Config(model="efficientnet_lite0", views="five")


@pytest.fixture(scope="module")
def output(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return a result of 30 photos in five views, with a regression."""
    out = tmp_path_factory.mktemp("views") / "out"
    run_featurize(str(photos), out, FIVE)
    train_classifier(out, FIVE, Recipe())
    return Output.at(out)


def test_a_row_has_the_features_of_its_crops_beside_those_of_the_photo(
    output: Output, model: Model
) -> None:
    """The photo's own are to the bit what they are without crops."""
    rows = read_part(output.folder, output.part_names("features")[0]).slice(0, 1)
    content = Path(rows["path"][0].as_py()).read_bytes()
    crops = cut_views(Image.open(rows["path"][0].as_py()).convert("RGB"), 224, "five")
    of_crops = np.concatenate([open_cached(model).predict(crop[None]) for crop in crops])
    found = vectors_of(rows["views"].combine_chunks()).reshape(4, -1)
    assert (vectors_of(rows["features"].combine_chunks())[0] == model.predict(content)).all()
    np.testing.assert_allclose(found, of_crops, atol=1e-4)
    assert run_validate(output.root, FIVE).holds


def test_a_prediction_is_the_mean_over_the_views(output: Output) -> None:
    rows = read_part(output.folder, output.part_names("features")[0]).slice(0, 5)
    whole = vectors_of(rows["features"].combine_chunks())
    crops = vectors_of(rows["views"].combine_chunks()).reshape(5, 4, -1)
    classifier = Classifier.load(output)
    expected = classifier.probabilities(whole) + sum(
        classifier.probabilities(crops[:, i]) for i in range(4)
    )
    paths = rows["path"].to_pylist()
    found = Predictor.load(output.root).predict(map(Path.read_bytes, map(Path, paths)), paths)
    told = [prediction.probability for prediction in found]
    np.testing.assert_allclose(told, expected.max(axis=1) / 5, atol=1e-5)


def test_an_exported_file_looks_at_all_views_by_itself(output: Output, tmp_path: Path) -> None:
    check = export_app(output.root, tmp_path / "app.onnx").check
    assert check.probability_difference < EXACT.probability
    assert check.agreement == 1


def test_views_are_part_of_the_contract_where_there_are_crops(output: Output, model: Model) -> None:
    """So that features from before keep their hash, and the two never mix."""
    five = FeatureContract.from_dict(output.read_run().contract)
    assert "views" not in model.contract.as_dict()
    assert dataclasses.replace(five, views="whole").hash == model.contract.hash != five.hash
    whole = Config(model="efficientnet_lite0")
    with pytest.raises(ContractError, match="two contracts never mix"):
        run_featurize(output.read_run().source, output.root, whole)


@pytest.mark.parametrize("size", [(1, 1), (500, 333), (1602, 1203)])
def test_crops_of_a_reduced_photo_are_those_of_the_whole_one(
    size: tuple[int, int], tmp_path: Path
) -> None:
    """The third is decoded at half its size; the decoding process gives the same."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    content = path.read_bytes()
    found = decode_photo(content, size=224, views="five").views
    assert (found == decode_apart(content, size=224, views="five").views).all()
    assert (found[0] == decode_photo(content, size=224).pixels).all()
    expected = cut_views(Image.open(path), 224, "five")
    assert np.abs(found[1:].astype(int) - expected).max() < 12
