"""Photos that are there twice: copies of one file, and photos that are nearly the same picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from verger.similar.inspection.photos import Ints, Photos
from verger.similar.neighbors import Neighbors

#: Cosine from which on two files of the same length may have the same content. Features of one
#: content differ by rounding alone, 1e-6; those of two frames of a film by 1e-3 and more.
SAME = 0.9999


class DuplicateKind(StrEnum):
    """What makes photos a group."""

    EXACT = "exact"
    NEAR = "near"


class Across(StrEnum):
    """What a group lies across, the most worth a look first."""

    LABELS = "labels"
    FOLDERS = "folders"
    PHOTOS = "photos"
    FILM = "film"
    FRAMES = "frames"


@dataclass(frozen=True)
class Group:
    """Photos that are alike.

    Attributes
    ----------
    kind : DuplicateKind
    across : Across
        Several labels; one label and several folders; other photos of one folder; one film, with
        gaps between its frames; or nothing but neighbouring frames of it.
    rows : ndarray of shape (m,), int64
        At least two, rising.
    """

    kind: DuplicateKind
    across: Across
    rows: Ints = field(repr=False)


def find_suspects(photos: Photos, neighbors: Neighbors) -> Ints:
    """Return the photos whose content may be another's too, rising: length and features agree."""
    i, j = links(neighbors, SAME)
    same = photos.lengths[i] == photos.lengths[j]
    return np.unique(np.concatenate([i[same], j[same]]))


def find_contents(photos: Photos, neighbors: Neighbors, sums: Mapping[int, str | None]) -> Ints:
    """Tell which photos share one content.

    Parameters
    ----------
    photos : Photos
    neighbors : Neighbors
    sums : mapping of int to str or None
        The sha256 of each suspect's content, by row. Where a photo could not be read again, length
        and features decide.

    Returns
    -------
    ndarray of shape (n,), int64
        Row of the first photo with this content.
    """
    i, j = links(neighbors, SAME)
    unread = np.zeros(len(photos), bool)
    unread[[row for row, value in sums.items() if value is None]] = True
    believed = (photos.lengths[i] == photos.lengths[j]) & (unread[i] | unread[j])
    first: dict[str, int] = {}
    read = [(row, first.setdefault(value, row)) for row, value in sums.items() if value]
    copies = np.array(read, np.int64).reshape(-1, 2)
    return components(
        len(photos),
        np.concatenate([i[believed], copies[:, 0]]),
        np.concatenate([j[believed], copies[:, 1]]),
    )


def find_groups(photos: Photos, neighbors: Neighbors, content: Ints, near: float) -> list[Group]:
    """Find copies, and photos that are linked by a cosine of at least ``near``.

    A group of copies alone is no group of near ones as well.

    Returns
    -------
    list of Group
        Exact ones first; then by what they lie across, and the largest first.
    """
    i, j = links(neighbors, near)
    copies = _gather(content)
    alike = _gather(components(len(photos), i, j))
    alike = [rows for rows in alike if (content[rows] != content[rows[0]]).any()]
    groups = [
        Group(kind, _across(photos, rows), rows)
        for kind, members in ((DuplicateKind.EXACT, copies), (DuplicateKind.NEAR, alike))
        for rows in members
    ]
    kinds, across = list(DuplicateKind), list(Across)
    return sorted(
        groups, key=lambda g: (kinds.index(g.kind), across.index(g.across), -len(g.rows), g.rows[0])
    )


def links(neighbors: Neighbors, near: float) -> tuple[Ints, Ints]:
    """Return pairs of rows whose cosine is at least ``near``."""
    i, at = np.nonzero((neighbors.similarity >= near) & (neighbors.row >= 0))
    return i, neighbors.row[i, at].astype(np.int64)


def components(n: int, i: Ints, j: Ints) -> Ints:
    """Return for each of n rows the first row that it is linked to, over any number of links.

    Parameters
    ----------
    n : int
    i, j : ndarray of shape (m,), int64
        Rows that are linked.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    # Shiloach and Vishkin 1982: hook the tree of one end to that of the other, flatten, again.
    root = np.arange(n)
    while (root[i] != root[j]).any():
        low = np.minimum(root[i], root[j])
        np.minimum.at(root, root[i], low)
        np.minimum.at(root, root[j], low)
        while (root[root] != root).any():
            root = root[root]
    return root


def _gather(root: Ints) -> list[Ints]:
    """Return the rows of every component of two and more."""
    order = np.argsort(root, kind="stable")
    _, starts = np.unique(root[order], return_index=True)
    return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def _across(photos: Photos, rows: Ints) -> Across:
    if len(np.unique(photos.targets[rows])) > 1:
        return Across.LABELS
    if len({photos.paths[row].rpartition("/")[0] for row in rows.tolist()}) > 1:
        return Across.FOLDERS
    if len(np.unique(photos.films.film[rows])) > 1:
        return Across.PHOTOS
    return Across.FRAMES if photos.are_neighbouring_frames(rows) else Across.FILM
