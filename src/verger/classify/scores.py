"""What held-out predictions are worth: accuracy, calibration, confusion, and when to say nothing.

All of it needs five numbers a photo, whatever the number of classes, so that the tasks keep the
probabilities and hand over a :class:`Scored`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Log loss counts a probability below this as this, as scikit-learn did and Spark does: the true
#: class may have had no vote at all.
SMALLEST_PROBABILITY = 1e-15
#: Bins of the reliability diagram, of equal width.
N_BINS = 10
#: Thresholds of the curve of coverage and error.
CURVE_THRESHOLDS = (
    0.0,
    0.05,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.35,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
    0.98,
    0.99,
    0.995,
    0.999,
)
#: A prediction is called sure from this probability on.
SURE = 0.99
#: Of what the threshold lets through, at most this share may be wrong, and at most this share of
#: photos of other things may pass.
MAX_ERROR, MAX_OTHERS = 0.01, 0.05
#: No name for less than this, the probability that all other names have together: few photos held
#: out may all be right, whatever their probability, and would let anything pass.
LEAST_THRESHOLD = 0.5
#: Photos from which one that breaks the promise is no more than the promise allows.
ENOUGH_NAMED, ENOUGH_OTHERS = round(1 / MAX_ERROR), round(1 / MAX_OTHERS)


@dataclass(frozen=True)
class Scored:
    """Predictions of photos whose classes are known.

    Attributes
    ----------
    true : ndarray of shape (n,), int64
        Class; -1 for one that the classifier does not have.
    predicted : ndarray of shape (n,), int64
        Class of the highest probability, the first of equal ones.
    probability : ndarray of shape (n,), float64
        Of the predicted class.
    p_true : ndarray of shape (n,), float64
        Of the true class; 0 where it is unknown.
    rank : ndarray of shape (n,), int64
        How many classes come before the true one.
    """

    true: Ints = field(repr=False)
    predicted: Ints = field(repr=False)
    probability: Floats = field(repr=False)
    p_true: Floats = field(repr=False)
    rank: Ints = field(repr=False)

    @classmethod
    def of(cls, probabilities: Floats, true: Ints) -> Scored:
        """Keep what counts of probabilities of shape (n, n_labels); a class beyond is unknown."""
        n, n_labels = probabilities.shape
        true = np.where(true < n_labels, true, -1)
        rows, known = np.arange(n), true >= 0
        column = np.where(known, true, 0)
        p_true = np.where(known, probabilities[rows, column], 0.0)
        before = probabilities > p_true[:, None]
        ties = (probabilities == p_true[:, None]) & (np.arange(n_labels) < column[:, None])
        rank = np.where(known, (before | ties).sum(axis=1), n_labels)
        predicted = probabilities.argmax(axis=1)
        return cls(true, predicted, probabilities[rows, predicted], p_true, rank)

    @classmethod
    def join(cls, parts: Sequence[Scored]) -> Scored:
        """Put the predictions of several sets of photos one after the other."""
        columns = ([getattr(part, each.name) for part in parts] for each in fields(cls))
        return cls(*map(np.concatenate, columns))

    def __len__(self) -> int:
        return len(self.true)

    def __getitem__(self, rows: npt.NDArray[Any]) -> Scored:
        return Scored(
            self.true[rows],
            self.predicted[rows],
            self.probability[rows],
            self.p_true[rows],
            self.rank[rows],
        )

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is right, of shape (n,)."""
        correct: npt.NDArray[np.bool_] = self.true == self.predicted
        return correct


def summarize(scored: Scored) -> dict[str, float]:
    """Return the numbers that a classifier is judged by.

    Returns
    -------
    dict
        ``n``; ``accuracy``; ``top5``, the share whose class is among the five likeliest;
        ``balanced_accuracy``, the mean of the classes' recalls; ``log_loss`` in nats; ``ece``, the
        expected calibration error (Naeini et al. 2015) of the predicted class.
    """
    n = np.bincount(scored.true)
    hits = np.bincount(scored.true[scored.correct], minlength=len(n))
    bins = reliability(scored)
    gaps = sum(b["n"] * abs(b["accuracy"] - b["probability"]) for b in bins)
    loss = -np.log(np.clip(scored.p_true, SMALLEST_PROBABILITY, 1))
    return {
        "n": len(scored),
        "accuracy": float(scored.correct.mean()),
        "top5": float((scored.rank < 5).mean()),
        "balanced_accuracy": float((hits[n > 0] / n[n > 0]).mean()),
        "log_loss": float(loss.mean()),
        "ece": float(gaps / len(scored)),
    }


def reliability(scored: Scored) -> list[dict[str, float]]:
    """Compare what was claimed with what came true, in bins of the probability that hold photos."""
    place = np.clip((scored.probability * N_BINS).astype(int), 0, N_BINS - 1)
    return [
        {
            "low": i / N_BINS,
            "n": int(there.sum()),
            "probability": float(scored.probability[there].mean()),
            "accuracy": float(scored.correct[there].mean()),
        }
        for i in range(N_BINS)
        if (there := place == i).any()
    ]


