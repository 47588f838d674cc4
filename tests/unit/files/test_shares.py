"""Every photo is in exactly one share, and a task reads its own in the order of the listing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.shares import TASKS_PER_FILE, Shares
from verger.schema import IMAGES, arrow_schema


def listing(n: int, n_tasks: int, seed: int = 0) -> pa.Table:
    rows = {
        "path": [f"/photos/é {i:06}.jpg" for i in range(n)],
        "modification_time": pa.array(range(n), pa.timestamp("us", tz="UTC")),
        "length": list(range(n)),
        "label": [None if i % 7 == 0 else f"class {i % 5}" for i in range(n)],
    }
    photos = pa.table(rows).cast(arrow_schema(IMAGES))
    tasks = np.random.default_rng(seed).integers(0, n_tasks, n)
    return photos.append_column("partition", pa.array(tasks))


@pytest.mark.parametrize("n_tasks", [1, 2, TASKS_PER_FILE, TASKS_PER_FILE + 1, 200])
def test_shares_are_a_partition_of_the_listing(tmp_path: Path, n_tasks: int) -> None:
    """What all tasks read together is the listing, each photo where it was put, in order."""
    photos = listing(997, n_tasks)
    folder = Folder(str(tmp_path))
    shares = Shares.write(folder, "shares", photos, n_tasks)
    assert len(folder.files("shares")) == -(-n_tasks // TASKS_PER_FILE)
    tasks = photos["partition"].to_numpy()
    for task in range(n_tasks):
        expected = photos.filter(pa.array(tasks == task)).drop_columns(["partition"])
        assert shares.read(task).equals(expected)


def test_a_task_may_have_nothing_to_do(tmp_path: Path) -> None:
    """More tasks than photos: those without any read an empty share."""
    photos = listing(3, 2)
    shares = Shares.write(Folder(str(tmp_path)), "shares", photos, 150)
    assert sum(len(shares.read(task)) for task in range(150)) == 3
    assert list(shares.batches(149, 10)) == []


def test_batches_are_small_and_whole(tmp_path: Path) -> None:
    photos = listing(100, 1)
    shares = Shares.write(Folder(str(tmp_path)), "shares", photos, 1)
    batches = list(shares.batches(0, 32))
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    assert pa.Table.from_batches(batches).equals(photos.drop_columns(["partition"]))


def test_two_attempts_never_meet_each_others_shares(tmp_path: Path) -> None:
    """A worker lives longer than an attempt, and remembers what it read last."""
    folder = Folder(str(tmp_path))
    first, second = listing(10, 1), listing(20, 1, seed=1)
    one, other = (Shares.write(folder, name, p, 1) for name, p in (("a", first), ("b", second)))
    assert [len(one.read(0)), len(other.read(0)), len(one.read(0))] == [10, 20, 10]


def test_a_share_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    shares = Shares.write(Folder(str(tmp_path)), "shares", listing(10, 1), 1)
    (tmp_path / "shares" / "000000.parquet").unlink()
    with pytest.raises(SchemaError, match="cannot be read"):
        shares.read(0)
