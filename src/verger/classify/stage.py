"""``verger classify``: train a classifier on a result, and find out what it is worth.

::

    features/ -> train -> models/classifier.npz, models/references.npy, models/classifier/
    features/ -> split -> train on one part -> score the other -> classifier/evaluation.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.classifier import CLASSIFIER_NPZ, REFERENCES_NPY, Classifier
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
    Kind,
    draw_stratified,
    find_films,
    make_cutter,
    measure_leakage,
)
from verger.classify.testing import (
    NEAREST_ROWS,
    accuracy_by_k,
    find_nearest,
    fit_whole_pca,
    score_rows,
)
from verger.classify.training import REFERENCES, Recipe, train
from verger.classify.vectors import (
    Labelled,
    Projection,
    Vectors,
    only_labels,
    read_labelled,
    stored_projection,
)
from verger.config import Config
from verger.engine.session import check_environment, get_session
from verger.errors import ClassifierError, ConfigError, ContractError
from verger.files.tables import part_name, write_part
from verger.job.context import Run, Watch, no_watch
from verger.job.pipeline import run_report
from verger.pca.spark_models import save_spark_model
from verger.result.output import (
    EVALUATION,
    PREDICTIONS,
    REPORT,
    SPARK_CLASSIFIER,
    TRAINING,
    Output,
    as_json,
)
from verger.schema import PREDICTIONS as PREDICTION_COLUMNS
from verger.schema import arrow_schema

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from verger.classify.training import Trained

Ints = npt.NDArray[np.int64]

#: Commonest confusions that are shown, and photos of each.
PAIRS, PAIR_PHOTOS = 12, 5


def train_classifier(
    out: str | Path, config: Config, recipe: Recipe, *, watch: Watch = no_watch
) -> dict[str, Any]:
    """Train a classifier on all labelled photos of a result and store it there.

    Parameters
    ----------
    out : path
        Folder of a result, or ``s3://bucket/prefix``.
    config : Config
        Its settings of Spark are used.
    recipe : Recipe
        Its split says how the folds are cut that choose penalty and threshold.
    watch : Watch, optional
        Shows progress.

    Returns
    -------
    dict
        What ``classifier/training.json`` holds.

    Raises
    ------
    ClassifierError
        With fewer than two classes.
    OutputError
        With ``on="pca"`` where the result has no PCA.
    """
    run = Run(Output.at(out), config, watch)
    labelled = _read_photos(run.output)
    kind = _check_split(labelled, recipe)
    projection = stored_projection(run.output) if recipe.on == "pca" else None
    check_environment()
    with run.locked():
        contract = run.output.read_run()["contract_hash"]
        vectors = Vectors(_session(run), run.output, labelled, projection)
        with run.stage("train", len(labelled), vectors.spark):
            rows = np.arange(len(labelled))
            trained = train(vectors, rows, recipe, kind, contract_hash=contract)
        run.check_lock()
        with run.stage("write"):
            _forget(run.output)
            _save(run.output, trained)
        record = (
            _described(recipe, labelled)
            | trained.record
            | {
                "on_pca": "fitted on all photos" if recipe.on == "pca" else None,
                "contract_hash": contract,
                "seconds": run.seconds,
            }
        )
        run.output.folder.write(TRAINING, as_json(record))
    return record


def _session(run: Run) -> SparkSession:
    """Start Spark with a JVM that optimises: the regression is computed in it."""
    with run.stage("start Spark"):
        return get_session(run.config)


def _read_photos(output: Output) -> Labelled:
    output.read_run()
    labelled = read_labelled(output)
    if len(labelled.labels) < 2:
        raise ClassifierError(
            f"OUT={output.root}: n_labels={len(labelled.labels)} must be at least 2 to tell apart; "
            f"all {len(labelled)} labelled photos are {labelled.labels[0]!r}"
        )
    return labelled


def _check_split(labelled: Labelled, recipe: Recipe) -> Kind:
    """Return the split that is asked for, or the strictest that the paths allow."""
    kind = recipe.split or _strictest(labelled, recipe)
    _cut(labelled, recipe, kind)
    return kind


def _strictest(labelled: Labelled, recipe: Recipe) -> Kind:
    if recipe.groups is not None:
        return "group"
    films = find_films(labelled.path_list, recipe.frames)
    in_films = np.bincount(films.film)[films.film] > 1
    return "contiguous" if films.n_films and in_films.mean() > 0.5 else "random"


def _cut(labelled: Labelled, recipe: Recipe, kind: Kind) -> npt.NDArray[np.int8]:
    """Return the role of every photo.

    Raises
    ------
    ClassifierError
        If nothing is left to train on, or to test.
    """
    cutter = make_cutter(
        kind,
        labelled.path_list,
        labelled.targets,
        groups=recipe.groups,
        frames=recipe.frames,
        seed=recipe.seed,
    )
    roles = cutter.split(labelled.targets, recipe.test_share)
    n_labels = len(set(labelled.targets[roles == TRAIN].tolist()))
    if n_labels < 2 or not (roles == TEST).any():
        raise ClassifierError(
            f"split={kind}: leaves {n_labels} classes to train on and {(roles == TEST).sum()} "
            "photos to test, and must leave 2 and 1; a class needs 2 photos, better 20"
        )
    return roles


def _forget(output: Output) -> None:
    """Remove the classifier that was there, and what was found out about it alone."""
    output.folder.remove(CLASSIFIER_NPZ)
    output.folder.remove(REFERENCES_NPY)
    output.folder.remove_tree(SPARK_CLASSIFIER)
    evaluation = output.read_derived(EVALUATION)
    if evaluation is not None and evaluation["against"] is not None:
        output.folder.remove(EVALUATION)
        output.folder.remove_tree(PREDICTIONS)


def _save(output: Output, trained: Trained) -> None:
    if trained.model is not None:
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import IndexToString

        labels = list(trained.classifier.labels)
        names = IndexToString(inputCol="prediction", outputCol="predicted_label", labels=labels)
        whole = PipelineModel([*trained.model.stages, names])
        save_spark_model(whole, output.folder, SPARK_CLASSIFIER)
    trained.classifier.save(output)


def _described(recipe: Recipe, labelled: Labelled) -> dict[str, Any]:
    return {
        "verger": version("verger"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": asdict(recipe),
        "n_labels": len(labelled.labels),
        "n_photos": len(labelled),
        "n_unlabelled": labelled.n_unlabelled,
    }


# Evaluating by a split


def evaluate_split(
    out: str | Path, config: Config, recipe: Recipe, *, watch: Watch = no_watch
) -> dict[str, Any]:
    """Train on one part of a result and test on another, twice: by the split asked for, and beside.

    Beside a split that respects films or groups stands the random one, which does not; beside the
    random one the contiguous one, where names tell films.

    Parameters
    ----------
    out : path
    config : Config
    recipe : Recipe
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
    run = Run(Output.at(out), config, watch)
    labelled = _read_photos(run.output)
    kind = _check_split(labelled, recipe)
    check_environment()
    with run.locked():
        run.output.read_run()
        vectors = Vectors(_session(run), run.output, labelled)
        asked, tested = _evaluate(run, vectors, recipe, kind)
        other = _beside(labelled, recipe, kind)
        beside = _evaluate(run, vectors, recipe, other)[0] if other else None
        found = _described(recipe, labelled) | {
            "against": None,
            "method": recipe.method,
            "on": recipe.on,
            "evaluation": asked,
            "beside": beside,
            "seconds": run.seconds,
        }
        _write(run, found, tested)
    return _reported(run, found)


