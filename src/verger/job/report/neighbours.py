"""The map of neighbours: where t-SNE, of scikit-learn, puts the photos of the map."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from threadpoolctl import threadpool_limits

from verger.errors import VergerError, missing_extra
from verger.job.report.chosen import Scores
from verger.result.output import Output

#: Neighbours that each photo is kept near to, and the seed.
PERPLEXITY, SEED = 30, 0
#: With fewer photos there is nothing to arrange.
FEWEST = 4


def require_tsne() -> None:
    """Find out whether the library is there, before anything is computed.

    Raises
    ------
    EnvironmentNotReadyError
    """
    if find_spec("sklearn") is None:
        raise missing_extra("sklearn", "--neighbour-map", "map")


@dataclass(frozen=True)
class NeighbourMap:
    """Where photos lie so that those with like scores are neighbours.

    Attributes
    ----------
    x, y : tuple of float
        Without a unit.
    perplexity : int
    of : str
        Digest of the scores.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    perplexity: int
    of: str

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"n_x={len(self.x)} and n_y={len(self.y)} must be the same")


@dataclass(frozen=True)
class _Map:
    neighbours: NeighbourMap | None = None


@dataclass(frozen=True)
class _Report:
    map: _Map | None = None


def read_neighbours(output: Output) -> NeighbourMap | None:
    """Return the map of the report before, if it has one."""
    with suppress(VergerError):  # it may be of an earlier version, or damaged
        report = output.read_derived(_Report, "report.json")
        return report.map.neighbours if report and report.map else None
    return None


def place_neighbours(scores: Scores, before: NeighbourMap | None) -> NeighbourMap | None:
    """Place photos by t-SNE, unless that was done before.

    Parameters
    ----------
    scores : ndarray of shape (n_photos, n_components), float32
    before : NeighbourMap or None
        Returned again if it is of the same scores.

    Returns
    -------
    NeighbourMap or None
        None for fewer than :data:`FEWEST` photos, and where scikit-learn is not installed: the
        result may have been made where it is.
    """
    digest = hashlib.sha256(np.ascontiguousarray(scores).tobytes()).hexdigest()
    if before is not None and (before.of, len(before.x)) == (digest, len(scores)):
        return before
    if len(scores) < FEWEST or find_spec("sklearn") is None:
        return None
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(scores) - 1) // 3)
    init = "pca" if scores.shape[1] > 1 else "random"
    tsne = TSNE(init=init, perplexity=perplexity, random_state=SEED)
    with threadpool_limits(1):  # more threads wait busily, which on a loaded machine takes minutes
        x, y = np.round(tsne.fit_transform(scores).T.astype(float), 2).tolist()
    return NeighbourMap(tuple(x), tuple(y), perplexity, digest)
