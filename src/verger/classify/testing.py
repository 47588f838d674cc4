"""Scoring photos with a classifier, and looking at what they are near to, in tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verger.classify.classifier import Classifier
from verger.classify.label_map import Merged
from verger.classify.nearest import Euclidean, NearestRows
from verger.classify.projection import Projection
from verger.classify.scores import Scored
from verger.classify.vectors import LabelledVectors, VectorBatches
from verger.pca.fit import FittedPCA, fit_pca

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: Test photos whose nearest training photo is looked for.
NEAREST_ROWS = 5_000
#: Numbers of components at which accuracy is measured.
SOME_K = (1, 2, 5, 10, 20, 50, 100, 174, 328, 640, 1280)


def score_rows(
    vectors: LabelledVectors, classifier: Classifier, rows: Ints, merged: Merged | None = None
) -> tuple[Ints, Scored, Flags]:
    """Score photos in the tasks, and find out which are unlike every known one.

    Parameters
    ----------
    vectors : LabelledVectors
        Of features; the classifier brings its own projection.
    classifier : Classifier
    rows : ndarray of shape (n,), int64
    merged : Merged, optional
        Names that probabilities are summed by.

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Rising.
    scored : Scored
        In their order.
    unlike : ndarray of shape (n,), bool
        Of the whole photos, in the same order.
    """
    carry = classifier, merged, vectors.labelled.targets
    row, scored, unlike = zip(*vectors.scan(rows, _score, carry, views=True), strict=True)
    rising = np.concatenate(row)
    order = np.argsort(rising)
    return rising[order], Scored.join(scored)[order], np.concatenate(unlike)[order]


def _score(
    batches: VectorBatches, carry: tuple[Classifier, Merged | None, Ints]
) -> Iterator[tuple[Ints, Scored, Flags]]:
    classifier, merged, targets = carry
    for row, x in batches:
        probabilities, whole = classifier.probabilities(x), x[:, 0] if x.ndim == 3 else x
        names = merged.sum(probabilities) if merged else probabilities
        yield row, Scored.of(names, targets[row]), classifier.unlike(whole)


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
    nearest, place = NearestRows(Euclidean(z), 1), np.arange(len(z))
    for row, likeness in vectors.scan(known, _search, (mean, scale, z)):
        there = row >= 0  # a task may have read none of the known photos
        nearest.join(place[there], row[there], likeness[there])
    return nearest.row[:, 0].astype(np.int64)


def _search(
    batches: VectorBatches, carry: tuple[Array, Array, npt.NDArray[np.float32]]
) -> Iterator[tuple[npt.NDArray[np.int32], Array]]:
    mean, scale, z = carry
    nearest = NearestRows(Euclidean(z), 1)
    for row, x in batches:
        for start in range(0, len(x), _KNOWN_AT_ONCE):
            some = slice(start, start + _KNOWN_AT_ONCE)
            nearest.add(((x[some] - mean) / scale).astype(np.float32), row[some])
    yield nearest.row[:, 0], nearest.likeness[:, 0]


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
    carry = projection, means, some, vectors.labelled.targets
    right = np.sum(vectors.scan(tested, _count_right, carry), axis=0)
    share = pca.cumulative_ratio
    return [
        {"k": k, "variance": float(share[k - 1]), "accuracy": float(n / len(tested))}
        for k, n in zip(some, right.tolist(), strict=True)
    ]


def _count_right(
    batches: VectorBatches, carry: tuple[Projection, Array, list[int], Ints]
) -> Iterator[Ints]:
    projection, means, some, targets = carry
    right = np.zeros(len(some), np.int64)
    for row, x in batches:
        scores, distances = projection(x), np.zeros((len(row), len(means)))
        for i, (low, k) in enumerate(zip([0, *some], some, strict=False)):
            part = means[:, low:k]
            distances += (part**2).sum(axis=1) - 2 * scores[:, low:k] @ part.T
            right[i] += (distances.argmin(axis=1) == targets[row]).sum()
    yield right


def fit_whole_pca(
    vectors: LabelledVectors, rows: Ints, *, standardize: bool, center: bool
) -> FittedPCA:
    """Fit a PCA to some photos alone, with as many components as they give."""
    return fit_pca(vectors.moments(rows), 1.0, standardize=standardize, center=center)
