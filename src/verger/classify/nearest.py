"""The one nearest-neighbour search: the k rows most like each of some rows, exactly.

One product of matrices in float32 says which rows may be among the nearest. The likeness of those
alone is computed again, pair by pair, so that it does not depend on how rows are cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Floats = npt.NDArray[Any]
Int32s = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]

# Pairs whose likeness is computed again at once: 2,000 x 1280 float64 are 20 MB.
_PAIRS_AT_ONCE = 2_000
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Block:
    """Rows that are searched: ``x`` of shape (m, d), and what the metric needs of each, (m,)."""

    x: Floats = field(repr=False)
    norms: Floats = field(repr=False)


class Metric(Protocol):
    """How like two rows are, larger for rows that are more like each other."""

    #: Type of the likeness, and a value that none is below; it stands where there is no neighbour.
    dtype: np.dtype[Any]
    least: float

    def __len__(self) -> int:
        """Return the number n of rows whose neighbours are searched."""

    def norms(self, x: Floats) -> Floats:
        """Compute what is needed of each row of a block, (m,)."""

    def estimate(self, block: Block) -> tuple[Float32s, Floats | float]:
        """Estimate the likeness of all n rows to all rows of a block by one product.

        Returns
        -------
        estimate : ndarray of shape (n, m), float32
        margin : ndarray of shape (n,) or float
            What two estimates may be wrong by together.
        """

    def scaled(self, likeness: Floats) -> Floats:
        """Return a likeness of each row, (n,), on the scale of the estimates."""

    def exact(self, i: Indices, block: Block, j: Indices) -> Floats:
        """Compute the likeness of pairs of rows, each pair by itself."""


class Cosine:
    """The cosine of two vectors, at most 1; that of a vector of zeros is 0.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        The rows whose neighbours are searched.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)
    least = -1.0

    def __init__(self, x: Float32s) -> None:
        self._x, self._norms, self._unit = x, self.norms(x), unit(x)

    def __len__(self) -> int:
        return len(self._x)

    def norms(self, x: Floats) -> Float64s:
        """Return the length of each vector; 1 for one of zeros."""
        lengths = np.sqrt((x * x).sum(axis=1, dtype=np.float64))
        return np.where(lengths > 0, lengths, 1.0)

    def estimate(self, block: Block) -> tuple[Float32s, float]:
        """Estimate the cosines."""
        # What two cosines may be wrong by together, of d terms in float32: each by d units of
        # roundoff, half an eps (Higham 2002, section 3.1), and by a few of scaling to length 1.
        return self._unit @ unit(block.x).T, (self._x.shape[1] + 4) * _EPS

    def scaled(self, likeness: Floats) -> Floats:
        """Return the cosines as they are."""
        return likeness

    def exact(self, i: Indices, block: Block, j: Indices) -> Float32s:
        """Compute the cosines of pairs of rows."""
        products = (self._x[i] * block.x[j]).sum(axis=1, dtype=np.float64)
        cosine: Float32s = (products / (self._norms[i] * block.norms[j])).astype(np.float32)
        return np.minimum(cosine, np.float32(1))


class Euclidean:
    """Minus the squared Euclidean distance of two vectors.

    Parameters
    ----------
    x : ndarray of shape (n, d), float64 or float32
        The rows whose neighbours are searched.
    """

    dtype: np.dtype[Any] = np.dtype(np.float64)
    least = -float(np.finfo(np.float64).max)

    def __init__(self, x: Floats) -> None:
        self._x, self._float32 = x, x.astype(np.float32)
        self._norms: Float64s = np.square(x, dtype=np.float64).sum(axis=1)

    def __len__(self) -> int:
        return len(self._x)

    def norms(self, x: Floats) -> Float32s:
        """Return the squared length of each vector."""
        return squared_lengths(x.astype(np.float32, copy=False))

    def estimate(self, block: Block) -> tuple[Float32s, Float64s]:
        """Estimate minus the squared distances, plus the squared lengths of the n rows."""
        estimate: Float32s = self._float32 @ block.x.astype(np.float32, copy=False).T
        estimate *= 2  # -|q - x|^2 + |q|^2 = 2 q x - |x|^2
        estimate -= block.norms
        # Higham 2002, eq. 3.5: a product of d terms is off by d * eps * |q| |x| at most.
        largest = float(block.norms.max(initial=0)) ** 0.5
        margin: Float64s = np.sqrt(self._norms) + largest
        return estimate, margin * (4 * self._x.shape[1] * _EPS * largest)

    def scaled(self, likeness: Floats) -> Float64s:
        """Add the squared lengths of the n rows."""
        scaled: Float64s = likeness + self._norms
        return scaled

    def exact(self, i: Indices, block: Block, j: Indices) -> Float64s:
        """Compute minus the squared distances of pairs of rows."""
        apart = block.x[j].astype(np.float64) - self._x[i]
        likeness: Float64s = -np.square(apart).sum(axis=1)
        return likeness


