"""Scores are those that a reader would compute by hand, and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from verger.classify.scores import (
    LEAST_THRESHOLD,
    Scored,
    at_threshold,
    by_class,
    choose_threshold,
    confused_pairs,
    confusion_matrix,
    coverage_curve,
    fit_temperature,
    reliability,
    summarize,
)

NONE = np.empty(0)


def drawn(n: int = 400, n_labels: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (n, n_labels) and classes that are drawn by them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_labels, 0.3), n)
    true = np.array([rng.choice(n_labels, p=row) for row in p])
    return p, true


def scored(probability: list[float], correct: list[bool]) -> Scored:
    """Return predictions of class 0 of which some are right."""
    n = len(probability)
    true = np.where(correct, 0, 1)
    p = np.array(probability)
    return Scored(
        true, np.zeros(n, int), p, np.where(correct, p, 1 - p), 1 - np.array(correct, int)
    )


def test_the_summary_is_scikit_learns() -> None:
    p, true = drawn()
    found = summarize(Scored.of(p, true))
    predicted = p.argmax(axis=1)
    assert found["n"] == 400
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(true, predicted)
    )
    assert found["log_loss"] == pytest.approx(metrics.log_loss(true, p, labels=range(7)))
    assert found["top5"] == pytest.approx(
        metrics.top_k_accuracy_score(true, p, k=5, labels=range(7))
    )


def test_balanced_accuracy_counts_classes_and_not_photos() -> None:
    """Nine of nine of one class and none of one of another is one half."""
    p = np.tile([0.9, 0.1], (10, 1))
    found = summarize(Scored.of(p, np.array([0] * 9 + [1])))
    assert (found["accuracy"], found["balanced_accuracy"]) == (0.9, 0.5)


def test_ties_go_to_the_first_class() -> None:
    """Votes tie often: the prediction is the first, and the rank of the true class follows it."""
    found = Scored.of(np.array([[0.4, 0.4, 0.2]] * 3), np.array([0, 1, 2]))
    assert found.predicted.tolist() == [0, 0, 0]
    assert found.rank.tolist() == [0, 1, 2]


def test_a_class_that_the_classifier_does_not_have_is_never_right() -> None:
    found = Scored.of(np.array([[0.7, 0.3]]), np.array([-1]))
    assert not found.correct.any()
    assert (found.p_true.tolist(), found.rank.tolist()) == ([0.0], [2])


def test_a_true_class_without_a_vote_costs_a_finite_log_loss() -> None:
    found = summarize(Scored.of(np.array([[1.0, 0.0]]), np.array([1])))
    assert found["log_loss"] == pytest.approx(-np.log(1e-15))


def test_calibrated_predictions_have_a_small_error_and_boasting_ones_a_large() -> None:
    """Classes are drawn by the very probabilities; sharpened, they promise too much."""
    p, true = drawn(20_000)
    sharp = p**4 / (p**4).sum(axis=1, keepdims=True)
    assert summarize(Scored.of(p, true))["ece"] < 0.02
    assert summarize(Scored.of(sharp, true))["ece"] > 0.1


def test_the_calibration_error_by_hand() -> None:
    """Two photos at 0.95, one right, and two at 0.65, both right: (0.45 + 0.35) / 2."""
    found = scored([0.95, 0.95, 0.65, 0.65], [True, False, True, True])
    assert summarize(found)["ece"] == pytest.approx(0.4)
    assert [(b["low"], b["n"], b["accuracy"]) for b in reliability(found)] == [
        (0.6, 2, 1.0),
        (0.9, 2, 0.5),
    ]


def test_confusion_precision_and_recall_are_scikit_learns() -> None:
    p, true = drawn()
    found = Scored.of(p, true)
    confusion = confusion_matrix(found, 7)
    assert (confusion == metrics.confusion_matrix(true, found.predicted)).all()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(true, found.predicted)
    rows = by_class(confusion, [f"class {i}" for i in range(7)])
    for i, row in enumerate(rows):
        assert (row["label"], row["n"]) == (f"class {i}", support[i])
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [precision[i], recall[i], f1[i]]
        )


def test_what_nothing_defines_is_none() -> None:
    """A class without photos and without predictions has neither recall nor precision."""
    row = by_class(np.diag([3, 0]), ["a", "b"])[1]
    assert (row["recall"], row["precision"], row["f1"]) == (None, None, None)


def test_pairs_are_the_commonest_mistakes_first() -> None:
    confusion = np.array([[9, 2, 0], [0, 9, 5], [0, 0, 9]])
    assert confused_pairs(confusion, 12) == [(1, 2, 5), (0, 1, 2)]
    assert confused_pairs(confusion, 1) == [(1, 2, 5)]


# Thresholds


def test_a_threshold_by_hand() -> None:
    """At 0.6 three of four get a name, one of them a wrong one, and one of two other things."""
    found = scored([0.9, 0.8, 0.6, 0.5], [True, False, True, True])
    assert at_threshold(found, np.array([0.7, 0.1]), 0.6) == {
        "threshold": 0.6,
        "coverage": 0.75,
        "error": pytest.approx(1 / 3),
        "others": 0.5,
    }


def test_shares_of_nothing_are_none() -> None:
    found = at_threshold(scored([0.5], [True]), NONE, 0.6)
    assert (found["coverage"], found["error"], found["others"]) == (0.0, None, None)


def test_coverage_never_rises_with_the_threshold() -> None:
    p, true = drawn()
    curve = coverage_curve(Scored.of(p, true), p[:50].max(axis=1))
    for name in ("coverage", "others"):
        values = [point[name] for point in curve]
        assert values == sorted(values, reverse=True)
    assert curve[0]["coverage"] == 1.0


def test_the_threshold_is_the_lowest_that_keeps_the_error() -> None:
    """With a quarter of wrong names allowed, the photo at 0.6 still passes, the one at 0.5 not."""
    found = scored([0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, True, False])
    assert choose_threshold(found, NONE, max_error=0.25) == 0.6


def test_photos_of_one_probability_pass_together() -> None:
    """No threshold can let the right one of two equals pass and hold back the wrong one."""
    found = scored([0.9, 0.8, 0.8], [True, True, False])
    assert choose_threshold(found, NONE, max_error=0.1) == 0.9


@pytest.mark.parametrize("others", [[], [0.3, 0.2]])
def test_where_all_is_right_a_name_still_needs_half_of_the_probability(others: list[float]) -> None:
    """Few photos, all of them right, say nothing of photos that are like none of them."""
    found = scored([0.9, 0.2], [True, True])
    assert choose_threshold(found, np.array(others)) == LEAST_THRESHOLD == 0.5


def test_where_nothing_keeps_the_promise_only_certainty_passes() -> None:
    assert choose_threshold(scored([0.9, 0.8], [False, False]), NONE) == 1.0


@pytest.mark.parametrize("max_others", [0.0, 0.05, 0.3])
def test_other_things_raise_the_threshold(max_others: float) -> None:
    """No more of them pass than is allowed, and one more would have."""
    others = np.random.default_rng(1).random(200)
    found = scored([0.9, 0.2], [True, True])
    threshold = choose_threshold(found, others, max_others=max_others)
    assert (others >= threshold).mean() <= max_others
    assert (others >= threshold - 1e-9).mean() > max_others


def test_the_temperature_undoes_a_sharpening() -> None:
    """Scores that were made three times too large come back by a temperature of three."""
    p, true = drawn(5000)
    scores = np.log(p + 1e-12)
    assert fit_temperature(3 * scores, true) == pytest.approx(
        3 * fit_temperature(scores, true), rel=1e-3
    )
    assert fit_temperature(scores, true) == pytest.approx(1.0, abs=0.06)
