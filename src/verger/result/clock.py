"""What the seconds of a worker go to: measured where they are spent, summed by who spent them."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from verger.files.records import OMIT_NONE

T = TypeVar("T")

#: The parts of a worker's time: waiting for bytes, bytes to pixels and
#: their quality, pixels to features, features
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

    def reading(self) -> Reading:
        """Return what was counted so far, and whose time it was."""
        spent = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        return Reading(worker=f"{platform.node()} {os.getpid()}", **spent)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a clock has counted: a worker's name, and seconds by part."""

    worker: str
    read: float
    decode: float
    model: float
    write: float


@dataclass(frozen=True, kw_only=True)
class TimeSpent:
    """Photos, and the seconds that they took, of one worker or (``worker`` None) of all."""

    worker: str | None = field(default=None, metadata=OMIT_NONE)
    photos: int
    read: float
    decode: float
    model: float
    write: float
    idle: float

    @property
    def shares(self) -> dict[str, float]:
        """Each part of the time as a share of the whole."""
        parts = {part: float(getattr(self, part)) for part in (*PARTS, "idle")}
        whole = sum(parts.values()) or 1
        return {part: seconds / whole for part, seconds in parts.items()}


@dataclass(frozen=True)
class Spent:
    """What the time of a stage's workers went to.

    Attributes
    ----------
    workers : tuple of TimeSpent
        The busiest first.
    total : TimeSpent
        Over all workers.
    """

    workers: tuple[TimeSpent, ...]
    total: TimeSpent


def sum_by_worker(readings: Sequence[tuple[int, Reading]], *, wall_s: float, cores: int) -> Spent:
    """Add up the readings of all batches.

    Parameters
    ----------
    readings : sequence of (int, Reading)
        Photos of a batch, and what the clock of its worker said when it was written.
    wall_s : float
        How long the stage took.
    cores : int
        How many workers there was room for.

    Returns
    -------
    Spent
        With the time that was idle, so that the parts add up to ``wall_s`` times the number of
        workers, or of cores where fewer workers have committed.
    """
    by_worker: dict[str, list[tuple[int, Reading]]] = defaultdict(list)
    for pair in readings:
        by_worker[pair[1].worker].append(pair)
    rows = [_sum(pairs, room_s=wall_s, worker=name) for name, pairs in sorted(by_worker.items())]
    workers = tuple(sorted(rows, key=lambda row: -row.photos))
    return Spent(workers, _sum(readings, room_s=wall_s * max(cores, len(workers))))


def _sum(
    readings: Sequence[tuple[int, Reading]], *, room_s: float, worker: str | None = None
) -> TimeSpent:
    """Add up photos and seconds; what is left of the room is idle."""
    seconds = {part: sum(getattr(reading, part) for _, reading in readings) for part in PARTS}
    return TimeSpent(
        worker=worker,
        photos=sum(n for n, _ in readings),
        **{part: round(value, 3) for part, value in seconds.items()},
        idle=round(max(room_s - sum(seconds.values()), 0), 3),
    )
