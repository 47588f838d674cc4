"""The PCA in front of a classifier: features to the scores that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.errors import OutputError
from verger.files.npz import UNREADABLE, read_npz
from verger.pca.fit import FittedPCA
from verger.result.output import PCA_NPZ, Output

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """From features to the scores that a classifier takes: ``(features - mean) @ components.T``.

    Attributes
    ----------
    components : ndarray of shape (k, n_features), float64
    mean : ndarray of shape (n_features,), float64
        Zeros where the scores are not centred.
    """

    components: Array = field(repr=False)
    mean: Array = field(repr=False)

    def __call__(self, features: npt.NDArray[Any]) -> Array:
        """Project vectors of shape (n, n_features); returns (n, k)."""
        scores: Array = (features.astype(np.float64) - self.mean) @ self.components.T
        return scores

    @classmethod
    def of(cls, pca: FittedPCA) -> Projection:
        """Take over the kept components of a PCA."""
        mean = pca.mean if pca.center else np.zeros_like(pca.mean)
        return cls(pca.projection.T, mean)


def stored_projection(output: Output) -> Projection:
    """Read the PCA of a result.

    Raises
    ------
    OutputError
        If it has none, or it is damaged.
    """
    try:
        file = read_npz(output.folder.read(PCA_NPZ))
        mean = file["mean"] if file["center"] else np.zeros_like(file["mean"])
        return Projection(file["components"] / file["scale"], mean)
    except FileNotFoundError as err:
        raise OutputError(
            f"OUT={output.root}: has no PCA, which on=pca needs; verger reduce fits one"
        ) from err
    except UNREADABLE as err:
        raise OutputError(
            f"{output.address(PCA_NPZ)}: cannot be read: {err}; verger reduce writes it again"
        ) from err
