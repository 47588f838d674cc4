"""Every row against every other: exact, in Spark's tasks, in blocks of bounded size.

A task holds some rows and reads the whole table past them. One product of matrices in float32
says which rows may be among the nearest; the similarity of those alone is computed again, row by
row, so that it does not depend on how the rows were cut into blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verger.similar.rows import Numbers, StoredRows, Vectors, iter_blocks, unit
from verger.similar.tasks import Neighbors, Similarities, search_in_tasks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Indices = npt.NDArray[np.intp]

# Pairs whose similarity is computed again at once: 2,000 x 1280 float32, three times, are 31 MB.
_PAIRS_AT_ONCE = 2_000


class NearestRows:
    """The k rows most like each of some rows, among all that were shown.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
    number : ndarray of shape (n,), int32
        Of these rows; a row is no neighbour of itself.
    k : int

    Attributes
    ----------
    row : ndarray of shape (n, k), int32
        Numbers by falling similarity, then rising; -1 where fewer were shown.
    similarity : ndarray of shape (n, k), float32
        -1 where fewer were shown.
    """

    def __init__(self, x: Vectors, number: Numbers, k: int) -> None:
        self._x, self._number, self._k = x, number, k
        self._unit, self._norm = unit(x), _norms(x)
        self.row = np.full((len(x), k), -1, np.int32)
        self.similarity = np.full((len(x), k), -1, np.float32)
        # What two cosines may be wrong by together, of d terms in float32: each by d units of
        # roundoff, half an eps (Higham 2002, section 3.1), and by a few of scaling to length 1.
        self._margin = (x.shape[1] + 4) * np.finfo(np.float32).eps

    def add(self, x: Vectors, number: Numbers) -> None:
        """Show rows.

        Parameters
        ----------
        x : ndarray of shape (m, d), float32
        number : ndarray of shape (m,), int32
        """
        cosine = self._unit @ unit(x).T  # (n, m)
        cosine[self._number[:, None] == number] = -np.inf
        last = self.similarity[:, -1]
        if self._k <= len(x) and (last <= -1).any():  # the first block would all be looked at
            last = np.maximum(last, np.partition(cosine, -self._k, axis=1)[:, -self._k])
        i, j = np.nonzero(cosine >= (last - self._margin)[:, None])
        self._keep_best(i, number[j], self._similarity(i, x, j))

    def _similarity(self, i: Indices, x: Vectors, j: Indices) -> Similarities:
        """Compute the cosines of pairs of rows, each by itself."""
        norm, found = _norms(x), np.empty(len(i), np.float32)
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            products = self._x[i[some]] * x[j[some]]
            found[some] = products.sum(axis=1, dtype=np.float64) / (
                self._norm[i[some]] * norm[j[some]]
            )
        return np.minimum(found, np.float32(1))

    def _keep_best(self, i: Indices, number: Numbers, similarity: Similarities) -> None:
        changed = np.unique(i)
        who = np.concatenate([np.repeat(changed, self._k), i])
        row = np.concatenate([self.row[changed].ravel(), number])
        value = np.concatenate([self.similarity[changed].ravel(), similarity])
        # What was not there yet is less like any row than a row of cosine -1.
        order = np.lexsort((row, row < 0, -value, who))
        first = np.searchsorted(who[order], changed)
        best = order[first[:, None] + np.arange(self._k)]
        self.row[changed], self.similarity[changed] = row[best], value[best]


def _norms(x: Vectors) -> npt.NDArray[np.float64]:
    """Return the length of each vector; 1 for one of zeros."""
    norms = np.sqrt((x * x).sum(axis=1, dtype=np.float64))
    return np.where(norms > 0, norms, 1.0)


def find_neighbors(spark: SparkSession, rows: StoredRows, k: int) -> Neighbors:
    """Find the k nearest neighbours of every row, exactly.

    Parameters
    ----------
    spark : SparkSession
    rows : StoredRows
        At least two.
    k : int
        At least 1; a table of n rows gives at most n - 1.

    Returns
    -------
    Neighbors
        The same however the rows are cut into tasks.
    """
    shared = spark.sparkContext.broadcast(rows.number)
    folder, parts, k = rows.folder, rows.parts, min(k, len(rows) - 1)

    def search(x: Vectors, number: Numbers) -> tuple[Numbers, Similarities]:
        found = NearestRows(x, number, k)
        for start, others in iter_blocks(folder, parts):
            found.add(others, shared.value[start : start + len(others)])
        return found.row, found.similarity

    return search_in_tasks(spark, rows, search)
