"""Splits must not flatter: what must hold of every way to cut, on paths made up here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from verger.classify.splits import (
    GAP,
    LEFT_OUT,
    TEST,
    TRAIN,
    Cutter,
    draw_stratified,
    make_cutter,
    measure_leakage,
)
from verger.errors import ConfigError
from verger.source.films import NEIGHBOUR_FRAMES, find_films, match_groups

FRAMES = 100  # of each film


def turntable(
    n_classes: int = 3, films: tuple[str, ...] = ("", "r_")
) -> tuple[list[str], np.ndarray]:
    """Return paths and classes named as Fruits-360's."""
    paths = [
        f"/photos/Fruit {c}/{film}{frame}_100.jpg"
        for c in range(n_classes)
        for film in films
        for frame in range(FRAMES)
    ]
    return paths, np.repeat(np.arange(n_classes), len(films) * FRAMES)


def cut(kind: Any, paths: list[str], targets: np.ndarray, groups: str = "", **how: Any) -> Cutter:
    """Make a cutter whose groups are read from the paths."""
    numbers = match_groups(paths, groups) if groups else None
    return make_cutter(kind, paths, targets, groups=numbers, **how)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("contiguous", {"frames": "("}, r"frames='\(': is no regular expression"),
        ("contiguous", {"frames": r"(?P<film>.)"}, r"must have groups \(\?P<film>"),
        ("contiguous", {"frames": r"(?P<film>q)(?P<frame>\d)"}, "no film has 12 frames"),
        ("group", {}, "needs groups"),
        ("group", {"groups": "x"}, "must match every photo"),
        ("group", {"groups": "photos"}, "all photos are in one group"),
        ("halves", {}, "must be one of random, group, contiguous"),
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(
    kind: str, options: dict[str, str], message: str
) -> None:
    paths, targets = turntable()
    with pytest.raises(ConfigError, match=message):
        cut(kind, paths, targets, **options)


# Splits


@pytest.mark.parametrize("kind", ["random", "contiguous", "group"])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_trained_and_tested(kind: str, seed: int) -> None:
    """Each class has photos on both sides, about a quarter held out of what is used."""
    paths, targets = turntable(films=("", "r_", "r2_", "r3_"))
    cutter = cut(kind, paths, targets, groups=r"(\w+ \d)/(.*?)\d+_100", seed=seed)
    roles = cutter.split(targets)
    for role in (TRAIN, TEST):
        assert set(targets[roles == role].tolist()) == {0, 1, 2}
    assert 0.2 < (roles == TEST).mean() < 0.3


@pytest.mark.parametrize("seed", range(5))
def test_arcs_keep_a_gap_to_every_training_frame(seed: int) -> None:
    """No test photo is within the gap of a training photo, nor across the end of the turn."""
    paths, targets = turntable()
    roles = make_cutter("contiguous", paths, targets, seed=seed).split(targets)
    films = find_films(paths)
    trained = np.flatnonzero(roles == TRAIN)
    for row in np.flatnonzero(roles == TEST):
        apart = films.frames_apart(np.full(len(trained), row), trained)
        assert apart.min() >= GAP * FRAMES
    assert (roles == LEFT_OUT).sum() == pytest.approx(2 * GAP * len(paths), abs=12)


@pytest.mark.parametrize("seed", range(20))
def test_a_film_with_missing_frames_is_tested_by_its_share(seed: int) -> None:
    """An arc that is drawn blindly falls into the hole of half a turn in one film of four."""
    frames = [*range(40), *range(200, 330)]
    paths = [f"/{name}/{frame}.jpg" for name in "ab" for frame in frames]
    targets = np.repeat([0, 1], len(frames))
    roles = make_cutter("contiguous", paths, targets, seed=seed).split(targets)
    for target in (0, 1):
        of_class = roles[targets == target]
        assert 0.1 < (of_class == TEST).mean() < 0.4
        assert (of_class == TRAIN).mean() > 0.4


def test_the_test_of_a_film_is_one_arc() -> None:
    """Going round the film, the test begins once and ends once."""
    paths, targets = turntable(1, ("",))
    tested = make_cutter("contiguous", paths, targets, seed=4).split(targets) == TEST
    assert (tested != np.roll(tested, 1)).sum() == 2