def _beside(labelled: Labelled, recipe: Recipe, kind: Kind) -> Kind | None:
    if kind != "random":
        return "random"
    return "contiguous" if find_films(labelled.path_list, recipe.frames).n_films else None


@dataclass(frozen=True)
class _Tested:
    """Photos that were scored, for the table ``predictions`` and the page."""

    labelled: Labelled
    rows: Ints
    scored: Scored
    trained_on: Ints


def _evaluate(
    run: Run, vectors: Vectors, recipe: Recipe, kind: Kind
) -> tuple[dict[str, Any], _Tested]:
    """Train and test by one split."""
    all_photos = vectors.labelled
    roles = _cut(all_photos, recipe, kind)
    train_rows, test_rows = np.flatnonzero(roles == TRAIN), np.flatnonzero(roles == TEST)
    vectors = replace(vectors, labelled=only_labels(all_photos, train_rows))
    record = run.output.read_run()
    with run.stage(f"train ({kind})", len(train_rows), vectors.spark):
        pca = fit_whole_pca(
            vectors,
            train_rows,
            standardize=record["config"]["standardize"],
            center=record["config"]["center"],
        )
        kept = min(record.get("pca", {}).get("n_components", pca.k_for(0.9)), pca.n_components)
        if recipe.on == "pca":
            projection = Projection.of(replace(pca, n_components=kept))
            reduced = replace(vectors, projection=projection)
        else:
            reduced = vectors
        trained = train(
            reduced,
            train_rows,
            recipe,
            kind,
            contract_hash=record["contract_hash"],
            references=REFERENCES if recipe.method == "knn" else 0,
        )
    with run.stage(f"test ({kind})", len(test_rows), vectors.spark):
        rows, scored = score_rows(vectors, trained.classifier, test_rows)
        found = _judged(scored, trained.others, trained.classifier.threshold) | {
            "split": kind,
            "n_train": len(train_rows),
            "n_test": len(test_rows),
            "n_left_out": int((roles == LEFT_OUT).sum()),
            "training": trained.record,
            "untested": _untested(all_photos, test_rows),
            "leakage": _leakage(reduced, recipe, train_rows, test_rows),
            "by_k": accuracy_by_k(vectors, pca, kept, train_rows, test_rows),
            "n_components": kept if recipe.on == "pca" else None,
        }
    return found, _Tested(vectors.labelled, rows, scored, train_rows)


