"""PCA of one feature table: Verger's one fit beside Spark ML's two, in one session.

    python benchmarks/pca.py [FEATURES]

FEATURES is a table ``features`` of a run; without it, random vectors of the same shape as
Fruits-360's test photos (20,622 x 1280) are written and used. The fits take turns, each is the
median of three, and what counts is their ratio. Writes benchmarks/PCA.md.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.feature import PCA
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession

import verger
from verger.reduce import sum_stored_moments
from verger.storage import Folder

ROUNDS = 3
HERE = Path(__file__).parent


def main() -> None:
    spark = verger.get_session()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else random_table(Path(folder))
        seconds = measure(spark, path)
        n = spark.read.parquet(path.as_uri()).count()
    report = render(seconds, n, real=len(sys.argv) > 1, cores=spark.sparkContext.defaultParallelism)
    (HERE / "PCA.md").write_text(report)
    print(report)


def measure(spark: SparkSession, path: Path) -> dict[str, list[float]]:
    """Time each way from the stored table to a fitted model, in turns."""
    ways = {
        "Spark ML, k = 1280": lambda: spark_fit(spark, path, 1280),
        "Spark ML, k = 50": lambda: spark_fit(spark, path, 50),
        "Verger, every k": lambda: verger_fit(spark, path),
    }
    verger_fit(spark, path)  # starts the Python workers; Spark ML needs none
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, fit in ways.items():
            seconds[name].append(timed(fit))
    return seconds


def timed(fit: Callable[[], object]) -> float:
    start = time.perf_counter()
    fit()
    return time.perf_counter() - start


def spark_fit(spark: SparkSession, path: Path, k: int) -> object:
    table = spark.read.parquet(path.as_uri())
    vectors = table.select(array_to_vector("features").alias("features_vec"))
    return PCA(k=k, inputCol="features_vec", outputCol="features_pca").fit(vectors)


def verger_fit(spark: SparkSession, path: Path) -> object:
    folder = Folder(str(path))
    names = [file.name for file in folder.files() if file.name.endswith(".parquet")]
    return verger.fit_pca(sum_stored_moments(spark, folder, names), 0.90)


def random_table(folder: Path, n: int = 20_622, d: int = 1280) -> Path:
    rng = np.random.default_rng(0)
    for part in range(4):
        values = np.maximum(rng.standard_normal((n // 4 + (part < n % 4), d)), 0)
        rows = pa.array(list(values.astype(np.float32)), pa.list_(pa.float32()))
        (folder / "features").mkdir(exist_ok=True)
        pq.write_table(pa.table({"features": rows}), folder / "features" / f"part-{part}.parquet")
    return folder / "features"


def render(seconds: dict[str, list[float]], n: int, *, real: bool, cores: int) -> str:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ours = median["Verger, every k"]
    both = median["Spark ML, k = 1280"] + median["Spark ML, k = 50"]
    photos = "real features" if real else "random vectors"
    lines = [
        "# PCA: one fit beside Spark ML's",
        "",
        f"`python benchmarks/pca.py{' FEATURES' if real else ''}`: {n:,} x 1280 float32 "
        f"({photos}) in Parquet, from the stored table to a fitted model; {cores} cores, Python "
        f"{platform.python_version()}, numpy {np.__version__}. Median of {ROUNDS} in turns, with "
        "the spread; only the ratios carry over to another machine.",
        "",
        "| fit | seconds | spread | times Verger's |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        lines.append(f"| {name} | {median[name]:.1f} | {spread} | {median[name] / ours:.1f} |")
    lines += [
        "",
        "The notebook that Verger comes from fits twice, to see the spectrum and then for its k: "
        f"{both:.1f} s, {both / ours:.1f} times Verger's one fit, which gives every k.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
