"""Peak memory of the workers over many large photos, and of the driver over many small files.

Writes benchmarks/MEMORY.md. Run by ``make memory``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

RESULT = Path(__file__).with_name("MEMORY.md")
WORKER_LIMIT_BYTES = 1_500_000_000
DRIVER_LIMIT_BYTES = 1_000_000_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


# Processes


def _children(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        below = []
        # A child belongs to the thread that started it: in a JVM, seldom the first.
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                below += [int(number) for number in thread.read_text().split()]
        found += below
        waiting += below
    return found


def _kind(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone"
    if "engine.forkserver" in command:  # the server has the command line of its workers
        return "worker" if _is_forked(pid) else "other"
    if any(name in command for name in ("pyspark.daemon", "pyspark.worker")):
        return "worker"
    return "jvm" if "java" in command.split(" ")[0] else "other"


def _is_forked(pid: int) -> bool:
    """Whether a process has the command line of its parent."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        lines = [Path(f"/proc/{one}/cmdline").read_bytes() for one in (pid, parent)]
    except OSError:
        return False
    return lines[0] == lines[1]


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


@dataclass
class Peaks:
    """Largest resident memory by process, sampled 20 times a second.

    Attributes
    ----------
    by_pid : dict of int to (str, int)
        Kind and peak in bytes.
    series : list of (float, int)
        Seconds since the start, and the largest worker at that time.
    """

    by_pid: dict[int, tuple[str, int]] = field(default_factory=dict)
    series: list[tuple[float, int]] = field(default_factory=list)

    def watch(self, pid: int, done: threading.Event) -> None:
        started = time.monotonic()
        while not done.wait(0.05):
            largest = 0
            for child in (pid, *_children(pid)):
                kind = "driver" if child == pid else _kind(child)
                rss = _rss_bytes(child)
                if kind == "gone" or not rss:
                    continue
                self.by_pid[child] = (kind, max(rss, self.by_pid.get(child, ("", 0))[1]))
                if kind == "worker":
                    largest = max(largest, rss)
            self.series.append((time.monotonic() - started, largest))

    def peak(self, kind: str) -> int:
        return max((rss for k, rss in self.by_pid.values() if k == kind), default=0)

    def worker_peak_between(self, begin: float, end: float) -> int:
        """Largest worker between two shares of the time in which workers were busy."""
        busy = [point for point in self.series if point[1] > 0]
        part = busy[int(begin * len(busy)) : max(int(end * len(busy)), 1)]
        return max((rss for _, rss in part), default=0)


def run_watched(command: list[str], **environment: str) -> tuple[str, Peaks, float]:
    """Run a command; return its output, the peaks of its processes, and its seconds."""
    peaks, done, started = Peaks(), threading.Event(), time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    watcher = threading.Thread(target=peaks.watch, args=(process.pid, done))
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} exited {process.returncode}")
    return output, peaks, time.monotonic() - started


# Photos


def render_large(path: Path, seed: int, kind: str) -> None:
    """Draw a photo of 24 megapixels that is no easier to decode than a real one."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (500, 750, 3), np.uint8)
    image = Image.fromarray(small).resize((6000, 4000), Image.Resampling.BICUBIC)
    grain = random.integers(-8, 8, (4000, 6000, 1), np.int16)
    pixels = np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, "JPEG", quality=90, exif=exif)
    elif kind == "rgba":
        image.putalpha(200)
        image.save(path, "PNG", compress_level=1)
    else:
        image.save(path, "JPEG", quality=90)


def make_large(folder: Path, n: int) -> None:
    """Fill a folder with n photos of 24 megapixels; every tenth is turned, every 25th a PNG."""
    folder.mkdir()
    drawn: dict[str, Path] = {}
    for i in range(n):
        kind = "rgba" if i % 25 == 24 else "turned" if i % 10 == 9 else "plain"
        suffix = "png" if kind == "rgba" else "jpg"
        key = f"{kind}{i % 3}"
        path = folder / f"{i:04}.{suffix}"
        if key in drawn:
            os.link(drawn[key], path)
        else:
            render_large(path, i, kind)
            drawn[key] = path


def make_small(folder: Path, n: int) -> None:
    """Fill folders with n small photos, 1,000 a folder."""
    content = folder.with_suffix(".jpg")
    Image.new("RGB", (100, 100), "green").save(content, "JPEG")
    data = content.read_bytes()
    for i in range(n):
        place = folder / f"class {i // 1000:03}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:06}.jpg").write_bytes(data)


# Measurements

_PLAN = """
import sys, time
import pyarrow as pa
from verger import Config, get_session, list_photos
from verger.result.ledger import compare, read_ledger
from verger.files.shares import Shares
from verger.source.cut import cut_listing
from verger.files.folder import Folder
started = time.perf_counter()
listing = list_photos(sys.argv[1])
listed = time.perf_counter()
work = compare(listing.photos, read_ledger(Folder(sys.argv[1]), []), accept_truncated=False)
assert len(work.todo) == len(listing.photos)
compared = time.perf_counter()
spark = get_session(Config(master="local[2]", conf={"spark.driver.memory": "512m"}))
ready = time.perf_counter()
shares = Shares.write(Folder(sys.argv[2]), "shares", *cut_listing(work.todo, 2))
written = time.perf_counter()

