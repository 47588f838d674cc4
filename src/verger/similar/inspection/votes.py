"""Photos whose neighbours mostly carry another label: they may carry the wrong one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verger.similar.inspection.photos import Ints, Photos
from verger.similar.neighbors import Neighbors

#: Share of the votes for other labels above which a photo is worth a look.
MAJORITY = 0.5


@dataclass(frozen=True)
class Doubt:
    """A photo whose neighbours mostly carry another label.

    Attributes
    ----------
    row : int
    n_votes, n_against : int
        Neighbours that had a vote, and those with another label.
    suggestion : str
        The label that most of those have; of several the nearest's.
    against : tuple of int
        Rows of the neighbours with that label, the nearest first.
    similarity : float
        Cosine to the nearest of them.
    similarity_own : float or None
        Cosine to the nearest neighbour with the photo's own label; None where no voter has it.
    """

    row: int
    n_votes: int
    n_against: int
    suggestion: str
    against: tuple[int, ...]
    similarity: float
    similarity_own: float | None

    @property
    def score(self) -> float:
        """Share of the votes for other labels."""
        return self.n_against / self.n_votes


def find_doubtful(photos: Photos, neighbors: Neighbors, content: Ints) -> list[Doubt]:
    """Find the photos whose neighbours mostly carry another label.

    Parameters
    ----------
    photos : Photos
    neighbors : Neighbors
    content : ndarray of shape (n,), int64
        As :func:`verger.similar.inspection.groups.find_contents` returns it.

    Returns
    -------
    list of Doubt
        By falling share of the votes, then by how much nearer the other label is.
    """
    voters = _voters(photos, neighbors, content)
    against = voters & (photos.targets[neighbors.row] != photos.targets[:, None])
    n_votes, n_against = voters.sum(axis=1), against.sum(axis=1)
    rows = np.flatnonzero(n_against > MAJORITY * n_votes)
    doubts = [_doubt(photos, neighbors, voters[row], against[row], row) for row in rows.tolist()]
    return sorted(doubts, key=lambda d: (-d.score, (d.similarity_own or 0) - d.similarity, d.row))


def _voters(photos: Photos, neighbors: Neighbors, content: Ints) -> npt.NDArray[np.bool_]:
    """Return which neighbours have a vote, of shape (n, k).

    No photo without a label has one, nor on one. A copy with the same label says nothing new. In
    a class of m photos at most m - 1 can agree: twice as many have a vote, else all the photos of
    a small class would be outvoted.
    """
    own, theirs = photos.targets[:, None], photos.targets[neighbors.row]
    labelled = (neighbors.row >= 0) & (theirs >= 0) & (own >= 0)
    copies = (content[neighbors.row] == content[:, None]) & (theirs == own)
    size = np.bincount(photos.targets[photos.targets >= 0], minlength=len(photos.labels))
    most = np.append(2 * (size - 1), 0)[photos.targets][:, None]
    voters: npt.NDArray[np.bool_] = labelled & ~copies
    return voters & (voters.cumsum(axis=1) <= most)


def _doubt(
    photos: Photos,
    neighbors: Neighbors,
    voters: npt.NDArray[np.bool_],
    against: npt.NDArray[np.bool_],
    row: int,
) -> Doubt:
    near, similarity = neighbors.row[row], neighbors.similarity[row]
    names = Counter(photos.targets[near[against]].tolist())
    target = names.most_common(1)[0][0]  # of equals the first counted
    chosen = np.flatnonzero(against & (photos.targets[near] == target))
    agree = np.flatnonzero(voters & ~against)
    return Doubt(
        row=row,
        n_votes=int(voters.sum()),
        n_against=int(against.sum()),
        suggestion=photos.labels[target],
        against=tuple(near[chosen].tolist()),
        similarity=float(similarity[chosen[0]]),
        similarity_own=float(similarity[agree[0]]) if len(agree) else None,
    )
