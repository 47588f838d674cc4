"""The notebook's way, in own words: what Verger has grown out of, from photos to a PCA.

Settings are the notebook's, none is tuned: Keras in an iterator pandas UDF that builds its model
for every partition from broadcast weights, ``repartition(20)``, vectors as lists, and Spark's PCA
fitted once for the spectrum and once more for k = 50. The weights are those that all ways have.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pandas as pd
from keras.applications.mobilenet_v2 import MobileNetV2, preprocess_input
from PIL import Image
from pyspark.ml.feature import PCA
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, element_at, pandas_udf, split
from pyspark.sql.types import ArrayType, FloatType

from job import Job, run

N_PARTITIONS = 20
N_COMPONENTS = (1280, 50)


def build_model(weights: str | None) -> MobileNetV2:
    return MobileNetV2(weights=weights, include_top=False, input_shape=(224, 224, 3), pooling="avg")


def to_input(content: bytes) -> np.ndarray:
    """Return (224, 224, 3) float32 in [-1, 1]."""
    image = Image.open(io.BytesIO(content)).convert("RGB").resize((224, 224))
    return preprocess_input(np.array(image, np.float32))


def featurize(spark: SparkSession, job: Job) -> None:
    weights = spark.sparkContext.broadcast(build_model(str(job.weights)).get_weights())

    @pandas_udf(ArrayType(FloatType()))
    def features_of(contents: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = build_model(None)
        model.set_weights(weights.value)
        for series in contents:
            batch = np.stack([to_input(content) for content in series])
            yield pd.Series(model.predict(batch, verbose=0).tolist())

    images = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    images = images.option("pathGlobFilter", "*.jpg").load(str(job.photos))
    images.withColumn("label", element_at(split(col("path"), "/"), -2)).repartition(
        N_PARTITIONS
    ).select("path", "label", features_of(col("content")).alias("features")).write.parquet(
        str(job.features)
    )


def reduce(spark: SparkSession, job: Job) -> None:
    table = spark.read.parquet(str(job.features))
    vectors = table.withColumn("features_vec", array_to_vector("features"))
    for k in N_COMPONENTS:
        model = PCA(k=k, inputCol="features_vec", outputCol="features_pca").fit(vectors)
        model.explainedVariance.toArray()
    model.transform(vectors).select("features_pca").show(3, truncate=False)


def main(job: Job) -> None:
    settings = {"spark.sql.parquet.writeLegacyFormat": "true"}
    spark = SparkSession.builder.master("local[*]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    featurize(spark, job)
    reduce(spark, job)
    spark.stop()


if __name__ == "__main__":
    run(main)
