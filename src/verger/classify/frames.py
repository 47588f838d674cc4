"""Whether photos with numbered names are frames of a film: by their features, not by their names.

``IMG_0017.jpg`` and ``IMG_0018.jpg`` may be frames of one film, or two photos of two shops. In a
film the next frame is more alike than one from half a film away; among other photos that is so
for every second one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verger.classify.recipe import Recipe, choose_split
from verger.classify.splits import SplitStrategy
from verger.classify.vectors import LabelledVectors
from verger.source.films import FRAMES, SHORTEST_FILM, Films, find_films

Ints = npt.NDArray[np.int64]

#: Share of a film's frames whose next one is nearer than one from half a film away.
ALIKE = 0.75
#: Where no more than this share of the films pass, they do so by chance, and none is one.
BY_CHANCE = 0.1
#: Films that are measured, and frames of each. The others are taken for what most of these are.
MEASURED_FILMS, MEASURED_FRAMES = 200, 24


def measure_films(
    vectors: LabelledVectors, recipe: Recipe, strategy: SplitStrategy
) -> tuple[LabelledVectors, SplitStrategy]:
    """Measure which numbered names are films, unless the user has said so, and split by those.

    Parameters
    ----------
    vectors : LabelledVectors
        Of features.
    recipe : Recipe
    strategy : {"random", "group", "contiguous"}
        What the names alone ask for.

    Returns
    -------
    vectors : LabelledVectors
        Whose photos know their films.
    strategy : {"random", "group", "contiguous"}
    """
    labelled = vectors.labelled
    said = recipe.split == "contiguous" or recipe.frames != FRAMES
    named = find_films(labelled.path_list, recipe.frames)
    if said or not named.n_films:
        return vectors, strategy
    labelled = replace(labelled, films=keep_films(vectors, named))
    return replace(vectors, labelled=labelled), choose_split(labelled, recipe)


def keep_films(vectors: LabelledVectors, named: Films) -> Films:
    """Return the films whose neighbouring frames are alike; every other photo is one of its own.

    Films too short to be cut stay.
    """
    size = np.bincount(named.film)
    long = np.flatnonzero(size >= SHORTEST_FILM)
    drawn = np.sort(np.random.default_rng(0).permutation(long)[:MEASURED_FILMS])
    trios = [_draw_trios(named, film) for film in drawn]
    rows, place = np.unique(np.concatenate(trios), return_inverse=True)
    x = vectors.collect(rows).astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    frame, near, far = x[place.reshape(-1, 3)].transpose(1, 0, 2)  # (n, d) each
    alike = (frame * near).sum(axis=1) > (frame * far).sum(axis=1)
    ends = np.cumsum([len(trio) for trio in trios])[:-1]
    shares = np.array([part.mean() for part in np.split(alike, ends)])
    passes = (shares >= ALIKE) & ((shares >= ALIKE).mean() > BY_CHANCE)
    is_film = size < SHORTEST_FILM
    is_film[long] = passes.mean() > 0.5
    is_film[drawn] = passes
    return named.keep(is_film)


def _draw_trios(films: Films, film: int) -> Ints:
    """Return rows of some frames, of the next ones, and of those half a film away: (n, 3)."""
    rows = np.flatnonzero(films.film == film)
    rows = rows[np.argsort(films.frame[rows], kind="stable")]
    n = len(rows)
    at = np.unique(np.linspace(0, n - 2, MEASURED_FRAMES).astype(np.int64))
    return np.stack([rows[at], rows[at + 1], rows[(at + n // 2) % n]], axis=1)
