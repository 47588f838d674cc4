"""Scoring photos with a classifier, and looking at what they are near to, in Spark's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.classifier import Classifier
from verger.classify.nearest import Euclidean, NearestRows
from verger.classify.scores import Scored
from verger.classify.vectors import LabelledVectors, Projection, VectorBatches
from verger.pca.fit import FittedPCA, fit_pca

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Test photos whose nearest training photo is looked for.
NEAREST_ROWS = 5_000
#: Numbers of components at which accuracy is measured.
SOME_K = (1, 2, 5, 10, 20, 50, 100, 174, 328, 640, 1280)


def score_rows(vectors: LabelledVectors, classifier: Classifier, rows: Ints) -> tuple[Ints, Scored]:
    """Score photos in the tasks.

    Parameters
    ----------
    vectors : LabelledVectors
        Of features; the classifier brings its own projection.
    classifier : Classifier
    rows : ndarray of shape (n,), int64

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Rising.
    scored : Scored
        In their order.
    """
    shared, targets = vectors.spark.sparkContext.broadcast(classifier), vectors.labelled.targets

    def score(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
        for row, x in chosen:
            scored = Scored.of(shared.value.probabilities(x), targets[row])
            columns = {"row": row, **vars(scored)}
            yield pa.RecordBatch.from_pydict({n: pa.array(v) for n, v in columns.items()})

    schema = "row long, true long, predicted long, probability double, p_true double, rank long"
    table: pd.DataFrame = vectors.scan(rows, score, schema).toPandas()
    table = table.sort_values("row")
    columns = {name: table[name].to_numpy() for name in table.columns}
    return columns.pop("row"), Scored(**columns)


def find_nearest(vectors: LabelledVectors, known: Ints, photos: Ints) -> Ints:
    """Find the known photo that is nearest to each of some others, on standardised vectors.

    Parameters
    ----------
    vectors : LabelledVectors
    known : ndarray of shape (m,), int64
        Rows that are searched, all of them, in the tasks.
    photos : ndarray of shape (n,), int64
        Rows; their vectors come to the driver.

    Returns
    -------
    ndarray of shape (n,), int64
        Rows.
    """
    moments = vectors.moments(known)
    scale = np.where(moments.deviation > 0, moments.deviation, 1.0)
    mean, z = moments.mean, ((vectors.collect(photos) - moments.mean) / scale).astype(np.float32)
    shared = vectors.spark.sparkContext.broadcast((mean, scale, z))

    def search(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
        mean, scale, z = shared.value
        nearest = NearestRows(Euclidean(z), 1)
        for row, x in chosen:
            for start in range(0, len(x), _KNOWN_AT_ONCE):
                some = slice(start, start + _KNOWN_AT_ONCE)
                nearest.add(((x[some] - mean) / scale).astype(np.float32), row[some])
        best = {"likeness": nearest.likeness.tobytes(), "row": nearest.row.tobytes()}
        yield pa.RecordBatch.from_pylist([best])

    nearest, place = NearestRows(Euclidean(z), 1), np.arange(len(z))
    for part in vectors.scan(known, search, "likeness binary, row binary").collect():
        row = np.frombuffer(part.row, np.int32)
        there = row >= 0  # a task may have read none of the known photos
        nearest.join(place[there], row[there], np.frombuffer(part.likeness)[there])
    return nearest.row[:, 0].astype(np.int64)


#: Known photos whose distances to all others are in memory at once: 5,000 x 1024 float32 are 20 MB.
_KNOWN_AT_ONCE = 1024


def accuracy_by_k(
    vectors: LabelledVectors, pca: FittedPCA, kept: int, trained: Ints, tested: Ints
) -> list[dict[str, float]]:
    """Measure the nearest class mean on the first k scores, for every k of :data:`SOME_K`.

    The scores are ordered, so that one pass over the test photos gives all k.

    Parameters
    ----------
    vectors : LabelledVectors
        Of features.
    pca : FittedPCA
        Of the training photos, with all components.
    kept : int
        One more k.
    trained, tested : ndarray of int64
        Rows.

    Returns
    -------
    list of dict
        ``k``, ``variance`` (share that k components keep) and ``accuracy``.
    """
    some = sorted({k for k in (*SOME_K, kept) if k <= pca.n_components})
    projection = Projection.of(replace(pca, n_components=some[-1]))
    means = projection(vectors.class_means(trained))
    targets = vectors.labelled.targets
    shared = vectors.spark.sparkContext.broadcast((projection, means))

    def count(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
        projection, means = shared.value
        right = np.zeros(len(some), np.int64)
        for row, x in chosen:
            scores, distances = projection(x), np.zeros((len(row), len(means)))
            for i, (low, k) in enumerate(zip([0, *some], some, strict=False)):
                part = means[:, low:k]
                distances += (part**2).sum(axis=1) - 2 * scores[:, low:k] @ part.T
                right[i] += (distances.argmin(axis=1) == targets[row]).sum()
        yield pa.RecordBatch.from_pylist([{"right": right.tobytes()}])

    partial = vectors.scan(tested, count, "right binary").collect()
    right = np.sum([np.frombuffer(part.right, np.int64) for part in partial], axis=0)
    share = pca.cumulative_ratio
    return [
        {"k": k, "variance": float(share[k - 1]), "accuracy": float(n / len(tested))}
        for k, n in zip(some, right.tolist(), strict=True)
    ]


def fit_whole_pca(
    vectors: LabelledVectors, rows: Ints, *, standardize: bool, center: bool
) -> FittedPCA:
    """Fit a PCA to some photos alone, with as many components as they give."""
    return fit_pca(vectors.moments(rows), 1.0, standardize=standardize, center=center)
