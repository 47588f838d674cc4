"""What the seconds of a worker go to: measured where they are spent, summed by who spent them."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

#: The parts of a worker's time: waiting for bytes, bytes to pixels, pixels to features, features
#: to files. What is left is idle: starting, waiting for a task, handing rows about.
PARTS = ("read", "decode", "model", "write")


@dataclass
class Clock:
    """Seconds of wall time of one process, by part."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count the time that an iterator takes to give its next item to a part."""
        iterator = iter(items)
        while True:
            with self.part(name):
                held = list(islice(iterator, 1))
            if not held:
                return
            yield held.pop()  # and not held here while it is used: it may be a large photo

    def reading(self) -> dict[str, Any]:
        """Return what was counted so far, and whose time it was."""
        spent = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        return {"worker": f"{platform.node()} {os.getpid()}", **spent}


def sum_by_worker(
    readings: Sequence[tuple[int, Mapping[str, Any]]], *, wall_s: float, cores: int
) -> dict[str, Any]:
    """Add up the readings of all batches.

    Parameters
    ----------
    readings : sequence of (int, mapping)
        Photos of a batch, and what :meth:`Clock.reading` said of it.
    wall_s : float
        How long the stage took.
    cores : int
        How many workers there was room for.

    Returns
    -------
    dict
        ``workers``: name, photos and seconds by part, the busiest first; ``total``: the same
        over all, with ``idle``, so that the parts add up to ``wall_s`` times the number of
        workers, or of cores where fewer workers have committed.
    """
    by_worker: dict[str, dict[str, float]] = defaultdict(
        lambda: dict.fromkeys(("photos", *PARTS), 0)
    )
    for n_photos, reading in readings:
        sums = by_worker[reading["worker"]]
        sums["photos"] += n_photos
        for name in PARTS:
            sums[name] += reading[name]
    workers = []
    for name, sums in sorted(by_worker.items(), key=lambda item: -item[1]["photos"]):
        busy = sum(sums[part] for part in PARTS)
        workers.append({"worker": name, **_rounded(sums), "idle": round(max(wall_s - busy, 0), 3)})
    total = {
        part: round(sum(sums[part] for sums in by_worker.values()), 3)
        for part in ("photos", *PARTS)
    }
    room_s = wall_s * max(cores, len(workers))
    total["idle"] = round(max(room_s - sum(total[part] for part in PARTS), 0), 3)
    return {"workers": workers, "total": total}


def _rounded(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in sums.items()}
