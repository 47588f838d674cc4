"""Feed broken photos to the pipeline's Arrow function and see that nothing is lost.

Every mutant follows from the seed and its number. Two worker processes take turns; what kills one
is found by its number, saved below ``build/fuzz`` and told. ``make fuzz`` writes
``benchmarks/FUZZ.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
from mutate import mutate
from PIL import features as pillow_features

from support.corpus import zoo
from verger.features.decoder import BYTES_PER_PIXEL
from verger.features.isolate import decode_apart
from verger.features.outcomes import Decoding, featurize_rows, read_rows
from verger.features.preprocess import DecodeError, decode_photo, register_formats
from verger.features.task import to_arrow
from verger.schema import IMAGES, OUTCOMES, Reason, arrow_schema

REPOSITORY = Path(__file__).parents[2]
OFFENDERS = REPOSITORY / "build" / "fuzz"
REPORT = REPOSITORY / "benchmarks" / "FUZZ.md"

N_WORKERS = 2
PER_BATCH = 250
#: Small, so that a bound on the memory is a sharp one and that no mutant is slow for its size.
MAX_PIXELS = 4_000_000
TIMEOUT_S = 20.0
#: One in so many is decoded in a process of its own too, and must come to the same.
APART_EVERY = 100
#: A worker may not grow by more from its first tenth to its last.
GROWTH_MB = 48
SPARE_MB = 64

REASONS = {reason.value for reason in Reason}


class FakePredictor:
    """Stand in for a model: the features are the photo's first pixels."""

    contract = SimpleNamespace(input_size=32, n_features=12)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[:, 0, :4].reshape(len(pixels), 12).astype(np.float32)


class Watched(Decoding):
    """Decode as always; note how long each photo takes, and which one it is."""

    def decode(self, content: bytes, size: int) -> Any:
        os.pwrite(self.notes.file, f"{self.notes.number:012}".encode(), 0)
        started = time.perf_counter()
        try:
            return super().decode(content, size)
        finally:
            self.notes.times_s[self.notes.number] = time.perf_counter() - started
            self.notes.number += 1


