"""ImageFeaturizer as a stage of Spark ML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import PCA, VectorSlicer
from pyspark.sql import DataFrame, SparkSession

from verger import ImageFeaturizer
from verger.errors import ConfigError, SchemaError
from verger.features.model import Model

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def binary_files(spark: SparkSession, photos: Path) -> DataFrame:
    loader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    return loader.load(photos.as_uri()).where("path LIKE '%/0_100.jpg'")


@pytest.fixture(scope="module")
def with_a_bad_one(spark: SparkSession, binary_files: DataFrame) -> DataFrame:
    bad = spark.createDataFrame(
        [("bad", bytearray(b"no photo")), ("none", None)], "path string, content binary"
    )
    return binary_files.select("path", "content").union(bad)


def test_it_works_in_a_pipeline_with_sparks_own_stages(
    binary_files: DataFrame, model: Model
) -> None:
    """Features are vectors that Spark's stages take, and the other columns stay."""
    featurizer = ImageFeaturizer(modelName=NAME, outputCol="v")
    # Spark's PCA of all 1,280 would take half a minute.
    slicer = VectorSlicer(inputCol="v", outputCol="some", indices=list(range(0, 1280, 40)))
    pipeline = Pipeline(stages=[featurizer, slicer, PCA(k=2, inputCol="some", outputCol="xy")])
    rows = pipeline.fit(binary_files).transform(binary_files).collect()
    assert len(rows) == 6
    assert len(rows[0].xy) == 2
    assert rows[0].modificationTime is not None
    expected = model.predict(bytes(rows[0].content))
    np.testing.assert_allclose(rows[0].v.toArray(), expected, rtol=0, atol=1e-5)


def test_it_is_saved_and_loaded_like_any_other_stage(
    binary_files: DataFrame, tmp_path: Path
) -> None:
    """A loaded pipeline has the same parameters and gives the same features."""
    featurizer = ImageFeaturizer(modelName=NAME, microBatch=3, handleInvalid="skip")
    path = (tmp_path / "model").as_uri()
    saved = Pipeline(stages=[featurizer]).fit(binary_files)
    saved.save(path)
    (stage,) = PipelineModel.load(path).stages
    assert isinstance(stage, ImageFeaturizer)
    assert stage.extractParamMap().values() is not None
    found = {p.name: v for p, v in stage.extractParamMap().items()}
    assert found == {p.name: v for p, v in featurizer.extractParamMap().items()}
    one = binary_files.limit(1)
    assert stage.transform(one).first().features == featurizer.transform(one).first().features


def test_a_photo_without_features_is_an_error_unless_told_otherwise(
    with_a_bad_one: DataFrame,
) -> None:
    """The default stops and says why; nothing is dropped silently."""
    featurizer = ImageFeaturizer(modelName=NAME)
    with pytest.raises(Exception, match=r"not an image.*handleInvalid='skip' or 'keep' goes on"):
        featurizer.transform(with_a_bad_one.where("path != 'none'")).collect()


def test_keep_gives_null_and_the_reason(with_a_bad_one: DataFrame) -> None:
    """A kept photo without features has a null vector, never zeros, and a reason."""
    featurizer = ImageFeaturizer(modelName=NAME, handleInvalid="keep", reasonCol="why")
    rows = {row.path: row for row in featurizer.transform(with_a_bad_one).collect()}
    assert rows["bad"].features is None
    assert rows["bad"].why.startswith("not an image")
    assert rows["none"].why.startswith("empty")
    assert sum(row.features is not None and row.why is None for row in rows.values()) == 6


def test_skip_leaves_the_bad_photos_out(with_a_bad_one: DataFrame) -> None:
    """Only rows with features come back."""
    featurizer = ImageFeaturizer(modelName=NAME, handleInvalid="skip")
    rows = featurizer.transform(with_a_bad_one).collect()
    assert len(rows) == 6
    assert all(len(row.features) == 1280 for row in rows)


def test_wrong_parameters_are_refused_before_a_job_runs(binary_files: DataFrame) -> None:
    """A column that is no binary one, and an unknown way with bad photos, are named."""
    with pytest.raises(SchemaError, match="inputCol='path' must be a binary column, not string"):
        ImageFeaturizer(modelName=NAME, inputCol="path").transform(binary_files)
    with pytest.raises(ConfigError, match="handleInvalid='drop' must be one of error, skip, keep"):
        ImageFeaturizer(modelName=NAME, handleInvalid="drop").transform(binary_files)
