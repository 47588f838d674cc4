"""PCA on Spark, against Spark's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.feature import PCA as SparkPCA
from pyspark.ml.feature import PCAModel
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector
from pyspark.sql import DataFrame, SparkSession

import verger
from verger.engine.local import LocalEngine
from verger.engine.spark import SparkEngine
from verger.errors import ReduceError
from verger.files.folder import Folder
from verger.pca import moments
from verger.pca.fit import fit_pca
from verger.pca.moments import Moments, sum_moments, sum_stored_moments
from verger.pca.spark_models import to_spark_model, write_spark_model

N, D, K = 400, 40, 7


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Return correlated float32 vectors with an offset, as features are."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((N, D)) @ rng.standard_normal((D, D)) + 5
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def table(spark: SparkSession, vectors: np.ndarray) -> DataFrame:
    rows = [(str(i), "a", row.tolist()) for i, row in enumerate(vectors)]
    frame = spark.createDataFrame(rows, "path string, label string, features array<float>")
    return frame.repartition(5).cache()


@pytest.fixture(scope="module")
def spark_model(table: DataFrame) -> PCAModel:
    vec = table.select("path", array_to_vector("features").alias("features_vec"))
    return SparkPCA(k=K, inputCol="features_vec", outputCol="features_pca").fit(vec)


def same_up_to_sign(found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=0, atol=atol)


def test_sums_of_all_partitions_are_the_sums_of_the_table(
    table: DataFrame, vectors: np.ndarray
) -> None:
    """Spark's partial sums add up to numpy's."""
    found, expected = sum_moments(table), Moments.of(vectors)
    assert found.n == N
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-9, atol=1e-8)


def test_partial_sums_are_joined_before_the_driver_on_large_clusters(
    table: DataFrame, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there are more than the driver should receive, tasks add them up first."""
    monkeypatch.setattr(moments, "PARTIAL_SUMS", 1)
    found, expected = sum_moments(table), Moments.of(vectors)
    assert found.n == N
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("name", ["local", "spark"])
def test_sums_of_stored_files_are_those_of_the_table(
    spark: SparkSession, table: DataFrame, tmp_path: Path, name: str
) -> None:
    """Reading the files in the workers gives the same sums as reading them by Spark."""
    engine = SparkEngine(spark) if name == "spark" else LocalEngine(2)
    table.write.option("parquet.block.size", 4096).parquet((tmp_path / "t").as_uri())
    folder = Folder(str(tmp_path))
    names = [entry.name for entry in folder.files("t") if entry.name.endswith(".parquet")]
    found, expected = sum_stored_moments(engine, folder, names), sum_moments(table)
    engine.stop()
    assert found.n == expected.n == N
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-9, atol=1e-8)
    with pytest.raises(ReduceError, match="no photo has features"):
        sum_stored_moments(engine, folder, [])


def test_ratios_and_scores_equal_those_of_sparks_own_pca(
    table: DataFrame, vectors: np.ndarray, spark_model: PCAModel
) -> None:
    """Ratios agree to 1e-9, features_pca to 1e-4 up to the sign, as the notebook computes them."""
    pca = fit_pca(sum_moments(table), K)
    ratios = spark_model.explainedVariance.toArray()
    np.testing.assert_allclose(pca.explained_variance_ratio[:K], ratios, rtol=0, atol=1e-9)
    vec = table.orderBy(table.path.cast("int")).select(
        array_to_vector("features").alias("features_vec")
    )
    expected = np.array(
        [row.features_pca.toArray() for row in spark_model.transform(vec).collect()]
    )
    same_up_to_sign(pca.transform(vectors), expected, 1e-4)


def test_the_model_in_sparks_format_is_loaded_by_spark_and_gives_the_same_scores(
    table: DataFrame, vectors: np.ndarray, tmp_path: Path
) -> None:
    """PCAModel.load takes the folder, and its transform equals the table pca."""
    for standardize in (False, True):
        pca = fit_pca(sum_moments(table), K, standardize=standardize)
        folder = tmp_path / f"pca-{standardize}"
        write_spark_model(pca, Folder(str(folder)), "model")
        path = (folder / "model").as_uri()
        loaded = PCAModel.load(path)
        assert loaded.getK() == K
        np.testing.assert_allclose(
            loaded.explainedVariance.toArray(), pca.explained_variance_ratio[:K]
        )
        vec = table.select("path", array_to_vector("features").alias("features_vec"))
        rows = {row.path: row.features_pca for row in loaded.transform(vec).collect()}
        found = np.array([rows[str(i)].toArray() for i in range(N)])
        np.testing.assert_allclose(found, pca.transform(vectors), rtol=1e-5, atol=1e-4)


def test_the_model_is_written_as_spark_writes_it(table: DataFrame, tmp_path: Path) -> None:
    """Files, parameters, columns and their types: only names and times differ."""
    pca = fit_pca(sum_moments(table), K)
    write_spark_model(pca, Folder(str(tmp_path)), "ours")
    to_spark_model(pca).save((tmp_path / "theirs").as_uri())
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in ("metadata", "data"):
        assert (ours / folder / "_SUCCESS").read_bytes() == b""
    told, wanted = (
        json.loads(next((path / "metadata").glob("part-*")).read_text()) for path in (ours, theirs)
    )
    assert told["defaultParamMap"].pop("outputCol") == f"{told['uid']}__output"
    del wanted["defaultParamMap"]["outputCol"]
    own = ("uid", "timestamp")
    assert {k: v for k, v in told.items() if k not in own} == {
        k: v for k, v in wanted.items() if k not in own
    }
    spark = table.sparkSession
    read = [spark.read.parquet((path / "data").as_uri()) for path in (ours, theirs)]
    assert read[0].schema == read[1].schema
    assert read[0].collect() == read[1].collect()


def test_the_estimator_gives_sparks_model_in_a_pipeline(
    table: DataFrame, spark_model: PCAModel, tmp_path: Path
) -> None:
    """verger.PCA stands where Spark's PCA stands, on vectors and on arrays, and is saved."""
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import StandardScaler

    vec = table.select(array_to_vector("features").alias("v"))
    estimator = verger.PCA(k=K, inputCol="v", outputCol="scores")
    scaler = StandardScaler(inputCol="scores", outputCol="scaled")
    fitted = Pipeline(stages=[estimator, scaler]).fit(vec)
    fitted.save((tmp_path / "pipeline").as_uri())
    loaded = PipelineModel.load((tmp_path / "pipeline").as_uri())
    assert isinstance(loaded.stages[0], PCAModel)
    row = loaded.transform(vec).first()
    assert isinstance(row.scaled, DenseVector)
    assert len(row.scaled) == K
    np.testing.assert_allclose(
        fitted.stages[0].explainedVariance.toArray(),
        spark_model.explainedVariance.toArray(),
        rtol=0,
        atol=1e-9,
    )
    by_share = verger.PCA(share=0.9, inputCol="features").fit(table)
    assert by_share.explainedVariance.toArray().sum() >= 0.9
    estimator.save((tmp_path / "estimator").as_uri())
    assert verger.PCA.load((tmp_path / "estimator").as_uri()).getOrDefault("k") == K


def test_an_empty_table_is_refused(table: DataFrame) -> None:
    """No photo with features is an error in words, not an exception of numpy."""
    with pytest.raises(ReduceError, match="no photo has features"):
        sum_moments(table.where("path = 'none'"))
