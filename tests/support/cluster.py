"""A standalone cluster of Spark on loopback: a master and two workers, from pyspark's own files.

    PYTHONPATH=tests python -m support.cluster up FOLDER
    PYTHONPATH=tests python -m support.cluster down FOLDER

``make cluster-up`` and ``make cluster-down`` call these. FOLDER holds logs, the work folders of
the workers, and cluster.json, by which it is taken down.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

from support.processes import end_session, of_session, wait_until
from verger.engine.java import find_java

N_WORKERS = 2
START_S = 120.0
_CLASSES = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes
    ----------
    master : str
        Its address, ``spark://127.0.0.1:port``.
    daemons : tuple of subprocess.Popen
        The master and the workers; executors are in the sessions of their workers.
    """

    master: str
    daemons: tuple[subprocess.Popen[bytes], ...]

    def processes(self) -> list[psutil.Process]:
        """Return the workers, their executors and the Python workers of these."""
        return [p for daemon in self.daemons[1:] for p in of_session(daemon.pid)]

    def guests(self) -> list[psutil.Process]:
        """Return what an application has started on the cluster."""
        ours = {daemon.pid for daemon in self.daemons}
        return [p for p in self.processes() if p.pid not in ours]

    def check(self) -> None:
        """Refuse to go on with a cluster that has lost one of its parts."""
        dead = [daemon.args for daemon in self.daemons if daemon.poll() is not None]
        if dead:
            raise RuntimeError(f"a part of the cluster has ended by itself: {dead}")

    def stop(self) -> None:
        """End every process of it."""
        for daemon in reversed(self.daemons):
            end_session(daemon.pid)
            daemon.wait()


@contextmanager
def run_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Start a cluster, and end every process of it at the end; see :func:`start_cluster`."""
    cluster = start_cluster(folder, environment)
    try:
        yield cluster
    finally:
        cluster.stop()


def start_cluster(folder: Path, environment: Mapping[str, str]) -> Cluster:
    """Start a master and its workers.

    Parameters
    ----------
    folder : Path
        Logs and the folders of the workers.
    environment : mapping
        All of it reaches the executors: ``PYSPARK_PYTHON``, ``AWS_*``.
    """
    folder.mkdir(parents=True)
    ours = ["--host", "127.0.0.1"]
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        daemons.append(_start(folder / f"{name}.log", environment, *arguments))

    try:
        start("master", f"{_CLASSES}.master.Master", *ours, "--port", "0", "--webui-port", "0")
        log = _wait_for(folder / "master.log", "I have been elected leader")
        address = re.findall(r"spark://127\.0\.0\.1:\d+", log)[0]
        names = [f"worker{number}" for number in range(N_WORKERS)]
        for name in names:
            start(
                name,
                f"{_CLASSES}.worker.Worker",
                *ours,
                "-c",
                "1",
                "-m",
                "2g",
                "--webui-port",
                "0",
                "-d",
                str(folder / name),
                address,
            )
        for name in names:
            _wait_for(folder / f"{name}.log", "Successfully registered with master")
    except BaseException:
        Cluster("", tuple(daemons)).stop()
        raise
    return Cluster(address, tuple(daemons))


def _start(log: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    spark = Path(pyspark.__file__).parent
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(spark / "bin" / "spark-class"), *arguments],
            env={**environment, "SPARK_HOME": str(spark), "SPARK_DAEMON_MEMORY": "512m"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_for(log: Path, text: str) -> str:
    """Return the log once it holds a text."""
    if not wait_until(lambda: text in log.read_text("utf-8", "replace"), START_S):
        tail = log.read_text("utf-8", "replace").splitlines()[-5:]
        raise RuntimeError(f"the cluster did not start: {tail}")
    return log.read_text("utf-8", "replace")


# Command line


def bare_environment() -> dict[str, str]:
    """Return the environment of machines with Java and nothing of ours; AWS_* goes along."""
    own = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "JDK_"))}
    return own | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "JAVA_HOME": str(find_java().spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def up(folder: Path) -> None:
    """Start a cluster that outlives this process."""
    state = folder / "cluster.json"
    if state.exists():
        known = json.loads(state.read_text())
        if any(psutil.pid_exists(pid) for pid in known["pids"]):
            sys.exit(f"a cluster is up already, at {known['master']}: make cluster-down")
    shutil.rmtree(folder, ignore_errors=True)
    cluster = start_cluster(folder, bare_environment())
    pids = [daemon.pid for daemon in cluster.daemons]
    state.write_text(json.dumps({"master": cluster.master, "pids": pids}))
    print(f"verger run photos/ result/ --master {cluster.master}")


def down(folder: Path) -> None:
    """Stop the cluster that ``up`` has started."""
    state = folder / "cluster.json"
    if not state.exists():
        sys.exit(f"no cluster is up: {state} is not there")
    for pid in reversed(json.loads(state.read_text())["pids"]):
        with suppress(psutil.Error):  # its number may be another process's by now
            if _CLASSES in " ".join(psutil.Process(pid).cmdline()):
                end_session(pid)
    state.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    {"up": up, "down": down}[given.what](given.folder.absolute())
