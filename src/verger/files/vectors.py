"""Columns of vectors as matrices: rows without a vector are left out, odd ones are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.footer import read_chunks
from verger.files.tables import ROWS_PER_FILE, Part, iter_part

Matrix = npt.NDArray[Any]
Places = npt.NDArray[np.int64]


class VectorReader:
    """Takes the vectors out of a column, chunk by chunk, and checks each of them.

    Parameters
    ----------
    where : str
        What errors call the column.
    dimension : int, optional
        Numbers in a vector; by default as many as the first one has.

    Attributes
    ----------
    n_rows, n_missing : int
        Rows so far, and those of them that have no vector.
    """

    def __init__(self, where: str, dimension: int | None = None) -> None:
        self.where, self.dimension = where, dimension
        self.n_rows = self.n_missing = 0

    def read(self, column: pa.Array, paths: pa.Array | None = None) -> tuple[Places, Matrix]:
        """Read the next rows.

        Parameters
        ----------
        column : pyarrow.Array
            Lists of numbers; null where a row has no vector.
        paths : pyarrow.Array of string, optional
            Of the rows, for errors.

        Returns
        -------
        places : ndarray of shape (m,), int64
            Which of the rows have a vector.
        x : ndarray of shape (m, dimension)
            Of the column's type.

        Raises
        ------
        SchemaError
            If vectors differ in length, or hold null, NaN or infinity.
        """
        places = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        lengths = pc.list_value_length(column).drop_null().to_numpy(zero_copy_only=False)
        if self.dimension is None and len(lengths):
            self.dimension = int(lengths[0])
        d = self.dimension or 0
        self._refuse((lengths != d) | (lengths == 0), lengths, places, paths)
        x = column.flatten().to_numpy(zero_copy_only=False).reshape(len(places), d)
        if not np.isfinite(x).all():
            self._refuse(~np.isfinite(x).all(axis=1), lengths, places, paths)
        self.n_rows += len(column)
        self.n_missing += len(column) - len(places)
        return places, x

    def _refuse(
        self, odd: npt.NDArray[np.bool_], lengths: Matrix, places: Places, paths: pa.Array | None
    ) -> None:
        if not odd.any():
            return
        place, length = int(places[odd.argmax()]), int(lengths[odd.argmax()])
        holds = f"holds null, NaN or infinity among its {length} numbers"
        if length != self.dimension or not length:
            wanted = self.dimension or "one or more"
            holds = f"has a vector of {length} numbers, which must have {wanted}"
        path = f"; path={paths[place]}" if paths is not None else ""
        raise SchemaError(f"{self.where}: row {self.n_rows + place} {holds}{path}")


def vectors_of(column: pa.Array) -> Matrix:
    """Return the vectors of an Arrow column as a matrix of shape (n, n_features).

    Raises
    ------
    SchemaError
        As :meth:`VectorReader.read` does.
    """
    return VectorReader("vectors").read(column)[1]


@dataclass(frozen=True)
class VectorRows:
    """Rows of a stored table that have a vector.

    Attributes
    ----------
    places : ndarray of shape (m,), int64
        In their file.
    rows : pyarrow.RecordBatch
        Their columns.
    x : ndarray of shape (m, d), float32
        Their vectors.
    """

    places: Places = field(repr=False)
    rows: pa.RecordBatch = field(repr=False)
    x: Matrix = field(repr=False)


def iter_vectors(
    folder: Folder,
    names: Iterable[str],
    columns: Sequence[str],
    *,
    dimension: int | None = None,
    rows: int = ROWS_PER_FILE,
) -> Iterator[VectorRows]:
    """Read the rows of stored files that have a vector, a few thousand at a time.

    Parameters
    ----------
    folder : Folder
    names : iterable of str
    columns : sequence of str
        The last one holds the vectors.
    dimension : int, optional
        As for :class:`VectorReader`.
    rows : int
        Read at once.

    Raises
    ------
    SchemaError
        If a file cannot be read, or as :meth:`VectorReader.read` does.
    """
    for name in names:
        reader = VectorReader(folder.address(name), dimension)
        for batch in iter_part(folder, name, columns, rows=rows):
            first = reader.n_rows
            paths = batch.column("path") if "path" in columns else None
            there, x = reader.read(batch.column(columns[-1]), paths)
            if len(there) < len(batch):
                batch = batch.take(pa.array(there))
            if len(there):
                yield VectorRows(first + there, batch, x)
        dimension = reader.dimension


def parts_with_vectors(
    folder: Folder, parts: Iterable[Part], dimension: int | None
) -> list[tuple[Part, Places]]:
    """Return files with the rows of them that have ``features``, counted as all they have.

    Parameters
    ----------
    folder : Folder
    parts : iterable of Part
    dimension : int or None
        As for :func:`places_of_vectors`.
    """
    there = [(part, places_of_vectors(folder, part, dimension)) for part in parts]
    return [(replace(part, rows=len(places)), places) for part, places in there]


def places_of_vectors(folder: Folder, part: Part, dimension: int | None) -> Places:
    """Return which rows of a stored file have ``features``.

    Parameters
    ----------
    folder : Folder
    part : Part
    dimension : int or None
        Numbers in a vector. A file whose footer counts as many values as its rows should have is
        not read: a row without a vector counts as one value.
    """
    if dimension and dimension > 1:
        with folder.open(part.name) as file:
            chunks = [chunk for chunk in read_chunks(file) if chunk.column[0] == "features"]
        if sum(chunk.values for chunk in chunks) == part.rows * dimension:
            return np.arange(part.rows)
    vectors = iter_vectors(folder, [part.name], ["features"], dimension=dimension)
    return np.concatenate([np.empty(0, np.int64), *(block.places for block in vectors)])
