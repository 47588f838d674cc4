"""The vectors of a stored table, a few thousand at a time; which row is which, by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verger.classify.nearest import Float32s, Int32s
from verger.files.folder import Folder
from verger.files.tables import Part, read_part
from verger.files.vectors import Places, iter_vectors, parts_with_vectors
from verger.result.output import Output

#: Vectors that are read at once: 3,000 x 1280 float32 are 15 MB.
ROWS_AT_ONCE = 3_000


@dataclass(frozen=True)
class StoredRows:
    """The rows of the table ``features`` with a vector, in the order in which its files hold them.

    Attributes
    ----------
    folder : Folder
    parts : tuple of Part
        As :func:`verger.files.vectors.parts_with_vectors` returns them.
    number : ndarray of shape (n,), int32
        Of the row at each place: its rank by path.
    """

    folder: Folder
    parts: tuple[Part, ...] = field(repr=False)
    number: Int32s = field(repr=False)

    def __len__(self) -> int:
        return len(self.number)


def read_stored_rows(output: Output, columns: Sequence[str]) -> tuple[StoredRows, pa.Table]:
    """Read which rows there are.

    Parameters
    ----------
    output : Output
    columns : sequence of str
        What is wanted of each row beside its path.

    Returns
    -------
    rows : StoredRows
    table : pyarrow.Table
        ``path`` and the columns, sorted by path: row i is the one with number i. Rows without a
        vector are in neither.
    """
    there = stored_vectors(output)
    tables = [
        read_part(output.folder, part.name, ["path", *columns]).take(pa.array(places))
        for part, places in there
    ]
    table = pa.concat_tables(tables).combine_chunks()
    order = pc.sort_indices(table["path"])
    number = np.empty(len(table), np.int32)
    number[order.to_numpy()] = np.arange(len(table), dtype=np.int32)
    parts = tuple(part for part, _ in there)
    return StoredRows(output.folder, parts, number), table.take(order)


def stored_vectors(output: Output, n_vectors: int | None = None) -> list[tuple[Part, Places]]:
    """Return the files of the table ``features`` with the rows of them that have a vector.

    Parameters
    ----------
    output : Output
    n_vectors : int, optional
        How many there are, if it is known: where all rows have one, no file is opened.
    """
    parts, dimension = output.parts("features"), output.read_run().model.n_features or None
    if n_vectors == sum(part.rows for part in parts):
        return [(part, np.arange(part.rows)) for part in parts]
    return parts_with_vectors(output.folder, parts, dimension)


def iter_blocks(
    folder: Folder, parts: Sequence[Part], start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Float32s]]:
    """Read the vectors of a table, or of a stretch of it.

    Parameters
    ----------
    folder : Folder
    parts : sequence of Part
        As :func:`verger.files.vectors.parts_with_vectors` returns them.
    start, stop : int
        First place, and the one after the last.

    Yields
    ------
    place : int
        Of the first row of a block, in the stored order of the rows that have a vector.
    x : ndarray of shape (m, d), float32
    """
    first = 0
    for part in parts:
        if first + part.rows > start and (stop is None or first < stop):
            yield from _blocks_of(folder, part, first, start, stop)
        first += part.rows


def _blocks_of(
    folder: Folder, part: Part, first: int, start: int, stop: int | None
) -> Iterator[tuple[int, Float32s]]:
    for block in iter_vectors(folder, [part.name], ["features"], rows=ROWS_AT_ONCE):
        n = len(block.x)
        low = max(start - first, 0)
        high = n if stop is None else min(stop - first, n)
        if low < high:
            yield first + low, block.x[low:high]
        first += n


def cut_evenly(n: int, most: int, n_tasks: int) -> list[tuple[int, int]]:
    """Cut n rows into stretches of nearly the same length, as many for each task as for any other.

    Parameters
    ----------
    n : int
    most : int
        Rows in a stretch.
    n_tasks : int
        That run at once.
    """
    rounds = -(-n // (most * n_tasks))
    cuts = np.linspace(0, n, min(rounds * n_tasks, n) + 1).astype(int).tolist()
    return list(pairwise(cuts))
