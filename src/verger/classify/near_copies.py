"""Groups of near copies: photos of one visit, told by their features where nobody told them.

Whoever photographs apples in a shop takes several photos of one crate. A random split parts them,
and the test then asks what was learnt by heart, as with frames of a film.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verger.classify.nearest import unit
from verger.classify.recipe import Recipe, assign_roles
from verger.classify.regression import fits_in_memory
from verger.classify.splits import TEST, SplitStrategy, draw_stratified
from verger.classify.vectors import Labelled, LabelledVectors
from verger.errors import ClassifierError, ConfigError

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

#: Two photos of a label are near copies if they are nearer to each other than all but this share of
#: photos are to any photo of another label.
CONFUSED = 0.1
#: Photos whose nearest one of another label is looked for.
ASKED = 2_000
#: Photos of a label that are compared with one another: of more, those beside one another by path.
COMPARED = 10_000
#: Rows whose distances to all others are in memory at once: 256 x 20,000 float32 are 20 MB.
_ROWS_AT_ONCE = 256


def group_near_copies(
    vectors: LabelledVectors, recipe: Recipe, strategy: SplitStrategy
) -> tuple[LabelledVectors, SplitStrategy]:
    """Split by groups of near copies where nothing else is known: no split, no groups, no films.

    Parameters
    ----------
    vectors : LabelledVectors
        Of features.
    recipe : Recipe
    strategy : {"random", "group", "contiguous"}
        What was asked for, or what paths, lists and films allow.

    Returns
    -------
    vectors : LabelledVectors
        Whose photos know their groups.
    strategy : {"random", "group", "contiguous"}
        "random" as before if fewer than half of the labels have two groups to be split.
    """
    labelled = vectors.labelled
    size = len(labelled), vectors.n_features, len(labelled.labels)
    if recipe.split is not None or strategy != "random" or not fits_in_memory(*size):
        return vectors, strategy
    x = unit(vectors.collect(np.arange(len(labelled))))
    near = measure_confused(x, labelled)
    grouped = replace(labelled, groups=join_near(x, labelled.targets, near), near=near)
    try:
        roles = assign_roles(grouped, recipe, "group")
    except (ConfigError, ClassifierError):
        return vectors, strategy
    tested = np.unique(labelled.targets[roles == TEST])
    if 2 * (tested < labelled.n_names).sum() < labelled.n_names:
        return vectors, strategy
    return replace(vectors, labelled=grouped), "group"


def measure_confused(x: Vectors, labelled: Labelled) -> float:
    """Return the distance within which :data:`CONFUSED` of photos have one of another label.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        Of length 1.
    labelled : Labelled
    """
    targets = labelled.targets
    named = np.flatnonzero(targets < labelled.n_names)
    asked = named[draw_stratified(targets[named], ASKED)]
    nearest = [
        np.where(targets[rows][:, None] == targets, np.inf, distances).min(axis=1)
        for rows, distances in _distances(x, asked, np.arange(len(x)))
    ]
    return float(np.quantile(np.concatenate(nearest), CONFUSED))


def join_near(x: Vectors, targets: Ints, near: float) -> Ints:
    """Return the group of each photo: those of a label that are near, by a chain of others too.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        Of length 1.
    targets : ndarray of shape (n,), int64
    near : float
        Photos nearer than this belong together.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    group = np.empty(len(x), np.int64)
    for target in np.unique(targets):
        of_label = np.flatnonzero(targets == target)
        for part in np.array_split(of_label, -(-len(of_label) // COMPARED)):
            group[part] = part[_first_of_groups(x, part, near)]
    return np.unique(group, return_inverse=True)[1]


def _first_of_groups(x: Vectors, part: Ints, near: float) -> Ints:
    """Return for each of some photos the first of its group: both are places in ``part``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, at = len(part), 0
    every = first = np.arange(n)
    # Joined block by block: of photos that are all alike, all pairs would not fit into memory.
    for rows, distances in _distances(x, part, part):
        one, other = np.nonzero(distances < near)
        pairs = np.append(every, at + one), np.append(first, other)
        graph = coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(n, n))
        group = connected_components(graph, directed=False)[1]
        first = np.unique(group, return_index=True)[1][group]
        at += len(rows)
    return first


def _distances(x: Vectors, asked: Ints, known: Ints) -> Iterator[tuple[Ints, Vectors]]:
    """Yield rows (m,) and their distances to the known ones (m, n), some at a time."""
    there = x[known].T
    for start in range(0, len(asked), _ROWS_AT_ONCE):
        rows = asked[start : start + _ROWS_AT_ONCE]
        yield rows, np.sqrt(np.maximum(2 - 2 * (x[rows] @ there), 0))
