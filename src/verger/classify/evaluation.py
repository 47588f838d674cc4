"""``verger classify evaluate``: find out what a classifier is worth.

::

    features/ -> split -> train on one part -> score the other -> classifier/evaluation.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.classifier import Classifier
from verger.classify.projection import Projection
from verger.classify.recipe import Recipe, assign_roles, describe_recipe
from verger.classify.scores import (
    SURE,
    Scored,
    at_threshold,
    by_class,
    confused_pairs,
    confusion_matrix,
    coverage_curve,
    reliability,
    summarize,
)
from verger.classify.splits import (
    LEFT_OUT,
    TEST,
    TRAIN,
    SplitStrategy,
    draw_stratified,
    measure_leakage,
)
from verger.classify.stage import open_vectors
from verger.classify.testing import (
    NEAREST_ROWS,
    accuracy_by_k,
    find_nearest,
    fit_whole_pca,
    score_rows,
)
from verger.classify.training import train
from verger.classify.vectors import Labelled, LabelledVectors, only_labels
from verger.config import Config
from verger.files.records import as_json, to_plain
from verger.files.tables import part_name, write_part
from verger.job.context import Run, Watch, no_watch
from verger.job.pipeline import run_report
from verger.result.classifiers import ClassifierFiles
from verger.result.output import REPORT, Output
from verger.schema import PREDICTIONS as PREDICTION_COLUMNS
from verger.schema import arrow_schema

Ints = npt.NDArray[np.int64]


#: Commonest confusions that are shown, and photos of each.
PAIRS, PAIR_PHOTOS = 12, 5

# Evaluating by a split


def evaluate_split(
    out: str | Path,
    config: Config,
    recipe: Recipe,
    *,
    also: Sequence[str | Path] = (),
    name: str = "",
    watch: Watch = no_watch,
) -> dict[str, Any]:
    """Train on one part of a result and test on another, twice: by the split asked for, and beside.

    Beside a split that respects films or groups stands the random one, which does not; beside the
    random one the contiguous one, where names tell films.

    Parameters
    ----------
    out, config, recipe, also
        As for :func:`verger.classify.stage.train_classifier`.
    name : str
        Of the classifier that the evaluation is kept of.
    watch : Watch, optional

    Returns
    -------
    dict
        What ``classifier/evaluation.json`` holds.

    Raises
    ------
    ClassifierError
        If the split leaves too little.
    """
    run, files = Run(Output.at(out), config, watch), ClassifierFiles(name)
    with open_vectors(run, recipe, also) as (vectors, strategy):
        labelled = vectors.labelled
        asked, tested = _evaluate(run, vectors, recipe, strategy)
        other = _beside(labelled, recipe, strategy)
        beside = _evaluate(run, vectors, recipe, other)[0] if other else None
        record = describe_recipe(recipe, labelled) | {
            "against": None,
            "method": recipe.method,
            "on": recipe.on,
            "evaluation": asked,
            "beside": beside,
            "seconds": run.seconds,
        }
        write_evaluation(run, record, tested, files)
    return update_report(run, record, files)


def _beside(labelled: Labelled, recipe: Recipe, strategy: SplitStrategy) -> SplitStrategy | None:
    if strategy != "random":
        return "random"
    return "contiguous" if labelled.find_films(recipe.frames).n_films else None


@dataclass(frozen=True)
class Tested:
    """Photos that were scored, for the table ``predictions`` and the page."""

    labelled: Labelled = field(repr=False)
    rows: Ints = field(repr=False)
    scored: Scored
    trained_on: Ints = field(repr=False)


def _evaluate(
    run: Run, vectors: LabelledVectors, recipe: Recipe, strategy: SplitStrategy
) -> tuple[dict[str, Any], Tested]:
    """Train and test by one split."""
    all_photos = vectors.labelled
    roles = assign_roles(all_photos, recipe, strategy)
    train_rows, test_rows = np.flatnonzero(roles == TRAIN), np.flatnonzero(roles == TEST)
    vectors = replace(vectors, labelled=only_labels(all_photos, train_rows))
    record = run.output.read_run()
    with run.stage(f"train ({strategy})", len(train_rows)) as progress:
        pca = fit_whole_pca(
            vectors,
            train_rows,
            standardize=record.option("standardize") is True,
            center=record.option("center") is True,
        )
        kept = min(record.pca.n_components if record.pca else pca.k_for(0.9), pca.n_components)
        if recipe.on == "pca":
            projection = Projection.of(replace(pca, n_components=kept))
            reduced = replace(vectors, projection=projection)
        else:
            reduced = vectors
        trained = train(
            reduced,
            train_rows,
            recipe,
            strategy,
            contract_hash=record.contract_hash,
            on_fits=progress.on_fits,
        )
    with run.stage(f"test ({strategy})", len(test_rows)):
        rows, scored, unlike = score_rows(vectors, trained.classifier, test_rows)
        named = scored.true >= 0
        others = scored[~named].probability if recipe.other else trained.others
        judged = judge(scored[named], others, trained.classifier.threshold) | {
            "alarm": judge_alarm(scored, unlike, trained.classifier),
            "others": list(recipe.other),
            "split": strategy,
            "n_train": len(train_rows),
            "n_test": int(named.sum()),
            "n_left_out": int((roles == LEFT_OUT).sum()),
            "training": to_plain(trained.fit),
            "untested": list_untested(all_photos, test_rows),
            "leakage": _leakage(reduced, recipe, train_rows, test_rows),
            "by_k": accuracy_by_k(vectors, pca, kept, train_rows, rows[named]),
            "n_components": kept if recipe.on == "pca" else None,
        }
    return judged, Tested(vectors.labelled, rows, scored, train_rows)


def judge(scored: Scored, others: npt.NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """Return all that is said of some predictions, and of photos of other things beside them."""
    sure = scored.probability >= SURE
    return {
        "scores": summarize(scored),
        "reliability": reliability(scored),
        "threshold": at_threshold(scored, others, threshold),
        "curve": coverage_curve(scored, others),
        "n_others": len(others),
        "others": [],
        "sure": {
            "threshold": SURE,
            "wrong": int((sure & ~scored.correct).sum()),
            "others": int((others >= SURE).sum()),
        },
    }


def judge_alarm(
    scored: Scored, unlike: npt.NDArray[np.bool_], classifier: Classifier
) -> dict[str, Any] | None:
    """Say how many photos are unlike every known one, by what became of them."""
    if np.isinf(classifier.alarm):
        return None
    is_known, is_named = scored.true >= 0, scored.probability >= classifier.threshold
    groups = {
        "right": is_known & is_named & scored.correct,
        "wrong": is_known & is_named & ~scored.correct,
        "unknown": is_known & ~is_named,
        "others": ~is_known,
    }
    counts = {name: [int((unlike & rows).sum()), int(rows.sum())] for name, rows in groups.items()}
    return {"distance": classifier.alarm, **counts}


def list_untested(labelled: Labelled, test_rows: Ints) -> list[str]:
    """Return the labels of which no photo was tested."""
    counts = np.bincount(labelled.targets[test_rows], minlength=len(labelled.labels))
    return [label for label, n in zip(labelled.labels, counts, strict=True) if not n]


def _leakage(
    vectors: LabelledVectors, recipe: Recipe, train_rows: Ints, test_rows: Ints
) -> dict[str, Any]:
    """Look up what test photos are nearest to among the training photos."""
    labelled = vectors.labelled
    drawn = test_rows[draw_stratified(labelled.targets[test_rows], NEAREST_ROWS, recipe.seed)]
    nearest = find_nearest(vectors, train_rows, drawn)
    films = labelled.find_films(recipe.frames)
    measured = measure_leakage(films, drawn, nearest) if films.n_films else {}
    right = labelled.targets[drawn] == labelled.targets[nearest]
    return {"n": len(drawn), "nearest_neighbour_accuracy": float(right.mean()), **measured}


# What is kept


def write_evaluation(
    run: Run, record: dict[str, Any], tested: Tested, files: ClassifierFiles
) -> None:
    """Add classes and confusions; write the table ``predictions``, and the evaluation last."""
    scored, rows, labels = tested.scored, tested.rows, tested.labelled.labels
    is_known = scored.true >= 0
    confusion = confusion_matrix(scored[is_known], len(labels))
    record |= {
        "labels": list(labels),
        "classes": by_class(confusion, labels),
        "confusion": [[*map(int, at), int(confusion[tuple(at)])] for at in np.argwhere(confusion)],
        "pairs": _pairs(confusion, tested),
    }
    run.check_lock()
    folder = run.output.folder
    folder.remove(files.evaluation)
    folder.remove_tree(files.predictions)
    schema = arrow_schema(PREDICTION_COLUMNS)
    at, known = pa.array(rows), pa.array(labels)
    columns = [
        tested.labelled.paths.take(at),
        tested.labelled.names.take(at),
        known.take(pa.array(scored.predicted)),
        pa.array(scored.probability),
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    part = write_part(folder, part_name(files.predictions), table, schema)
    record["predictions"] = part.as_dict()
    folder.write(files.evaluation, as_json(record))


def _pairs(confusion: Ints, tested: Tested) -> list[dict[str, Any]]:
    """Return the commonest confusions with photos: the surest mistakes, and what they look like."""
    scored, labelled, labels = tested.scored, tested.labelled, tested.labelled.labels
    known_targets = labelled.targets[tested.trained_on]
    pairs = []
    for i, j, n in confused_pairs(confusion, PAIRS):
        wrong = np.flatnonzero((scored.true == i) & (scored.predicted == j))
        surest = wrong[np.argsort(-scored.probability[wrong], kind="stable")][:PAIR_PHOTOS]
        alike = tested.trained_on[known_targets == j]
        alike = alike[:: max(len(alike) // PAIR_PHOTOS, 1)][:PAIR_PHOTOS]
        pairs.append(
            {
                "label": labels[i],
                "prediction": labels[j],
                "n": n,
                "share": n / int(confusion[i].sum()),
                "photos": [labelled.path_list[row] for row in tested.rows[surest]],
                "known": [labelled.path_list[row] for row in alike],
            }
        )
    return pairs


def update_report(run: Run, record: dict[str, Any], files: ClassifierFiles) -> dict[str, Any]:
    """Update the report, if there is one and it shows this classifier; return the record."""
    if not files.name and run.output.folder.exists(REPORT):
        run_report(run.output.root, run.config, watch=run.watch)
    return record
