"""The seconds of workers: counted where they are spent, and all of them accounted for."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from verger.result.clock import PARTS, Clock, Reading, TimeSpent, sum_by_worker


class Hands:
    """The time of these tests, which passes only when it is told to."""

    now_s = 100.0

    def read(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(time, "perf_counter", hands.read)
    return hands


def slowly(n: int, hands: Hands) -> Iterator[int]:
    for i in range(n):
        hands.move(1)
        yield i


def test_a_block_and_an_iterator_are_counted_where_they_belong(hands: Hands) -> None:
    """Only the time until the next item is the iterator's, not what is done with it."""
    clock = Clock()
    for _ in clock.waiting("read", slowly(3, hands)):
        with clock.part("decode"):
            hands.move(5)
        hands.move(20)
    assert clock.seconds == {"read": 3, "decode": 15, "model": 0, "write": 0}


def test_time_counts_though_the_block_fails(hands: Hands) -> None:
    """A photo that cannot be decoded has cost its time too."""
    clock = Clock()
    with suppress(ValueError), clock.part("decode"):
        hands.move(1)
        raise ValueError
    assert clock.seconds["decode"] == 1


def test_an_item_is_not_held_while_it_is_used() -> None:
    """The bytes of a large photo go when their user lets them go."""

    class Photo:
        pass

    items = Clock().waiting("read", (Photo() for _ in range(2)))
    photo = next(items)
    seen = weakref.ref(photo)
    del photo
    gc.collect()
    assert seen() is None


def test_parts_and_idle_time_add_up_to_the_room_there_was() -> None:
    """Two workers in ten seconds have twenty, however they spend them."""
    busy = dict.fromkeys(PARTS, 1.0)
    batches = ((5, "a 1"), (7, "b 1"), (5, "a 1"))
    readings = [(photos, Reading(worker=worker, **busy)) for photos, worker in batches]
    spent = sum_by_worker(readings, wall_s=10, cores=2)
    assert [(row.worker, row.photos, row.idle) for row in spent.workers] == [
        ("a 1", 10, 2),
        ("b 1", 7, 6),
    ]
    assert spent.total == TimeSpent(photos=17, **dict.fromkeys(PARTS, 3), idle=8)


def test_cores_that_committed_nothing_were_idle() -> None:
    """A worker that never came is seen in the sum."""
    spent = sum_by_worker([(1, Clock().reading())], wall_s=3, cores=4)
    assert spent.total.idle == 12
