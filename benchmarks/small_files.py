"""Many small files: how long planning takes, how even partitions are, and what a pack gains.

Makes files that are listed and never decoded, plans a run over them with a stored result that has
half of them already, looks at Spark's plan, and reads the same files from the folder and from a
pack. The last part runs the whole job over rendered photos, from both. Writes
``benchmarks/SMALL_FILES.md``; exits 1 where a bound is broken. Seconds are wall time, CPU time
beside them where other work on the machine would distort them.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from functools import lru_cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from memory import render_large
from verger import Config, get_session, list_photos, load_model
from verger.cli.packing import pack_photos
from verger.features.featurize import featurize
from verger.files import folder as storage
from verger.files.folder import Folder
from verger.files.reading import read_ahead
from verger.files.shares import Shares
from verger.files.tables import ROWS_PER_FILE, stored_schema, write_part
from verger.job import pipeline
from verger.result.ledger import Source, compare, read_known
from verger.schema import FEATURES, arrow_schema
from verger.source import pack
from verger.source.cut import count_partitions, cut_listing, cut_partitions
from verger.source.pack import read_packed
from verger.source.render import render_dataset
from verger.source.spark_reader import read_images

RESULT = Path(__file__).parent / "SMALL_FILES.md"
PLAN_LIMIT_S = 60.0
BALANCE = 0.10
FEATURES_PER_ROW = 1280
TIMES = 3
#: What a request to object storage waits, about, and how many photos are read so.
LATENCY_S = 0.03
FAR_PHOTOS = 5_000

MIXES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "all of 5 kB": lambda _, n: np.full(n, 5_000),
    "1 to 9 kB, evenly": lambda rng, n: rng.integers(1_000, 9_000, n),
    "lognormal, sigma 1.0 (median 8 kB)": lambda rng, n: rng.lognormal(9, 1.0, n),
    "three folders: 2 kB, 900 kB, 30 kB": lambda _, n: np.repeat([2_000, 900_000, 30_000], n // 3),
    "1 % raw files of 25 MB among 3 MB": lambda rng, n: np.where(
        rng.random(n) < 0.01, 25_000_000, 3_000_000
    ),
    "lognormal, sigma 1.2 (median 8 kB)": lambda rng, n: rng.lognormal(9, 1.2, n),
    "one file of 2 GB among 8 kB": lambda _, n: np.append(np.full(n - 1, 8_000), 2 * 10**9),
}


def make_files(folder: Path, n: int) -> None:
    """Write n files of 1 to 9 kB, 1,000 a folder: noise, which no file system compresses."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(9_000)
    for i, size in enumerate(rng.integers(1_000, 9_000, n)):
        place = folder / f"class {i // 1000:03}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:06}.jpg").write_bytes(noise[:size])


def write_result(photos: pa.Table, folder: Folder) -> list[Source]:
    """Write a table of features that has every second photo, in files as large as a run's."""
    done = photos.take(np.arange(0, len(photos), 2))
    schema, sources = stored_schema(FEATURES, "f00d"), []
    for start in range(0, len(done), ROWS_PER_FILE):
        rows = done.slice(start, ROWS_PER_FILE)
        n = len(rows)
        values = pa.array(np.zeros(n * FEATURES_PER_ROW, np.float32))
        offsets = pa.array(np.arange(0, n * FEATURES_PER_ROW + 1, FEATURES_PER_ROW, np.int32))
        more = {
            "features": pa.ListArray.from_arrays(offsets, values),
            "width": pa.array([9] * n),
            "height": pa.array([9] * n),
            "truncated": pa.array([False] * n),
        }
        columns = [more[c] if c in more else rows[c] for c in FEATURES]
        table = pa.table(columns, names=list(FEATURES)).cast(arrow_schema(FEATURES))
        part = write_part(folder, f"features/{start}.parquet", table, schema)
        sources.append(Source("features", part, True))
    return sources


