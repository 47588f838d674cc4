"""From scores, distances and votes to probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def squared_distances(z: Array, centroids: Array) -> Array:
    """Return (n, n_labels) squared distances, by differences: no rounding of large norms."""
    distances = np.empty((len(z), len(centroids)))
    for j, centroid in enumerate(centroids):
        distances[:, j] = np.square(z - centroid).sum(axis=1)
    return distances


def count_votes(targets: npt.NDArray[Any], n_labels: int) -> Array:
    """Return the share of the votes that each label gets, (n, n_labels).

    Parameters
    ----------
    targets : ndarray of shape (n, k), int
        Labels of the k neighbours of each row.
    n_labels : int
    """
    n, k = targets.shape
    votes = np.zeros((n, n_labels))
    np.add.at(votes, (np.arange(n)[:, None], targets), 1 / k)
    return votes


def softmax(scores: Array) -> Array:
    """Turn rows of scores into probabilities, shifted so that nothing overflows."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares
