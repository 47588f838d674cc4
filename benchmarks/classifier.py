"""Accuracy of classifiers on features and on k components, by splits that leak and that do not.

    python benchmarks/classifier.py OUT

OUT is the result of ``verger run`` on photos whose names tell films, such as Fruits-360's. The
logistic regression on the features and on the first k components (of a PCA of the training photos)
stands beside one nearest neighbour, and its time beside scikit-learn's on the same array, in turns.
Writes benchmarks/CLASSIFIER.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from verger.classify.projection import Projection
from verger.classify.recipe import Recipe
from verger.classify.regression import TOLERANCE
from verger.classify.scores import Scored, summarize
from verger.classify.splits import LEFT_OUT, TEST, TRAIN, make_cutter, measure_leakage
from verger.classify.testing import find_nearest, fit_whole_pca
from verger.classify.training import ITERATIONS, Fits, draw_sample, try_penalties
from verger.classify.vectors import LabelledVectors, read_labelled
from verger.engine.local import LocalEngine
from verger.result.derived import Penalty
from verger.result.output import Output
from verger.source.films import find_films

K = (50, 100, 174)
SPLITS = ("random", "contiguous")
HERE = Path(__file__).parent
Ints = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass
class Row:
    """One classifier by one split."""

    split: str
    what: str
    scores: dict[str, float]
    verger_s: float | None = None
    sklearn_s: float | None = None
    sklearn_scores: dict[str, float] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    arguments = parser.parse_args()
    output = Output.at(arguments.out)
    vectors = LabelledVectors(LocalEngine(), output, read_labelled(output))
    penalty, tried = choose_penalty(vectors)
    rows: list[Row] = []
    sizes: list[str] = []
    for split in SPLITS:
        found, size = measure(vectors, split, penalty)
        rows += found
        sizes.append(size)
    text = render(rows, sizes, tried, vectors)
    (HERE / "CLASSIFIER.md").write_text(text)
    print(text)


def choose_penalty(vectors: LabelledVectors) -> tuple[float, tuple[Penalty, ...]]:
    """Choose one penalty for all fits: on a sample of the features, by contiguous folds."""
    rows = np.arange(len(vectors.labelled))
    sample = draw_sample(vectors, rows, Recipe(), "contiguous")
    tried = try_penalties(Fits(vectors.hold(sample.rows), total=1), sample)
    return min(tried, key=lambda penalty: penalty.log_loss).reg_param, tried


def measure(vectors: LabelledVectors, split: Any, penalty: float) -> tuple[list[Row], str]:
    """Train and test everything by one split."""
    labelled = vectors.labelled
    roles = make_cutter(split, labelled.path_list, labelled.targets).split(labelled.targets)
    train, test = np.flatnonzero(roles == TRAIN), np.flatnonzero(roles == TEST)
    nearest = find_nearest(vectors, train, test)
    leak = measure_leakage(find_films(labelled.path_list), test, nearest)
    right = float((labelled.targets[nearest] == labelled.targets[test]).mean())
    rows = [Row(split, "1-nearest neighbour, 1280 features", {"accuracy": right})]
    pca = fit_whole_pca(vectors, train, standardize=False, center=False)
    for k in (None, *K):
        projection = Projection.of(replace(pca, n_components=k)) if k else None
        rows.append(
            measure_logistic(
                replace(vectors, projection=projection), split, k, penalty, train, test
            )
        )
        print(rows[-1], flush=True)
    size = (
        f"{split}: {len(train):,} photos to train on, {len(test):,} to test, "
        f"{int((roles == LEFT_OUT).sum()):,} left out; for {leak['neighbouring_frame']:.1%} of the "
        f"test photos the nearest training photo is a neighbouring frame, for "
        f"{leak['same_film']:.1%} one of the same film"
    )
    return rows, size


def measure_logistic(
    vectors: LabelledVectors, split: str, k: int | None, penalty: float, train: Ints, test: Ints
) -> Row:
    targets, x = vectors.labelled.targets, vectors.collect(test)
    fits = Fits(vectors.hold(train), total=1)
    fit, verger_s = timed(lambda: fits.one(train, penalty))
    theirs = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1 / (penalty * len(train)), max_iter=ITERATIONS, tol=TOLERANCE),
    )
    known = vectors.collect(train).astype(np.float64)
    _, sklearn_s = timed(lambda: theirs.fit(known, targets[train]))
    ours, beside = (
        summarize(Scored.of(p, targets[test]))
        for p in (fit.probabilities(x), theirs.predict_proba(x.astype(np.float64)))
    )
    what = "logistic regression, " + (f"k = {k}" if k else "1280 features")
    return Row(split, what, ours, verger_s, sklearn_s, beside)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start


def render(
    rows: list[Row], sizes: list[str], tried: tuple[Penalty, ...], vectors: LabelledVectors
) -> str:
    n, cores = len(vectors.labelled), vectors.engine.n_cores
    packages = ", ".join(f"{name} {version(name)}" for name in ("scipy", "scikit-learn", "numpy"))
    best = min(tried, key=lambda penalty: penalty.log_loss)
    penalties = ", ".join(f"{t.reg_param:g}: {t.log_loss:.3f}" for t in tried)
    lines = [
        "# Classifiers: accuracy by split, by k, and the time of a fit",
        "",
        f"`python benchmarks/classifier.py OUT`: {n:,} photos of {len(vectors.labelled.labels)} "
        f"classes; {cores} cores, {platform.system()}, Python {platform.python_version()}, "
        f"{packages}. Penalty {best.reg_param:g}, by cross-validation with contiguous folds on "
        f"a sample of the features (log loss by penalty {penalties}); the same for all fits. "
        "Components are those of the training photos. Seconds are of one fit each, "
        f"{ITERATIONS} iterations at most and the same tolerance ({TOLERANCE:g}), both from an array "
        "in memory; other work ran on the same cores, so that only their ratio says something, and "
        "that roughly.",
        "",
        *(f"- {size}." for size in sizes),
        "",
        "| split | classifier | accuracy | top-5 | log loss | Verger, s | scikit-learn, s "
        "| its accuracy | its log loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scores = row.scores
        cells = [
            row.split,
            row.what,
            share(scores["accuracy"]),
            share(scores.get("top5")),
            number(scores.get("log_loss"), 3),
            number(row.verger_s, 1),
            number(row.sklearn_s, 1),
            share((row.sklearn_scores or {}).get("accuracy")),
            number((row.sklearn_scores or {}).get("log_loss"), 3),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
