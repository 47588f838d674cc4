"""Multinomial logistic regression with Spark ML's objective, fitted in this process without Java.

The loss is the mean log loss of a photo plus ``reg_param / 2`` times the sum of the squared
coefficients, of features standardised by their sample deviation (:func:`scale_of`); intercepts are
free. That is what Spark's ``LogisticRegression(standardization=False)`` minimises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.classify.probabilities import softmax
from verger.engine import limits

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32 | np.float64]
Ints = npt.NDArray[np.int64]

#: A fit has ended when no partial derivative of the loss is larger.
TOLERANCE = 1e-6
#: Numbers (800 photos of 1,280 features are a million) up to which it is done in float64, and the
#: tolerance is multiplied by the penalty: then probabilities are exact to 1e-4. Beyond, float32
#: takes half the time, and its rounding averages out.
_EXACT = 2**20
#: Steps that L-BFGS remembers, as in Spark and scikit-learn.
_MEMORY = 10
#: Deviations up to this share of the mean are rounding of equal float32 values.
_ROUNDING = 1e-7
#: Rows that are float64 at once: 1024 of 1,280 features are 10 MB.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Regression:
    """A fitted regression: ``softmax((x - mean) / scale @ coefficients.T + intercepts)``.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
    scale : ndarray of shape (d,), float64
        Of :func:`scale_of`, above 0.
    coefficients : ndarray of shape (n_labels, d), float64
        Of standardised features.
    intercepts : ndarray of shape (n_labels,), float64
        Their mean is 0; minus infinity for a class that no photo had.
    reg_param : float
        The penalty, in Spark's units.
    """

    mean: Array = field(repr=False)
    scale: Array = field(repr=False)
    coefficients: Array = field(repr=False)
    intercepts: Array = field(repr=False)
    reg_param: float

    def probabilities(self, x: npt.NDArray[Any]) -> Array:
        """Compute the probability of every label: (n, d) or (n, n_views, d) to (n, n_labels)."""
        z = (x - self.mean) / self.scale
        shares = softmax(z @ self.coefficients.T + self.intercepts)
        return shares if x.ndim == 2 else np.asarray(shares.mean(axis=1))


def fit_regressions(
    x: npt.NDArray[np.float32],
    targets: Ints,
    n_labels: int,
    reg_params: Sequence[float],
    iterations: int,
) -> Iterator[Regression]:
    """Fit a regression for each of some penalties; each fit starts from the one before.

    It uses one thread a core: each has a share of the photos, and BLAS none of its own.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
    targets : ndarray of shape (n,), int64
        Class of each photo. A class without photos gets the probability 0.
    n_labels : int
    reg_params : sequence of float
        Strongest first: the weaker a penalty is, the farther its solution is from zero.
    iterations : int
        At most, for each.

    Yields
    ------
    Regression
        For each penalty.

    References
    ----------
    Byrd, Lu, Nocedal, Zhu 1995, "A limited memory algorithm for bound constrained optimization".
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    options = {"maxiter": iterations, "maxcor": _MEMORY, "ftol": _FLAT}
    present, number = np.unique(targets, return_inverse=True)
    z, mean, scale = _standardize(x)
    n_threads = limits.usable_cores()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as pool:
        loss = _Loss(pool, np.array_split(z, n_threads), np.array_split(number, n_threads))
        theta = np.zeros((len(present), z.shape[1]))
        theta[:, -1] = np.log(np.bincount(number))
        for reg_param in reg_params:
            options["gtol"] = TOLERANCE * (reg_param if z.dtype == np.float64 else 1)
            what = loss, theta.ravel(), (theta.shape, reg_param), "L-BFGS-B"
            theta = minimize(*what, jac=True, options=options).x.reshape(theta.shape)
            coefficients, intercepts = np.zeros((n_labels, x.shape[1])), np.full(n_labels, -np.inf)
            coefficients[present] = theta[:, :-1]
            intercepts[present] = theta[:, -1] - theta[:, -1].mean()
            yield Regression(mean, scale, coefficients, intercepts, reg_param)


