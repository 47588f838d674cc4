"""What is asked of a training or a test: the method, and how the photos are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.classify.classifier import INPUTS, METHODS
from verger.classify.several import read_several
from verger.classify.splits import TEST, TEST_SHARE, TRAIN, SplitStrategy, make_cutter
from verger.classify.vectors import Labelled, put_last
from verger.errors import ClassifierError, ConfigError
from verger.files.records import to_plain
from verger.result.output import Output
from verger.source.films import FRAMES, find_films, match_groups


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained and tested.

    Attributes
    ----------
    method : {"logistic", "knn", "centroid"}
    on : {"features", "pca"}
    n_neighbors : int
        Of ``knn``.
    other : tuple of str
        Labels that mean none of the others: their photos get no name.
    split : {"random", "group", "contiguous"} or None
        None for the strictest that the paths allow.
    groups : str or None
        Expression of ``group``, instead of the groups that a list gave.
    frames : str
        Expression of ``contiguous``.
    test_share : float
    seed : int
    label_map : mapping of str to str
        Other names for labels, which are learnt in their place.
    """

    method: str = "logistic"
    on: str = "features"
    n_neighbors: int = 5
    other: tuple[str, ...] = ()
    split: SplitStrategy | None = None
    groups: str | None = None
    frames: str = FRAMES
    test_share: float = TEST_SHARE
    seed: int = 0
    label_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, allowed in (("method", self.method, METHODS), ("on", self.on, INPUTS)):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} must be one of {', '.join(allowed)}")
        if self.n_neighbors < 1:
            raise ConfigError(f"n_neighbors={self.n_neighbors} must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be at least 0")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share={self.test_share} must be above 0 and below 1")


def read_trainable(outputs: Sequence[Output], recipe: Recipe) -> Labelled:
    """Read the labelled photos of some results, with the labels that the recipe gives them.

    Raises
    ------
    ClassifierError
        If they have fewer than two classes, or not those of other things.
    ContractError, ConfigError
        As from :func:`verger.classify.several.read_several`.
    """
    labelled = read_several(outputs, recipe.label_map)
    if len(labelled.labels) < 2:
        raise ClassifierError(
            f"OUT={outputs[0].root}: n_labels={len(labelled.labels)} must be at least 2 to tell "
            f"apart; all {len(labelled)} labelled photos are {labelled.labels[0]!r}"
        )
    if recipe.groups is not None and recipe.split in (None, "group"):
        groups = match_groups(labelled.path_list, recipe.groups)
        labelled = replace(labelled, groups=groups)
    return put_last(labelled, recipe.other)


def choose_split(labelled: Labelled, recipe: Recipe) -> SplitStrategy:
    """Return the split that is asked for, or the strictest that the paths allow.

    Raises
    ------
    ConfigError
        If the paths do not tell what the split needs.
    ClassifierError
        If the split leaves nothing to train on, or to test.
    """
    strategy = recipe.split or _strictest(labelled, recipe)
    assign_roles(labelled, recipe, strategy)
    return strategy


def _strictest(labelled: Labelled, recipe: Recipe) -> SplitStrategy:
    if recipe.groups is not None or _groups_can_be_held_out(labelled, recipe):
        return "group"
    films = labelled.find_films(recipe.frames)
    in_films = np.bincount(films.film)[films.film] > 1
    return "contiguous" if films.n_films and in_films.mean() > 0.5 else "random"


def _groups_can_be_held_out(labelled: Labelled, recipe: Recipe) -> bool:
    """Whether a list gave groups, and not all photos of every class the same one."""
    if labelled.groups is None:
        return False
    try:
        assign_roles(labelled, recipe, "group")
    except (ConfigError, ClassifierError):
        return False
    return True


def assign_roles(
    labelled: Labelled, recipe: Recipe, strategy: SplitStrategy
) -> npt.NDArray[np.int8]:
    """Return the role of every photo: train, test, or left out.

    Raises
    ------
    ClassifierError
        If nothing is left to train on, or to test.
    """
    cutter = make_cutter(
        strategy,
        labelled.path_list,
        labelled.targets,
        groups=labelled.groups,
        frames=recipe.frames if labelled.films is None else labelled.films,
        seed=recipe.seed,
    )
    roles = cutter.split(labelled.targets, recipe.test_share)
    n_labels = len(set(labelled.targets[roles == TRAIN].tolist()))
    tested = labelled.targets[roles == TEST]
    if n_labels < 2 or not (tested < labelled.n_names).any():
        raise ClassifierError(
            f"split={strategy}: leaves {n_labels} classes to train on and {(roles == TEST).sum()} "
            "photos to test, and must leave 2 and 1; a class needs 2 photos, better 20"
        )
    return roles


def _describe_films(recipe: Recipe, labelled: Labelled) -> dict[str, Any]:
    if labelled.films is None:
        return {}
    named = find_films(labelled.path_list, recipe.frames).n_films
    return {"films": {"named": named, "alike": labelled.films.n_films}}


def _describe_copies(labelled: Labelled) -> dict[str, Any]:
    if labelled.near is None or labelled.groups is None:
        return {}
    n_groups = len(np.unique(labelled.groups))
    return {"near_copies": {"n_groups": n_groups, "distance": labelled.near}}


def describe_recipe(recipe: Recipe, labelled: Labelled) -> dict[str, Any]:
    """Return what a record says first: the version, the recipe and the photos."""
    n_without = labelled.n_without_features
    return {
        "verger": version("verger"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": to_plain(asdict(recipe)),
        "n_labels": len(labelled.labels),
        "n_photos": len(labelled),
        "n_unlabelled": labelled.n_unlabelled,
        **({"n_without_features": n_without} if n_without else {}),
        **_describe_films(recipe, labelled),
        **_describe_copies(labelled),
    }
