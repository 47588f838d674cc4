"""Several classifiers lie beside one another in a result, and one may leave it as a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from support.results import train, write_vectors
from verger.classify.bundle import read_bundle, write_bundle
from verger.classify.classifier import Classifier
from verger.classify.compare import compare_classifiers
from verger.classify.evaluation import evaluate_split
from verger.classify.predict import Predictor
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.cli import app
from verger.config import Config
from verger.errors import ConfigError, OutputError, OutputExistsError
from verger.features.model import load_model
from verger.result.classifiers import ClassifierFiles, list_classifiers
from verger.result.output import CLASSIFIER_NPZ, REPORT, Output


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Return a result of twelve photos of two classes with a classifier."""
    x = np.random.default_rng(0).exponential(size=(12, 8)).astype(np.float32)
    paths = [f"/p/{kind}{i}.jpg" for i in range(6) for kind in "ab"]
    output = write_vectors(tmp_path / "out", x, labels=["apple", "pear"] * 6, paths=paths)
    train(output)
    return output


def test_a_named_classifier_leaves_the_others_as_they_are(output: Output) -> None:
    """Also the vectors of their known photos, which lie in files of their own."""
    first = Classifier.load(output)
    train_classifier(output.root, Config(), Recipe(method="centroid", seed=1), name="means")
    assert [files.name for files in list_classifiers(output)] == ["", "means"]
    np.testing.assert_array_equal(Classifier.load(output).references, first.references)
    named = Classifier.load(output, npz=ClassifierFiles("means").npz)
    assert named.method == "centroid"
    (row,) = [row for row in compare_classifiers(output.root) if row["name"] == "means"]
    assert (row["method"], row["split"], row["accuracy"]) == ("centroid", None, None)
    with pytest.raises(OutputError, match=r"classifier of this name .* one without a name and"):
        Classifier.load(output, npz=ClassifierFiles("other").npz)
    output.folder.remove(CLASSIFIER_NPZ)
    with pytest.raises(OutputError, match="no classifier without a name, but means; --name NAME "):
        Classifier.load(output)


def test_an_evaluation_of_a_named_classifier_leaves_the_report(output: Output) -> None:
    """It shows the one without a name."""
    output.folder.write(REPORT, b"kept")
    evaluate_split(output.root, Config(), Recipe(method="centroid", split="random"), name="means")
    assert output.folder.read(REPORT) == b"kept"


def test_a_test_of_another_recipe_is_told_beside_the_classifier(output: Output) -> None:
    """Its scores are not those of the classifier that is kept."""
    train_classifier(output.root, Config(), Recipe(method="centroid"))
    for method, told in (("centroid", None), ("knn", {"method": "knn"})):
        evaluate_split(output.root, Config(), Recipe(method=method, split="random"))
        (row,) = compare_classifiers(output.root)
        assert (row["method"], row["tested_as"]) == ("centroid", told)
    table = CliRunner().invoke(app, ["classify", "compare", output.root], catch_exceptions=False)
    assert "by random, trained with method=knn" in table.stdout


def test_photos_of_other_things_are_not_counted_as_tested(output: Output) -> None:
    """The accuracy beside the count is of the others alone."""
    recipe = Recipe(method="centroid", split="random", other=("pear",))
    tested = evaluate_split(output.root, Config(), recipe)["evaluation"]
    assert tested["n_others"] > 0
    assert tested["n_test"] == tested["scores"]["n"]


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "x" * 41, "a b"])
def test_a_name_is_one_of_a_file(name: str) -> None:
    with pytest.raises(ConfigError, match="must be letters, digits"):
        ClassifierFiles(name)


def test_a_bundle_too_large_to_be_read_is_not_written(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verger.classify.bundle.MAX_NPZ_BYTES", 1_000_000)
    path, model = tmp_path / "fruit.verger", load_model("efficientnet_lite0")
    with pytest.raises(OutputError, match="not written: it would have"):
        write_bundle(path, Classifier.load(output), model)
    assert not path.exists()


def test_where_a_bundle_cannot_be_written_is_told_first(output: Output, tmp_path: Path) -> None:
    """Before the model is looked for: this result has none that could be loaded."""
    line = ["classify", "save", output.root, str(tmp_path / "none" / "fruit.verger")]
    done = CliRunner().invoke(app, line)
    assert isinstance(done.exception, OutputError)
    assert "there is no folder" in str(done.exception)


def test_a_bundle_predicts_alone(output: Output, tmp_path: Path) -> None:
    """It gives the same probabilities, and another file is refused."""
    model = load_model("efficientnet_lite0")
    classifier = dataclasses.replace(Classifier.load(output), contract_hash=model.contract.hash)
    path = write_bundle(tmp_path / "fruit.verger", classifier, model)
    read, extractor = read_bundle(path)
    x = np.random.default_rng(1).exponential(size=(3, 8)).astype(np.float32)
    np.testing.assert_array_equal(read.probabilities(x), classifier.probabilities(x))
    assert read.reference_paths == classifier.reference_paths
    assert (extractor.contract, extractor.onnx) == (model.contract, model.onnx)
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        write_bundle(path, classifier, model)
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        write_bundle(tmp_path, classifier, model)
    for option in ("name", "weights", "model"):
        with pytest.raises(ConfigError, match="goes with a result"):
            Predictor.load(path, **{option: "coarse"})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OutputError, match="is no bundle that can be used"):
        read_bundle(path)