def confusion_matrix(scored: Scored, n_labels: int) -> Ints:
    """Count photos by true (row) and predicted (column) class."""
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (scored.true, scored.predicted), 1)
    return counts


def by_class(confusion: Ints, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return recall, precision and F1 of every class; None where nothing defines them."""
    support, claimed = confusion.sum(axis=1), confusion.sum(axis=0)
    hits = confusion.diagonal()
    return [
        {
            "label": label,
            "n": int(support[i]),
            "recall": _share(hits[i], support[i]),
            "precision": _share(hits[i], claimed[i]),
            "f1": _share(2 * hits[i], support[i] + claimed[i]),
        }
        for i, label in enumerate(labels)
    ]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def confused_pairs(confusion: Ints, most: int) -> list[tuple[int, int, int]]:
    """Return (true, predicted, photos) of the commonest mistakes, the commonest first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    first = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), len(wrong)) for i in first]
    return [(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


# When to say nothing


def at_threshold(scored: Scored, others: Floats, threshold: float) -> dict[str, float | None]:
    """Say what a threshold does.

    Parameters
    ----------
    scored : Scored
    others : ndarray of shape (m,), float64
        Probabilities of what was predicted for photos of other things; m may be 0.
    threshold : float

    Returns
    -------
    dict
        ``coverage``: share of the photos that get a name; ``error``: share of those that is
        wrong; ``others``: share of the photos of other things that get a name. None for a share
        of nothing.
    """
    named = scored.probability >= threshold
    return {
        "threshold": threshold,
        "coverage": _share(int(named.sum()), len(scored)),
        "error": _share(int((named & ~scored.correct).sum()), int(named.sum())),
        "others": _share(int((others >= threshold).sum()), len(others)),
    }


def coverage_curve(scored: Scored, others: Floats) -> list[dict[str, float | None]]:
    """Say what each of :data:`CURVE_THRESHOLDS` does."""
    return [at_threshold(scored, others, threshold) for threshold in CURVE_THRESHOLDS]


def choose_threshold(
    scored: Scored,
    others: Floats,
    weights: Floats | None = None,
    *,
    max_error: float = MAX_ERROR,
    max_others: float = MAX_OTHERS,
) -> float:
    """Choose the lowest threshold that keeps two promises on held-out photos, one half at least.

    Parameters
    ----------
    scored : Scored
    others : ndarray of shape (m,), float64
        As for :func:`at_threshold`.
    weights : ndarray of shape (n,), float64, optional
        What each photo counts; by default 1.
    max_error : float
        Most of the named photos that may be wrong.
    max_others : float
        Most of the photos of other things that may be named.

    Returns
    -------
    float
        From :data:`LEAST_THRESHOLD` to 1; 1 where no other keeps them.
    """
    order = np.argsort(-scored.probability, kind="stable")
    falling = scored.probability[order]
    weights = np.ones(len(order)) if weights is None else weights[order]
    error = (~scored.correct[order] * weights).cumsum() / weights.cumsum()
    # All photos of one probability pass together: only the last of them can be a threshold.
    last = np.append(falling[1:] != falling[:-1], True)
    keeps = np.flatnonzero(last & (error <= max_error))
    everything = len(keeps) > 0 and keeps[-1] == len(order) - 1
    threshold = 0.0 if everything else float(falling[keeps[-1]]) if len(keeps) else 1.0
    threshold = max(threshold, LEAST_THRESHOLD)
    if len(others):
        highest = np.sort(others)[::-1]
        first_refused = float(highest[min(int(max_others * len(others)), len(others) - 1)])
        if (others >= threshold).mean() > max_others:
            threshold = max(threshold, min(float(np.nextafter(first_refused, 2)), 1.0))
    return threshold


def fit_temperature(scores: Floats, true: Ints) -> float:
    """Find the temperature of the lowest log loss (Guo et al. 2017, "On calibration").

    Parameters
    ----------
    scores : ndarray of shape (n, n_labels), float64
        Of held-out photos.
    true : ndarray of shape (n,), int64

    Returns
    -------
    float
        By golden-section search over its logarithm: the loss has one minimum in 1 / temperature.
    """
    shifted = scores - scores.max(axis=1, keepdims=True)
    at_true = shifted[np.arange(len(true)), true]

    loss = partial(_log_loss, shifted, at_true)
    low, high, ratio = -10.0, 15.0, (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _log_loss(shifted: Floats, at_true: Floats, log_temperature: float) -> float:
    temperature = np.exp(log_temperature)
    normalizers = np.log(np.exp(shifted / temperature).sum(axis=1))
    return float((normalizers - at_true / temperature).mean())
