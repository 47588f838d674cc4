"""Vectors like a model's, and a search among all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from verger.classify.nearest import Metric, NearestRows


def like_features(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Draw vectors as a model's: none negative, a dozen things, each seen from several sides."""
    rng = np.random.default_rng(0)
    things = rng.exponential(size=(12, d)) * (rng.random((12, d)) < 0.4)
    sides = rng.normal(scale=0.3, size=(12, 4, d))
    rng = np.random.default_rng(seed)
    which, turned = rng.integers(12, size=n), rng.normal(size=(n, 4))
    x = things[which] + np.einsum("ns,nsd->nd", turned, sides[which])
    return np.maximum(x, 0).astype(np.float32)


def search_all(
    metric: Metric, x: np.ndarray, k: int, blocks: Sequence[int] = (), *, own: bool = False
) -> NearestRows:
    """Show all rows of a matrix to a metric's, in blocks that end at these rows.

    With ``own`` the metric's rows are the same ones.
    """
    number = np.arange(len(x), dtype=np.int32)
    nearest = NearestRows(metric, k, own=number if own else None)
    for start, stop in pairwise([0, *blocks, len(x)]):
        nearest.add(x[start:stop], number[start:stop])
    return nearest
