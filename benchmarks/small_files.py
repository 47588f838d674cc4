"""Many small files: how long planning takes, how even partitions are, and that no photo moves.

Makes files that are listed and never decoded, plans a run over them with a stored result that has
half of them already, and looks at Spark's plan. Writes ``benchmarks/SMALL_FILES.md``; exits 1 where
a bound is broken. Seconds are wall time, CPU time beside them where other work on the machine
would distort them.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from verger import Config, get_session, list_photos, load_model
from verger.features.featurize import featurize
from verger.files.folder import Folder
from verger.files.shares import Shares
from verger.files.tables import ROWS_PER_FILE, stored_schema, write_part
from verger.job import pipeline
from verger.result.ledger import RowsFile, compare, read_ledger
from verger.schema import FEATURES, MEASURES, arrow_schema
from verger.source.cut import count_partitions, cut_listing, cut_partitions
from verger.source.render import render_dataset
from verger.source.spark_reader import read_images

RESULT = Path(__file__).parent / "SMALL_FILES.md"
PLAN_LIMIT_S = 60.0
BALANCE = 0.10
FEATURES_PER_ROW = 1280

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


def write_result(photos: pa.Table, folder: Folder) -> list[RowsFile]:
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
            **dict.fromkeys(MEASURES, pa.nulls(n, pa.float32())),
        }
        columns = [more[c] if c in more else rows[c] for c in FEATURES]
        table = pa.table(columns, names=list(FEATURES)).cast(arrow_schema(FEATURES))
        part = write_part(folder, f"features/{start}.parquet", table, schema)
        sources.append(RowsFile("features", part, True))
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
    ledger = read_ledger(Folder(str(stored)), sources)
    laps[f"read {len(ledger.rows):,} rows of the stored result"] = clock.lap()
    work = compare(listing.photos, ledger, accept_truncated=False)
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
        pipeline.run_featurize(
            str(photos), out, Config(model="efficientnet_lite0", commit_every=10_000)
        )
    (plan,) = (plan for plan in plans if "_run_tasks" in plan or "MapInArrow" in plan)
    return plan, not exchanges(plan)


def shorten(plan: str) -> str:
    """Leave the numbers of columns out, and the lists of columns."""
    plan = re.sub(r"#\d+L?", "", plan)
    plan = re.sub(r"function\(.*?\)", "", plan)
    return "\n".join(re.sub(r"\[[^\[\]]{40,}\]", "[...]", line)[:150] for line in plan.split("\n"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000, help="files that are planned")
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
    make_files(place / "small", 1_000)
    plans = {
        "verger.read_images(FOLDER)": read_images(spark, str(place / "small")),
        'verger.read_images(FOLDER, reader="spark"), and verger run --reader spark': read_images(
            spark, str(place / "small"), reader="spark"
        ),
    }
    render_dataset(place / "few", n_classes=2, per_class=5)
    found = {"verger run": plan_of_run(spark, place / "few", place / "few out")}
    found |= {kind: plan_of(images) for kind, images in plans.items()}
    holds = in_time and balanced and all(ok for _, ok in found.values())
    return "\n".join(
        [
            "# Many small files",
            "",
            f"`python benchmarks/small_files.py --files {arguments.files}` on {os.cpu_count()} cores, "
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
        ]
    ), holds


if __name__ == "__main__":
    main()
