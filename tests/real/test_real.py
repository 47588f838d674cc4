"""Verger on real photos with the real weights, against Keras, Spark and scikit-learn."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.feature import PCA, PCAModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
from sklearn.decomposition import PCA as SklearnPCA

import verger
from verger.features.model import Model, load_model
from verger.features.model.efficientnet_lite0 import write_graph
from verger.features.preprocess import decode_photo, normalize
from verger.job import pipeline
from verger.source.sample import sample_dataset

pytestmark = pytest.mark.real

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "golden_photos.npz")

#: Fruits-360's class to ImageNet's class of the same fruit.
SAME_FRUIT = {
    "Apple Granny Smith": 948,
    "Strawberry": 949,
    "Orange": 950,
    "Lemon": 951,
    "Pineapple": 953,
    "Banana": 954,
    "Pomegranate": 957,
}


def test_features_equal_keras(fruits: Path, mobilenet_v2: Model) -> None:
    """Features of 24 real photos are Keras' own to 1e-4."""
    found = mobilenet_v2.predict([fruits / str(name) for name in GOLDEN["names"]])
    np.testing.assert_allclose(found, GOLDEN["features"], rtol=0, atol=1e-4)


def test_the_real_weights_are_recognised(mobilenet_v2: Model) -> None:
    """The golden photo tells the published weights from others."""
    assert mobilenet_v2.published is True


def test_the_preprocessing_of_efficientnet_lite0_names_fruit_right(fruits: Path) -> None:
    """Under (x - 127) / 128 its 1000-class top names 7 kinds of fruit, nearly always."""
    import onnxruntime as ort

    weights = load_model("efficientnet_lite0").weights_path
    graph = write_graph(Path(weights), size=224, with_top=True)
    session = ort.InferenceSession(graph.to_bytes({"features": 1280, "logits": 1000}))
    right = []
    for name, index in SAME_FRUIT.items():
        for photo in sorted((fruits / name).glob("*.jpg"))[:20]:
            pixels = decode_photo(photo.read_bytes(), size=224).pixels[None]
            image = normalize(pixels, mean=(127.0,), std=(128.0,))
            (logits,) = session.run(["logits"], {"image": image})
            right.append(logits.argmax() == index)
    assert np.mean(right) > 0.95


@pytest.fixture(scope="module")
def result(
    spark: SparkSession, fruits: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the result of a run on 60 classes of 25 photos, more than features.

    All tests of this module share it: do not write to it.
    """
    folder = tmp_path_factory.mktemp("real")
    sample_dataset(fruits, folder / "photos", classes=60, per_class=25, seed=0)
    config = verger.Config(weights=str(weights), components=50)
    record = verger.run(str(folder / "photos"), folder / "out", config)
    assert record.counts.featurized == 1500
    return folder / "out"


@pytest.mark.timeout(900)
def test_pca_equals_sparks_own_at_1280_and_at_50(spark: SparkSession, result: Path) -> None:
    """The notebook's two fits, by Spark: ratios to 1e-9, features_pca to 1e-4 up to the sign."""
    table = spark.read.parquet((result / "features").as_uri())
    vectors = table.select("path", array_to_vector("features").alias("features_vec")).cache()
    spectrum = np.loadtxt(result / "explained_variance.csv", delimiter=",", skiprows=1)
    for k in (1280, 50):
        model = PCA(k=k, inputCol="features_vec", outputCol="features_pca").fit(vectors)
        np.testing.assert_allclose(
            spectrum[:k, 2], model.explainedVariance.toArray(), rtol=0, atol=1e-9
        )
    rows = {row.path: row.features_pca.toArray() for row in model.transform(vectors).collect()}
    scores = pq.read_table(result / "pca").to_pylist()
    found = np.array([row["features_pca"] for row in scores])
    expected = np.array([rows[row["path"]] for row in scores])
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=0, atol=1e-4)


def test_the_stored_model_is_sparks(spark: SparkSession, result: Path) -> None:
    """PCAModel.load gives the scores that are in the table pca."""
    model = PCAModel.load((result / "models" / "pca").as_uri())
    table = spark.read.parquet((result / "features").as_uri())
    vec = table.select("path", array_to_vector("features").alias(model.getInputCol()))
    rows = {row.path: row.features_pca.toArray() for row in model.transform(vec).collect()}
    for row in pq.read_table(result / "pca").to_pylist():
        np.testing.assert_allclose(row["features_pca"], rows[row["path"]], rtol=0, atol=1e-4)


def test_centred_scores_are_scikit_learns(
    spark: SparkSession, result: Path, tmp_path: Path
) -> None:
    """With --center, scores equal scikit-learn's to 1e-4 up to the sign."""
    out = Path(shutil.copytree(result, tmp_path / "out"))
    config = verger.Config(components=50, center=True, overwrite=True)
    pipeline.run_reduce(out, config)
    features = pq.read_table(out / "features").to_pylist()
    scores = {row["path"]: row["features_pca"] for row in pq.read_table(out / "pca").to_pylist()}
    found = np.array([scores[row["path"]] for row in features])
    matrix = np.array([row["features"] for row in features], np.float64)
    expected = SklearnPCA(50, svd_solver="full").fit_transform(matrix)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=0, atol=1e-4)