#: A loss that changes less is rounding, and the fit has ended.
_FLAT = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, repr=False)
class _Loss:
    """The loss and its gradient, summed over shares of the photos by a thread each.

    Attributes
    ----------
    pool : ThreadPoolExecutor
    z : list of ndarray of shape (m, d + 1), float32 or float64
        Standardised, with a last column of ones.
    targets : list of ndarray of shape (m,), int64
    """

    pool: ThreadPoolExecutor
    z: list[Floats]
    targets: list[Ints]

    def __call__(
        self, theta: Array, shape: tuple[int, int], reg_param: float
    ) -> tuple[float, Array]:
        """Return both at coefficients whose last column is the intercepts."""
        theta = theta.reshape(shape)
        weights = theta.astype(self.z[0].dtype).T
        shares = list(self.pool.map(_sum_share, self.z, self.targets, [weights] * len(self.z)))
        n = sum(map(len, self.z))
        gradient = sum((share for _, share in shares), np.zeros(shape)) / n
        gradient[:, :-1] += reg_param * theta[:, :-1]
        penalty = reg_param / 2 * np.square(theta[:, :-1]).sum()
        return float(sum(total for total, _ in shares) / n + penalty), gradient.ravel()


def _sum_share(z: Floats, targets: Ints, weights: Floats) -> tuple[float, Floats]:
    """Sum the log loss of some photos, and its gradient (n_labels, d + 1)."""
    scores: Floats = z @ weights  # (m, d + 1) -> (m, n_labels)
    scores -= scores.max(axis=1, keepdims=True)
    at = np.arange(len(z)), targets
    at_true = scores[at].sum(dtype=np.float64)
    np.exp(scores, out=scores)
    total = scores.sum(axis=1)
    scores /= total[:, None]
    scores[at] -= 1
    gradient: Floats = scores.T @ z
    return float(np.log(total).sum(dtype=np.float64) - at_true), gradient


def _standardize(x: Floats) -> tuple[Floats, Array, Array]:
    """Return standardised features with a last column of ones, the means, and the scale."""
    mean = x.mean(axis=0, dtype=np.float64)
    parts = [slice(i, i + _ROWS_AT_ONCE) for i in range(0, len(x), _ROWS_AT_ONCE)]
    squares: Array = np.sum([np.square(x[part] - mean).sum(axis=0) for part in parts], axis=0)
    spread = np.sqrt(squares / max(len(x) - 1, 1))
    scale = scale_of(np.where(spread > _ROUNDING * np.abs(mean), spread, 0.0))
    kind = np.float64 if x.size <= _EXACT else np.float32
    z = np.ones((len(x), x.shape[1] + 1), kind)
    for part in parts:
        z[part, :-1] = (x[part] - mean) / scale
    return z, mean, scale


def scale_of(deviation: Array) -> Array:
    """Return what features are divided by: their deviation, and at least the median one.

    A feature that hardly varies among the known photos, as many do that were taken on white, is
    else dozens of deviations away on any other photo, and decides alone, with certainty
    (benchmarks/REAL_PHOTOS.md).

    Parameters
    ----------
    deviation : ndarray of shape (d,), float64
        With ``n - 1`` in the denominator; 0 for a feature that never varies.

    Returns
    -------
    ndarray of shape (d,), float64
        Above 0; ones if nothing varies.
    """
    varying = deviation[deviation > 0]
    return np.maximum(deviation, np.median(varying)) if len(varying) else np.ones_like(deviation)


def fits_in_memory(n: int, d: int, n_labels: int) -> bool:
    """Whether a fit takes at most half of this machine's memory.

    It takes the vectors three times in float32 (as they were read, a choice of them, and
    standardised), three scores for each photo and label, and the steps that L-BFGS remembers.
    """
    vectors, scores = 3 * 4 * n * d, 3 * 4 * n * n_labels
    steps = 8 * (2 * _MEMORY + 8) * n_labels * (d + 1)
    return vectors + scores + steps <= limits.memory_bytes() // 2
