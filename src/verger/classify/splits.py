"""Splits of labelled photos into training and test photos that do not flatter a classifier.

Photos of one object turning on a table are frames of a film: a frame and the next one are almost
the same picture. A random split puts the one into training and the other into the test, and the
test then asks what was learnt by heart. Every split here gives each photo a position from 0 to 1;
the test has those at the end, and a fold of a cross-validation those of one stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from verger.errors import ConfigError
from verger.source.films import FRAMES, NEIGHBOUR_FRAMES, SHORTEST_FILM, Films, find_films

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SplitStrategy = Literal["random", "group", "contiguous"]

STRATEGIES: tuple[SplitStrategy, ...] = ("random", "group", "contiguous")
#: Share of the photos that are held out.
TEST_SHARE = 0.25
#: Share of a film's turn that is left out on either side of the test's arc: 20 of 330 frames.
GAP = 0.06
#: Arcs that are drawn for a film. Where frames are missing one may hold no photo at all, or most of
#: them: the one is taken whose share of the photos is nearest to :data:`TEST_SHARE`.
N_ARCS = 16

TRAIN, TEST, LEFT_OUT = 0, 1, 2


@dataclass(frozen=True)
class Cutter:
    """A way to cut photos: what is drawn once, and gives both the test and the folds.

    Attributes
    ----------
    strategy : {"random", "group", "contiguous"}
    position : ndarray of shape (n,), float64
        From 0 to 1. Photos that must not be parted have the same; contiguous frames of a film
        follow one another, and its end is beside its beginning.
    whole : ndarray of shape (n,), bool
        Photos that are never held out: all that there is of a class, or a film too short to cut.
    gap : float
        Width that is left out on either side of a cut.
    """

    strategy: SplitStrategy
    position: Floats = field(repr=False)
    whole: npt.NDArray[np.bool_] = field(repr=False)
    gap: float = 0.0

    def split(self, targets: Ints, share: float = TEST_SHARE) -> npt.NDArray[np.int8]:
        """Hold out a share of the photos.

        Parameters
        ----------
        targets : ndarray of shape (n,), int64
            Class of each photo.
        share : float
            Above 0 and below 1.

        Returns
        -------
        ndarray of shape (n,), int8
            :data:`TRAIN`, :data:`TEST` or :data:`LEFT_OUT`: between the two, or of a class of
            which nothing is left to train on.
        """
        if not 0 < share < 1:
            raise ConfigError(f"test_share={share} must be above 0 and below 1")
        roles = np.where(self.position >= 1 - share, TEST, TRAIN).astype(np.int8)
        before = (self.position >= 1 - share - self.gap) & (self.position < 1 - share)
        roles[before | (self.position < self.gap)] = LEFT_OUT
        roles[self.whole] = TRAIN
        trained = np.zeros(targets.max(initial=-1) + 1, bool)
        trained[targets[roles == TRAIN]] = True
        roles[~trained[targets] & (roles == TEST)] = LEFT_OUT
        return roles

    def folds(self, n_folds: int) -> npt.NDArray[np.int8]:
        """Cut the photos into folds of a cross-validation.

        Returns
        -------
        ndarray of shape (n,), int8
            From 0 to ``n_folds - 1``; -1 for photos that are left out: between two folds, or
            never held out.
        """
        fold: npt.NDArray[np.int8]
        fold = np.clip(np.ceil(self.position * n_folds) - 1, 0, n_folds - 1).astype(np.int8)
        to_cut = np.abs(self.position * n_folds - np.round(self.position * n_folds)) / n_folds
        fold[(to_cut < self.gap / 2) | self.whole] = -1
        return fold


def make_cutter(
    strategy: SplitStrategy,
    paths: Sequence[str],
    targets: Ints,
    *,
    groups: Ints | None = None,
    frames: str | Films = FRAMES,
    seed: int = 0,
) -> Cutter:
    """Draw a way to cut photos.

    Parameters
    ----------
    strategy : {"random", "group", "contiguous"}
        Photo by photo within each class; by groups that stay whole; or by arcs of films, with a
        gap between.
    paths : sequence of str
    targets : ndarray of shape (n,), int64
    groups : ndarray of shape (n,), int64, optional
        As from :func:`verger.source.films.match_groups`; needed by "group" alone.
    frames : str or Films
        As for :func:`verger.source.films.find_films`, or the films themselves.
    seed : int

    Raises
    ------
    ConfigError
        If the paths do not tell what is needed.
    """
    rng = np.random.default_rng(seed)
    if strategy == "group":
        if groups is None:
            raise ConfigError(
                "split=group needs groups: --groups REGEX, matched with each path, or a column "
                "group in the list that the photos or their labels are from"
            )
        return _by_group(np.unique(groups, return_inverse=True)[1], targets, rng)
    if strategy == "contiguous":
        films = find_films(paths, frames) if isinstance(frames, str) else frames
        return _by_arc(films, rng)
    if strategy != "random":
        raise ConfigError(f"split={strategy!r} must be one of {', '.join(STRATEGIES)}")
    order = rng.permutation(len(targets))
    rank, size = _rank_within(targets, order)
    return Cutter("random", (rank + 0.5) / size, size < 2)


def _by_arc(films: Films, rng: np.random.Generator) -> Cutter:
    if films.n_films == 0:
        raise ConfigError(
            f"split=contiguous: no film has {SHORTEST_FILM} frames by the names of its photos; "
            "--frames REGEX says where film and frame stand, --split random needs neither"
        )
    size = np.bincount(films.film)
    angle, best, least = films.angle, np.zeros(len(size)), np.full(len(size), np.inf)
    for start in rng.random((N_ARCS, len(size))):
        held = (angle + start[films.film]) % 1 >= 1 - TEST_SHARE
        away = np.abs(np.bincount(films.film, held) / size - TEST_SHARE)
        best, least = np.where(away < least, start, best), np.minimum(away, least)
    position = (angle + best[films.film]) % 1
    return Cutter("contiguous", position, size[films.film] < SHORTEST_FILM, GAP)


def _by_group(group: Ints, targets: Ints, rng: np.random.Generator) -> Cutter:
    """Place whole groups: each where, on average, it stands in the queues of its classes."""
    n_groups, n_targets = group.max() + 1, targets.max() + 1
    counts = np.zeros((n_groups, n_targets))
    np.add.at(counts, (group, targets), 1)
    if n_groups < 2:
        raise ConfigError("split=group: all photos are in one group")
    order = rng.permutation(n_groups)
    ends, shares = np.empty_like(counts), counts / np.maximum(counts.sum(axis=0), 1)
    ends[order] = shares[order].cumsum(axis=0)
    middle = ends - shares / 2
    middle[ends > 1 - 1e-9] = 1.0  # the last of a class is in its test, however large it is
    position = (middle * counts).sum(axis=1) / counts.sum(axis=1)
    lonely = (counts > 0).sum(axis=0) == 1  # classes with one group
    whole = (counts[:, lonely] > 0).sum(axis=1) > 0
    return Cutter("group", position[group], whole[group])


def _rank_within(key: Ints, order: Ints) -> tuple[Ints, Ints]:
    """Return each row's rank among the rows of its key, in this order, and how many those are."""
    by_key = order[np.argsort(key[order], kind="stable")]
    size = np.bincount(key)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    rank = np.empty(len(key), np.int64)
    rank[by_key] = np.arange(len(key)) - start[key[by_key]]
    return rank, size[key]


