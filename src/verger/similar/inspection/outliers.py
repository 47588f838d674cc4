"""Each class's outliers: how far its photos are from it, by how far they usually are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from verger.classify.nearest import unit
from verger.engine.tasks import Engine, run_pieces
from verger.similar.inspection.photos import Ints, Photos
from verger.similar.rows import StoredRows, cut_evenly, iter_blocks

Floats = npt.NDArray[np.float64]

#: Modified z-score above which a value is called an outlier (Iglewicz and Hoaglin 1993).
OUTLYING = 3.5
#: Photos that a class needs for its median deviation to mean something.
SMALLEST_CLASS = 8

# Rows that are read at once in a task; their vectors are not kept.
_STRETCH = 100_000


def measure_distances(engine: Engine, photos: Photos) -> Floats:
    """Measure how far each photo is from the mean of its class.

    Parameters
    ----------
    engine : Engine
    photos : Photos
        Some with a label.

    Returns
    -------
    ndarray of shape (n,), float64
        1 - cosine to the mean of the class' vectors of length 1; NaN without a label.
    """
    distance = np.full(len(photos), np.nan)
    carry = photos.rows, photos.targets, _class_means(engine, photos)
    for number, measured in run_pieces(engine, _measure, _work(engine, photos), carry):
        distance[number] = measured
    distance[photos.targets < 0] = np.nan
    return distance


def _measure(
    stretches: Iterator[tuple[int, int]], carry: tuple[StoredRows, Ints, npt.NDArray[np.float32]]
) -> Iterator[tuple[npt.NDArray[np.int32], Floats]]:
    rows, targets, means = carry
    for number, x in _iter_rows(rows, stretches):
        yield number, 1 - (unit(x) * means[targets[number]]).sum(axis=1, dtype=np.float64)


def _work(engine: Engine, photos: Photos) -> list[tuple[int, int]]:
    return cut_evenly(len(photos), _STRETCH, engine.n_cores)


def _iter_rows(
    rows: StoredRows, stretches: Iterator[tuple[int, int]]
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
    for start, stop in stretches:
        for first, x in iter_blocks(rows.folder, rows.parts, start, stop):
            yield rows.number[first : first + len(x)], x


def _class_means(engine: Engine, photos: Photos) -> npt.NDArray[np.float32]:
    """Return the direction of each class, (n_labels + 1, d); the last is of photos without one."""
    n_tasks, work = engine.n_cores, _work(engine, photos)
    carry = photos.rows, photos.targets, len(photos.labels)
    total = np.sum(run_pieces(engine, _sum_by_class, work, carry, n_tasks=n_tasks), axis=0)
    return unit(total.astype(np.float32))


def _sum_by_class(
    stretches: Iterator[tuple[int, int]], carry: tuple[StoredRows, Ints, int]
) -> Iterator[Floats]:
    rows, targets, n_labels = carry
    sums = np.zeros(0)
    for number, x in _iter_rows(rows, stretches):
        sums = sums if len(sums) else np.zeros((n_labels + 1, x.shape[1]))
        of = targets[number]
        for target in np.unique(of).tolist():
            sums[target] += unit(x[of == target]).sum(axis=0, dtype=np.float64)
    yield sums


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