@pytest.mark.parametrize("seed", range(8))
def test_groups_never_straddle(seed: int) -> None:
    """All photos of a group have one role, also where a group has photos of many classes."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, 9, 600)
    targets = rng.integers(0, 4, 600)
    paths = [f"/p/{w}/{i}.jpg" for i, w in enumerate(who)]
    roles = cut("group", paths, targets, groups=r"/p/(\d+)/", seed=seed).split(targets)
    for group in range(9):
        assert len(set(roles[who == group].tolist())) == 1
    assert {TRAIN, TEST} == set(roles.tolist())


def test_a_class_with_one_photo_is_trained_on_and_never_tested() -> None:
    """It cannot be both, and a test of something never seen would say nothing."""
    targets = np.array([0] * 20 + [1])
    paths = [f"/p/{i}.jpg" for i in range(21)]
    for seed in range(10):
        roles = make_cutter("random", paths, targets, seed=seed).split(targets)
        assert roles[-1] == TRAIN


def test_a_class_with_one_group_is_trained_on_and_never_tested() -> None:
    paths = [f"/{g}/{i}.jpg" for g in "abc" for i in range(5)]
    targets = np.repeat([0, 0, 1], 5)
    for seed in range(10):
        roles = cut("group", paths, targets, groups="^/(.)/", seed=seed).split(targets)
        assert (roles[10:] == TRAIN).all()
        assert (roles[:10] == TEST).sum() == 5


def test_a_short_film_is_not_cut() -> None:
    """Between its gaps nothing would be left of it."""
    paths = [f"/a/{i}.jpg" for i in range(100)] + [f"/b/{i}.jpg" for i in range(5)]
    targets = np.array([0] * 100 + [1] * 5)
    roles = make_cutter("contiguous", paths, targets).split(targets)
    assert (roles[100:] == TRAIN).all()


def test_a_split_is_the_same_again_and_another_with_another_seed() -> None:
    paths, targets = turntable()
    roles = [make_cutter("random", paths, targets, seed=s).split(targets) for s in (1, 1, 2)]
    assert (roles[0] == roles[1]).all()
    assert (roles[0] != roles[2]).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_a_share_out_of_bounds_is_refused(share: float) -> None:
    paths, targets = turntable()
    with pytest.raises(ConfigError, match=r"test_share=.* must be above 0 and below 1"):
        make_cutter("random", paths, targets).split(targets, share)


def test_folds_keep_the_gap_too() -> None:
    """Between photos of two folds lie at least the frames of the gap."""
    paths, targets = turntable(1)
    fold = make_cutter("contiguous", paths, targets, seed=2).folds(3)
    films = find_films(paths)
    for one in range(3):
        rest = np.flatnonzero((fold >= 0) & (fold != one))
        for row in np.flatnonzero(fold == one):
            assert films.frames_apart(np.full(len(rest), row), rest).min() >= GAP * FRAMES - 1
    assert set(fold.tolist()) == {-1, 0, 1, 2}


def test_group_folds_part_two_groups() -> None:
    """Two films of each class fall into two folds."""
    paths, targets = turntable()
    groups = match_groups(paths, r"(\w+ \d)/(.*?)\d+_100")
    fold = make_cutter("group", paths, targets, groups=groups).folds(3)
    for target in range(3):
        of_class = targets == target
        assert len(set(fold[of_class].tolist())) == 2
        assert len(set(zip(groups[of_class].tolist(), fold[of_class].tolist(), strict=True))) == 2


# Samples and leakage


def test_a_stratified_draw_gives_small_classes_all_they_have() -> None:
    """Rows are shared out evenly until a class has no more."""
    targets = np.array([0] * 3 + [1] * 50 + [2] * 50)
    drawn = draw_stratified(targets, 43)
    assert np.bincount(targets[drawn]).tolist() == [3, 20, 20]
    assert (np.diff(drawn) > 0).all()
    assert len(draw_stratified(targets, 1000)) == 103


def test_leakage_counts_neighbouring_frames_and_frames_of_the_film() -> None:
    """Of four photos one is nearest to a neighbour, one to the far side of its film."""
    films = find_films([f"/a/{n}.jpg" for n in range(200)] + [f"/b/{n}.jpg" for n in range(200)])
    tested = np.array([0, 0, 0, 0])
    nearest = np.array([NEIGHBOUR_FRAMES, NEIGHBOUR_FRAMES + 1, 200, 300])
    found = measure_leakage(films, tested, nearest)
    assert found == {"neighbouring_frame": 0.25, "same_film": 0.5}
