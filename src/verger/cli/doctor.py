"""Check what works on this machine, and say what to do where something does not."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verger.engine.causes import cause_of
from verger.engine.home import verger_home
from verger.engine.java import find_java
from verger.engine.limits import (
    DRIVER_BYTES,
    WORKER_BYTES,
    default_workers,
    memory_bytes,
    usable_cores,
)
from verger.engine.local import LocalEngine
from verger.engine.session import get_session
from verger.engine.tasks import Task
from verger.errors import VergerError
from verger.features.model import CARDS

_SHOW_LOG = "VERGER_SPARK_LOG=warn verger doctor shows what Spark says besides"
PYTHONS = ((3, 11), (3, 13))


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    works : bool
    detail : str
        What was found.
    advice : str
        What to do; empty where it works.
    optional : bool
        Whether Verger runs without it.
    """

    name: str
    works: bool
    detail: str
    advice: str = ""
    optional: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at Python, packages, Java, memory, the cache and weights, and start Spark once."""
    return [_python(), _packages(), _memory(), _cache(), _workers(), *_weights(), _java(), _spark()]


def _python() -> Finding:
    fits = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    advice = "" if fits else "use Python 3.11, 3.12 or 3.13"
    return Finding("Python", fits, f"{platform.python_version()} ({sys.executable})", advice)


def _packages() -> Finding:
    names = ("verger", "pyspark", "pyarrow", "numpy", "pandas", "onnxruntime", "onnx", "pillow")
    try:
        found = {name: version(name) for name in names}
    except PackageNotFoundError as err:
        return Finding("Packages", False, f"{err.name} is missing", f"pip install {err.name}")
    detail = ", ".join(f"{name} {number}" for name, number in found.items())
    if int(found["pandas"].split(".")[0]) >= 3:
        return Finding("Packages", False, detail, "pip install 'pandas<3': Spark asks for it")
    return Finding("Packages", True, detail)


def _java() -> Finding:
    try:
        java = find_java()
    except VergerError as err:
        advice = "without Spark there is no need of it"
        return Finding("Java", False, str(err), advice, optional=True)
    passed_over = f"; passed over: {'; '.join(java.notes)}" if java.notes else ""
    return Finding(
        "Java", True, f"{java.full_version} from {java.origin} ({java.home}){passed_over}"
    )


def _memory() -> Finding:
    total, cores, n_workers = memory_bytes(), usable_cores(), default_workers()
    detail = f"{total / 2**30:.1f} GiB for {cores} core(s)"
    if n_workers < cores:
        detail += f", enough for {n_workers} worker(s) at a time"
    if total >= DRIVER_BYTES + WORKER_BYTES:
        return Finding("Memory", True, detail)
    advice = "give the container more, or take small photos only"
    return Finding("Memory", False, detail, advice, optional=True)


def _cache() -> Finding:
    home = verger_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as err:
        detail = f"{home}: {err.strerror}"
        return Finding("Cache", False, detail, "set VERGER_HOME to a folder that can be written")
    return Finding("Cache", True, str(home))


def _weights() -> list[Finding]:
    findings = []
    for name, card in CARDS.items():
        title = f"Weights of {name}"
        try:
            path = card.weights.find()
        except VergerError as err:
            findings.append(Finding(title, False, str(err), "delete the file", optional=True))
            continue
        if path:
            findings.append(Finding(title, True, str(path)))
        else:
            advice = f"verger models fetch {name}, or --weights PATH"
            findings.append(Finding(title, False, "not on this machine", advice, optional=True))
    return findings


def _workers() -> Finding:
    """Let a worker process of this machine compute, as a run without Spark does."""
    engine = LocalEngine(1)
    try:
        (number,) = engine.run(_double, 1, 21)
    except VergerError as err:
        return Finding("Workers", False, str(err), "run it again from a terminal")
    finally:
        engine.stop()
    return Finding("Workers", number == 42, f"{usable_cores()} cores, a worker process answered")


def _double(_: Task, number: int) -> int:
    return 2 * number


def _spark() -> Finding:
    """Start Spark and let a worker compute, for only that shows that all parts fit."""
    try:
        spark = get_session()
        total = spark.range(1000, numPartitions=2).mapInArrow(lambda batches: batches, "id long")
        count = total.count()
        context = spark.sparkContext
        detail = f"{spark.version} on {context.master}, a Python worker returned {count} rows"
        spark.stop()
    except VergerError as err:
        return Finding("Spark", False, str(err), _SHOW_LOG, optional=True)
    except Exception as err:  # noqa: BLE001 - whatever Spark says is the finding
        return Finding("Spark", False, cause_of(err), _SHOW_LOG, optional=True)
    return Finding("Spark", count == 1000, detail)
