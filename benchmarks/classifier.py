"""Accuracy of classifiers on features and on k components, by splits that leak and that do not.

    python benchmarks/classifier.py OUT

OUT is the result of ``verger run`` on photos whose names tell films, such as Fruits-360's. Spark's
logistic regression on the features and on the first k components (of a PCA of the training photos)
stands beside one nearest neighbour, and its time beside scikit-learn's on the same table, in turns.
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

import verger
from verger.classify.recipe import Recipe
from verger.classify.scores import Scored, summarize
from verger.classify.splits import LEFT_OUT, TEST, TRAIN, make_cutter, measure_leakage
from verger.classify.testing import find_nearest, fit_whole_pca
from verger.classify.training import ITERATIONS, draw_sample, fit_logistic, try_penalties
from verger.classify.vectors import LabelledVectors, Projection, read_labelled
from verger.engine.spark import SparkEngine
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
    spark_s: float | None = None
    sklearn_s: float | None = None
    sklearn_accuracy: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    arguments = parser.parse_args()
    output = Output.at(arguments.out)
    spark = verger.get_session()
    vectors = LabelledVectors(SparkEngine(spark), output, read_labelled(output))
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
    tried = try_penalties(vectors, draw_sample(vectors, rows, Recipe(), "contiguous"))
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
    targets = vectors.labelled.targets
    model, spark_s = timed(lambda: fit_logistic(vectors.frame(train), vectors, penalty))
    mean, deviation = (getattr(model.stages[0], name).toArray() for name in ("mean", "std"))
    x = vectors.collect(test).astype(np.float64)
    z = (x - mean) / np.where(deviation > 0, deviation, 1)
    scores = z @ model.stages[1].coefficientMatrix.toArray().T
    scores += model.stages[1].interceptVector.toArray()
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    summary = summarize(Scored.of(p / p.sum(axis=1, keepdims=True), targets[test]))
    known = vectors.collect(train).astype(np.float64)
    theirs = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (penalty * len(train)), max_iter=ITERATIONS)
    )
    _, sklearn_s = timed(lambda: theirs.fit(known, targets[train]))
    accuracy = float(theirs.score(x, targets[test]))
    what = "logistic regression, " + (f"k = {k}" if k else "1280 features")
    return Row(split, what, summary, spark_s, sklearn_s, accuracy)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start


def render(
    rows: list[Row], sizes: list[str], tried: tuple[Penalty, ...], vectors: LabelledVectors
) -> str:
    n, cores = len(vectors.labelled), vectors.engine.n_cores
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "scikit-learn", "numpy"))
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
        f"{ITERATIONS} iterations at most: Spark's from the stored table, scikit-learn's from "
        "an array in memory; other work ran on the same cores, so that only their ratio says "
        "something, and that roughly.",
        "",
        *(f"- {size}." for size in sizes),
        "",
        "| split | classifier | accuracy | top-5 | log loss | Spark, s | scikit-learn, s "
        "| scikit-learn's accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scores = row.scores
        cells = [
            row.split,
            row.what,
            share(scores["accuracy"]),
            share(scores.get("top5")),
            number(scores.get("log_loss"), 3),
            number(row.spark_s, 1),
            number(row.sklearn_s, 1),
            share(row.sklearn_accuracy),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
