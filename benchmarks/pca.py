"""PCA of one feature table: Verger's one fit beside Spark ML's two, scikit-learn's and numpy's.

    python benchmarks/pca.py [FEATURES]

FEATURES is a table ``features`` of a run; without it, random vectors of the same shape as
Fruits-360's test photos (20,622 x 1280) are written and used. Each fit begins with the stored table
and ends with a model. The fits take turns, and what counts is their ratio. Writes
benchmarks/PCA.md, or with ``--json FILE`` the seconds alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.ml.feature import PCA
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
from sklearn.decomposition import PCA as SklearnPCA

import verger
from verger.engine.local import LocalEngine
from verger.files.folder import Folder
from verger.pca.moments import sum_stored_moments

ROUNDS = 3
N_RANDOM = 20_622
HERE = Path(__file__).parent

SPARK, SPARK_50 = "Spark ML, k = 1280", "Spark ML, k = 50"
VERGER, SKLEARN = "Verger, every k", "scikit-learn, covariance_eigh, every k"
NUMPY = "bare numpy, X.T @ X and eigh"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spark = verger.get_session()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.features.resolve() if arguments.features else random_table(Path(folder))
        found = {
            "n": spark.read.parquet(path.as_uri()).count(),
            "features": "real features" if arguments.features else "random vectors",
            "cores": spark.sparkContext.defaultParallelism,
            "seconds": measure(spark, path, arguments.rounds),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(found))
        return
    text = render(found)
    (HERE / "PCA.md").write_text(text)
    print(text)


def measure(spark: SparkSession, path: Path, rounds: int) -> dict[str, list[float]]:
    """Time each way from the stored table to a fitted model, in turns."""
    engine = LocalEngine()
    ways: dict[str, Callable[[], object]] = {
        SPARK: lambda: spark_fit(spark, path, 1280),
        SPARK_50: lambda: spark_fit(spark, path, 50),
        SKLEARN: lambda: SklearnPCA(svd_solver="covariance_eigh").fit(read_vectors(path)),
        VERGER: lambda: verger_fit(engine, path),
        NUMPY: lambda: numpy_fit(path),
    }
    # Starts the Python workers and numpy's threads; Spark ML needs neither.
    ratio, bare = verger_fit(engine, path).explained_variance_ratio, numpy_fit(path)
    np.testing.assert_allclose(ratio, bare[: len(ratio)] / bare.sum(), atol=1e-9)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
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


def verger_fit(engine: LocalEngine, path: Path) -> Any:
    folder = Folder(str(path))
    names = [file.name for file in folder.files() if file.name.endswith(".parquet")]
    return verger.fit_pca(sum_stored_moments(engine, folder, names), 0.90)


def read_vectors(path: Path) -> npt.NDArray[np.float64]:
    """Read a table of n vectors: (n, 1280)."""
    files = sorted(path.glob("*.parquet"))
    tables = [pq.ParquetFile(file).read(["features"]) for file in files]
    column = pa.concat_tables(tables)["features"]
    return pc.list_flatten(column).to_numpy().reshape(len(column), -1).astype(np.float64)


def numpy_fit(path: Path) -> npt.NDArray[np.float64]:
    """Return the variances along all directions, falling."""
    vectors = read_vectors(path)
    n, mean = len(vectors), vectors.mean(axis=0)
    scatter = vectors.T @ vectors - n * np.outer(mean, mean)
    return np.linalg.eigh(scatter / (n - 1)).eigenvalues[::-1]


def random_table(folder: Path, n: int = N_RANDOM, d: int = 1280) -> Path:
    rng = np.random.default_rng(0)
    for part in range(4):
        values = np.maximum(rng.standard_normal((n // 4 + (part < n % 4), d)), 0)
        rows = pa.array(list(values.astype(np.float32)), pa.list_(pa.float32()))
        (folder / "features").mkdir(exist_ok=True)
        pq.write_table(pa.table({"features": rows}), folder / "features" / f"part-{part}.parquet")
    return folder / "features"


def render(found: dict[str, Any]) -> str:
    seconds: dict[str, list[float]] = found["seconds"]
    real, rounds = found["features"] == "real features", len(seconds[VERGER])
    return "\n".join(
        [
            "# PCA: one fit beside Spark ML's",
            "",
            f"`python benchmarks/pca.py{' FEATURES' if real else ''}`: {found['n']:,} x 1280 float32 "
            f"({found['features']}) in Parquet, from the stored table to a fitted model; "
            f"{found['cores']} cores, Python {platform.python_version()}, numpy {np.__version__}. "
            f"Median of {rounds} in turns, with the spread; only the ratios carry over to another "
            "machine.",
            "",
            *table_of(seconds),
        ]
    )


def table_of(seconds: dict[str, list[float]]) -> list[str]:
    """Return the lines of the table, and a sentence on the notebook's two fits."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ours, both = median[VERGER], median[SPARK] + median[SPARK_50]
    lines = ["| fit | seconds | spread | times Verger's |", "|---|---|---|---|"]
    for name, values in seconds.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        lines.append(f"| {name} | {median[name]:.1f} | {spread} | {median[name] / ours:.1f} |")
    return [
        *lines,
        "",
        "The notebook that Verger comes from fits twice, to see the spectrum and then for its k: "
        f"{both:.1f} s, {both / ours:.1f} times Verger's one fit, which gives every k. numpy and "
        "scikit-learn hold all vectors in memory in float64; Spark ML and Verger never do.",
        "",
    ]


if __name__ == "__main__":
    main()