class Clock:
    """Seconds of wall and of CPU time since it was made, or asked last."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        found = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return found


# Planning


def measure_planning(spark: SparkSession, source: Path, stored: Path) -> tuple[list[str], bool]:
    """List, compare with a result of half of the photos, and cut and hand out what is left."""
    parallelism = spark.sparkContext.defaultParallelism
    laps: dict[str, tuple[float, float]] = {}
    sources = write_result(list_photos(str(source)).photos, Folder(str(stored)))
    clock = Clock()
    listing = list_photos(str(source))
    laps["list"] = clock.lap()
    known = read_known(Folder(str(stored)), sources)
    laps[f"read {len(known.rows):,} rows of the stored result"] = clock.lap()
    work = compare(listing.photos, known, accept_truncated=False)
    laps[f"compare ({len(work.todo):,} are to do)"] = clock.lap()
    cut_listing(work.todo, parallelism)
    laps["cut what is to do"] = clock.lap()
    photos, n = cut_listing(listing.photos, parallelism)
    laps[f"cut all {len(photos):,} into {n}"] = clock.lap()
    Shares.write(Folder(str(stored)), "shares", photos, n)
    laps["write down the shares of all"] = clock.lap()
    assert len(work.todo) == len(listing.photos) // 2
    wall = sum(lap[0] for lap in laps.values())
    rows = [f"| {name} | {lap[0]:.2f} | {lap[1]:.2f} |" for name, lap in laps.items()]
    cpu = sum(lap[1] for lap in laps.values())
    return [*rows, f"| all | {wall:.2f} | {cpu:.2f} |"], wall < PLAN_LIMIT_S


def measure_balance(n: int, parallelism: int) -> tuple[list[str], bool]:
    """Cut drawn sizes; a partition may be off by more only where one photo is."""
    rows, all_hold = [], True
    n_partitions = count_partitions(n, parallelism)
    for name, draw in MIXES.items():
        lengths = draw(np.random.default_rng(1), n).astype(np.int64)
        partition = cut_partitions(lengths, n_partitions)
        count = np.bincount(partition, minlength=n_partitions)
        size = np.bincount(partition, weights=lengths, minlength=n_partitions)
        largest = lengths.max() / size.mean()
        shares = [s for found in (count, size) for s in (found.min(), found.max())]
        means = [count.mean()] * 2 + [size.mean()] * 2
        lows_and_highs = [share / mean for share, mean in zip(shares, means, strict=True)]
        holds = all(abs(share - 1) <= BALANCE for share in lows_and_highs)
        all_hold &= holds or largest > 1 - BALANCE
        numbers = " | ".join(f"{share:.3f}" for share in lows_and_highs)
        rows.append(f"| {name} | {numbers} | {largest:.3f} | {'yes' if holds else 'no'} |")
    return rows, all_hold


# Spark's plan


def explain(frame: DataFrame) -> str:
    with redirect_stdout(StringIO()) as text:
        frame.explain()
    return text.getvalue().strip()


def exchanges(plan: str) -> set[str]:
    return set(re.findall(r"\w*Exchange\b", plan))


def plan_of(images: DataFrame) -> tuple[str, bool]:
    """Return the plan of featurizing, and whether nothing but the listing is exchanged."""
    plan = explain(featurize(images, model=load_model("efficientnet_lite0")))
    return plan, exchanges(plan) == {"BroadcastExchange"}


def plan_of_run(spark: SparkSession, photos: Path, out: Path) -> tuple[str, bool]:
    """Return the plan of the job in which ``verger run`` reads photos, as it was run."""
    kind, plans = type(spark.range(1)), []
    real = kind.collect

    def collect(frame: DataFrame) -> Any:
        plans.append(explain(frame))
        return real(frame)

    with patch.object(kind, "collect", collect):
        pipeline.run_featurize(str(photos), out, Config(model="efficientnet_lite0"))
    (plan,) = (plan for plan in plans if "commit_share" in plan)
    return plan, not exchanges(plan)


def shorten(plan: str) -> str:
    """Leave the numbers of columns out, and the lists of columns."""
    plan = re.sub(r"#\d+L?", "", plan)
    plan = re.sub(r"function\(.*?\)", "", plan)
    return "\n".join(re.sub(r"\[[^\[\]]{40,}\]", "[...]", line)[:150] for line in plan.split("\n"))


# Reading


def read_only(
    batches: Iterator[pa.RecordBatch], read: Callable[[list[dict[str, Any]]], Iterable[Any]]
) -> Iterator[pa.RecordBatch]:
    n = n_bytes = 0
    started = time.process_time()
    for batch in batches:
        for content in read(batch.to_pylist()):
            n += 1
            n_bytes += len(content)
    cpu = time.process_time() - started
    yield pa.RecordBatch.from_pydict({"n": [n], "bytes": [n_bytes], "cpu": [cpu]})


def from_files(rows: list[dict[str, Any]]) -> Iterable[Any]:
    return read_ahead([row["path"] for row in rows], [row["length"] for row in rows])


def measure_reading(spark: SparkSession, kind: str, source: Path) -> tuple[float, str]:
    """Read every photo in the tasks and do nothing with it, some times; the median counts."""
    listing = list_photos(str(source))
    images = read_images(spark, listing)
    read = read_packed if listing.is_pack else from_files
    walls, cpus = [], []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        found = images.mapInArrow(
            lambda batches: read_only(batches, read), "n long, bytes long, cpu double"
        ).toPandas()
        walls.append(time.perf_counter() - started)
        cpus.append(float(found["cpu"].sum()))
        assert (found["n"].sum(), found["bytes"].sum()) == (len(listing.photos), listing.n_bytes)
    n, wall, cpu = len(listing.photos), statistics.median(walls[1:]), statistics.median(cpus[1:])
    tasks = images.rdd.getNumPartitions()
    row = f"| {kind} | {tasks} | {wall:.1f} | {n / wall:,.0f} | {cpu:.1f} | {n / cpu:,.0f} |"
    return cpu, row


def measure_alone(kind: str, source: Path) -> tuple[float, str]:
    """The same without Spark, in this process: what a task does after it has begun."""
    listing = list_photos(str(source))
    photos, _ = cut_listing(listing.photos, 2)
    rows = photos.sort_by("partition").to_pylist()
    read = read_packed if listing.is_pack else from_files
    walls, cpus = [], []
    for _ in range(TIMES):
        clock = Clock()
        n_bytes = sum(len(content) for content in read(rows))
        wall, cpu = clock.lap()
        assert n_bytes == listing.n_bytes
        walls.append(wall)
        cpus.append(cpu)
    n, wall, cpu = len(rows), statistics.median(walls), statistics.median(cpus)
    return wall, f"| {kind} | {wall:.2f} | {n / wall:,.0f} | {cpu:.2f} | {n / cpu:,.0f} |"


def measure_run(photos: Path, pack: Path, place: Path) -> list[str]:
    """Run the whole job from both; the features are the same."""
    rows = []
    for kind, source in (("folder", photos), ("pack", pack)):
        config = Config(model="efficientnet_lite0", overwrite=True)
        record = pipeline.run_featurize(str(source), place / kind, config)
        n, seconds = record["counts"]["featurized"], record["seconds"]
        rows.append(
            f"| {kind} | {seconds['list']:.2f} | {seconds['featurize']:.1f} "
            f"| {n / seconds['featurize']:,.0f} |"
        )
    return rows


def measure_far_away(kind: str, source: Path) -> str:
    """Read as from a bucket: every request to the files waits, as one to object storage does."""
    listing = list_photos(str(source))
    photos, _ = cut_listing(listing.photos, 2)
    rows = photos.sort_by("partition").slice(0, FAR_PHOTOS).to_pylist()
    waits: list[float] = []

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            waits.append(LATENCY_S)
            time.sleep(LATENCY_S)
            return function(*arguments)

        return call

    pack._open.cache_clear()
    pack._read_row_group.cache_clear()
    with ExitStack() as stack:
        for module, name in ((storage, "_read_bytes"), (pack, "_open"), (pack, "_read_row_group")):
            stack.enter_context(patch.object(module, name, _slow_once(getattr(module, name), slow)))
        clock = Clock()
        n = sum(1 for _ in (read_packed(rows) if listing.is_pack else from_files(rows)))
        wall, _ = clock.lap()
    return f"| {kind} | {len(waits):,} | {wall:.1f} | {n / wall:,.0f} |"


def _slow_once(function: Any, slow: Callable[..., Any]) -> Any:
    """Slow a function down, below its cache if it has one."""
    plain = getattr(function, "__wrapped__", None)
    return lru_cache(maxsize=2)(slow(plain)) if plain else slow(function)


def measure_compression(photos: Path, place: Path) -> list[str]:
    """What zstd would gain on the content of row groups, and what it would cost."""
    large = place / "large"
    large.mkdir()
    for i in range(3):
        render_large(large / f"{i}.jpg", i, "plain")
    return [row for folder in (photos, large) for row in _compress(folder)]


def _compress(folder: Path) -> list[str]:
    paths = list_photos(str(folder)).photos["path"].to_pylist()[:2_000]
    table = pa.table({"content": [Path(path).read_bytes() for path in paths]})
    rows = []
    for codec in ("none", "lz4", "zstd"):
        sink = pa.BufferOutputStream()
        clock = Clock()
        pq.write_table(
            table,
            sink,
            compression=codec,
            row_group_size=256,
            use_dictionary=False,
            write_statistics=False,
        )
        _, written = clock.lap()
        content = sink.getvalue()
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            for i in range(file.num_row_groups):
                file.read_row_group(i, use_threads=False)
        _, read = clock.lap()
        mb = table.nbytes / 1e6
        rows.append(
            f"| {len(paths):,} of {mb * 1e3 / len(paths):,.0f} kB | {codec} "
            f"| {len(content) / table.nbytes:.3f} "
            f"| {1e3 * written / mb:.2f} | {1e3 * read / mb:.2f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000, help="files that are planned")
    parser.add_argument("--read", type=int, default=40_000, help="files that are read")
    parser.add_argument("--photos", type=Path, help="folder of photos to run; else rendered ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text, holds = measure(Path(name), arguments)
    RESULT.write_text(text, "utf-8")
    print(text)
    sys.exit(0 if holds else 1)


def measure(place: Path, arguments: argparse.Namespace) -> tuple[str, bool]:
    spark = get_session(Config())
    parallelism = spark.sparkContext.defaultParallelism
    make_files(place / "many", arguments.files)
    planning, in_time = measure_planning(spark, place / "many", place / "stored")
    balance, balanced = measure_balance(arguments.files, parallelism)
    make_files(place / "small", arguments.read)
    packing = pack_photos(str(place / "small"), place / "pack", Config())["seconds"]
    plans = {
        "verger.read_images(FOLDER)": read_images(spark, str(place / "small")),
        'verger.read_images(FOLDER, reader="spark"), and verger run --reader spark': read_images(
            spark, str(place / "small"), reader="spark"
        ),
        "verger.read_images(PACK)": read_images(spark, str(place / "pack")),
    }
    render_dataset(place / "few", n_classes=2, per_class=5)
    found = {"verger run": plan_of_run(spark, place / "few", place / "few out")}
    found |= {kind: plan_of(images) for kind, images in plans.items()}
    alone = [measure_alone("folder", place / "small"), measure_alone("pack", place / "pack")]
    reading = [
        measure_reading(spark, "folder", place / "small"),
        measure_reading(spark, "pack", place / "pack"),
    ]
    photos = arguments.photos
    if photos is None:
        photos = place / "photos"
        render_dataset(photos, n_classes=20, per_class=50, seed=0)
    packed_photos = pack_photos(str(photos), place / "photos pack", Config())
    far = [measure_far_away("folder", place / "small"), measure_far_away("pack", place / "pack")]
    compression = measure_compression(photos, place)
    runs = measure_run(photos, place / "photos pack", place / "out")
    holds = in_time and balanced and all(ok for _, ok in found.values())
    options = f"--files {arguments.files} --read {arguments.read}"
    options += " --photos FOLDER" if arguments.photos else ""
    return "\n".join(
        [
            "# Many small files",
            "",
            f"`python benchmarks/small_files.py {options}` on {os.cpu_count()} cores, "
            f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, "
            + ", ".join(f"{p} {version(p)}" for p in ("verger", "pyspark", "pyarrow"))
            + f". Load of the machine when it ended: {os.getloadavg()[0]:.1f}.",
            "",
            f"## Planning {arguments.files:,} files",
            "",
            "With a stored result that has every second photo.",
            "",
            "| step | s | s of CPU |",
            "|---|---|---|",
            *planning,
            "",
            f"Limit: {PLAN_LIMIT_S:.0f} s in all: {'kept' if in_time else 'BROKEN'}.",
            "",
            "## Balance",
            "",
            f"{count_partitions(arguments.files, parallelism)} partitions of {arguments.files:,} "
            "photos, as shares of the mean. Counts differ by one photo at most. Bytes cannot be even "
            "where one photo is larger than a partition.",
            "",
            "| sizes | least photos | most | least bytes | most | largest photo | within 10 % |",
            "|---|---|---|---|---|---|---|",
            *balance,
            "",
            "## Spark's plan",
            "",
            "A run's tasks read which photos are theirs, and exchange nothing. In the library's "
            "DataFrames the one exchange is the broadcast of the listing. No photo's byte moves "
            "between tasks.",
            *(
                f"\n{kind}: {'holds' if ok else 'BROKEN'}\n\n```\n{shorten(plan)}\n```"
                for kind, (plan, ok) in found.items()
            ),
            "",
            f"## Reading {arguments.read:,} files of 1 to 9 kB",
            "",
            f"Median of {TIMES}, all in the page cache. Packing them took {packing['pack']:.1f} s.",
            "",
            "In one process, without Spark:",
            "",
            "| | s | files/s | s of CPU | files/s of CPU |",
            "|---|---|---|---|---|",
            *(row for _, row in alone),
            "",
            "In Spark's tasks, with what it takes to start them; CPU is that of the workers' reading:",
            "",
            "| | tasks | s | files/s | s of CPU | files/s of CPU |",
            "|---|---|---|---|---|---|",
            *(row for _, row in reading),
            "",
            f"## Running {packed_photos['counts']['packed']:,} photos",
            "",
            "The photos are in the page cache, and the model takes most of the time.",
            "",
            "| | list, s | featurize, s | images/s |",
            "|---|---|---|---|",
            *runs,
            "",
            "## As from a bucket",
            "",
            f"A model, not a measurement: {min(FAR_PHOTOS, arguments.read):,} of the small files in "
            f"one process, where each request waits {1e3 * LATENCY_S:.0f} ms more.",
            "",
            "| | requests | s | files/s |",
            "|---|---|---|---|",
            *far,
            "",
            "## Compression of the content",
            "",
            "CPU time by MB of photos. Packs have none: it shortens what tiny JPEGs have in common, "
            "their headers, and nothing else.",
            "",
            "| photos | codec | size | write, ms/MB | read, ms/MB |",
            "|---|---|---|---|---|",
            *compression,
            "",
        ]
    ), holds


if __name__ == "__main__":
    main()
