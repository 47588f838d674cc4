"""Which photos are to do, and which rows make a result: on every way that a source may change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verger.errors import SchemaError, ValidationError
from verger.files.folder import Folder
from verger.files.tables import join_pieces, read_part, stored_schema, write_part
from verger.result.journal import Rejection
from verger.result.ledger import Ledger, RowsFile, compare, compose, read_ledger
from verger.schema import FEATURES, IMAGES, REJECTED, Reason, arrow_schema

THEN = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def photo(path: str, **changes: Any) -> dict[str, Any]:
    return {"path": path, "modification_time": THEN, "length": 10, "label": "a"} | changes


def listing(*photos: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(photos), arrow_schema(IMAGES))


class Store:
    """Files of rows in a folder, the older before the younger."""

    def __init__(self, folder: Path) -> None:
        self.folder = Folder(str(folder))
        self.files: list[RowsFile] = []

    def add(self, *rows: dict[str, Any], published: bool = False) -> Store:
        """Write one file; rows with a reason are rejected ones, and never mixed with others."""
        table = "rejected" if "reason" in rows[0] else "features"
        columns = REJECTED if table == "rejected" else FEATURES
        filled = [
            {"features": [1.0, 2.0], "width": 1, "height": 1, "truncated": False, "detail": "x"}
            | row
            for row in rows
        ]
        names = arrow_schema(columns).names
        content = pa.Table.from_pylist(
            [{name: row.get(name) for name in names} for row in filled], arrow_schema(columns)
        )
        name = f"{table}/{len(self.files)}.parquet"
        part = write_part(self.folder, name, content, stored_schema(columns, "f00d"))
        self.files.append(RowsFile(table, part, published))
        return self

    def known(self) -> Ledger:
        return read_ledger(self.folder, self.files)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def todo(photos: pa.Table, ledger: Ledger, *, accept_truncated: bool = False) -> list[str]:
    work = compare(photos, ledger, accept_truncated=accept_truncated)
    assert work.new + work.changed + work.retried == len(work.todo)
    return work.todo["path"].to_pylist()


# What is to do


def test_with_nothing_known_all_is_to_do(store: Store) -> None:
    """A first run does every photo, in the order of the listing."""
    photos = listing(photo("b"), photo("a"))
    assert todo(photos, store.known()) == ["b", "a"]


def test_a_known_photo_is_not_done_again(store: Store) -> None:
    """Photos with features and photos that can have none are both done; only new ones are left."""
    store.add(photo("a")).add(photo("b", reason="truncated"))
    work = compare(
        listing(photo("a"), photo("b"), photo("c")), store.known(), accept_truncated=False
    )
    assert work.todo["path"].to_pylist() == ["c"]
    assert (work.new, work.changed, work.retried) == (1, 0, 0)
    assert work.rejected == [Rejection(path="b", reason="truncated")]


@pytest.mark.parametrize(
    "change", [{"length": 11}, {"modification_time": THEN + timedelta(milliseconds=1)}]
)
def test_a_changed_photo_is_done_again(store: Store, change: dict[str, Any]) -> None:
    """Another size or time makes a photo a new one."""
    store.add(photo("a"))
    work = compare(listing(photo("a", **change)), store.known(), accept_truncated=False)
    assert (len(work.todo), work.changed) == (1, 1)


def test_another_label_is_a_change_of_a_column(store: Store) -> None:
    """No photo is computed again; files with other labels alone are written again."""
    store.add(photo("a"), photo("b"), photo("c", label=None), published=True)
    store.add(photo("d"), published=True)
    store.add(photo("e"), photo("gone"))
    photos = listing(
        *(photo("a", label="x"), photo("b", label=None), photo("c", label="y")),
        *(photo("d"), photo("e", label="z")),
    )
    work = compare(photos, store.known(), accept_truncated=False)
    assert (len(work.todo), work.relabelled) == (0, 4)
    found = compose(photos, store.known(), prune=False)
    assert (found.counts.relabelled, found.labels) == (4, {"a": 2, "x": 1, "y": 1, "z": 1})
    assert (len(found.kept["features"]), len(found.removed)) == (1, 1)
    schema = stored_schema(FEATURES, "f00d")
    part = join_pieces(store.folder, found.pieces["features"], "new.parquet", schema)
    rows = read_part(store.folder, part.name).select(["path", "label"]).to_pylist()
    assert {row["path"]: row["label"] for row in rows} == {
        "a": "x",
        "b": None,
        "c": "y",
        "e": "z",
        "gone": "a",
    }


def test_a_time_that_was_stored_as_it_is_is_no_change(store: Store) -> None:
    """A result of before times were brought into their range needs no photo again."""
    store.add(photo("a", modification_time=datetime(9000, 1, 1, tzinfo=UTC)))
    nearest = datetime(2261, 12, 31, 23, 59, 59, 999_000, UTC)
    assert todo(listing(photo("a", modification_time=nearest)), store.known()) == []


def test_no_label_is_the_same_as_no_label(store: Store) -> None:
    """A photo without a label is not a changed one."""
    store.add(photo("a", label=None))
    assert todo(listing(photo("a", label=None)), store.known()) == []


def test_what_is_finer_than_a_millisecond_is_no_change(store: Store) -> None:
    """Readers differ below the millisecond, which is what tables keep."""
    store.add(photo("a"))
    later = photo("a", modification_time=THEN + timedelta(microseconds=999))
    assert todo(listing(later), store.known()) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_what_may_pass_is_tried_again(store: Store, reason: Reason) -> None:
    """A photo that could not be read may be there now; one that is no image will not be."""
    store.add(photo("a", reason=reason.value))
    passing = {"vanished before reading", "permission denied", "read error", "decode time-out"}
    assert todo(listing(photo("a")), store.known()) == (["a"] if reason in passing else [])


def test_a_link_to_nowhere_is_tried_again_once_it_leads_somewhere(store: Store) -> None:
    """Such a photo is listed without a length and a time: to read it again is no use."""
    nowhere = photo("a", length=0, modification_time=datetime(1970, 1, 1, tzinfo=UTC))
    store.add(nowhere | {"reason": "vanished before reading"}, published=True)
    assert todo(listing(nowhere), store.known()) == []
    assert todo(listing(photo("a", length=0)), store.known()) == ["a"]


def test_a_photo_that_is_rejected_again_as_before_changes_nothing(store: Store) -> None:
    """No file of the result is written again, and the PCA is that of the same features."""
    closed = photo("a", reason="permission denied", label=None)
    store.add(photo("b"), published=True).add(closed, published=True).add(closed).add(closed)
    photos = listing(photo("a", label=None), photo("b"))
    assert not compose(photos, store.known(), prune=False).changes
    store.add(closed | {"reason": "read error"})
    assert compose(photos, store.known(), prune=False).removed == ["rejected/1.parquet"]


def test_accepting_truncated_photos_tries_them_again_and_no_others(store: Store) -> None:
    """--accept-truncated redoes the photos that were cut off; without it they leave again."""
    store.add(photo("cut", reason="truncated"), photo("empty", reason="empty"))
    store.add(photo("marked", truncated=True), photo("whole"))
    photos = listing(*map(photo, ("cut", "empty", "marked", "whole")))
    assert todo(photos, store.known(), accept_truncated=True) == ["cut"]
    assert todo(photos, store.known(), accept_truncated=False) == ["marked"]


def test_photos_that_disappeared_are_named(store: Store) -> None:
    """Rows without a photo are told, whichever table they are in."""
    store.add(photo("a"), photo("gone")).add(photo("lost", reason="empty"))
    work = compare(listing(photo("a")), store.known(), accept_truncated=False)
    assert sorted(work.gone) == ["gone", "lost"]


def test_a_label_in_another_form_of_unicode_is_no_change(store: Store) -> None:
    """A result of before labels were brought to NFC needs no photo again, but other labels."""
    store.add(photo("a", label="Pe\u0302che"), published=True)
    store.add(photo("gone", label="Pe\u0302che", reason="empty"), published=True)
    store.add(photo("b", label="P\xeache"), published=True)
    photos = listing(photo("a", label="P\xeache"), photo("b", label="P\xeache"))
    assert todo(photos, store.known()) == []
    found = compose(photos, store.known(), prune=False)
    assert found.labels == {"P\xeache": 3}
    assert found.removed == ["features/0.parquet", "rejected/1.parquet"]
    for table, columns in (("features", FEATURES), ("rejected", REJECTED)):
        schema = stored_schema(columns, "f00d")
        part = join_pieces(store.folder, found.pieces[table], f"new/{table}", schema)
        assert read_part(store.folder, part.name)["label"].to_pylist() == ["P\xeache"]


# What makes the result


def rows_of(store: Store, photos: pa.Table, *, prune: bool = False) -> dict[str, str]:
    """Compose and write the result; return path to table, proving that no path is there twice."""
    found = compose(photos, store.known(), prune=prune)
    rows: list[tuple[str, str]] = []
    for table, columns in (("features", FEATURES), ("rejected", REJECTED)):
        part = join_pieces(
            store.folder, found.pieces[table], f"new/{table}", stored_schema(columns, "f00d")
        )
        names = [part.name, *(kept.name for kept in found.kept[table])]
        rows += [(p, table) for n in names for p in read_part(store.folder, n)["path"].to_pylist()]
    assert len(rows) == len(dict(rows))
    counts = found.counts
    assert counts.featurized == sum(table == "features" for _, table in rows)
    assert counts.rejected == sum(counts.reasons.values()) == len(rows) - counts.featurized
    assert counts.listed + counts.gone == len(rows)
    return dict(rows)


def test_the_younger_row_counts(store: Store) -> None:
    """A photo that was rejected and is read now has one row, and it is the one with features."""
    store.add(photo("a", reason="read error"), photo("b", reason="empty"), published=True)
    store.add(photo("a"))
    photos = listing(photo("a"), photo("b"))
    assert rows_of(store, photos) == {"a": "features", "b": "rejected"}


def test_a_file_without_a_change_is_not_written_again(store: Store) -> None:
    """New photos leave published files as they are; a changed one rewrites only its own file."""
    store.add(photo("a"), published=True).add(photo("b"), published=True).add(photo("c"))
    photos = listing(*map(photo, "abc"))
    found = compose(photos, store.known(), prune=False)
    assert [part.name for part in found.kept["features"]] == [s.part.name for s in store.files[:2]]
    assert found.removed == []
    store.add(photo("b", length=11))
    found = compose(photos, store.known(), prune=False)
    assert found.removed == ["features/1.parquet"]
    assert [part.name for part in found.kept["features"]] == ["features/0.parquet"]


def test_rows_of_photos_that_disappeared_stay_unless_pruned(store: Store) -> None:
    """Nothing is lost by deleting photos; --prune lets their rows leave."""
    store.add(photo("a"), photo("gone"), published=True)
    store.add(photo("lost", reason="empty"), published=True)
    photos = listing(photo("a"))
    assert not compose(photos, store.known(), prune=False).changes
    assert set(rows_of(store, photos)) == {"a", "gone", "lost"}
    assert set(rows_of(store, photos, prune=True)) == {"a"}


def test_a_lost_row_is_found_before_anything_is_replaced(store: Store) -> None:
    """A listed photo without a row stops the run."""
    store.add(photo("a"))
    with pytest.raises(ValidationError, match="listed=2 photos, but 1 of them have a row"):
        compose(listing(photo("a"), photo("b")), store.known(), prune=False)


def test_a_damaged_batch_is_named(store: Store) -> None:
    """A file that cannot be read stops the run with its name."""
    store.add(photo("a"))
    Path(store.folder.address("features/0.parquet")).write_bytes(b"PAR1")
    with pytest.raises(SchemaError, match=r"features/0\.parquet: cannot be read"):
        store.known()


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["features", "empty", "read error"]),
        st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True),
        st.booleans(),
    ),
    max_size=6,
)


@given(steps=_STEPS, listed=st.sets(st.integers(0, 6), min_size=1), prune=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_photo_has_one_row_whatever_happened_before(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, list[int], bool]],
    listed: set[int],
    prune: bool,
) -> None:
    """After any history of files, the result has the youngest row of every photo, and no other."""
    store = Store(tmp_path_factory.mktemp("store"))
    youngest: dict[str, str] = {}
    for table, numbers, _ in sorted(steps, key=lambda step: not step[2]):
        reason = {} if table == "features" else {"reason": table}
        store.add(*(photo(str(n), **reason) for n in numbers), published=False)
        youngest |= {str(n): "features" if table == "features" else "rejected" for n in numbers}
    missing = {str(n) for n in listed} - set(youngest)
    photos = listing(*(photo(str(n)) for n in sorted(listed)))
    if missing:
        assert set(todo(photos, store.known())) >= missing
        store.add(*(photo(path) for path in sorted(missing)))
        youngest |= dict.fromkeys(missing, "features")
    expected = {p: t for p, t in youngest.items() if not prune or int(p) in listed}
    assert rows_of(store, photos, prune=prune) == expected


def test_vectors_survive_joining(store: Store) -> None:
    """Joined rows have the very floats that were written, and the footer names the contract."""
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    store.add(*(photo(str(i), features=vectors[i].tolist()) for i in range(2)))
    store.add(*(photo(str(i), features=vectors[i].tolist()) for i in range(2, 4)))
    found = compose(listing(*(photo(str(i)) for i in range(4))), store.known(), prune=False)
    join_pieces(store.folder, found.pieces["features"], "x", stored_schema(FEATURES, "f00d"))
    joined = read_part(store.folder, "x")
    np.testing.assert_array_equal(np.array(joined["features"].to_pylist(), np.float32), vectors)
    assert joined.schema.metadata[b"verger.contract"] == b"f00d"
