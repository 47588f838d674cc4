"""Photos of one visit are told by their features, and count as one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa

from verger.classify.near_copies import join_near, measure_confused
from verger.classify.nearest import unit
from verger.classify.scores import Scored, choose_threshold
from verger.classify.vectors import Labelled

N_LABELS, N_VISITS, N_COPIES = 4, 6, 5


def test_photos_of_one_visit_are_one_group_and_those_of_two_labels_never() -> None:
    rng = np.random.default_rng(0)
    visits = rng.normal(size=(N_LABELS * N_VISITS, 1, 64))
    copies = visits + 0.1 * rng.normal(size=(len(visits), N_COPIES, 64))
    x = unit(copies.reshape(-1, 64).astype(np.float32))
    visit = np.arange(len(x)) // N_COPIES
    targets = visit // N_VISITS
    names = pa.array([str(target) for target in targets])
    labelled = Labelled(names, targets, ("0", "1", "2", "3"), 0, names)
    near = measure_confused(x, labelled)
    assert join_near(x, targets, near).tolist() == visit.tolist()
    assert join_near(x, targets, 9.0).tolist() == targets.tolist()


def test_photos_that_are_all_alike_fit_into_memory() -> None:
    """Their 2.6 million pairs are not in memory at once."""
    x, targets = np.ones((1_600, 1), np.float32), np.zeros(1_600, np.int64)
    tracemalloc.start()
    try:
        assert not join_near(x, targets, 0.1).any()
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_visit_counts_as_one_photo_for_the_threshold() -> None:
    """Twenty copies of one mistake are one mistake among ten visits."""
    names = pa.array(["a"] * 29)
    groups = np.array([0] * 20 + list(range(1, 10)))
    labelled = Labelled(names, np.zeros(29, int), ("a", "b"), 0, names, groups=groups)
    weights = labelled.weigh(np.arange(29))
    np.testing.assert_allclose(weights, [1 / 20] * 20 + [1] * 9)
    p = np.where(np.arange(29) < 20, 0.6, np.linspace(0.7, 0.99, 29))
    wrong = np.arange(29) < 20
    scored = Scored.of(
        np.stack([np.where(wrong, 1 - p, p), np.where(wrong, p, 1 - p)], 1), 0 * groups
    )
    allowed = {"max_error": 0.1}
    assert choose_threshold(scored, np.empty(0), weights, **allowed) == 0.5
    assert choose_threshold(scored, np.empty(0), **allowed) > 0.6
