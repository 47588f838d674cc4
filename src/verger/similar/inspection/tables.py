"""The three tables of an inspection, the most worth a look first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from verger.schema import DUPLICATES, MISLABELLED, OUTLIERS, arrow_schema
from verger.similar.inspection.groups import Group
from verger.similar.inspection.outliers import OUTLYING, Floats
from verger.similar.inspection.photos import Photos
from verger.similar.inspection.votes import Doubt
from verger.similar.neighbors import Neighbors


def table_of_groups(
    photos: Photos, neighbors: Neighbors, groups: list[Group], sums: dict[int, str | None]
) -> pa.Table:
    """Make the table ``duplicates``: a row for every photo of every group.

    Parameters
    ----------
    photos : Photos
    neighbors : Neighbors
    groups : list of Group
    sums : dict of int to str or None
        The sha256 of the photos that were read again, by row.
    """
    members = [(number, g, row) for number, g in enumerate(groups, 1) for row in g.rows.tolist()]
    rows = [
        {
            "group": number,
            "kind": group.kind,
            "across": group.across,
            "size": len(group.rows),
            "path": photos.paths[row],
            "label": photos.label_of(row),
            "nearest": photos.paths[neighbors.row[row, 0]],
            "similarity": float(neighbors.similarity[row, 0]),
            "sha256": sums.get(row),
        }
        for number, group, row in members
    ]
    return pa.Table.from_pylist(rows, arrow_schema(DUPLICATES))


def table_of_doubts(photos: Photos, doubts: list[Doubt]) -> pa.Table:
    """Make the table ``mislabelled``: a row for every doubtful label."""
    rows = [
        {
            "path": photos.paths[doubt.row],
            "label": photos.label_of(doubt.row),
            "suggestion": doubt.suggestion,
            "score": doubt.score,
            "n_votes": doubt.n_votes,
            "n_against": doubt.n_against,
            "nearest": photos.paths[doubt.against[0]],
            "similarity": doubt.similarity,
            "similarity_own": doubt.similarity_own,
        }
        for doubt in doubts
    ]
    return pa.Table.from_pylist(rows, arrow_schema(MISLABELLED))


def table_of_outliers(photos: Photos, distance: Floats, scores: Floats) -> pa.Table:
    """Make the table ``outliers``: a row for every one, by class, the farthest first."""
    outliers = np.flatnonzero(scores > OUTLYING)
    outliers = outliers[np.lexsort((-scores[outliers], photos.targets[outliers]))]
    median = {
        target: float(np.median(distance[photos.targets == target]))
        for target in np.unique(photos.targets[outliers]).tolist()
    }
    rows = [
        {
            "path": photos.paths[row],
            "label": photos.label_of(row),
            "score": float(scores[row]),
            "distance": float(distance[row]),
            "median": median[int(photos.targets[row])],
        }
        for row in outliers.tolist()
    ]
    return pa.Table.from_pylist(rows, arrow_schema(OUTLIERS))
