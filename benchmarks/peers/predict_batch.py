"""Spark's ``predict_batch_udf`` with onnxruntime, on ``binaryFile``.

Tuned: bytes go to the worker, and pixels never leave it; files are packed into 16 even
partitions a core, as Verger's are, instead of 32 files each; Arrow batches are as small as the
chunks of all peers; folders are listed without a job; one thread a worker; workers talk over Unix
sockets. The function itself caches its session in the worker.
"""

from __future__ import annotations

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, element_at, split
from pyspark.sql.types import ArrayType, FloatType

from job import CHUNK, Featurizer, Job, run


def get_session(job: Job) -> SparkSession:
    n_partitions = max(job.cores, min(16 * job.cores, len(job.paths()) // CHUNK))
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "4g",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(CHUNK),
        "spark.sql.files.openCostInBytes": str(64 * 1024),
        "spark.sql.files.minPartitionNum": str(n_partitions),
        "spark.python.unix.domain.socket.enabled": "true",
    }
    return SparkSession.builder.master(f"local[{job.cores}]").config(map=settings).getOrCreate()


def main(job: Job) -> None:
    spark = get_session(job)
    spark.sparkContext.setLogLevel("ERROR")
    model = str(job.model)

    def open_predict() -> object:
        featurizer = Featurizer(model)

        def predict(contents: np.ndarray) -> np.ndarray:  # (n,) of bytes -> (n, n_features)
            return featurizer(contents)

        return predict

    featurize = predict_batch_udf(
        open_predict, return_type=ArrayType(FloatType()), batch_size=CHUNK
    )
    images = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    images.option("pathGlobFilter", "*.jpg").load(str(job.photos)).select(
        "path",
        element_at(split(col("path"), "/"), -2).alias("label"),
        featurize(col("content")).alias("features"),
    ).write.parquet(str(job.features))
    spark.stop()


if __name__ == "__main__":
    run(main)
