"""The processes of a run: which they are, and ending them by ``kill -9``.

Every run is started as the leader of a session of its own. Spark's Java and its Python workers
stay in that session even when they have lost their parents, so that nothing is overlooked.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

Match = Callable[[psutil.Process], bool]

#: Seconds that orphans may take to notice that their driver is gone.
ORPHAN_S = 60.0


def of_session(session: int) -> list[psutil.Process]:
    """Return the living processes of a session, the oldest first."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_java(process: psutil.Process) -> bool:
    return _words(process)[0].endswith("java")


def is_executor(process: psutil.Process) -> bool:
    return is_java(process) and any("CoarseGrainedExecutorBackend" in w for w in _words(process))


def is_python_daemon(process: psutil.Process) -> bool:
    """Whether this is the process that Spark forks its Python workers from."""
    return _is_spark_python(process) and not _has_spark_parent(process)


def is_python_worker(process: psutil.Process) -> bool:
    """Whether this is a process that runs our Arrow function."""
    return _is_spark_python(process) and _has_spark_parent(process)


def _is_spark_python(process: psutil.Process) -> bool:
    return any(word in ("pyspark.daemon", "pyspark.worker") for word in _words(process))


def _has_spark_parent(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        parent = process.parent()
        return parent is not None and _is_spark_python(parent)
    return False


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline() or [""]
    return [""]


def kill(processes: list[psutil.Process]) -> int:
    """Send SIGKILL to all of them at once; returns how many were there to get it."""
    hit = 0
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
            hit += 1
    return hit


def end_session(session: int) -> None:
    """End whatever is left of a session, politely first."""
    for process in of_session(session):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    if not wait_until(lambda: not of_session(session), 10):
        kill(of_session(session))


def wait_for_orphans(there: Callable[[], list[psutil.Process]]) -> list[str]:
    """Wait until nobody is there; returns the names of those that would not go, and ends them."""
    wait_until(lambda: not there(), ORPHAN_S)
    left = there()
    names = [_words(process)[0].rsplit("/", 1)[-1] for process in left]
    kill(left)
    return names


def wait_until(holds: Callable[[], object], timeout_s: float, pause_s: float = 0.05) -> bool:
    """Ask again and again; returns whether it came to hold in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
