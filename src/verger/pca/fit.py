"""PCA of the features: one exact fit of the whole spectrum; any k is a slice of it.

Count, mean and scatter matrix are summed in one pass over the table, in float64, one partial
sum a task; the driver takes the eigenvectors of one n_features x n_features matrix. Sums can be
added, so new photos update a model without a second look at the old ones.

Variances are those of the sample (divided by n - 1), as in Spark's ``PCA`` and in scikit-learn.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from verger.config import check_components
from verger.errors import ReduceError
from verger.pca.moments import Array, Moments, npz_bytes

#: Shares of the variance whose k is always reported.
SHARES = (0.80, 0.90, 0.95)


# A ratio below this is rounding noise: float64 resolves 1e-16 of the largest variance, summed
# over a thousand columns.
_RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class FittedPCA:
    """A fitted PCA: the whole spectrum, and how many components are kept.

    Attributes
    ----------
    n_samples : int
    mean : ndarray of shape (n_features,), float64
    scale : ndarray of shape (n_features,), float64
        What every feature was divided by: ones, or the standard deviations. A constant feature
        has scale infinity, so that it contributes nothing.
    components : ndarray of shape (n_features, n_features), float64
        Rows are the principal axes, of unit length, by falling variance; in each the entry of
        the largest magnitude is positive.
    explained_variance : ndarray of shape (n_features,), float64
    n_components : int
        How many are kept by :meth:`transform`.
    center : bool
        Whether the scores have the mean subtracted.
    """

    n_samples: int
    mean: Array = field(repr=False)
    scale: Array = field(repr=False)
    components: Array = field(repr=False)
    explained_variance: Array = field(repr=False)
    n_components: int
    center: bool = False

    def _repr_html_(self) -> str:
        shares = ((share, self.k_for(share)) for share in SHARES)
        facts = {
            "photos": f"{self.n_samples:,}",
            "features": f"{len(self.mean):,}",
            "components": f"{self.n_components:,}, which keep "
            f"{self.cumulative_ratio[self.n_components - 1]:.1%} of the variance",
            "for a share": ", ".join(f"{share:.0%}: {k:,}" for share, k in shares),
            "centred": "yes" if self.center else "no",
        }
        rows = (f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts.items())
        return f"<table><caption>FittedPCA</caption>{''.join(rows)}</table>"

    @property
    def explained_variance_ratio(self) -> Array:
        """Share of the total variance by component, of shape (n_features,)."""
        ratio: Array = self.explained_variance / self.explained_variance.sum()
        return ratio

    @property
    def cumulative_ratio(self) -> Array:
        """Running sum of the ratios, of shape (n_features,)."""
        return np.cumsum(self.explained_variance_ratio)

    def k_for(self, share: float) -> int:
        """Return the smallest number of components that keeps this share of the variance."""
        # The last sum may fall short of 1.0 by rounding.
        reached = self.cumulative_ratio >= share - 1e-12
        return int(np.argmax(reached)) + 1 if reached.any() else len(reached)

    @property
    def projection(self) -> Array:
        """Matrix (n_features, n_components) that takes raw features to scores, not centred.

        The division by ``scale`` is folded in, so that Spark's ``PCAModel`` with this matrix
        takes raw features too.
        """
        projection: Array = self.components[: self.n_components].T / self.scale[:, None]
        return projection

    def transform(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Project features on the kept components.

        Parameters
        ----------
        features : ndarray of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_components), float32
            As Spark's ``PCAModel`` gives them; with ``center``, as scikit-learn does.
        """
        values = features.astype(np.float64)
        if self.center:
            values -= self.mean
        scores: npt.NDArray[np.float32] = (values @ self.projection).astype(np.float32)
        return scores

    def to_npz(self, *, contract: str) -> bytes:
        """Write ``pca.npz``: all that is needed to use the model with numpy alone."""
        return npz_bytes(
            mean=self.mean,
            scale=self.scale,
            components=self.components[: self.n_components],
            explained_variance=self.explained_variance,
            explained_variance_ratio=self.explained_variance_ratio,
            n_samples=self.n_samples,
            center=self.center,
            contract=contract,
        )


def fit_pca(
    moments: Moments,
    components: int | float = 0.90,
    *,
    standardize: bool = False,
    center: bool = False,
) -> FittedPCA:
    """Fit a PCA to summed features.

    Parameters
    ----------
    moments : Moments
    components : int or float
        A number, or a share of the variance above 0 and up to 1.
    standardize : bool
        Divide every feature by its standard deviation first.
    center : bool
        Subtract the mean from the scores.

    Raises
    ------
    ConfigError
        If ``components`` is out of bounds for any table.
    ReduceError
        With fewer than two photos, features that are no finite numbers or do not vary, or more
        components than the features have independent directions.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(100, 5))
    >>> verger.fit_pca(Moments.of(vectors), components=2).transform(vectors).shape
    (100, 2)
    """
    check_components(components)
    if moments.n < 2:
        raise ReduceError(f"n_samples={moments.n} must be at least 2 for a PCA")
    if not np.isfinite(moments.scatter).all():
        raise ReduceError(
            "features: hold values that are not finite; verger validate OUT says how many"
        )
    covariance = moments.scatter / (moments.n - 1)
    deviation = moments.deviation
    if not deviation.any():
        raise ReduceError(f"n_samples={moments.n}: all photos have the same features; no PCA")
    scale = np.ones_like(deviation)
    if standardize:
        scale = np.where(deviation > 0, deviation, np.inf)
    variance, axes = _principal_axes(covariance / scale[:, None] / scale)
    pca = FittedPCA(moments.n, moments.mean, scale, axes, variance, 0, center)
    return _keep(pca, components)


def _principal_axes(covariance: Array) -> tuple[Array, Array]:
    """Return the variances, falling, and in rows the unit axes that they belong to."""
    # A second thread of BLAS gains little, and where a core is busy it takes ten times the time:
    # each thread waits for the other in a loop.
    with threadpool_limits(1, "blas"):
        variance, axes = np.linalg.eigh(covariance)
    # eigh rises; rounding may go below zero
    return np.maximum(variance[::-1], 0.0), _fix_signs(axes[:, ::-1].T)


def _fix_signs(components: Array) -> Array:
    """Make each row's entry of the largest magnitude positive, as scikit-learn's svd_flip."""
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    fixed: Array = components * signs[:, None]
    return fixed


def _keep(pca: FittedPCA, components: int | float) -> FittedPCA:
    n_features = len(pca.mean)
    ratio = pca.explained_variance_ratio
    rank = int((ratio > _RANK_TOLERANCE).sum())
    if not isinstance(components, numbers.Integral):
        return replace(pca, n_components=min(pca.k_for(components), rank))
    if not 1 <= components <= rank:
        limit = (
            f"n_features={n_features}"
            if rank == n_features
            else f"{rank}, the number of directions in which n_samples={pca.n_samples} photos vary"
        )
        raise ReduceError(f"components={components} must be between 1 and {limit}")
    return replace(pca, n_components=components)
