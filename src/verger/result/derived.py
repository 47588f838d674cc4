"""What ``classifier/evaluation.json`` and its neighbours hold, as they are read.

They are shown on a page, and may come from somebody else: what a page relies on is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from verger.files.records import OMIT_NONE
from verger.files.tables import Part

# A classifier


@dataclass(frozen=True)
class NumberedNames:
    """Runs of numbered names that are long enough for films, and those that are by features."""

    named: int
    alike: int


@dataclass(frozen=True)
class NearCopies:
    """Groups of photos nearer to one another than a distance, which no split parts."""

    n_groups: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Who trained or tested when, how, and on which photos.

    Attributes
    ----------
    recipe : mapping
        Of :class:`verger.classify.recipe.Recipe`.
    n_labels, n_photos : int
    n_unlabelled, n_without_features : int or None
        Photos that were left out; the latter is None where there are none.
    films : NumberedNames or None
        None where it was not measured.
    near_copies : NearCopies or None
        None where photos were split by something else.
    """

    verger: str
    created: str
    recipe: Mapping[str, object]
    n_labels: int
    n_photos: int
    n_unlabelled: int
    n_without_features: int | None = field(default=None, metadata=OMIT_NONE)
    films: NumberedNames | None = field(default=None, metadata=OMIT_NONE)
    near_copies: NearCopies | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True)
class Penalty:
    """A strength of the L2 penalty in Spark's units, and the mean loss of a photo with it."""

    reg_param: float
    log_loss: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a classifier came about.

    Attributes
    ----------
    reg_param : float or None
        The penalty that was chosen; None for a method that has none.
    tried : tuple of Penalty or None
    n_trained : int
        Photos that it was fitted to.
    n_sample : int
        Photos that choices were made on, held out by ``folds``.
    n_held_out : int or None
        Photos with a name that the threshold was chosen on, each group as one; None in older
        results.
    n_others : int
        Photos that played the part of other things when the threshold was chosen.
    alarm : float or None
        Distance to the nearest known photo from which a photo is unlike all; None if unknown.
    """

    reg_param: float | None = field(default=None, metadata=OMIT_NONE)
    tried: tuple[Penalty, ...] | None = field(default=None, metadata=OMIT_NONE)
    n_trained: int
    n_sample: int
    folds: Literal["random", "contiguous", "group"]
    n_held_out: int | None = field(default=None, metadata=OMIT_NONE)
    n_others: int
    threshold: float
    temperature: float
    alarm: float | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True, kw_only=True)
class Training(Fit, Trial):
    """What ``verger classify train`` writes: ``classifier/training.json``.

    Attributes
    ----------
    on_pca : str or None
        What the components are of that the classifier takes; None if it takes features.
    """

    on_pca: str | None
    contract_hash: str
    seconds: Mapping[str, float]


# An evaluation


@dataclass(frozen=True)
class Scores:
    """The numbers that a classifier is judged by; see :func:`verger.classify.scores.summarize`."""

    n: int
    accuracy: float
    top5: float
    balanced_accuracy: float
    log_loss: float
    ece: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of about one probability, and the share of them that came true."""

    low: float
    n: int
    probability: float
    accuracy: float


@dataclass(frozen=True)
class ThresholdEffect:
    """Shares of photos that get a name, of those a wrong one, and of other things' photos."""

    threshold: float
    coverage: float
    error: float | None
    others: float | None


@dataclass(frozen=True)
class AlarmEffect:
    """Photos that are unlike every known one, and photos in all, by what became of them.

    Attributes
    ----------
    distance : float
        To the nearest known photo, from which a photo is unlike all.
    right, wrong, unknown : (int, int)
        Photos of known classes: named rightly, named wrongly, and not named.
    others : (int, int)
        Photos of other things.
    """

    distance: float
    right: tuple[int, int]
    wrong: tuple[int, int]
    unknown: tuple[int, int]
    others: tuple[int, int]


@dataclass(frozen=True)
class SureMistakes:
    """Photos that were named wrongly with a high probability."""

    threshold: float
    wrong: int
    others: int


@dataclass(frozen=True)
class Leakage:
    """What test photos are nearest to; the last two where names tell films."""

    n: int
    nearest_neighbour_accuracy: float
    neighbouring_frame: float | None = field(default=None, metadata=OMIT_NONE)
    same_film: float | None = field(default=None, metadata=OMIT_NONE)

    def __post_init__(self) -> None:
        if (self.neighbouring_frame is None) != (self.same_film is None):
            raise ValueError("neighbouring_frame and same_film must both be there, or neither")


