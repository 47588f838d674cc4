"""What Spark ML has a part in: a regression, fitted and kept as a pipeline, and its evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pyarrow import fs
from pyspark.ml import PipelineModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from support.results import vectors_and_labels
from verger import Config
from verger.classify.classifier import Classifier
from verger.classify.evaluation import evaluate_split
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.classify.training import fit_logistic
from verger.classify.vectors import LabelledVectors, read_labelled
from verger.cli import app
from verger.engine.spark import SparkEngine
from verger.files.tables import read_part
from verger.result.output import Output

CONFIG = Config()


@pytest.fixture(autouse=True)
def two_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cross-validation choose from two penalties: each costs Spark a job an iteration."""
    monkeypatch.setattr("verger.classify.training.REG_PARAMS", (1e-4, 1e-2))


@pytest.fixture
def output(result: Path) -> Output:
    """Return the layout of a result of 6 classes of 5 photos."""
    return Output.at(result)


def test_spark_and_the_arrays_give_the_same_probabilities(
    spark: SparkSession, output: Output
) -> None:
    """Spark's saved pipeline and the .npz beside it agree to 1e-5, and name the same labels."""
    train_classifier(output.root, CONFIG, Recipe(on="pca"))
    x, _, paths = vectors_and_labels(output)
    classifier = Classifier.load(output)
    scores = spark.read.parquet(f"{output.root}/pca").orderBy("path")
    table = scores.withColumn("features_pca", array_to_vector("features_pca"))
    model = PipelineModel.load(f"{output.root}/models/classifier")
    rows = (
        model.transform(table)
        .select("path", vector_to_array("probability").alias("p"), "predicted_label")
        .orderBy("path")
        .collect()
    )
    assert [row.path for row in rows] == paths
    expected = classifier.probabilities(x)
    np.testing.assert_allclose([row.p for row in rows], expected, atol=1e-5)
    assert [row.predicted_label for row in rows] == [
        classifier.labels[i] for i in expected.argmax(axis=1)
    ]


def test_the_fit_is_scikit_learns(spark: SparkSession, output: Output) -> None:
    """The same penalty on the same standardised features gives the same probabilities.

    scikit-learn's C counts the sum of the losses, Spark's penalty their mean: C = 1 / (n penalty).
    """
    x, target, _ = vectors_and_labels(output)
    vectors = LabelledVectors(SparkEngine(spark), output, read_labelled(output))
    model = fit_logistic(vectors.frame(np.arange(len(x))), vectors, 0.1)
    regression = model.stages[1]
    z = StandardScaler().fit(x).transform(x) * np.sqrt((len(x) - 1) / len(x))
    theirs = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-8, max_iter=1000).fit(z, target)
    ours = z @ regression.coefficientMatrix.toArray().T + regression.interceptVector.toArray()
    ours = np.exp(ours - ours.max(axis=1, keepdims=True))
    ours /= ours.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs.predict_proba(z), atol=2e-3)


def test_an_evaluation_is_kept_and_shown(spark: SparkSession, output: Output) -> None:
    """The table of held-out photos, the record and the page say the same."""
    found = evaluate_split(output.root, CONFIG, Recipe(on="pca", test_share=0.4))
    assert json.loads(Path(output.address("classifier/evaluation.json")).read_text()) == found
    asked = found["evaluation"]
    assert asked["split"] == "random"
    assert asked["n_train"] + asked["n_test"] == 30
    rows = spark.read.parquet(f"{output.root}/predictions").collect()
    assert len(rows) == asked["n_test"] == asked["scores"]["n"]
    right = sum(row.label == row.prediction for row in rows) / len(rows)
    assert asked["scores"]["accuracy"] == pytest.approx(right)
    assert sum(n for _, _, n in found["confusion"]) == len(rows)
    assert [k["k"] for k in asked["by_k"]] == sorted(k["k"] for k in asked["by_k"])
    assert {"reg_param", "tried", "threshold"} <= set(asked["training"])
    assert [one["reg_param"] for one in asked["training"]["tried"]] == [1e-4, 1e-2]
    assert "Confusion matrix" in Path(output.address("report.html")).read_text()
    assert CliRunner().invoke(app, ["validate", output.root]).exit_code == 0


def test_a_regression_by_groups_is_judged_in_a_bucket(
    spark: SparkSession, s3: str, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command on s3://: what it writes there is what it says, and no group straddles."""
    monkeypatch.setattr("verger.classify.training.REG_PARAMS", (0.01,))
    bucket = fs.S3FileSystem(endpoint_override=s3, region="eu-west-3", allow_bucket_creation=True)
    bucket.create_dir("pantry")
    fs.copy_files(output.root, "pantry/out", destination_filesystem=bucket)
    line = [
        "classify",
        "evaluate",
        "s3://pantry/out",
        "--method",
        "logistic",
        "--on",
        "features",
        "--groups",
        r"(\d+)_100\.jpg$",
        "--json",
    ]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    found = json.loads(done.stdout)
    there = Output.at("s3://pantry/out")
    assert json.loads(there.folder.read("classifier/evaluation.json")) == found
    assert (found["evaluation"]["split"], found["beside"]["split"]) == ("group", "random")
    table = read_part(there.folder, *there.own_files("predictions"))
    views = {path.rpartition("/")[2] for path in table["path"].to_pylist()}
    assert len(table) == 6 * len(views) == found["evaluation"]["n_test"]  # a view of all 6 classes
    right = np.equal(*(table[name].to_pylist() for name in ("label", "prediction")))
    assert right.mean() == found["evaluation"]["scores"]["accuracy"] > 0.8
    assert "Classifier" in there.folder.read("report.html").decode()
