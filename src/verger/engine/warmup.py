"""Do once what a run has Spark do, so that Java can keep the classes; see :mod:`verger.engine.cds`.

Started as ``python -m verger.engine.warmup`` when the first local run on a machine has ended.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from verger.config import Config
from verger.engine.cds import make_archive
from verger.engine.java import find_java
from verger.engine.session import get_session
from verger.schema import IMAGES, arrow_schema
from verger.source.cut import cut_listing
from verger.source.spark_reader import plan_images


def main() -> None:
    """Make the archive of this machine's Java and Spark, at the lowest priority."""
    os.nice(19)
    java = find_java()
    make_archive(java, use_spark)


def use_spark(java_options: str) -> None:
    """Start Spark with these options of Java, use it as a run does, and wait for its end."""
    from pyspark import SparkContext

    conf = {"spark.driver.extraJavaOptions": java_options, "spark.driver.memory": "1g"}
    spark = get_session(Config(master="local[1]", conf=conf, app_name="verger-warmup"))
    row = {"path": "/a/b.jpg", "modification_time": 0, "length": 1, "label": "a"}
    photos = pa.Table.from_pylist([row] * 2, arrow_schema(IMAGES))
    images = plan_images(spark, *cut_listing(photos, 1, 2))
    images.select("path").mapInArrow(lambda batches: batches, "path string").collect()
    images.groupBy("label").count().collect()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "table").as_uri()
        images.write.parquet(written)
        spark.read.parquet(written).count()
    gateway: Any = SparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(timeout=300)


if __name__ == "__main__":
    main()
