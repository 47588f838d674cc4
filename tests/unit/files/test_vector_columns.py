"""Columns of vectors: what has none is left out, what is odd is refused with its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.tables import part_of
from verger.files.vectors import VectorReader, iter_vectors, parts_with_vectors, vectors_of

KINDS = [
    pa.list_(pa.float32()),
    pa.list_(pa.float64()),
    pa.large_list(pa.float32()),
    pa.list_(pa.float32(), 2),
    pa.list_(pa.int64()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_without_a_vector_are_left_out_and_counted(kind: pa.DataType) -> None:
    """Whatever the type of the list is, and wherever its slice begins."""
    column = pa.array([[9, 9], None, [1, 2], None, [3, 4]], kind)[1:]
    reader = VectorReader("t")
    places, x = reader.read(column)
    assert places.tolist() == [1, 3]
    np.testing.assert_array_equal(x, [[1, 2], [3, 4]])
    assert (reader.n_rows, reader.n_missing) == (4, 2)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1, 2], None, [1, 2, 3]], r"t: row 2 has a vector of 3 numbers, which must have 2"),
        ([None, [1, 2, 3, 4], [1, 2]], r"t: row 2 has a vector of 2 numbers, which must have 4"),
        ([[1, 2], [3, None]], r"t: row 1 holds null, NaN or infinity among its 2 numbers"),
        ([[1, 2], None, [np.nan, 1]], r"t: row 2 holds null, NaN or infinity"),
        ([[1, 2], [3, np.inf]], r"t: row 1 holds null, NaN or infinity"),
        ([[]], r"t: row 0 has a vector of 0 numbers, which must have one or more"),
    ],
)
def test_odd_vectors_are_refused_with_their_row_and_length(rows: list[object], says: str) -> None:
    """Numbers of other rows never slide into the place of those that are missing."""
    column = pa.array(rows, pa.list_(pa.float32()))
    with pytest.raises(SchemaError, match=says):
        VectorReader("t").read(column)


def test_rows_are_numbered_and_lengths_compared_over_all_chunks() -> None:
    """A column comes in chunks: the second one is held to the first."""
    reader = VectorReader("t")
    reader.read(pa.array([None], pa.list_(pa.float32())))
    reader.read(pa.array([[1.0, 2.0]]))
    with pytest.raises(SchemaError, match="row 3 has a vector of 1 numbers, which must have 2"):
        reader.read(pa.array([[3.0, 4.0], [1.0]]))


def test_no_row_is_no_vector() -> None:
    """An empty column, and one of nulls alone, have no vector, whatever the dimension."""
    kind = pa.list_(pa.float32())
    assert vectors_of(pa.array([], kind)).shape == (0, 0)
    assert VectorReader("t", 3).read(pa.array([None, None], kind))[1].shape == (0, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a folder of a file with all vectors, one with half of them, and one with none."""
    kind = pa.list_(pa.float32())
    stored = {
        "a": [[1, 2], [3, 4]],
        "b": [None, [5, 6], None, [7, 8]],
        "c": [None],
        "d": [[9, 9, 9]],
    }
    for name, rows in stored.items():
        paths = [f"{name}{i}" for i in range(len(rows))]
        table = pa.table({"path": paths, "features": pa.array(rows, kind)})
        pq.write_table(table, tmp_path / name)
    return Folder(str(tmp_path))


def test_stored_rows_come_with_their_vectors_and_their_places(folder: Folder) -> None:
    found = list(iter_vectors(folder, ["a", "b", "c"], ["path", "features"]))
    assert [rows.rows["path"].to_pylist() for rows in found] == [["a0", "a1"], ["b1", "b3"]]
    assert [rows.places.tolist() for rows in found] == [[0, 1], [1, 3]]
    np.testing.assert_array_equal(found[1].x, [[5, 6], [7, 8]])


def test_files_of_one_table_have_vectors_of_one_length(folder: Folder) -> None:
    """The file is named, and so is the row in it."""
    with pytest.raises(SchemaError, match=r"/d: row 0 has a vector of 3 .*must have 2; path=d0"):
        list(iter_vectors(folder, ["a", "d"], ["path", "features"]))
    with pytest.raises(SchemaError, match=r"/a: row 0 has a vector of 2 numbers.*must have 7"):
        list(iter_vectors(folder, ["a"], ["features"], dimension=7))


@pytest.mark.parametrize("dimension", [2, None])
def test_files_know_their_rows_with_vectors(folder: Folder, dimension: int | None) -> None:
    """By the footer where it tells, by the vectors where it does not."""
    parts = [part_of(name, n, b"") for name, n in (("a", 2), ("b", 4), ("c", 1))]
    found = parts_with_vectors(folder, parts, dimension)
    assert [places.tolist() for _, places in found] == [[0, 1], [1, 3], []]
    assert [part.rows for part, _ in found] == [2, 2, 0]
