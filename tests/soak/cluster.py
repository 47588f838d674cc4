"""A standalone cluster of Spark on loopback: a master and two workers, from pyspark's own files."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark
from processes import end_session, of_session, wait_until

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


@contextmanager
def run_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Start a cluster, and end every process of it at the end.

    Parameters
    ----------
    folder : Path
        Logs and the folders of the workers.
    environment : mapping
        All of it reaches the executors: ``PYSPARK_PYTHON``, ``AWS_*``.
    """
    folder.mkdir(parents=True)
    port = free_port()
    address = f"spark://127.0.0.1:{port}"
    ours = ["--host", "127.0.0.1"]
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        daemons.append(_start(folder / f"{name}.log", environment, *arguments))

    try:
        start("master", f"{_CLASSES}.master.Master", *ours,
              "--port", str(port), "--webui-port", "0")  # fmt: skip
        _wait_for(folder / "master.log", "I have been elected leader")
        names = [f"worker{number}" for number in range(N_WORKERS)]
        for name in names:
            start(name, f"{_CLASSES}.worker.Worker", *ours, "-c", "1", "-m", "2g",
                  "--webui-port", "0", "-d", str(folder / name), address)  # fmt: skip
        for name in names:
            _wait_for(folder / f"{name}.log", "Successfully registered with master")
        yield Cluster(address, tuple(daemons))
    finally:
        for daemon in reversed(daemons):
            end_session(daemon.pid)
            daemon.wait()


def _start(
    log: Path, environment: Mapping[str, str], *arguments: str
) -> subprocess.Popen[bytes]:  # fmt: skip
    spark = Path(pyspark.__file__).parent
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(spark / "bin" / "spark-class"), *arguments],
            env={**environment, "SPARK_HOME": str(spark), "SPARK_DAEMON_MEMORY": "512m"},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def _wait_for(log: Path, text: str) -> None:
    if not wait_until(lambda: text in log.read_text("utf-8", "replace"), START_S):
        tail = log.read_text("utf-8", "replace").splitlines()[-5:]
        raise RuntimeError(f"the cluster did not start: {tail}")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
