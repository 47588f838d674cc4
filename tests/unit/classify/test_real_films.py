"""Numbered names are a film only where the next photo is more alike than a distant one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verger.classify.frames import keep_films
from verger.source.films import find_films


class Vectors:
    """Vectors of photos, in memory."""

    def __init__(self, x: npt.NDArray[np.float64]) -> None:
        self.x = x

    def collect(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.x[rows].astype(np.float32)


def test_a_film_is_told_by_its_features() -> None:
    """One of two runs of 40 names turns; the photos of the other, and a lone one, have no film."""
    rng, n = np.random.default_rng(0), 40
    names = [f"/a/r_{i}.jpg" for i in range(n)] + [f"/b/IMG_{i:04}.jpg" for i in range(n)]
    angle = 2 * np.pi * np.arange(n)[:, None] / n
    turning = np.sin(angle + rng.uniform(0, 6, (1, 32))) + 0.1 * rng.normal(size=(n, 32))
    x = np.concatenate([turning, rng.normal(size=(n + 1, 32))])
    vectors: Any = Vectors(x)
    named = find_films([*names, "/c/plain.jpg"])
    assert named.n_films == 2
    found = keep_films(vectors, named)
    assert found.n_films == 1
    assert len(set(found.film[:n])) == 1
    assert len(set(found.film[n:])) == n + 1
    assert found.frame.tolist() == [*range(n), *[-1] * (n + 1)]
    assert found.take(np.array([0, 3, n])).frame.tolist() == [0, 3, -1]
