"""Each class's outliers: how far its photos are from it, by how far they usually are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.nearest import unit
from verger.files.tables import in_tasks
from verger.similar.inspection.photos import Ints, Photos
from verger.similar.rows import cut_evenly, iter_blocks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Floats = npt.NDArray[np.float64]

#: Modified z-score above which a value is called an outlier (Iglewicz and Hoaglin 1993).
OUTLYING = 3.5
#: Photos that a class needs for its median deviation to mean something.
SMALLEST_CLASS = 8

# Rows that are read at once in a task; their vectors are not kept.
_STRETCH = 100_000


def measure_distances(spark: SparkSession, photos: Photos) -> Floats:
    """Measure how far each photo is from the mean of its class.

    Parameters
    ----------
    spark : SparkSession
    photos : Photos
        Some with a label.

    Returns
    -------
    ndarray of shape (n,), float64
        1 - cosine to the mean of the class' vectors of length 1; NaN without a label.
    """
    means = _class_means(spark, photos)
    shared = spark.sparkContext.broadcast((photos.rows.number, photos.targets, means))
    folder, parts = photos.rows.folder, photos.rows.parts

    def measure(stretches: Iterator[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
        numbers, targets, means = shared.value
        for start, stop in stretches:
            for first, x in iter_blocks(folder, parts, start, stop):
                number = numbers[first : first + len(x)]
                cosine = (unit(x) * means[targets[number]]).sum(axis=1, dtype=np.float64)
                measured = {"number": number, "distance": 1 - cosine}
                yield pa.RecordBatch.from_pylist([{n: v.tobytes() for n, v in measured.items()}])

    distance = np.full(len(photos), np.nan)
    work = _work(spark, photos)
    for row in in_tasks(spark, work, measure, "number binary, distance binary").collect():
        distance[np.frombuffer(row.number, np.int32)] = np.frombuffer(row.distance)
    distance[photos.targets < 0] = np.nan
    return distance


def _work(spark: SparkSession, photos: Photos) -> list[tuple[int, int]]:
    return cut_evenly(len(photos), _STRETCH, spark.sparkContext.defaultParallelism)


def _class_means(spark: SparkSession, photos: Photos) -> npt.NDArray[np.float32]:
    """Return the direction of each class, (n_labels + 1, d); the last is of photos without one."""
    shared = spark.sparkContext.broadcast((photos.rows.number, photos.targets))
    folder, parts, n_labels = photos.rows.folder, photos.rows.parts, len(photos.labels)

    def add(stretches: Iterator[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
        numbers, targets = shared.value
        sums = np.zeros(0)
        for start, stop in stretches:
            for first, x in iter_blocks(folder, parts, start, stop):
                sums = sums if len(sums) else np.zeros((n_labels + 1, x.shape[1]))
                of = targets[numbers[first : first + len(x)]]
                for target in np.unique(of).tolist():
                    sums[target] += unit(x[of == target]).sum(axis=0, dtype=np.float64)
        yield pa.RecordBatch.from_pylist([{"sums": sums.tobytes()}])

    n_tasks, work = spark.sparkContext.defaultParallelism, _work(spark, photos)
    partial = in_tasks(spark, work, add, "sums binary", n_tasks=n_tasks).collect()
    total = np.sum([np.frombuffer(row.sums).reshape(n_labels + 1, -1) for row in partial], axis=0)
    return unit(total.astype(np.float32))


def score_outliers(distance: Floats, targets: Ints) -> Floats:
    """Compute the modified z-score of each distance within its class.

    Parameters
    ----------
    distance : ndarray of shape (n,), float64
    targets : ndarray of shape (n,), int64
        Classes; -1 for none.

    Returns
    -------
    ndarray of shape (n,), float64
        ``0.6745 (d - median) / MAD``, MAD the median distance from the median; where more than
        half of a class are at one distance, ``0.7979 (d - median)`` over the mean of those
        instead. Both are standard deviations of a normal distribution. NaN without a class, and
        in one of fewer than :data:`SMALLEST_CLASS` photos.
    """
    scores = np.full(len(distance), np.nan)
    for target in np.unique(targets[targets >= 0]):
        rows = np.flatnonzero(targets == target)
        if len(rows) >= SMALLEST_CLASS:
            from_median = distance[rows] - np.median(distance[rows])
            spread = np.median(np.abs(from_median)) / 0.6745
            if spread < 1e-6:  # rounding
                spread = np.abs(from_median).mean() / 0.7979
            scores[rows] = from_median / max(spread, 1e-6)
    return scores
