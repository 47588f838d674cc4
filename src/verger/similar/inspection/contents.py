"""The contents of photos that may be copies, read again in the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.files.paths import is_below, is_reachable
from verger.files.reading import Unread, read_ahead
from verger.files.tables import in_tasks
from verger.similar.inspection.photos import Ints, Photos

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Photos in a piece of a task's work.
_PHOTOS_AT_ONCE = 64


def hash_contents(spark: SparkSession, photos: Photos, rows: Ints, source: str) -> list[str | None]:
    """Compute the sha256 of photos' contents.

    Parameters
    ----------
    spark : SparkSession
    photos : Photos
    rows : ndarray of shape (m,), int64
    source : str
        Photos that are not below it are not read.

    Returns
    -------
    list of str or None
        None of a photo that cannot be read again: it is gone, has changed, only Hadoop has it, or
        it is not below the source.
    """
    wanted = [(row, photos.paths[row], int(photos.lengths[row])) for row in rows.tolist()]
    work = [wanted[i : i + _PHOTOS_AT_ONCE] for i in range(0, len(wanted), _PHOTOS_AT_ONCE)]
    if not work or not is_reachable(source):
        return [None] * len(wanted)

    def hash_pieces(pieces: Iterator[list[tuple[int, str, int]]]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            numbers, paths, lengths = zip(*piece, strict=True)
            yield pa.RecordBatch.from_pydict(
                {"row": list(numbers), "sha256": _hash_below(source, paths, lengths)}, _HASHED
            )

    n_tasks = spark.sparkContext.defaultParallelism
    hashed = in_tasks(spark, work, hash_pieces, "row long, sha256 string", n_tasks=n_tasks)
    sums = {row.row: row.sha256 for row in hashed.collect()}
    return [sums[row] for row in rows.tolist()]


_HASHED = pa.schema([("row", pa.int64()), ("sha256", pa.string())])


def _hash_below(source: str, paths: tuple[str, ...], lengths: tuple[int, ...]) -> list[str | None]:
    allowed = [(path, n) for path, n in zip(paths, lengths, strict=True) if is_below(path, source)]
    contents = read_ahead([path for path, _ in allowed], [n for _, n in allowed])
    sums = {
        path: None if isinstance(content, Unread) else hashlib.sha256(content).hexdigest()
        for (path, _), content in zip(allowed, contents, strict=True)
    }
    return [sums.get(path) for path in paths]