def count(batches):
    for batch in batches:
        for task in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"n": [len(shares.read(task))]})

rows = spark.range(0, shares.n_tasks, 1, shares.n_tasks).mapInArrow(count, "n long").collect()
n = sum(row["n"] for row in rows)
assert n == len(listing.photos)
print(n, listed - started, compared - listed, written - ready, time.perf_counter() - written)
"""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def measure_workers(n: int, folder: Path) -> tuple[str, bool]:
    make_large(folder / "large", n)
    command = [
        sys.executable,
        "-m",
        "verger",
        "featurize",
        str(folder / "large"),
        str(folder / "out"),
        "--model",
        "efficientnet_lite0",
        "--workers",
        "2",
        "--json",
    ]
    output, peaks, seconds = run_watched(command)
    counts = json.loads(output)["counts"]
    worker = peaks.peak("worker")
    early, late = peaks.worker_peak_between(0.0, 0.2), peaks.worker_peak_between(0.8, 1.0)
    fits = 0 < worker < WORKER_LIMIT_BYTES and counts["featurized"] == n
    what = f"{n} photos of 24 megapixels (JPEG, every 10th turned by EXIF, every 25th an RGBA PNG)"
    found = [
        f"largest worker {_mb(worker)}",
        f"in the first fifth of the run {_mb(early)}, in the last {_mb(late)}",
        f"JVM {_mb(peaks.peak('jvm'))}",
        f"driver {_mb(peaks.peak('driver'))}",
        f"{seconds:.0f} s",
    ]
    return _row(f"{what}, 2 workers", found, f"{_mb(WORKER_LIMIT_BYTES)} a worker", fits), fits


def measure_driver(n: int, folder: Path) -> tuple[str, bool]:
    make_small(folder / "small", n)
    command = [sys.executable, "-c", _PLAN, str(folder / "small"), str(folder / "plan")]
    output, peaks, _ = run_watched(command)
    count, listed, compared, cut, handed_out = output.split()
    driver, jvm = peaks.peak("driver"), peaks.peak("jvm")
    fits = 0 < driver + jvm < DRIVER_LIMIT_BYTES and int(count) == n
    found = [
        f"driver {_mb(driver)} and its JVM {_mb(jvm)} (spark.driver.memory=512m)",
        f"list {float(listed):.1f} s",
        f"compare {float(compared):.1f} s",
        f"cut and write down {float(cut):.1f} s",
        f"read in the tasks {float(handed_out):.1f} s",
    ]
    limit = f"{_mb(DRIVER_LIMIT_BYTES)} on the driver, both together"
    return _row(f"{n:,} small files, listed and planned", found, limit, fits), fits


def _row(what: str, found: list[str], limit: str, fits: bool) -> str:
    return f"| {what} | {'; '.join(found)} | {limit} | {'yes' if fits else 'NO'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=500, help="photos of 24 megapixels")
    parser.add_argument("--small", type=int, default=200_000, help="small files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workers, workers_fit = measure_workers(arguments.large, Path(place))
        driver, driver_fits = measure_driver(arguments.small, Path(place))
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("verger", "pyspark", "pillow", "pyarrow")
    )
    RESULT.write_text(
        "# Memory\n\n"
        f"`python benchmarks/memory.py --large {arguments.large} --small {arguments.small}` on "
        f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, Python "
        f"{platform.python_version()}, {packages}. Resident memory, sampled 20 times a second.\n\n"
        "| what | measured | limit | within |\n|---|---|---|---|\n"
        f"{workers}\n{driver}\n",
        "utf-8",
    )
    print(RESULT.read_text("utf-8"))
    sys.exit(0 if workers_fit and driver_fits else 1)


if __name__ == "__main__":
    main()
