"""The contents of photos that may be copies, read again in the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.files.paths import is_reachable
from verger.files.reading import Unread, read_ahead
from verger.files.tables import in_tasks
from verger.similar.inspection.photos import Ints, Photos

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Photos in a piece of a task's work.
_PHOTOS_AT_ONCE = 64


def hash_contents(spark: SparkSession, photos: Photos, rows: Ints) -> list[str | None]:
    """Compute the sha256 of photos' contents.

    Parameters
    ----------
    spark : SparkSession
    photos : Photos
    rows : ndarray of shape (m,), int64

    Returns
    -------
    list of str or None
        None of a photo that cannot be read again: it is gone, has changed, or only Hadoop has it.
    """
    wanted = [(row, photos.paths[row], int(photos.lengths[row])) for row in rows.tolist()]
    work = [wanted[i : i + _PHOTOS_AT_ONCE] for i in range(0, len(wanted), _PHOTOS_AT_ONCE)]
    if not work:
        return []

    def hash_pieces(pieces: Iterator[list[tuple[int, str, int]]]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            numbers, paths, lengths = zip(*piece, strict=True)
            yield pa.RecordBatch.from_pydict(
                {"row": list(numbers), "sha256": _hash_reachable(paths, lengths)}, _HASHED
            )

    n_tasks = spark.sparkContext.defaultParallelism
    hashed = in_tasks(spark, work, hash_pieces, "row long, sha256 string", n_tasks=n_tasks)
    sums = {row.row: row.sha256 for row in hashed.collect()}
    return [sums[row] for row in rows.tolist()]


_HASHED = pa.schema([("row", pa.int64()), ("sha256", pa.string())])


def _hash_reachable(paths: tuple[str, ...], lengths: tuple[int, ...]) -> list[str | None]:
    if not is_reachable(paths[0]):
        return [None] * len(paths)
    return [
        None if isinstance(content, Unread) else hashlib.sha256(content).hexdigest()
        for content in read_ahead(paths, lengths)
    ]