def _judged(scored: Scored, others: npt.NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """Return all that is said of some predictions, and of photos of other things beside them."""
    sure = scored.probability >= SURE
    return {
        "scores": summarize(scored),
        "reliability": reliability(scored),
        "threshold": at_threshold(scored, others, threshold),
        "curve": coverage_curve(scored, others),
        "n_others": len(others),
        "sure": {
            "threshold": SURE,
            "wrong": int((sure & ~scored.correct).sum()),
            "others": int((others >= SURE).sum()),
        },
    }


def _untested(labelled: Labelled, test_rows: Ints) -> list[str]:
    counts = np.bincount(labelled.targets[test_rows], minlength=len(labelled.labels))
    return [label for label, n in zip(labelled.labels, counts, strict=True) if not n]


def _leakage(vectors: Vectors, recipe: Recipe, train_rows: Ints, test_rows: Ints) -> dict[str, Any]:
    """Look up what test photos are nearest to among the training photos."""
    labelled = vectors.labelled
    drawn = test_rows[draw_stratified(labelled.targets[test_rows], NEAREST_ROWS, recipe.seed)]
    nearest = find_nearest(vectors, train_rows, drawn)
    films = find_films(labelled.path_list, recipe.frames)
    measured = measure_leakage(films, drawn, nearest) if films.n_films else {}
    right = labelled.targets[drawn] == labelled.targets[nearest]
    return {"n": len(drawn), "nearest_neighbour_accuracy": float(right.mean()), **measured}


# Evaluating against another result


def evaluate_against(
    out: str | Path, other: str | Path, config: Config, *, watch: Watch = no_watch
) -> dict[str, Any]:
    """Test the classifier of a result on the photos of another one.

    Photos with labels that the classifier does not know are photos of other things: they count in
    the curve of the threshold alone.

    Parameters
    ----------
    out : path
        The result with the classifier; the evaluation is kept there.
    other : path
        A result with the features of other photos.
    config : Config
    watch : Watch, optional

    Raises
    ------
    ContractError
        If the two have features of different contracts.
    ClassifierError
        If no photo of the other has a label that the classifier knows.
    """
    run, there = Run(Output.at(out), config, watch), Output.at(other)
    if run.output.root == there.root:
        raise ConfigError(f"against={other}: must be another result than OUT; --split tests on OUT")
    classifier = Classifier.load(run.output)
    _check_contracts(run.output, there, classifier)
    labelled = read_labelled(there, classifier.labels)
    known = np.flatnonzero(labelled.targets >= 0)
    if not len(known):
        raise ClassifierError(
            f"against={there.root}: none of its {len(labelled)} photos has one of the "
            f"{len(classifier.labels)} labels that the classifier knows"
        )
    check_environment()
    with run.locked():
        vectors = Vectors(_session(run), there, labelled)
        with run.stage("test", len(labelled), vectors.spark):
            rows, scored = score_rows(vectors, classifier, np.arange(len(labelled)))
            is_known = scored.true >= 0
            judged = _judged(scored[is_known], scored[~is_known].probability, classifier.threshold)
        found = _described(Recipe(method=classifier.method, on=classifier.on), labelled) | {
            "against": there.root,
            "method": classifier.method,
            "on": classifier.on,
            "evaluation": judged
            | {
                "split": "against",
                "n_test": int(is_known.sum()),
                "untested": _untested(labelled, known),
            },
            "beside": None,
            "seconds": run.seconds,
        }
        _write(run, found, _Tested(labelled, rows, scored, np.empty(0, np.int64)))
    return _reported(run, found)


def _check_contracts(output: Output, there: Output, classifier: Classifier) -> None:
    ours, theirs = output.read_run(), there.read_run()
    for place, found in ((output, ours), (there, theirs)):
        if found["contract_hash"] != classifier.contract_hash:
            raise ContractError(
                f"the classifier of OUT={output.root} takes features of contract "
                f"{classifier.contract_hash[:12]}, and {place.root} has those of "
                f"{found['contract_hash'][:12]}: another model or preprocessing made them"
            )


# What is kept


def _write(run: Run, found: dict[str, Any], tested: _Tested) -> None:
    """Add classes and confusions; write the table ``predictions``, and the evaluation last."""
    scored, rows, labels = tested.scored, tested.rows, tested.labelled.labels
    is_known = scored.true >= 0
    confusion = confusion_matrix(scored[is_known], len(labels))
    found |= {
        "labels": list(labels),
        "classes": by_class(confusion, labels),
        "confusion": [[*map(int, at), int(confusion[tuple(at)])] for at in np.argwhere(confusion)],
        "pairs": _pairs(confusion, tested),
    }
    run.check_lock()
    folder = run.output.folder
    folder.remove(EVALUATION)
    folder.remove_tree(PREDICTIONS)
    schema = arrow_schema(PREDICTION_COLUMNS)
    at, known = pa.array(rows), pa.array(labels)
    columns = [
        tested.labelled.paths.take(at),
        tested.labelled.names.take(at),
        known.take(pa.array(scored.predicted)),
        pa.array(scored.probability),
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    part = write_part(folder, part_name(PREDICTIONS), table, schema)
    found["predictions"] = part.as_dict()
    folder.write(EVALUATION, as_json(found))


def _pairs(confusion: Ints, tested: _Tested) -> list[dict[str, Any]]:
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


def _reported(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Write the report anew where there is one."""
    if run.output.folder.exists(REPORT):
        run_report(run.output.root, run.config, watch=run.watch)
    return found