def draw_stratified(targets: Ints, n: int, seed: int = 0) -> Ints:
    """Draw at most n rows, of every class as many as of any other while it has some.

    Parameters
    ----------
    targets : ndarray of shape (m,), int64
    n : int
    seed : int

    Returns
    -------
    ndarray of shape (min(n, m),), int64
        Rows, rising.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    rank, _ = _rank_within(targets, order)
    # The first of every class, then the second of every class, and so on.
    first = order[np.argsort(rank[order], kind="stable")]
    return np.sort(first[:n])


def measure_leakage(films: Films, tested: Ints, nearest: Ints) -> dict[str, float]:
    """Say how many test photos have a frame of their own film as nearest training photo.

    Parameters
    ----------
    films : Films
    tested : ndarray of shape (m,), int64
        Rows of test photos.
    nearest : ndarray of shape (m,), int64
        Row of the training photo that is nearest to each.

    Returns
    -------
    dict
        ``neighbouring_frame``: share with a frame at most :data:`NEIGHBOUR_FRAMES` away;
        ``same_film``: share with any frame of the same film.
    """
    apart = films.frames_apart(tested, nearest)
    return {
        "neighbouring_frame": float((apart <= NEIGHBOUR_FRAMES).mean()),
        "same_film": float(np.isfinite(apart).mean()),
    }
