"""Photos in a bucket whose every request waits: throughput beside that of the local disk.

    python benchmarks/latency.py PHOTOS [--weights FILE] [--n 2000] [--jars FOLDER]

Puts n photos into a local S3 (SeaweedFS, one process), and a proxy before it that hands every
request on after 30 ms. ``verger featurize`` then reads the same photos from the folder, from the
bucket directly and through the proxy, and, given the jars of hadoop-aws, lets Spark's own
``binaryFile`` read them through the proxy; whole processes, in turns. Before that the photos are read
and nothing else, by Arrow's client and by the one that Verger takes, while the proxy counts requests.
Server and proxy have a core of their own, as a bucket has machines of its own. Writes
benchmarks/LATENCY.md. ``make latency`` fetches what it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyarrow import fs

from photos import make_folder
from support.seaweed import KEYS, bucket_of, free_port, seaweed, wait_for
from verger.files.paths import filesystem_of
from verger.files.reading import READS_IN_FLIGHT, read_photo

HERE = Path(__file__).parent
ROOT = HERE.parent
LATENCY_S = 0.03
LEAST_SHARE = 0.9
BUCKET = "photos"
*_OTHERS, _LAST = sorted(os.sched_getaffinity(0))
CORES = set(_OTHERS) or {_LAST}


# The bucket


def fill(port: int, folder: Path) -> None:
    """Copy a folder of class folders into the bucket."""
    filesystem = bucket_of(port, BUCKET)
    fs.copy_files(str(folder), BUCKET, destination_filesystem=filesystem)
    there = filesystem.get_file_info(fs.FileSelector(BUCKET, recursive=True))
    if sum(info.is_file for info in there) != sum(path.is_file() for path in folder.rglob("*")):
        sys.exit("the bucket has not taken all photos")


# The delay


class _Upstream(asyncio.Protocol):
    """The server's answers go to the client as they come."""

    def __init__(self, client: asyncio.Transport) -> None:
        self.client = client

    def data_received(self, data: bytes) -> None:
        self.client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.client.close()


class _Delay(asyncio.Protocol):
    """What a client sends reaches the server a moment later, in its order.

    A client sends a request in one piece, and the next one when it has the answer.
    """

    port = 0
    count: Any = None  # multiprocessing.Value: requests so far

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.waiting: list[bytes] = []
        self.server: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()
        self.connecting = self.loop.create_task(self.connect(transport))

    async def connect(self, client: asyncio.Transport) -> None:
        self.server, _ = await self.loop.create_connection(
            lambda: _Upstream(client), "127.0.0.1", self.port
        )
        for data in self.waiting:
            self.server.write(data)
        self.waiting.clear()

    def data_received(self, data: bytes) -> None:
        self.count.value += data.startswith((b"GET ", b"HEAD "))
        self.loop.call_later(LATENCY_S, self.send, data)

    def send(self, data: bytes) -> None:
        if self.server is None or self.waiting:
            self.waiting.append(data)
        else:
            self.server.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.server is not None:
            self.loop.call_later(LATENCY_S, self.server.close)


