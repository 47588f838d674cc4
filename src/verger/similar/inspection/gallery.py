"""The photos of an inspection that a page shows: few, and no two neighbouring frames of a film."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from verger.similar.inspection.groups import Across, DuplicateKind, Group
from verger.similar.inspection.outliers import OUTLYING, Floats
from verger.similar.inspection.photos import Photos
from verger.similar.inspection.votes import Doubt
from verger.source.films import NEIGHBOUR_FRAMES

#: Groups, doubtful labels and classes with outliers that are shown, and photos of each.
SHOWN, SHOWN_PHOTOS = 24, 5
SHOWN_FILMS = 12
#: Photos that are shown of what a class usually looks like.
TYPICAL = 3


def make_galleries(
    photos: Photos, groups: list[Group], doubts: list[Doubt], distance: Floats, scores: Floats
) -> dict[str, list[dict[str, Any]]]:
    """Choose what a page shows of an inspection.

    Returns
    -------
    dict
        ``exact``, ``near``, ``film`` (near ones within one film, but for neighbouring frames),
        ``mislabelled`` and ``outliers``: lists of plain JSON values, where ``photos``, ``like`` and
        ``typical`` are lists of paths.
    """
    exact = [group for group in groups if group.kind is DuplicateKind.EXACT]
    near = [group for group in groups if group.kind is DuplicateKind.NEAR]
    other = [group for group in near if group.across not in (Across.FILM, Across.FRAMES)]
    film = [group for group in near if group.across is Across.FILM]
    return {
        "exact": [_group(photos, group) for group in exact[:SHOWN]],
        "near": [_group(photos, group) for group in other[:SHOWN]],
        "film": [_group(photos, group) for group in film[:SHOWN_FILMS]],
        "mislabelled": _mislabelled(photos, doubts, distance),
        "outliers": _outliers(photos, distance, scores),
    }


def _group(photos: Photos, group: Group) -> dict[str, Any]:
    """Show photos from the first label to the last."""
    rows = group.rows[np.argsort(photos.targets[group.rows], kind="stable")]
    shown = np.linspace(0, len(rows) - 1, min(len(rows), SHOWN_PHOTOS)).astype(int)
    return {
        "across": group.across,
        "size": len(rows),
        "photos": _paths(photos, rows[shown].tolist()),
        "labels": list(dict.fromkeys(photos.label_of(row) for row in rows.tolist())),
    }


def _mislabelled(photos: Photos, doubts: list[Doubt], distance: Floats) -> list[dict[str, Any]]:
    by_row = {doubt.row: doubt for doubt in doubts}
    shown = [by_row[row] for row in _apart(photos, by_row, SHOWN)]
    return [
        {
            "label": photos.label_of(doubt.row),
            "suggestion": doubt.suggestion,
            "n_votes": doubt.n_votes,
            "n_against": doubt.n_against,
            "photos": _paths(photos, [doubt.row]),
            "like": _paths(photos, _apart(photos, doubt.against, TYPICAL)),
            "typical": _typical(photos, distance, int(photos.targets[doubt.row])),
        }
        for doubt in shown
    ]


def _outliers(photos: Photos, distance: Floats, scores: Floats) -> list[dict[str, Any]]:
    """Show the classes whose farthest photo is farthest first."""
    rows = np.flatnonzero(scores > OUTLYING)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    by_class: dict[int, list[int]] = {}
    for row in rows.tolist():
        by_class.setdefault(int(photos.targets[row]), []).append(row)
    return [
        {
            "label": photos.labels[target],
            "n": len(farthest),
            "score": float(scores[farthest[0]]),
            "photos": _paths(photos, _apart(photos, farthest, SHOWN_PHOTOS)),
            "typical": _typical(photos, distance, target),
        }
        for target, farthest in list(by_class.items())[:SHOWN]
    ]


def _typical(photos: Photos, distance: Floats, target: int) -> list[str]:
    """Return the photos that are nearest to the mean of their class."""
    rows = np.flatnonzero(photos.targets == target)
    nearest = rows[np.argsort(distance[rows], kind="stable")]
    return _paths(photos, _apart(photos, nearest.tolist(), TYPICAL))


def _apart(photos: Photos, rows: Iterable[int], most: int) -> list[int]:
    """Take the first rows, but no neighbouring frame of one that is taken."""
    taken: list[int] = []
    for row in rows:
        apart = photos.films.frames_apart(np.full(len(taken), row), np.array(taken, np.int64))
        if len(taken) < most and (apart > NEIGHBOUR_FRAMES).all():
            taken.append(row)
    return taken


def _paths(photos: Photos, rows: Iterable[int]) -> list[str]:
    return [photos.paths[row] for row in rows]
