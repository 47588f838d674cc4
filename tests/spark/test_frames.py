"""Data frames of the user's own: columns of other names and types, rows without features."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import PCAModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import verger
from verger.errors import ReduceError, SchemaError, SourceError
from verger.features.model import Model, open_cached
from verger.features.outcomes import featurize_rows
from verger.ml import NumpyPCAModel
from verger.pca.moments import Moments, sum_moments

NAME = "efficientnet_lite0"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three photos and a file that is none."""
    folder = tmp_path_factory.mktemp("few") / "photos"
    folder.mkdir()
    for i, photo in enumerate(sorted(photos.rglob("*.jpg"))[::10]):
        (folder / f"{i}.jpg").write_bytes(photo.read_bytes())
    (folder / "none.jpg").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def binary(spark: SparkSession, few: Path) -> DataFrame:
    return spark.read.format("binaryFile").load(few.as_uri())


@pytest.fixture(scope="module")
def featurized(spark: SparkSession, few: Path, model: Model) -> DataFrame:
    images = verger.read_images(spark, str(few), partitions=1)
    return verger.featurize(images, model=model).cache()


def arrays(spark: SparkSession, *rows: Any, of: str = "double") -> DataFrame:
    return spark.createDataFrame([(row,) for row in rows], f"features array<{of}>").repartition(1)


# Rows without a vector


