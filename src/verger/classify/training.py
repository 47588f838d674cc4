"""Fitting a classifier: a logistic regression, and two methods that need no fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.classifier import MOST_REFERENCES, Classifier
from verger.classify.nearest import Euclidean, NearestRows, unit
from verger.classify.probabilities import count_votes, softmax
from verger.classify.recipe import Recipe
from verger.classify.regression import Regression, fit_regressions, fits_in_memory, scale_of
from verger.classify.scores import Scored, choose_threshold, fit_temperature, summarize
from verger.classify.spark_regression import fit_on_spark
from verger.classify.splits import Cutter, SplitStrategy, draw_stratified, make_cutter
from verger.classify.vectors import Labelled, LabelledVectors
from verger.errors import ClassifierError, ConfigError
from verger.result.derived import Fit, Penalty

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Strengths of the L2 penalty that cross-validation chooses from, in Spark's units: beside the
#: mean loss of a photo.
REG_PARAMS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
N_FOLDS = 3
#: Photos that cross-validation looks at, as many of each class as of any other.
SAMPLE_ROWS = 2_400
#: Iterations of L-BFGS, on the sample and on all photos.
SAMPLE_ITERATIONS, ITERATIONS = 30, 100
#: Share of the classes that play the part of other things.
WITHHELD = 0.2
#: Share of known photos that are no farther from the nearest other one than the alarm's distance.
ALIKE = 0.95


@dataclass(frozen=True)
class Trained:
    """A classifier, and how it came about.

    Attributes
    ----------
    classifier : Classifier
    regression : Regression or None
        Of ``logistic``.
    fit : Fit
        The penalties that were tried, and on what the threshold was chosen.
    others : ndarray of shape (m,), float64
        Probability of what is predicted for photos of other things: of labels that mean them, or
        of classes that were withheld; m may be 0.
    """

    classifier: Classifier
    regression: Regression | None
    fit: Fit
    others: Array = field(repr=False)


def train(
    vectors: LabelledVectors,
    rows: Ints,
    recipe: Recipe,
    strategy: SplitStrategy,
    *,
    contract_hash: str,
    on_fits: OnFits | None = None,
) -> Trained:
    """Fit a classifier to some photos.

    Parameters
    ----------
    vectors : LabelledVectors
    rows : ndarray of shape (n,), int64
        The photos to train on.
    recipe : Recipe
    strategy : {"random", "group", "contiguous"}
        How the folds are cut that choose penalty, temperature and threshold.
    contract_hash : str
    on_fits : callable, optional
        Called with the regressions that have been fitted, and those in all.
    """
    vectors = _held_if_it_helps(vectors, rows, recipe)
    sample = draw_sample(vectors, rows, recipe, strategy)
    regression, tried = None, None
    if recipe.method == "logistic":
        fits = Fits(vectors, len(REG_PARAMS) * sample.n_folds + 2, on_fits)
        tried = try_penalties(fits, sample)
        reg_param = min(tried, key=lambda penalty: penalty.log_loss).reg_param
        held_rows, held_out, others = _held_out_photos(fits, rows, recipe.seed, sample, reg_param)
        regression = fits.one(rows, reg_param)
    kept = draw_stratified(vectors.labelled.targets[rows], MOST_REFERENCES, recipe.seed)
    fitted = _fit_arrays(vectors, rows, recipe, contract_hash, rows[kept], regression)
    if regression is None:
        fitted, held_rows, held_out, others = _calibrate(fitted, sample)
    alarm = _measure_alarm(fitted, sample.cut[kept], recipe.seed)
    weights = vectors.labelled.weigh(held_rows)
    chosen = replace(fitted, threshold=choose_threshold(held_out, others, weights), alarm=alarm)
    fit = Fit(
        reg_param=regression.reg_param if regression else None,
        tried=tried,
        n_trained=len(rows),
        n_sample=len(sample.rows),
        folds=sample.strategy,
        n_held_out=round(float(weights.sum())),
        **_choices(chosen, others),
    )
    return Trained(chosen, regression, fit, others)


def _choices(chosen: Classifier, others: Array) -> dict[str, Any]:
    """Return what was chosen on held-out photos, for the record."""
    alarm = chosen.alarm if np.isfinite(chosen.alarm) else None
    return {
        "n_others": len(others),
        "threshold": chosen.threshold,
        "temperature": chosen.temperature,
        "alarm": alarm,
    }


def _held_if_it_helps(vectors: LabelledVectors, rows: Ints, recipe: Recipe) -> LabelledVectors:
    """Hold the vectors of a regression in memory, if they fit: all its fits need them."""
    size = len(rows) * vectors.n_views, vectors.n_features, len(vectors.labelled.labels)
    helps = recipe.method == "logistic" and fits_in_memory(*size)
    return vectors.hold(rows) if helps else vectors


@dataclass(frozen=True)
class ValidationSample:
    """Photos on which choices are made, with the fold that holds each of them out.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64
    targets : ndarray of shape (n,), int64
    fold : ndarray of shape (n,), int64
    x : ndarray of shape (n, d), or with crops (n, n_views, d), float64
    withheld : ndarray of shape (n,), bool
        Photos of other things, or of the classes that play their part.
    strategy : {"random", "group", "contiguous"}
    cut : ndarray of shape (m,), int8
        The fold of every photo that is trained on, in the sample or not; -1 for none.
    """

    rows: Ints = field(repr=False)
    targets: Ints = field(repr=False)
    fold: Ints = field(repr=False)
    x: Array = field(repr=False)
    withheld: npt.NDArray[np.bool_] = field(repr=False)
    strategy: SplitStrategy
    cut: npt.NDArray[np.int8] = field(repr=False)

    @property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1


def draw_sample(
    vectors: LabelledVectors, rows: Ints, recipe: Recipe, strategy: SplitStrategy
) -> ValidationSample:
    """Draw the sample of :data:`SAMPLE_ROWS` photos and cut it into folds.

    Raises
    ------
    ClassifierError
        If too few photos are left to hold any out.
    """
    targets = vectors.labelled.targets[rows]
    strategy, cut = _cut_folds(vectors.labelled, rows, recipe, strategy)
    usable = np.flatnonzero(cut >= 0)
    drawn = usable[draw_stratified(targets[usable], SAMPLE_ROWS, recipe.seed)]
    fold = np.unique(cut[drawn], return_inverse=True)[1]
    if len(drawn) == 0 or fold.max() == 0:
        raise ClassifierError(
            f"n_samples={len(rows)} photos of {len(set(targets.tolist()))} classes are there to "
            "train on, beside those that a test holds out, and no class has 2 of them; a class "
            "needs 2 photos to train, 3 to evaluate, better 20"
        )
    present = np.unique(targets[drawn])
    n_withheld = int(WITHHELD * len(present))
    others = np.random.default_rng(recipe.seed).permutation(present)[:n_withheld]
    if vectors.labelled.n_others:
        others = present[present >= vectors.labelled.n_names]
    x = vectors.collect_views(rows[drawn]).astype(np.float64)
    withheld = np.isin(targets[drawn], others)
    return ValidationSample(rows[drawn], targets[drawn], fold, x, withheld, strategy, cut)


def _cut_folds(
    labelled: Labelled, rows: Ints, recipe: Recipe, strategy: SplitStrategy
) -> tuple[SplitStrategy, npt.NDArray[np.int8]]:
    paths, targets = labelled.paths.take(pa.array(rows)).to_pylist(), labelled.targets[rows]
    groups = None if labelled.groups is None else labelled.groups[rows]
    frames = recipe.frames if labelled.films is None else labelled.films.take(rows)
    how = {"groups": groups, "frames": frames, "seed": recipe.seed + 1}
    try:
        cutter: Cutter | None = make_cutter(strategy, paths, targets, **how)  # type: ignore[arg-type]
    except ConfigError:  # too little is left of films or groups once the test is taken away
        cutter = None
    fold = cutter.folds(N_FOLDS) if cutter else None
    if fold is not None and len(np.unique(fold[fold >= 0])) > 1:
        return strategy, fold
    return "random", make_cutter("random", paths, targets, seed=recipe.seed + 1).folds(N_FOLDS)


#: Called with the regressions that have been fitted, and those in all.
OnFits = Callable[[int, int], None]


@dataclass
class Fits:
    """Fits regressions: here if the vectors are held here, else by Spark ML.

    Attributes
    ----------
    vectors : LabelledVectors
    total : int
        Fits in all.
    on_fits : callable or None
    done : int
    """

    vectors: LabelledVectors
    total: int
    on_fits: OnFits | None = None
    done: int = 0

    def __call__(
        self, rows: Ints, reg_params: Sequence[float], iterations: int
    ) -> Iterator[Regression]:
        """Fit a regression to some rows for each of some penalties, strongest first."""
        labelled = self.vectors.labelled
        if self.vectors.held is not None:
            x, n_labels = self.vectors.collect_views(rows), len(labelled.labels)
            x = x.reshape(-1, x.shape[-1])
            targets = labelled.targets[rows].repeat(len(x) // len(rows))
            fits = fit_regressions(x, targets, n_labels, reg_params, iterations)
        else:
            frame = self.vectors.frame(rows)
            fits = fit_on_spark(frame, self.vectors.column, reg_params, iterations)
        for regression in fits:
            self.done += 1
            if self.on_fits is not None:
                self.on_fits(self.done, self.total)
            yield regression

    def one(self, rows: Ints, reg_param: float) -> Regression:
        """Fit one regression, in :data:`ITERATIONS` at most."""
        (regression,) = self(rows, [reg_param], ITERATIONS)
        return regression


def try_penalties(fits: Fits, sample: ValidationSample) -> tuple[Penalty, ...]:
    """Try all penalties by cross-validation on the sample."""
    scored: dict[float, list[Scored]] = {reg_param: [] for reg_param in REG_PARAMS}
    for fold in range(sample.n_folds):
        there = sample.fold == fold
        rows, strongest_first = sample.rows[~there], sorted(REG_PARAMS, reverse=True)
        for regression in fits(rows, strongest_first, SAMPLE_ITERATIONS):
            probabilities = regression.probabilities(sample.x[there])
            scored[regression.reg_param].append(Scored.of(probabilities, sample.targets[there]))
    return tuple(
        Penalty(reg_param, summarize(Scored.join(folds))["log_loss"])
        for reg_param, folds in scored.items()
    )


def _held_out_photos(
    fits: Fits, rows: Ints, seed: int, sample: ValidationSample, reg_param: float
) -> tuple[Ints, Scored, Array]:
    """Score folds, and other things, by regressions on the rest of all photos; return their rows.

    It is one fold where that has enough photos, or else all. Photos that mean other things are
    those of the folds; withheld classes are all left out.

    These regressions are nearly as sure of themselves as the final one, which models of the sample
    are not: their mistakes would ask for a threshold that lets hardly any photo pass.
    """
    vectors, fold = fits.vectors, sample.cut
    targets = vectors.labelled.targets[rows]
    other = np.isin(targets, np.unique(sample.targets[sample.withheld]))
    if len(np.unique(fold[(fold >= 0) & ~other])) < 2:
        other[:] = False  # without these classes there would be nothing to hold out
    sizes = np.bincount(fold[(fold >= 0) & ~other])
    asked, apart = [], [np.empty(0)]
    folds = [sizes.argmax()] if sizes.max() >= SAMPLE_ROWS else np.flatnonzero(sizes)
    fits.total += len(folds) - 1
    for one in folds:
        held = fold == one
        left_out = held if vectors.labelled.n_others else held | other
        regression = fits.one(rows[(fold >= 0) & ~left_out], reg_param)
        asked.append(_score_drawn(vectors, rows[held & ~other], regression, seed))
        if (other & left_out).any():
            away = rows[other & left_out]
            apart.append(_score_drawn(vectors, away, regression, seed)[1].probability)
    drawn, scored = zip(*asked, strict=True)
    return np.concatenate(drawn), Scored.join(scored), np.concatenate(apart)


def _score_drawn(
    vectors: LabelledVectors, rows: Ints, regression: Regression, seed: int
) -> tuple[Ints, Scored]:
    """Score :data:`SAMPLE_ROWS` of some rows, and return them."""
    labelled = vectors.labelled
    drawn = rows[draw_stratified(labelled.targets[rows], SAMPLE_ROWS, seed)]
    probabilities = regression.probabilities(vectors.collect_views(drawn))
    return drawn, Scored.of(probabilities[:, : labelled.n_names], labelled.targets[drawn])


def _fit_arrays(
    vectors: LabelledVectors,
    rows: Ints,
    recipe: Recipe,
    contract_hash: str,
    kept: Ints,
    regression: Regression | None,
) -> Classifier:
    """Return what all methods have: standardisation, linear parts, and the known photos kept."""
    labelled, projection, n_labels = (
        vectors.labelled,
        vectors.projection,
        len(vectors.labelled.labels),
    )
    if regression is not None:
        mean, scale = regression.mean, regression.scale
        coefficients, intercepts = regression.coefficients, regression.intercepts
    else:
        moments = vectors.moments(rows)
        mean, scale = moments.mean, scale_of(moments.deviation)
        coefficients, intercepts = np.zeros((n_labels, len(mean))), np.zeros(n_labels)
    if recipe.method == "centroid":
        coefficients = (vectors.class_means(rows) - mean) / scale
    known = unit(vectors.collect(kept)) if len(kept) else np.empty((0, len(mean)), np.float32)
    return Classifier(
        method=recipe.method,
        on=recipe.on,
        labels=labelled.labels[: labelled.n_names],
        others=labelled.labels[labelled.n_names :],
        contract_hash=contract_hash,
        mean=mean,
        scale=scale,
        coefficients=coefficients,
        intercepts=intercepts,
        temperature=1.0,
        threshold=0.0,
        n_neighbors=min(recipe.n_neighbors, max(len(kept), 1)),
        references=known,
        reference_labels=labelled.targets[kept].astype(np.int32),
        reference_paths=tuple(labelled.paths.take(pa.array(kept)).to_pylist()),
        components=projection.components if projection else None,
        pca_mean=projection.mean if projection else None,
    )


def _measure_alarm(fitted: Classifier, fold: npt.NDArray[np.int8], seed: int) -> float:
    """Return the distance within which :data:`ALIKE` of held-out photos have a known one.

    ``fold`` is that of each known photo.
    """
    targets = fitted.reference_labels.astype(np.int64)
    named = np.flatnonzero((fold >= 0) & (targets < len(fitted.labels)))
    drawn = named[draw_stratified(targets[named], SAMPLE_ROWS, seed)]
    distances = [np.empty(0)]
    for one in np.unique(fold[drawn]):
        asked = fitted.references[drawn[fold[drawn] == one]]
        known = fitted.references[(fold >= 0) & (fold != one)]
        nearest = NearestRows(Euclidean(asked), 1)
        nearest.add(known, np.arange(len(known)))
        distances.append(np.sqrt(-nearest.likeness[nearest.row[:, 0] >= 0, 0]))
    apart = np.concatenate(distances)
    return float(np.quantile(apart, ALIKE)) if len(apart) else np.inf


# Choosing temperature and threshold on photos that were held out


def _calibrate(
    fitted: Classifier, sample: ValidationSample
) -> tuple[Classifier, Ints, Scored, Array]:
    """Choose the temperature; score photos that were held out, of some rows, and other things."""
    held_out, others = _held_out_arrays(fitted, sample)
    if fitted.method == "centroid":
        flat = held_out.reshape(-1, held_out.shape[-1])
        true = sample.targets.repeat(held_out.shape[1])
        seen = np.isfinite(flat[np.arange(len(flat)), true])
        temperature = fit_temperature(flat[seen], true[seen])
        held_out, others = softmax(held_out / temperature), softmax(others / temperature)
        fitted = replace(fitted, temperature=temperature)
    held_out, others = (each.mean(axis=1)[:, : len(fitted.labels)] for each in (held_out, others))
    known = np.full(len(held_out), True)
    if fitted.others:
        known, others = ~sample.withheld, held_out[sample.withheld]
    scored = Scored.of(held_out[known], sample.targets[known])
    return fitted, sample.rows[known], scored, others.max(axis=1, initial=0)


def _held_out_arrays(fitted: Classifier, sample: ValidationSample) -> tuple[Array, Array]:
    """Score the sample by folds, and withheld classes by all others.

    Returns
    -------
    held_out : ndarray of shape (n, n_views, n_labels), float64
        Scores or votes.
    others : ndarray of shape (m, n_views, n_labels), float64
    """
    x = sample.x.reshape(-1, len(fitted.mean))
    z: Array = (x - fitted.mean) / fitted.scale
    if fitted.method == "knn":
        z = unit(x).astype(np.float64)
    z = z.reshape(len(sample.x), -1, len(fitted.mean))
    held_out = np.empty((*z.shape[:2], len(fitted.names)))
    for fold in range(sample.n_folds):
        there = sample.fold == fold
        held_out[there] = _score_by(fitted, z[~there], sample.targets[~there], z[there])
    away = sample.withheld
    if fitted.others or not away.any():
        return held_out, held_out[:0]
    return held_out, _score_by(fitted, z[~away], sample.targets[~away], z[away])


def _score_by(fitted: Classifier, known: Array, targets: Ints, views: Array) -> Array:
    """Score views by known photos alone: votes of the nearest, or minus the distance to means."""
    n, n_views, d = views.shape
    known, z = known[:, 0], views.reshape(-1, d)
    scores = _score_rows(fitted, known, targets, z)
    return scores.reshape(n, n_views, -1)


def _score_rows(fitted: Classifier, known: Array, targets: Ints, z: Array) -> Array:
    n_labels = len(fitted.names)
    if fitted.method == "knn":
        nearest = NearestRows(Euclidean(z), min(fitted.n_neighbors, len(known)))
        nearest.add(known, np.arange(len(known)))
        return count_votes(targets[nearest.row], n_labels)
    scores = np.full((len(z), n_labels), -np.inf)
    for label in np.unique(targets):
        scores[:, label] = -np.square(z - known[targets == label].mean(axis=0)).sum(axis=1)
    return scores
