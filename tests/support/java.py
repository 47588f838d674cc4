"""Java for the tests, whose Javas live for seconds: they start in a third of the processor time.

Most of the start goes into reading Spark's classes and into compiling them well. So the tests let
Java compile quickly instead, and map the classes out of an archive ("class data sharing"), which
is made once and kept in pytest's cache. A Java that the archive does not fit starts without it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyspark

from verger.engine.java import find_java

#: The variable that every Java reads, those of executors too.
JAVA_OPTIONS = "JDK_JAVA_OPTIONS"
#: Warnings are off since Java writes them to standard output, which belongs to its program.
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:disable"

#: What tests do with Spark, so that its classes get into the archive.
_PROGRAM = """
import sys
from pyspark.sql import SparkSession

spark, folder = SparkSession.builder.getOrCreate(), sys.argv[1]
rows = [(float(i % 2), [float(i), 1.0]) for i in range(20)]
table = spark.createDataFrame(rows, "label double, features array<double>")
table.mapInArrow(lambda batches: batches, table.schema).write.parquet(f"{folder}/table")
table = spark.read.parquet(f"{folder}/table")
table.groupBy("label").count().collect()
spark.stop()
"""


def hurry_java(folder: Path | None) -> None:
    """Let Javas start quickly, by the archive in a folder if there is one; make it if need be."""
    os.environ[JAVA_OPTIONS] = QUICK
    if folder is None:
        return
    java, spark = find_java(), Path(pyspark.__file__).parent
    made_for = f"{java} {spark} {(spark / 'jars').stat().st_mtime_ns}"
    archive = folder / f"spark-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}.jsa"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make(archive, spark, java.home)
    if archive.exists():
        os.environ[JAVA_OPTIONS] += f' "-XX:SharedArchiveFile={archive}"'


def _make(archive: Path, spark: Path, java_home: Path) -> None:
    """Write the archive; Java does so as it ends."""
    with TemporaryDirectory(dir=archive.parent) as folder:
        program, part = Path(folder, "program.py"), Path(folder, "part.jsa")
        program.write_text(_PROGRAM)
        environment = os.environ | {
            "JAVA_HOME": str(java_home),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SUBMIT_OPTS": f'-XX:ArchiveClassesAtExit="{part}"',
        }
        command = [spark / "bin" / "spark-submit", "--master", "local[2]", program, folder]
        subprocess.run(command, env=environment, capture_output=True, check=False)
        if part.exists():
            part.replace(archive)