def test_a_pca_leaves_out_photos_without_features_and_counts_them(
    featurized: DataFrame, few: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Width, ratios and number are those of the photos that have features."""
    expected = Moments.of(np.stack([model.predict(path) for path in sorted(few.glob("?.jpg"))]))
    with caplog.at_level(logging.WARNING, logger="verger"):
        found = sum_moments(featurized)
    assert caplog.messages == [
        "column 'features': 1 of 4 rows have no vector, and are left out of the sums"
    ]
    assert found.n == 3
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    fitted = verger.PCA(k=2).fit(featurized)
    assert fitted.n_samples == 3
    ratios = verger.fit_pca(expected, 2).explained_variance_ratio[:2]
    np.testing.assert_allclose(fitted.explainedVariance.toArray(), ratios, atol=1e-4)


@pytest.mark.parametrize("kind", ["vectors", "arrays"])
def test_partitions_without_a_vector_change_nothing(spark: SparkSession, kind: str) -> None:
    x = [[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]]
    rows = [None, *x[:1], None, *x[1:], None, None]
    if kind == "vectors":
        frame = spark.createDataFrame([(r and Vectors.dense(r),) for r in rows], ["features"])
    else:
        frame = arrays(spark, *rows)
    for n_partitions in (1, 6):
        found = sum_moments(frame.repartition(n_partitions))
        assert found.n == 3
        np.testing.assert_allclose(found.scatter, Moments.of(np.array(x)).scatter)


def test_no_vector_at_all_is_said(spark: SparkSession) -> None:
    with pytest.raises(ReduceError, match="no photo has features"):
        verger.PCA(k=1).fit(arrays(spark, None, None))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0]], "row 1 has a vector of 4 numbers"),
        ([[1.0, 2.0], [3.0, float("nan")]], "row 1 holds null, NaN or infinity among its 2"),
        ([[1.0, 2.0], None, [3.0, None]], "row 2 holds null, NaN or infinity among its 2"),
    ],
)
def test_odd_vectors_are_refused_with_their_row(
    spark: SparkSession, rows: list[Any], says: str
) -> None:
    """Nothing is filled up, cut or reshaped; the error is ours, not Spark's."""
    with pytest.raises(SchemaError, match=says):
        verger.PCA(k=1).fit(arrays(spark, *rows))


def test_an_odd_vector_is_named_by_its_path(spark: SparkSession) -> None:
    rows = [("/a.jpg", [1.0, 2.0]), ("/b.jpg", [1.0, float("inf")])]
    frame = spark.createDataFrame(rows, "path string, features array<double>")
    with pytest.raises(SchemaError, match=r"holds null, NaN or infinity.*; path=/b.jpg$"):
        sum_moments(frame)


def test_lengths_that_differ_between_partitions_are_refused(spark: SparkSession) -> None:
    two, three = arrays(spark, [1.0, 2.0], [3.0, 4.0]), arrays(spark, [1.0, 2.0, 3.0])
    with pytest.raises(SchemaError, match=r"numbers"):
        sum_moments(two.union(three))
    with pytest.raises(SchemaError, match="2 rows have 2 numbers, and 1 rows have 3"):
        Moments.of(np.ones((2, 2))) + Moments.of(np.ones((1, 3)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("array('1', '2')", r"must hold vectors or arrays of numbers, not array<string>"),
        ("id", r"must hold vectors or arrays of numbers, not bigint"),
        ("array(array(1))", r"must hold vectors or arrays of numbers, not array<array<int>>"),
    ],
)
def test_columns_without_vectors_are_refused(spark: SparkSession, values: str, says: str) -> None:
    with pytest.raises(SchemaError, match=f"inputCol='features' {says}"):
        verger.PCA(k=1).fit(spark.range(3).selectExpr(f"{values} AS features"))


@pytest.mark.parametrize("of", ["int", "bigint", "decimal(10,2)", "float", "double"])
def test_arrays_of_any_numbers_are_summed(spark: SparkSession, of: str) -> None:
    frame = spark.range(3).selectExpr(f"CAST(array(id, 3 - id * id) AS array<{of}>) AS features")
    np.testing.assert_allclose(sum_moments(frame).mean, [1, 4 / 3])


def test_the_pipeline_of_the_readme_keeps_photos_without_features(
    binary: DataFrame, few: Path
) -> None:
    """They have neither features nor scores; those of the others are Spark's own to the bit."""
    featurizer = verger.ImageFeaturizer(modelName=NAME, handleInvalid="keep", reasonCol="why")
    fitted = Pipeline(stages=[featurizer, verger.PCA(k=2)]).fit(binary)
    rows = {Path(row.path).name: row for row in fitted.transform(binary).collect()}
    assert len(rows) == 4
    assert (rows["none.jpg"].features, rows["none.jpg"].features_pca) == (None, None)
    assert rows["none.jpg"].why.startswith("not an image")
    matrix = fitted.stages[1].pc.toArray()
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        scores = rows[name].features.toArray() @ matrix
        np.testing.assert_allclose(rows[name].features_pca.toArray(), scores, rtol=1e-9)


def test_a_saved_pipeline_has_sparks_own_model(binary: DataFrame, tmp_path: Path) -> None:
    featurizer = verger.ImageFeaturizer(modelName=NAME, handleInvalid="skip")
    fitted = Pipeline(stages=[featurizer, verger.PCA(k=2)]).fit(binary)
    fitted.save((tmp_path / "model").as_uri())
    loaded = PipelineModel.load((tmp_path / "model").as_uri())
    assert type(loaded.stages[1]) is PCAModel
    found, expected = (
        sorted((row.path, row.features_pca) for row in each.transform(binary).collect())
        for each in (loaded, fitted)
    )
    assert found == expected


def test_a_photo_without_features_ends_a_fit_with_words(binary: DataFrame) -> None:
    """The default of the featurizer refuses it; the error is ours, with what to do."""
    stages = [verger.ImageFeaturizer(modelName=NAME), verger.PCA(k=2)]
    with pytest.raises(SourceError, match=r"not an image.*handleInvalid='skip' or 'keep'"):
        Pipeline(stages=stages).fit(binary)


def test_scores_are_of_arrays_too_and_of_the_right_length(spark: SparkSession) -> None:
    """What a PCA was fitted to it also takes; another length is said, with both numbers."""
    frame = arrays(spark, [1.0, 2.0], None, [3.0, 5.0], [4.0, 4.0], of="float")
    fitted = verger.PCA(k=2).fit(frame)
    scores = [row.features_pca for row in fitted.transform(frame).collect()]
    assert [s is None for s in scores] == [False, True, False, False]
    with pytest.raises(Exception, match=r"a vector of 3 numbers, which must have n_features=2"):
        fitted.transform(arrays(spark, [1.0, 2.0, 3.0])).collect()


def test_the_model_of_connect_gives_sparks_scores_and_is_saved_as_sparks_own(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Where there is no JVM numpy does the same: for rows without a vector and wrong ones too."""
    frame = arrays(spark, [1.0, 2.0], None, [3.0, 5.0], [4.0, 4.0])
    fitted = verger.PCA(k=2).fit(frame)
    same = NumpyPCAModel(verger.fit_pca(verger.sum_moments(frame), 2))
    same.setInputCol("features").setOutputCol("features_pca")
    found, expected = (
        [row.features_pca and row.features_pca.toArray() for row in m.transform(frame).collect()]
        for m in (same, fitted)
    )
    assert found[1] is expected[1] is None
    for number in (0, 2, 3):
        np.testing.assert_allclose(found[number], expected[number], rtol=1e-12)
    assert (same.n_samples, same.pc, same.explainedVariance) == (
        fitted.n_samples,
        fitted.pc,
        fitted.explainedVariance,
    )
    with pytest.raises(Exception, match=r"a vector of 3 numbers, which must have n_features=2"):
        same.transform(arrays(spark, [1.0, 2.0, 3.0])).collect()
    same.save(str(tmp_path / "model"))
    loaded = PCAModel.load((tmp_path / "model").as_uri())
    assert (loaded.getInputCol(), loaded.pc) == ("features", fitted.pc)


# Names


def test_files_of_a_stage_may_be_paths() -> None:
    stage = verger.ImageFeaturizer(modelName=Path("a.onnx"), weights=Path("w.h5"))
    assert [stage.getOrDefault(name) for name in ("modelName", "weights")] == ["a.onnx", "w.h5"]


@pytest.mark.parametrize("name", ["photo.bytes", "pho`to", "with space", "CONTENT"])
def test_any_name_of_a_column_will_do(binary: DataFrame, name: str) -> None:
    """Dots and backticks in it are a part of the name, if there is such a column."""
    frame = binary.withColumnRenamed("content", name).withColumnRenamed("path", "photo.path")
    featurizer = verger.ImageFeaturizer(
        modelName=NAME, inputCol=name, outputCol="v.1", handleInvalid="keep"
    )
    found = featurizer.transform(frame)
    assert found.columns == ["photo.path", "modificationTime", "length", name, "v.1"]
    scored = verger.PCA(k=2, inputCol="v.1", outputCol="xy.z").fit(found).transform(found)
    assert sum(row["xy.z"] is not None for row in scored.collect()) == 3


def test_a_field_of_a_struct_is_read(binary: DataFrame) -> None:
    frame = binary.select(F.struct("content", "path").alias("image"))
    found = verger.ImageFeaturizer(
        modelName=NAME, inputCol="image.content", handleInvalid="skip"
    ).transform(frame)
    nested = found.select(F.struct(F.col("features").alias("v")).alias("all"))
    assert verger.PCA(k=2, inputCol="all.v").fit(nested).n_samples == 3


@pytest.mark.parametrize(
    "options",
    [
        {"outputCol": "content"},
        {"outputCol": "Length"},
        {"reasonCol": "path"},
        {"reasonCol": "features"},
    ],
    ids=str,
)
def test_a_column_that_is_there_is_never_overwritten(
    binary: DataFrame, options: dict[str, str]
) -> None:
    """Not the input, not one that differs by case alone, and no two outputs are one."""
    ((option, name),) = options.items()
    featurizer = verger.ImageFeaturizer(modelName=NAME, handleInvalid="keep", **options)
    with pytest.raises(SchemaError, match=f"{option}='{name}': the table has such a column"):
        featurizer.transform(binary)


def test_a_pca_writes_over_no_column(spark: SparkSession) -> None:
    frame = arrays(spark, [1.0, 2.0], [3.0, 5.0])
    fitted = verger.PCA(k=1).fit(frame)
    scored = fitted.transform(frame)
    with pytest.raises(SchemaError, match="outputCol='features_pca': the table has such a column"):
        fitted.transform(scored)
    with pytest.raises(SchemaError, match="outputCol='features_pca': the table has such a column"):
        verger.PCA(k=1).fit(scored)
    with pytest.raises(SchemaError, match="outputCol='features': the table has such a column"):
        verger.PCA(k=1, outputCol="features").fit(frame)


def test_a_missing_or_ambiguous_column_is_named(binary: DataFrame) -> None:
    featurizer = verger.ImageFeaturizer(modelName=NAME)
    with pytest.raises(SchemaError, match=r"inputCol='content' is missing; the table has \['pa"):
        featurizer.transform(binary.drop("content"))
    twice = binary.withColumn("x", F.col("content")).withColumnRenamed("x", "Content")
    with pytest.raises(SchemaError, match=r"any of the columns \['content', 'Content'\]: drop"):
        featurizer.transform(twice.select("*"))
    with pytest.raises(SchemaError, match=r"inputCol='length.x' is missing"):
        verger.ImageFeaturizer(modelName=NAME, inputCol="length.x").transform(binary)


# Types


def outcome(frame: DataFrame, model: Model) -> dict[str, Any]:
    (row,) = verger.featurize(frame, model=model).collect()
    found: dict[str, Any] = row.asDict()
    return found


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [
        ("int", 7, "7"),
        ("bigint", 7, "7"),
        ("boolean", True, "true"),
        ("date", date(2026, 1, 1), "2026-01-01"),
        ("binary", b"kiwi", "kiwi"),
        ("double", float("nan"), None),
        ("string", None, None),
    ],
)
def test_labels_become_texts(
    spark: SparkSession, few: Path, model: Model, kind: str, label: Any, expected: str | None
) -> None:
    """A class may have a number; what is no number in a column of numbers is no class."""
    schema = f"path string, label {kind}"
    found = outcome(spark.createDataFrame([(str(few / "0.jpg"), label)], schema), model)
    assert (found["label"], found["reason"], len(found["features"])) == (expected, None, 1280)


def test_what_a_table_lacks_is_null(spark: SparkSession, few: Path, model: Model) -> None:
    """The path alone will do; Spark's own name of the time is read as ours."""
    path = str(few / "0.jpg")
    found = outcome(spark.createDataFrame([(path,)], "path string"), model)
    assert (found["path"], found["label"], found["length"]) == (path, None, None)
    assert (found["modification_time"], found["reason"]) == (None, None)
    files = spark.read.format("binaryFile").load((few / "0.jpg").as_uri())
    for frame in (files, files.drop("content")):
        found = outcome(frame, model)
        assert (found["length"], found["reason"]) == (Path(path).stat().st_size, None)
        assert found["modification_time"] is not None


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("label", "array('a')", "column 'label' is array<string>, and must be string"),
        ("content", "'text'", "column 'content' is string, and must be binary"),
        ("length", "'7'", "column 'length' is string, and must be bigint"),
        ("modification_time", "7L", "column 'modification_time' is bigint, and must be timestamp"),
        ("path", "7", "column 'path' is int, and must be string"),
    ],
)
def test_types_that_cannot_be_meant_are_refused(
    spark: SparkSession, model: Model, column: str, value: str, says: str
) -> None:
    """Before a job runs, and with both types: a number is no time, a text is no photo."""
    frame = spark.range(1).selectExpr("'/x.jpg' AS path").withColumn(column, F.expr(value))
    with pytest.raises(SchemaError, match=f"images: {says}"):
        verger.featurize(frame, model=model)