@dataclass(frozen=True)
class ComponentsAccuracy:
    """Variance that ``k`` components keep, and the accuracy of the nearest mean on them."""

    k: int
    variance: float
    accuracy: float


@dataclass(frozen=True)
class OtherLabel:
    """A label that the classifier does not know: its photos, those that got a name, and which.

    Attributes
    ----------
    taken_for : str or None
        The commonest of the names.
    """

    label: str
    n: int
    named: int
    taken_for: str | None


@dataclass(frozen=True, kw_only=True)
class SplitEvaluation:
    """What one split, or the photos of another result, say of a classifier.

    Attributes
    ----------
    other_labels : tuple of OtherLabel or None
        Of another result, the label with the most photos first.
    n_rejected : int or None
        Photos of another result that have no features.
    """

    scores: Scores
    reliability: tuple[ReliabilityBin, ...]
    threshold: ThresholdEffect
    curve: tuple[ThresholdEffect, ...]
    n_others: int
    others: tuple[str, ...] = ()
    alarm: AlarmEffect | None = None
    sure: SureMistakes
    split: Literal["random", "contiguous", "group", "against"]
    n_train: int | None = field(default=None, metadata=OMIT_NONE)
    n_test: int
    n_left_out: int | None = field(default=None, metadata=OMIT_NONE)
    training: Mapping[str, object] | None = field(default=None, metadata=OMIT_NONE)
    untested: tuple[str, ...]
    leakage: Leakage | None = field(default=None, metadata=OMIT_NONE)
    by_k: tuple[ComponentsAccuracy, ...] | None = field(default=None, metadata=OMIT_NONE)
    other_labels: tuple[OtherLabel, ...] | None = field(default=None, metadata=OMIT_NONE)
    n_rejected: int | None = field(default=None, metadata=OMIT_NONE)
    n_components: int | None = None

    def __post_init__(self) -> None:
        sizes = [0, *(each.k for each in self.by_k or ())]
        if any(one >= other for one, other in pairwise(sizes)):
            raise ValueError(f"by_k has k={sizes[1:]}, which must rise from 1")
        if self.leakage and (self.n_train is None or self.n_left_out is None):
            raise ValueError("leakage is there, and n_train or n_left_out is missing")


@dataclass(frozen=True)
class ClassScores:
    """Recall, precision and F1 of one class."""

    label: str
    n: int
    recall: float | None
    precision: float | None
    f1: float | None

    def __post_init__(self) -> None:
        if self.n and (self.recall is None or self.f1 is None):
            raise ValueError(f"recall and f1 must be numbers where n={self.n}")


@dataclass(frozen=True)
class ConfusedPair:
    """Photos of one class that were taken for another, and known photos of that one."""

    label: str
    prediction: str
    n: int
    share: float
    photos: tuple[str, ...]
    known: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Trial):
    """What ``verger classify evaluate`` writes.

    Attributes
    ----------
    evaluation, beside : SplitEvaluation
        By the split that was asked for, and by another one for comparison.
    confusion : tuple of (int, int, int)
        True class, predicted class, photos.
    """

    against: str | None
    method: Literal["logistic", "knn", "centroid"]
    on: Literal["features", "pca"]
    evaluation: SplitEvaluation
    beside: SplitEvaluation | None
    seconds: Mapping[str, float]
    labels: tuple[str, ...]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, int, int], ...]
    pairs: tuple[ConfusedPair, ...]
    predictions: Part

    def __post_init__(self) -> None:
        n = len(self.labels)
        for true, predicted, photos in self.confusion:
            if not (0 <= true < n and 0 <= predicted < n and photos > 0):
                raise ValueError(
                    f"confusion={[true, predicted, photos]} must be two of {n} labels and a count"
                )
        if not n:
            raise ValueError("labels=[] must have one at least")
        if self.beside and _measured(self.beside) != _measured(self.evaluation):
            raise ValueError("beside has not what evaluation has of leakage")


def _measured(one: SplitEvaluation) -> tuple[bool, bool]:
    leakage = one.leakage
    return leakage is not None, leakage is not None and leakage.same_film is not None