def mutant(seed: int, number: int, photos: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return the path and the content of a mutant; the path tells how it was made."""
    dice = random.Random(f"{seed} {number}")
    name, content = dice.choice(photos)
    broken, how = mutate(content, dice.choice(photos)[1], dice)
    return f"/{number}/{name.replace(' ', '/', 1)}/{how}", broken


def corpus() -> list[tuple[str, bytes]]:
    return [(name, specimen.content) for name, specimen in sorted(zoo().items())]


# ---- a worker ------------------------------------------------------------------------------


def work(seed: int, n: int, worker: int, first_batch: int) -> None:
    """Run every ``N_WORKERS``-th batch; print a line of JSON for each."""
    register_formats()
    photos = corpus()
    file = os.open(_progress_file(worker), os.O_WRONLY | os.O_CREAT)
    notes = SimpleNamespace(file=file, number=0, times_s={})
    for batch in range(first_batch, -(-n // PER_BATCH), N_WORKERS):
        numbers = range(batch * PER_BATCH, min(n, (batch + 1) * PER_BATCH))
        mutants = [mutant(seed, number, photos) for number in numbers]
        accept = batch // N_WORKERS % 2 == 1
        decoding = Watched(max_pixels=MAX_PIXELS, accept_truncated=accept, timeout_s=TIMEOUT_S)
        object.__setattr__(decoding, "notes", notes)  # it is frozen
        notes.number, notes.times_s = numbers.start, {}
        failures, counts = run_batch(mutants, decoding)
        for number, photo in zip(numbers, mutants, strict=True):
            if number % APART_EVERY == 0:
                failures += compare_apart(photo, decoding)
            if photo[0].endswith("/cut"):
                failures += compare_cut(photo, dict(photos))
        slowest = max(notes.times_s, key=notes.times_s.__getitem__)
        line = {
            "batch": batch,
            "n": len(mutants),
            "counts": counts,
            "failures": failures,
            "slowest_s": notes.times_s[slowest],
            "slowest": mutants[slowest - numbers.start][0],
            "total_s": sum(notes.times_s.values()),
            "rss_kb": _memory_kb("VmRSS"),
            "peak_kb": _memory_kb("VmHWM"),
        }
        print(json.dumps(line), flush=True)


def run_batch(
    mutants: list[tuple[str, bytes]], decoding: Watched
) -> tuple[list[str], dict[str, int]]:
    """Featurize mutants; return what is wrong and the outcomes' counts by format and reason."""
    columns = [name for name in IMAGES if name != "path"]
    schema = pa.schema([*arrow_schema(("path", *columns)), ("content", pa.binary())])
    rows = [
        {
            "path": path,
            "label": "fuzz",
            "length": len(content),
            "content": content,
            "modification_time": datetime(2024, 1, 1, tzinfo=UTC),
        }
        for path, content in mutants
    ]
    try:
        batch = pa.RecordBatch.from_pylist(rows, schema)
        outcomes = [
            row
            for part in to_arrow(
                featurize_rows(read_rows(batch), FakePredictor(), decoding=decoding)
            )
            for row in part.to_pylist()
        ]
    except Exception as err:  # noqa: BLE001 - that there is none is what is tried here
        path = f"/{decoding.notes.number}/"  # or one of the few before it
        return [f"{path}: raised {type(err).__name__}: {err}"], {}
    paths = [path for path, _ in mutants]
    if [row["path"] for row in outcomes] != paths:
        return [f"{paths[0]}: {len(outcomes)} rows came out of {len(paths)}, or others"], {}
    failures = [f"{row['path']}: {wrong}" for row in outcomes for wrong in faults(row, decoding)]
    counts = Counter(f"{row['path'].split('/')[2]}|{_word(row)}" for row in outcomes)
    return failures, dict(counts)


def _word(row: dict[str, Any]) -> str:
    if row["reason"] is not None:
        return str(row["reason"])
    return "truncated, accepted" if row["truncated"] else "features"


def faults(row: dict[str, Any], decoding: Decoding) -> list[str]:
    """Say what is wrong with an outcome."""
    found = []
    if set(row) != set(OUTCOMES):
        found.append(f"columns {sorted(row)}")
    if (row["features"] is None) == (row["reason"] is None):
        found.append("neither features nor a reason, or both")
    elif row["features"] is None:
        if row["reason"] not in REASONS or not row["detail"]:
            found.append(f"reason {row['reason']!r}, detail {row['detail']!r}")
    else:
        if len(row["features"]) != 12 or not np.isfinite(row["features"]).all():
            found.append(f"features {row['features']}")
        if not 0 < row["width"] * row["height"] <= decoding.max_pixels:
            found.append(f"size {row['width']}x{row['height']}")
        if row["truncated"] is None or (row["truncated"] and not decoding.accept_truncated):
            found.append(f"truncated is {row['truncated']}")
    return found


def compare_apart(photo: tuple[str, bytes], decoding: Decoding) -> list[str]:
    """Decode a mutant here and apart; say where they differ."""
    path, content = photo
    options = {
        "size": 32,
        "max_pixels": decoding.max_pixels,
        "accept_truncated": decoding.accept_truncated,
    }
    here = _answer(lambda: decode_photo(content, **options))
    apart = _answer(lambda: decode_apart(content, timeout_s=TIMEOUT_S, **options))
    return [] if here == apart else [f"{path}: apart it is {apart[:3]}, here {here[:3]}"]


def compare_cut(photo: tuple[str, bytes], whole: dict[str, bytes]) -> list[str]:
    """See that a photo which was cut, and nothing else, is rejected or lacks no pixel."""
    path, content = photo
    name = " ".join(path.split("/")[2:4])
    if name == "PPM plain":
        return []  # of 200 cut to 20, its last number, nobody can tell
    cut = _answer(lambda: decode_photo(content, size=32))
    if len(cut) == 2 or cut == _answer(lambda: decode_photo(whole[name], size=32)):
        return []
    return [f"{path}: passed as whole"]


def _answer(decode: Any) -> tuple[Any, ...]:
    try:
        photo = decode()
    except DecodeError as err:
        return err.reason, err.detail
    return photo.width, photo.height, photo.truncated, photo.pixels.tobytes()


def _memory_kb(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _progress_file(worker: int) -> Path:
    return OFFENDERS / f"worker-{worker}.progress"


# ---- the run -------------------------------------------------------------------------------


@dataclass
class Run:
    """What the workers have told so far."""

    seed: int
    n: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def n_done(self) -> int:
        return sum(line["n"] for line in self.lines)

    def growth_mb(self, worker: int) -> float:
        """Mean memory of a worker in its last tenth, less that in its first."""
        held = [line["rss_kb"] for line in self.lines if line["batch"] % N_WORKERS == worker]
        tenth = max(1, len(held) // 10)
        return (float(np.mean(held[-tenth:])) - float(np.mean(held[:tenth]))) / 1024


def start(run: Run, worker: int, first_batch: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        __file__,
        "--seed",
        str(run.seed),
        "--n",
        str(run.n),
        "--worker",
        str(worker),
        "--first-batch",
        str(first_batch),
    ]
    with Path(OFFENDERS, f"worker-{worker}.log").open("a") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def drive(run: Run, worker: int) -> None:
    """Read a worker's lines; where it dies, note what it died of and start another one."""
    next_batch = worker
    while next_batch < -(-run.n // PER_BATCH):
        with start(run, worker, next_batch) as process:
            assert process.stdout is not None
            for text in process.stdout:
                line = json.loads(text)
                run.lines.append(line)
                run.failures += line["failures"]
                next_batch = line["batch"] + N_WORKERS
        if process.returncode != 0:
            number = int(_progress_file(worker).read_text() or 0)
            path, _ = mutant(run.seed, number, corpus())
            run.failures.append(f"{path}: the process ended with {process.returncode}")
            next_batch = max(next_batch, number // PER_BATCH) + N_WORKERS
        elif next_batch < -(-run.n // PER_BATCH):
            raise SystemExit(f"worker {worker} ended early; see {OFFENDERS}")


def save_offenders(run: Run) -> None:
    photos = corpus()
    for failure in run.failures:
        number = int(failure.split("/")[1])
        path, content = mutant(run.seed, number, photos)
        Path(OFFENDERS, path.strip("/").replace("/", "-")).write_bytes(content)


def check_memory(run: Run) -> None:
    for worker in range(N_WORKERS):
        growth = run.growth_mb(worker)
        if growth > GROWTH_MB:
            run.failures.append(f"/0/: worker {worker} grew by {growth:.0f} MB")
    bound_kb = min(line["peak_kb"] for line in run.lines)
    bound_kb += (BYTES_PER_PIXEL * MAX_PIXELS >> 10) + (SPARE_MB << 10)
    for line in run.lines:
        if line["peak_kb"] > bound_kb:
            where = f"/{line['batch'] * PER_BATCH}/ or one of the batch, or before"
            run.failures.append(f"{where}: {line['peak_kb']} kB are more than {bound_kb}")
            return


# ---- the report ----------------------------------------------------------------------------


def report(run: Run, took_s: float) -> str:
    counts: Counter[str] = Counter()
    for line in run.lines:
        counts.update(line["counts"])
    words = sorted({key.split("|")[1] for key in counts})
    forms = sorted({key.split("|")[0] for key in counts})
    rows = [[form, *(counts[f"{form}|{word}"] for word in words)] for form in forms]
    totals = ["all", *(sum(counts[f"{form}|{word}"] for form in forms) for word in words)]
    table = [["seed file", *words, "rows"], ["---"] * (len(words) + 2)]
    table += [[*row, sum(row[1:])] for row in [*rows, totals]]
    lines = "\n".join("| " + " | ".join(map(_number, row)) + " |" for row in table)
    result = "no failure" if not run.failures else f"{len(run.failures)} FAILURES"
    return HEAD.format(
        n=f"{run.n_done:,}",
        n_wanted=run.n,
        seed=run.seed,
        result=result,
        date=datetime.now(tz=UTC).date(),
        versions=_versions(),
        took=f"{took_s / 60:.0f}",
        n_seeds=len(corpus()),
        apart=f"{run.n_done // APART_EVERY:,}",
        table=lines,
        memory=_memory_text(run),
        slowest=_slowest_text(run),
        max_pixels=f"{MAX_PIXELS:,}",
    )


HEAD = """\
# Fuzz: broken photos through the Arrow function

`make fuzz`, which runs `PYTHONPATH=tests python tests/fuzz/fuzz.py --n {n_wanted} --seed {seed}`, on {date}: **{n} mutants, {result}**.
{versions}. {took} minutes in 2 processes.

Each of {n_seeds} whole photos, in every format and mode, is broken in one to three ways: bits turned, runs of bytes set,
dropped or repeated, cut off, zeros to the end, header bytes and length fields edited, the file's own chunks repeated,
dropped or moved, two files spliced; the checksums of most PNGs are made right again. Half of the batches accept photos
that were cut off. `max_pixels` is {max_pixels}.

Checked of every row: it comes out, in its place, with features or else with a reason and a detail; nothing raised, no
process ended, none took longer than 20 s. Those that were only cut are rejected, or have every pixel of the whole
photo. {apart} were decoded in a process of their own too, and came to the same. Mutants that have features were broken
where no pixel lies, or where a format has no checksum to tell.

{table}

{slowest}

{memory}
"""  # noqa: E501 - lines of a table and of a page


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _slowest_text(run: Run) -> str:
    slowest = max(run.lines, key=lambda line: line["slowest_s"])
    mean_ms = 1000 * sum(line["total_s"] for line in run.lines) / run.n_done
    return (
        f"Slowest photo: {slowest['slowest_s']:.2f} s (`{slowest['slowest']}`); "
        f"{mean_ms:.2f} ms on average."
    )


def _memory_text(run: Run) -> str:
    peak = max(line["peak_kb"] for line in run.lines) / 1024
    growth = ", ".join(f"{run.growth_mb(worker):+.1f}" for worker in range(N_WORKERS))
    return (
        f"Peak memory of a process: {peak:.0f} MB, imports included. Growth from its first tenth "
        f"to its last, on average: {growth} MB (at most {GROWTH_MB} allowed)."
    )


def _versions() -> str:
    libraries = ("libjpeg_turbo", "zlib", "libtiff", "webp", "avif")
    known = (f"{name} {pillow_features.version(name)}" for name in libraries)
    return f"Python {platform.python_version()}, Pillow {PIL.__version__} ({', '.join(known)})"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--n", type=int, default=100_000, help="mutants")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options.add_argument("--first-batch", type=int, default=0, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.worker is not None:
        work(args.seed, args.n, args.worker, args.first_batch)
        return 0
    return fuzz(args.seed, args.n)


def fuzz(seed: int, n: int) -> int:
    from concurrent.futures import ThreadPoolExecutor

    OFFENDERS.mkdir(parents=True, exist_ok=True)
    run, started = Run(seed, n), time.monotonic()
    with ThreadPoolExecutor(N_WORKERS) as pool:
        list(pool.map(lambda worker: drive(run, worker), range(N_WORKERS)))
    run.lines.sort(key=lambda line: line["batch"])
    if run.n_done != n:
        run.failures.append(f"/0/: {run.n_done} of {n} mutants were run")
    check_memory(run)
    save_offenders(run)
    REPORT.write_text(report(run, time.monotonic() - started))
    print("\n".join(run.failures) or f"{run.n_done} mutants, no failure: {REPORT}")
    return bool(run.failures)


if __name__ == "__main__":
    sys.exit(main())
