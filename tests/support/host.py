"""A session that another process has made, as Livy's is on EMR: cells run in a second process.

``spark-submit`` starts this file in cluster mode. Java makes the session; a Python that is started
then attaches to it by py4j's plain gateway, names it ``spark``, and runs the cells of a notebook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def make_session() -> int:
    """Let Java make a session, and start the Python of the cells."""
    from pyspark import SparkContext

    SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    jvm.org.apache.spark.sql.SparkSession.builder().getOrCreate()
    return subprocess.run([sys.executable, *sys.argv, "attached"], check=False).returncode


def attach() -> Any:
    """Return the session as a SparkSession of this process."""
    from py4j.java_gateway import GatewayParameters, JavaGateway, java_import
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    parameters = GatewayParameters(
        port=int(os.environ["PYSPARK_GATEWAY_PORT"]),
        auth_token=os.environ["PYSPARK_GATEWAY_SECRET"],
        auto_convert=True,
    )
    gateway = JavaGateway(gateway_parameters=parameters)
    for name in ("SparkConf", "api.java.*", "api.python.*", "ml.python.*", "sql.*", "resource.*"):
        java_import(gateway.jvm, f"org.apache.spark.{name}")
    for name in ("sql.api.python.*", "sql.classic.*", "mllib.api.python.*"):
        java_import(gateway.jvm, f"org.apache.spark.{name}")
    java_import(gateway.jvm, "scala.Tuple2")
    spark = gateway.jvm.org.apache.spark
    jsc = spark.api.java.JavaSparkContext(spark.SparkContext.getOrCreate())
    conf = SparkConf(_jvm=gateway.jvm, _jconf=jsc.getConf())
    context = SparkContext(jsc=jsc, gateway=gateway, conf=conf)
    return SparkSession(context, spark.sql.SparkSession.getDefaultSession().get())


def run_cells(notebook: Path, names: dict[str, Any], addresses: dict[str, str]) -> None:
    """Run the cells of a notebook with other addresses; Spark itself reads no bucket here."""
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        text, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        is_magic = cell["cell_type"] != "code" or text.startswith("%%")
        if is_magic or ("reads-with-spark" in tags and addresses["RESULT"].startswith("s3:")):
            continue
        exec(compile(text, cell["id"], "exec"), names)
        if "addresses" in tags:
            names.update(addresses)


def main(notebook: str, asked: str) -> None:
    spark = attach()
    for addresses in json.loads(asked):
        names: dict[str, Any] = {"spark": spark}
        run_cells(Path(notebook), names, addresses)
        print(names["record"].counts, sys.executable, flush=True)


if __name__ == "__main__":
    if sys.argv[-1] != "attached":
        sys.exit(make_session())
    main(*sys.argv[1:3])
