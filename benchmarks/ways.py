"""The ways that are measured, how each is set up, and how each is started."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from verger.engine.java import find_java

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True)
class Way:
    """One way from a folder of photos to features.

    Attributes
    ----------
    title : str
    set_up : str
        What was done for it to be fast, for RESULTS.md.
    verb : str
        Of Verger's command line; empty for a peer.
    on_spark : bool
        Whether Verger's tasks run on Spark, not in processes of their own.
    script : str
        File in ``benchmarks/peers``.
    options : tuple of str
    venv : str
        Environment that it runs in; Verger's is the one that runs the benchmark.
    """

    title: str
    set_up: str
    verb: str = ""
    on_spark: bool = False
    script: str = ""
    options: tuple[str, ...] = ()
    venv: str = ".venv-bench"


WAYS = {
    "verger": Way(
        "Verger, `verger featurize`",
        "Defaults: listing, features, rejected photos, commits, in a pool of processes. It does "
        "what the engines below do.",
        verb="featurize",
        venv=".venv",
    ),
    "verger_spark": Way(
        "Verger, `verger featurize --master local[*]`",
        "The same tasks, run by Spark.",
        verb="featurize",
        on_spark=True,
        venv=".venv",
    ),
    "verger_run": Way(
        "Verger, `verger run`",
        "Defaults: the same, then PCA (0.90 of the variance), every count checked anew, report. "
        "It does what the notebook does, and more.",
        verb="run",
        venv=".venv",
    ),
    "notebook": Way(
        "The notebook",
        "As it was, untuned, in our own words: Keras on TensorFlow in an iterator pandas UDF, a "
        "model for every partition, `repartition(20)`, Spark's PCA fitted with k=1280 and "
        "again with k=50. As a script, without Jupyter; its charts are left out.",
        script="notebook.py",
        venv=".venv-bench-notebook",
    ),
    "predict_batch": Way(
        "Spark, `predict_batch_udf`",
        "Bytes go to the worker, pixels never leave it; its files packed into 16 even partitions a "
        "core, as Verger's are, instead of 32 files each; folders listed without a job; Arrow "
        "batches of 32; session kept by the worker; Unix sockets to the workers; 4 GiB for the "
        "JVM.",
        script="predict_batch.py",
    ),
    "ray_data": Way(
        "Ray Data",
        "`read_binary_files`, a fixed pool of one actor a core, Arrow batches of 32, as many CPUs "
        "more announced to Ray, so that reading and writing never wait for an actor; no dashboard.",
        script="ray_data.py",
    ),
    "daft": Way(
        "Daft",
        "Native runner, its own asynchronous `download`, a class UDF with one process a core, "
        "batches of 32; no TensorFlow in its environment, which it would import.",
        script="daft_udf.py",
    ),
    "loader": Way(
        "`multiprocessing.Pool`",
        "One process a core, chunks of 32 as they come, one Parquet file written by the parent. "
        "No engine: nothing is resumed, checked or distributed.",
        script="loader.py",
    ),
    "limit": Way(
        "Limit, decoding counted",
        "Bare onnxruntime, one process and one thread a core, photos from one counter; the "
        "clock starts when all sessions are warm, and stops before anything is written.",
        script="limit.py",
    ),
    "limit_decoded": Way(
        "Limit, pixels in memory",
        "The same on pixels decoded before the clock starts.",
        script="limit.py",
        options=("--decoded",),
    ),
}

#: The engines that Verger is to be ahead of.
ENGINES = ("predict_batch", "ray_data", "daft")


@dataclass(frozen=True)
class Model:
    """The model that all ways run: exported once, so that no peer needs Verger.

    Attributes
    ----------
    name : str
        Verger's name of it.
    onnx : Path
    weights : Path
        What Verger and Keras read.
    sha256 : str
        Of the weights.
    """

    name: str
    onnx: Path
    weights: Path
    sha256: str


def command_of(way: Way, photos: Path, out: Path, model: Model, cores: int) -> list[str]:
    """Return the command line of one run."""
    if way.verb:
        return [
            sys.executable,
            "-m",
            "verger",
            way.verb,
            str(photos),
            str(out),
            "--model",
            model.name,
            "--weights",
            str(model.weights),
            *(("--master", f"local[{cores}]") if way.on_spark else ("--workers", str(cores))),
        ]
    return [
        str(python_of(way)),
        str(PEERS / way.script),
        str(photos),
        str(out),
        str(model.onnx),
        "--weights",
        str(model.weights),
        "--cores",
        str(cores),
        *way.options,
    ]


def python_of(way: Way) -> Path:
    return Path(sys.executable) if way.verb else ROOT / way.venv / "bin" / "python"


def environment_of(way: Way) -> dict[str, str]:
    """Return the environment of one run: the same Java for all, nothing listening outside."""
    environment = os.environ | {
        "JAVA_HOME": str(find_java().spark_home()),
        "PYSPARK_PYTHON": str(python_of(way)),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return environment if way.verb else environment | {"PYTHONPATH": str(PEERS)}
