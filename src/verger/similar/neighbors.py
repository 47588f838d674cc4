"""The nearest neighbours of every row of a table, in tasks: each takes some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from verger.classify.nearest import Cosine, Float32s, Int32s, NearestRows
from verger.files.tables import in_tasks
from verger.similar.rows import StoredRows, cut_evenly, iter_blocks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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


#: Takes vectors (m, d) and their numbers (m,); returns numbers and similarities, both (m, k).
Search = Callable[[Float32s, Int32s], tuple[Int32s, Float32s]]


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

    def search(x: Float32s, number: Int32s) -> tuple[Int32s, Float32s]:
        nearest = NearestRows(Cosine(x), k, own=number)
        for start, others in iter_blocks(folder, parts):
            nearest.add(others, shared.value[start : start + len(others)])
        return nearest.row, nearest.likeness

    return search_in_tasks(spark, rows, search)


def search_in_tasks(spark: SparkSession, rows: StoredRows, search: Search) -> Neighbors:
    """Look up every row.

    Parameters
    ----------
    spark : SparkSession
    rows : StoredRows
    search : callable
        Travels to the tasks.
    """
    shared, folder, parts = spark.sparkContext.broadcast(rows.number), rows.folder, rows.parts

    def look_up(stretches: Iterator[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
        for start, stop in stretches:
            x = np.concatenate([block.x for block in iter_blocks(folder, parts, start, stop)])
            number = shared.value[start:stop]
            row, similarity = search(x, number)
            nearest = {"number": number, "row": row, "similarity": similarity}
            yield pa.RecordBatch.from_pylist([{n: v.tobytes() for n, v in nearest.items()}])

    parallelism = spark.sparkContext.defaultParallelism
    work = cut_evenly(len(rows), LOOKED_UP_AT_ONCE, parallelism)
    blocks = in_tasks(
        spark, work, look_up, "number binary, row binary, similarity binary"
    ).collect()
    number = np.concatenate([np.frombuffer(block.number, np.int32) for block in blocks])
    k = len(blocks[0].row) // len(blocks[0].number)
    row, similarity = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    row[number] = np.concatenate([np.frombuffer(block.row, np.int32) for block in blocks]).reshape(
        -1, k
    )
    similarity[number] = np.concatenate(
        [np.frombuffer(block.similarity, np.float32) for block in blocks]
    ).reshape(-1, k)
    return Neighbors(row, similarity)
