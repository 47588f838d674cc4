"""What Spark ML has a part in: the pipeline that it loads, and fits that are too large for us."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import IndexToString, StandardScaler
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, SparkSession

from support.results import vectors_and_labels
from verger import Config
from verger.classify.classifier import Classifier
from verger.classify.recipe import Recipe
from verger.classify.regression import Regression, fit_regressions
from verger.classify.spark_regression import fit_on_spark, write_pipeline
from verger.classify.stage import train_classifier
from verger.classify.vectors import LabelledVectors, read_labelled
from verger.engine import limits
from verger.engine.spark import SparkEngine
from verger.files.folder import Folder
from verger.result.output import Output

CONFIG = Config()


@pytest.fixture
def output(result: Path) -> Output:
    """Return the layout of a result of 6 classes of 5 photos."""
    return Output.at(result)


@pytest.fixture
def vectors(spark: SparkSession, output: Output) -> LabelledVectors:
    return LabelledVectors(SparkEngine(spark), output, read_labelled(output))


@pytest.mark.parametrize("on", ["features", "pca"])
def test_the_pipeline_and_the_arrays_give_the_same_probabilities(
    spark: SparkSession, output: Output, on: str
) -> None:
    """Spark loads the pipeline and agrees with the .npz beside it to 1e-5, and on the label."""
    train_classifier(output.root, CONFIG, Recipe(on=on))
    x, _, paths = vectors_and_labels(output)
    classifier = Classifier.load(output)
    source, column = {"features": ("features", "features_vec"), "pca": ("pca", "features_pca")}[on]
    rows = spark.read.parquet(f"{output.root}/{source}").orderBy("path")
    table = rows.withColumn(column, array_to_vector({"pca": column}.get(on, "features")))
    model = PipelineModel.load(f"{output.root}/models/classifier")
    found = (
        model.transform(table)
        .select("path", vector_to_array("probability").alias("p"), "predicted_label")
        .orderBy("path")
        .collect()
    )
    assert [row.path for row in found] == paths
    expected = classifier.probabilities(x)
    np.testing.assert_allclose([row.p for row in found], expected, atol=1e-5)
    assert [row.predicted_label for row in found] == [
        classifier.labels[i] for i in expected.argmax(axis=1)
    ]


def test_the_fit_is_that_of_spark(vectors: LabelledVectors) -> None:
    """Probabilities of the photos, and of points between two of them, agree to 1e-4."""
    rows, labelled = np.arange(len(vectors.labelled)), vectors.labelled
    x = vectors.collect(rows)
    (ours,) = fit_regressions(x, labelled.targets, len(labelled.labels), [0.1], 100)
    (theirs,) = fit_on_spark(vectors.frame(rows), vectors.column, [0.1], 100)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-6)
    np.testing.assert_allclose(ours.scale, theirs.scale, atol=1e-6)
    asked = np.concatenate([x, (x + np.roll(x, 7, axis=0)) / 2])
    np.testing.assert_allclose(ours.probabilities(asked), theirs.probabilities(asked), atol=1e-4)


def test_a_regression_that_does_not_fit_into_memory_is_fitted_by_spark(
    spark: SparkSession, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the photos as the one does that fits into memory."""
    x, _, _ = vectors_and_labels(output)
    train_classifier(output.root, CONFIG, Recipe(on="pca"))
    expected = Classifier.load(output).probabilities(x)
    called = []
    monkeypatch.setattr(limits, "memory_bytes", lambda: 1000)
    monkeypatch.setattr("verger.classify.training.REG_PARAMS", (0.1, 0.01))
    monkeypatch.setattr(
        "verger.classify.training.fit_on_spark",
        lambda *args: called.append(args) or fit_on_spark(*args),
    )
    record = train_classifier(output.root, CONFIG, Recipe(on="pca"))
    assert len(called) == 7  # each fold for the penalty and for the threshold, and at last
    assert record["reg_param"] in (0.1, 0.01)
    found = Classifier.load(output).probabilities(x)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


# The files


def fitted_by_spark(frame: DataFrame, column: str) -> PipelineModel:
    """Return the pipeline as Spark fits it."""
    scaler = StandardScaler(inputCol=column, outputCol="z", withMean=True, withStd=True)
    regression = LogisticRegression(
        featuresCol="z",
        labelCol="target",
        family="multinomial",
        regParam=0.1,
        standardization=False,
    )
    first = scaler.fit(frame)
    second = regression.fit(first.transform(frame))
    names = IndexToString(inputCol="prediction", outputCol="predicted_label", labels=["a", "é"])
    return PipelineModel([first, second, names])


def test_the_pipeline_is_written_as_spark_writes_it(
    vectors: LabelledVectors, tmp_path: Path
) -> None:
    """Files, parameters, columns, their types and values: only names and times differ."""
    frame = vectors.frame(np.arange(10))  # two classes have photos
    theirs = fitted_by_spark(frame, vectors.column)
    theirs.save((tmp_path / "theirs").as_uri())
    scaler, model, _ = theirs.stages
    regression = Regression(
        scaler.mean.toArray(),
        scaler.std.toArray(),
        model.coefficientMatrix.toArray(),
        model.interceptVector.toArray(),
        0.1,
    )
    write_pipeline(regression, ["a", "é"], vectors.column, Folder(str(tmp_path)), "ours")
    spark, places = frame.sparkSession, [tmp_path / "ours", tmp_path / "theirs"]
    stages = [[place, *sorted((place / "stages").iterdir())] for place in places]
    for ours, expected in zip(*stages, strict=True):
        told, wanted = (metadata(place) for place in (ours, expected))
        assert told == wanted
        if (expected / "data").exists():
            read = [spark.read.parquet((place / "data").as_uri()) for place in (ours, expected)]
            assert read[0].schema == read[1].schema
            assert read[0].collect() == read[1].collect()


def metadata(place: Path) -> dict[str, object]:
    """Read what Spark's metadata of a stage say, but for names and times."""
    (file,) = (place / "metadata").glob("part-*")
    told = json.loads(file.read_text("utf-8"))
    uid = told.pop("uid")
    assert place.parent.name != "stages" or place.name.endswith(f"_{uid}")
    del told["timestamp"]
    uids = told["paramMap"].pop("stageUids", [])
    told["stages"] = [name.partition("_")[0] for name in uids]
    told["defaultParamMap"].pop("outputCol", None)
    told["kind"] = uid.partition("_")[0]
    return told