class NearestRows:
    """The k rows most like each of some rows, among all that were shown.

    Parameters
    ----------
    metric : Metric
        Holds the n rows whose neighbours are searched.
    k : int
    own : ndarray of shape (n,), int32, optional
        Numbers of these rows among those that are shown; a row is no neighbour of itself.

    Attributes
    ----------
    row : ndarray of shape (n, k), int32
        Numbers by falling likeness, then rising; -1 where fewer were shown.
    likeness : ndarray of shape (n, k)
        ``metric.least`` where fewer were shown.
    """

    def __init__(self, metric: Metric, k: int, own: Int32s | None = None) -> None:
        self._metric, self._k, self._own = metric, k, own
        self.row = np.full((len(metric), k), -1, np.int32)
        self.likeness: Floats = np.full((len(metric), k), metric.least, metric.dtype)

    def add(self, x: Floats, number: npt.NDArray[Any], norms: Floats | None = None) -> None:
        """Show rows.

        Parameters
        ----------
        x : ndarray of shape (m, d)
        number : ndarray of shape (m,), int
        norms : ndarray of shape (m,), optional
            ``metric.norms(x)``, if it is known already.
        """
        block = Block(x, self._metric.norms(x) if norms is None else norms)
        estimate, margin = self._metric.estimate(block)
        if self._own is not None:
            estimate[self._own[:, None] == number] = -np.inf
        least = self._metric.scaled(self.likeness[:, -1])
        if self._k <= len(x) and (self.row[:, -1] < 0).any():
            # Nothing is there to compare with: the whole block would be looked at.
            least = np.maximum(least, np.partition(estimate, -self._k, axis=1)[:, -self._k])
        # "Not less" lets through what is no number, which is then computed again.
        i, j = np.nonzero(~(estimate < (least - margin)[:, None]))
        likeness = np.empty(len(i), self._metric.dtype)
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            likeness[some] = self._metric.exact(i[some], block, j[some])
        self.join(i, number[j], likeness)

    def join(self, i: Indices, number: npt.NDArray[Any], likeness: Floats) -> None:
        """Take pairs into account whose likeness is known.

        Parameters
        ----------
        i : ndarray of shape (p,), int
            Places of the rows whose neighbours are searched.
        number : ndarray of shape (p,), int
            Of rows that are no neighbours of theirs yet.
        likeness : ndarray of shape (p,)
        """
        changed = np.unique(i)
        place = np.concatenate([np.repeat(changed, self._k), i])
        row = np.concatenate([self.row[changed].ravel(), number])
        value = np.concatenate([self.likeness[changed].ravel(), likeness])
        # A place without a neighbour comes last, also after a row of the least likeness.
        order = np.lexsort((row, row < 0, -value, place))
        first = np.searchsorted(place[order], changed)
        best = order[first[:, None] + np.arange(self._k)]
        self.row[changed], self.likeness[changed] = row[best], value[best]


def unit(x: Floats) -> Float32s:
    """Scale vectors of shape (n, d) to length 1; a vector of zeros stays."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, np.where(norms > 0, norms, 1), dtype=np.float32)


def squared_lengths(x: Float32s) -> Float32s:
    """Return the squared length of each vector, (n,)."""
    lengths: Float32s = np.einsum("ij,ij->i", x, x)
    return lengths