def test_rows_without_bytes_or_path_are_rejected_one_by_one(
    spark: SparkSession, few: Path, model: Model
) -> None:
    content = bytearray((few / "0.jpg").read_bytes())
    rows = [("a", len(content), content), ("b", len(content), None), ("c", None, None)]
    frame = spark.createDataFrame(rows, "path string, length int, content binary")
    found = {row.path: row for row in verger.featurize(frame, model=model).collect()}
    assert found["a"].reason is None
    for name in ("b", "c"):
        assert (found[name].reason, found[name].detail) == ("empty", "its content is null")
    paths = [(None,), ("",), ("hdfs://x/y.jpg",), (str(few / "0.jpg"),)]
    frame = spark.createDataFrame(paths, "path string")
    reasons = [row.reason for row in verger.featurize(frame, model=model).collect()]
    assert reasons == ["read error", "read error", "read error", None]


def test_the_bytes_of_a_row_are_a_photo(binary: DataFrame, few: Path, model: Model) -> None:
    """Spark gives them as a bytearray."""
    content = binary.where("path LIKE '%/0.jpg'").first().content
    expected = model.predict(few / "0.jpg")
    for photo in (content, memoryview(content), [content]):
        np.testing.assert_array_equal(np.ravel(model.predict(photo)), expected)
    (outcome,) = featurize_rows([({}, content)], open_cached(model))
    np.testing.assert_array_equal(outcome["features"], expected)


# Empty and endless tables


def test_an_empty_table_has_an_empty_answer(binary: DataFrame, model: Model) -> None:
    none = binary.where("false")
    assert verger.featurize(none, model=model).collect() == []
    assert verger.ImageFeaturizer(modelName=NAME).transform(none).collect() == []


def test_photos_of_a_stream_are_featurized_and_a_pca_of_one_is_refused(
    spark: SparkSession, binary: DataFrame, few: Path, model: Model
) -> None:
    stream = spark.readStream.schema(binary.schema).format("binaryFile").load(few.as_uri())
    query = verger.featurize(stream, model=model).writeStream.format("memory")
    query.queryName("featurized").trigger(availableNow=True).start().awaitTermination()
    assert spark.table("featurized").count() == 4
    with pytest.raises(SchemaError, match="column 'features' is of a stream, which has no end"):
        verger.PCA(k=1).fit(verger.featurize(stream, model=model).drop("reason"))


def test_outcomes_that_are_none_are_refused(binary: DataFrame) -> None:
    with pytest.raises(SchemaError, match="outcomes: column 'label' is missing"):
        verger.split_outcomes(binary)
