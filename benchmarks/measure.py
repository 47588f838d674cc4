"""One run of a command: its seconds, the memory of its processes, and the features it wrote."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Between two looks at the memory: each costs some milliseconds a process.
SAMPLE_S = 0.5


def run_measured(command: list[str], environment: dict[str, str], log: Path) -> tuple[float, int]:
    """Run a command; return its seconds, and the peak of its process tree in bytes."""
    peaks, done = [0], threading.Event()
    with log.open("w") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
        watcher = threading.Thread(target=watch_memory, args=(process.pid, peaks, done))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if code:
        sys.exit(f"exit code {code} of: {' '.join(command)}\n{log.read_text()[-3000:]}")
    return seconds, max(peaks)


def watch_memory(pid: int, peaks: list[int], done: threading.Event) -> None:
    """Note the memory of a process and all below it; a page that several share counts once."""
    while not done.wait(SAMPLE_S):
        try:
            root = psutil.Process(pid)
            below = root.children(recursive=True)
        except psutil.Error:
            continue
        peaks.append(sum(pss_bytes(process.pid) for process in (root, *below)))


def pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended meanwhile
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True)
class Features:
    """A table of features, sorted by ``label/name``.

    Attributes
    ----------
    names : list of str
    values : ndarray of shape (n, n_features), float32
    """

    names: list[str]
    values: npt.NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path) -> Features:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
        parts = [pq.ParquetFile(file).read(["path", "features"]) for file in files]
        names = [
            "/".join(unquote(path).rsplit("/", 2)[-2:])
            for part in parts
            for path in part["path"].to_pylist()
        ]
        rows = [
            pc.list_flatten(part["features"]).to_numpy().reshape(len(part), -1)
            for part in parts
            if len(part)
        ]
        order = sorted(range(len(names)), key=names.__getitem__)
        return cls([names[i] for i in order], np.concatenate(rows).astype(np.float32)[order])

    def difference(self, other: Features) -> float:
        """Return the largest difference of one feature; infinite if rows are missing."""
        if self.names != other.names or self.values.shape != other.values.shape:
            return float("inf")
        return float(np.abs(self.values - other.values).max())