def run_proxy(port: int, server_port: int, count: Any) -> None:
    async def serve() -> None:
        _Delay.port, _Delay.count = server_port, count
        server = await asyncio.get_running_loop().create_server(_Delay, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def delayed(server_port: int) -> Iterator[tuple[int, Any]]:
    """Put the delay before a server; yields the port to ask instead, and its count of requests."""
    port, count = free_port(), multiprocessing.get_context("spawn").Value("i", 0)
    process = multiprocessing.get_context("spawn").Process(
        target=run_proxy, args=(port, server_port, count), daemon=True
    )
    process.start()
    try:
        wait_for(port)
        yield port, count
    finally:
        process.terminate()
        process.join()


# Reads alone


def by_arrow(path: str) -> bytes:
    filesystem, inner = filesystem_of(path)
    with filesystem.open_input_stream(inner) as stream:
        return stream.read()


def read_all(read: Callable[[str], bytes], paths: list[str], port: int) -> tuple[float, float]:
    """Return photos a second, and milliseconds of processor a photo; in a process of its own."""
    os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    os.sched_setaffinity(0, CORES)
    read(paths[0])  # imports, and the first connection
    cpu, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        if not all(isinstance(content, bytes) for content in pool.map(read, paths[1:])):
            sys.exit("a photo could not be read")
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    n = len(paths) - 1
    return n / seconds, 1000 * busy / n


def time_reads(port: int, count: Any, paths: list[str]) -> list[str]:
    """Return rows of a table: the reader, requests, photos a second, processor."""
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for title, read in (("pyarrow", by_arrow), ("obstore, which Verger takes", read_photo)):
        before, found = count.value, []
        for _ in range(3):
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                found.append(process.submit(read_all, read, paths, port).result())
        requests = (count.value - before) / len(paths) / len(found)
        speeds, busy = zip(*found, strict=True)
        rows.append(f"| {title} | {requests:.2f} | {spread(speeds, 0)} | {spread(busy, 2)} |")
        print(rows[-1], flush=True)
    return rows


# The runs


@dataclass(frozen=True)
class Way:
    """A way to the same photos."""

    title: str
    source: str
    port: int | None = None
    options: tuple[str, ...] = ()


def ways(folder: Path, near: int, far: int, jars: list[Path]) -> list[Way]:
    bucket = f"s3://{BUCKET}"
    found = [
        Way("local disk", str(folder)),
        Way("bucket, no delay", bucket, near),
        Way("bucket, 30 ms a request", bucket, far),
    ]
    if jars:
        conf = {
            "spark.jars": ",".join(map(str, jars)),
            "spark.hadoop.fs.s3a.endpoint": f"http://127.0.0.1:{far}",
            "spark.hadoop.fs.s3a.endpoint.region": KEYS["AWS_REGION"],
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
        options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        title = "bucket, 30 ms a request, Spark's `binaryFile` (`--reader spark`)"
        found.append(Way(title, bucket, far, ("--reader", "spark", *options)))
    return found


def run_once(way: Way, model: list[str], out: Path) -> tuple[float, float]:
    """Return seconds of the stage that reads photos, and of the whole process."""
    shutil.rmtree(out, ignore_errors=True)
    environment = dict(os.environ) | KEYS
    if way.port is not None:
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{way.port}"
    command = [sys.executable, "-m", "verger", "featurize", way.source, str(out), *model]
    started = time.perf_counter()
    done = subprocess.run(
        ["taskset", "-c", "0-" + str(max(os.sched_getaffinity(0)) - 1), *command, *way.options],
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{way.title}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads((out / "run.json").read_text())["seconds"]["featurize"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="folder of class folders, or a tar")
    parser.add_argument("--weights")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weed", type=Path, default=ROOT / ".venv-bench" / "bin" / "weed")
    parser.add_argument("--jars", type=Path, help="folder of hadoop-aws and what it needs")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    folder = make_folder(arguments.n, arguments.photos, work)
    jars = sorted(arguments.jars.glob("*.jar")) if arguments.jars else []
    model = ["--weights", arguments.weights] if arguments.weights else []
    if not arguments.weights:
        model = ["--model", "efficientnet_lite0"]
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("needs two cores: one for the server, one for Verger")
    cores = ["--master", f"local[{len(others)}]"]
    found: dict[str, list[tuple[float, float]]] = {}
    os.sched_setaffinity(0, {last})  # all that is started here inherits it
    with seaweed(arguments.weed, work) as near, delayed(near) as (far, count):
        fill(near, folder)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
        reads = time_reads(far, count, [f"s3://{BUCKET}/{name}" for name in names])
        for number in range(arguments.rounds):
            for way in ways(folder, near, far, jars):
                stage, whole = run_once(way, [*model, *cores], work / "latency-out")
                found.setdefault(way.title, []).append((stage, whole))
                print(f"round {number}  {way.title:<70} {stage:7.1f} s of {whole:.1f}", flush=True)
    page = render(found, reads, arguments.n)
    (HERE / "LATENCY.md").write_text(page)
    print(page)


def render(found: dict[str, list[tuple[float, float]]], reads: list[str], n: int) -> str:
    names = ("verger", "pyspark", "pyarrow", "onnxruntime")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    local = [stage for stage, _ in found["local disk"]]
    lines = [
        "# Latency",
        "",
        f"`python benchmarks/latency.py --n {n}` on {os.cpu_count()} cores, one of them for the "
        f"server, {platform.machine()}, {time.strftime('%Y-%m-%d')}, "
        f"{versions}. Medians of {len(local)} rounds, least and greatest in brackets.",
        "",
        f"| {n:,} photos from | images/s while photos are read | share of the local disk's | "
        "whole process, s |",
        "|---|---|---|---|",
    ]
    shares = {}
    for title, runs in found.items():
        speeds = [n / stage for stage, _ in runs]
        share = [ours / stage for ours, (stage, _) in zip(local, runs, strict=True)]
        shares[title] = statistics.median(share)
        whole = [seconds for _, seconds in runs]
        cells = [title, spread(speeds, 0), spread(share, 2), spread(whole, 1)]
        lines.append(f"| {' | '.join(cells)} |")
    met = shares["bucket, 30 ms a request"] >= LEAST_SHARE
    return "\n".join(
        [
            *lines,
            "",
            f"At 30 ms a request the bucket is to give at least {LEAST_SHARE} of the local disk's "
            f"throughput: {'yes' if met else 'NO'}, {shares['bucket, 30 ms a request']:.2f}.",
            "",
            "The bucket is SeaweedFS, the delay a proxy before it; both have a core of their own. "
            f"Verger has up to {READS_IN_FLIGHT} reads in flight in each task; `binaryFile` reads "
            "one after the other.",
            "",
            f"The same photos, read at 30 ms a request by {READS_IN_FLIGHT} threads of one process "
            "and not decoded; the proxy counts requests:",
            "",
            "| client | requests a photo | photos/s | processor time a photo, ms |",
            "|---|---|---|---|",
            *reads,
            "",
            "Arrow asks for the size of an object before it reads it, though the listing has told "
            "it. It still reads photos where the credentials are in AWS's profile files.",
            "",
        ]
    )


def spread(values: list[float], digits: int) -> str:
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
