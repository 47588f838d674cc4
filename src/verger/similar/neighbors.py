"""The nearest neighbours of every row of a table, in tasks: each takes some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from verger.classify.nearest import Cosine, Float32s, Int32s, NearestRows
from verger.engine.tasks import Engine, run_pieces
from verger.similar.rows import StoredRows, cut_evenly, iter_blocks

#: Rows that a task looks up at once: 4,096 x 1280 float32 are 21 MB.
LOOKED_UP_AT_ONCE = 4_096


@dataclass(frozen=True)
class Neighbors:
    """The rows of a table that are most like each of its rows.

    Attributes
    ----------
    row : ndarray of shape (n, k), int32
        Rows are numbered in the order of their paths. By falling similarity, then by path; -1
        where an approximate search has found fewer.
    similarity : ndarray of shape (n, k), float32
        Cosine of the features, at most 1; -1 where there is no row.
    """

    row: Int32s = field(repr=False)
    similarity: Float32s = field(repr=False)


class Search(Protocol):
    """A way to look up rows, which travels to the tasks."""

    @property
    def rows(self) -> StoredRows:
        """The rows of the table."""

    def __call__(self, x: Float32s, number: Int32s) -> tuple[Int32s, Float32s]:
        """Take vectors (m, d) and their numbers (m,); return numbers and similarities, (m, k)."""


@dataclass(frozen=True)
class ExactSearch:
    """Compare rows with every other row of the table."""

    rows: StoredRows
    k: int

    def __call__(self, x: Float32s, number: Int32s) -> tuple[Int32s, Float32s]:
        """Look up rows, exactly."""
        nearest = NearestRows(Cosine(x), self.k, own=number)
        for start, others in iter_blocks(self.rows.folder, self.rows.parts):
            nearest.add(others, self.rows.number[start : start + len(others)])
        return nearest.row, nearest.likeness


def find_neighbors(engine: Engine, rows: StoredRows, k: int) -> Neighbors:
    """Find the k nearest neighbours of every row, exactly.

    Parameters
    ----------
    engine : Engine
    rows : StoredRows
        At least two.
    k : int
        At least 1; a table of n rows gives at most n - 1.

    Returns
    -------
    Neighbors
        The same however the rows are cut into tasks.
    """
    return search_in_tasks(engine, ExactSearch(rows, min(k, len(rows) - 1)))


def search_in_tasks(engine: Engine, search: Search) -> Neighbors:
    """Look up every row of a table."""
    n = len(search.rows)
    work = cut_evenly(n, LOOKED_UP_AT_ONCE, engine.n_cores)
    blocks = run_pieces(engine, _look_up, work, search)
    k = blocks[0][1].shape[1]
    row, similarity = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for number, nearest, likeness in blocks:
        row[number], similarity[number] = nearest, likeness
    return Neighbors(row, similarity)


def _look_up(
    stretches: Iterator[tuple[int, int]], search: Search
) -> Iterator[tuple[Int32s, Int32s, Float32s]]:
    folder, parts = search.rows.folder, search.rows.parts
    for start, stop in stretches:
        x = np.concatenate([x for _, x in iter_blocks(folder, parts, start, stop)])
        number = search.rows.number[start:stop]
        yield number, *search(x, number)
