"""``verger classify evaluate --against``: a trained classifier, on photos of another result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.classifier import Classifier
from verger.classify.evaluation import (
    Tested,
    judge,
    judge_alarm,
    list_untested,
    update_report,
    write_evaluation,
)
from verger.classify.label_map import merge_labels
from verger.classify.recipe import Recipe, describe_recipe
from verger.classify.scores import Scored
from verger.classify.testing import score_rows
from verger.classify.vectors import Labelled, LabelledVectors, read_labelled
from verger.config import Config
from verger.engine.choose import check_engine
from verger.errors import ClassifierError, ConfigError, ContractError, OutputError
from verger.job.context import Run, Watch, no_watch
from verger.result.classifiers import ClassifierFiles
from verger.result.output import Output

Ints = npt.NDArray[np.int64]


def evaluate_against(
    out: str | Path,
    other: str | Path,
    config: Config,
    *,
    name: str = "",
    label_map: Mapping[str, str] | None = None,
    watch: Watch = no_watch,
) -> dict[str, Any]:
    """Test the classifier of a result on the photos of another one.

    Photos with labels that the classifier does not know are of other things, and counted apart.

    Parameters
    ----------
    out, other : path
        The result with the classifier, where the evaluation is kept, and one of other photos.
    config, name, watch
        As for :func:`verger.classify.evaluation.evaluate_split`.
    label_map : mapping of str to str, optional
        Other names for the labels of both: probabilities are summed by name.

    Raises
    ------
    ContractError, ClassifierError
        If their features are of different contracts, or not one label is known.
    """
    run, there, files = Run(Output.at(out), config, watch), Output.at(other), ClassifierFiles(name)
    classifier = _load_to_test(run.output, there, files)
    merged = merge_labels(classifier.labels, label_map or {}, classifier.others)
    labelled = _read_known(there, merged.names, label_map or {})
    check_engine(config)
    with run, run.locked():
        vectors = LabelledVectors(run.engine, there, labelled)
        with run.stage("test", len(labelled)):
            rows, scored, unlike = score_rows(vectors, classifier, np.arange(len(labelled)), merged)
        alarm = judge_alarm(scored, unlike, classifier)
        judged = _judged_against(there, labelled, rows, scored, classifier.threshold)
        method, on, names = classifier.method, classifier.on, dict(label_map or {})
        recipe = Recipe(method=method, on=on, label_map=names)
        record = describe_recipe(recipe, labelled) | {
            "against": there.root,
            "method": method,
            "on": on,
            "evaluation": judged | {"alarm": alarm},
            "beside": None,
            "seconds": run.seconds,
        }
        write_evaluation(run, record, Tested(labelled, rows, scored, np.empty(0, np.int64)), files)
    return update_report(run, record, files)


def _judged_against(
    there: Output, labelled: Labelled, rows: Ints, scored: Scored, threshold: float
) -> dict[str, Any]:
    """Return what is said of the photos of another result, known labels and others apart."""
    is_known = scored.true >= 0
    untested = list_untested(labelled, np.flatnonzero(labelled.targets >= 0))
    judged = judge(scored[is_known], scored[~is_known].probability, threshold)
    judged["other_labels"] = _count_others(labelled, rows[~is_known], scored[~is_known], threshold)
    judged["n_rejected"] = there.read_run().counts.rejected
    return judged | {"split": "against", "n_test": int(is_known.sum()), "untested": untested}


def _count_others(
    labelled: Labelled, rows: Ints, scored: Scored, threshold: float
) -> list[dict[str, Any]]:
    """Count the photos of every label that the classifier does not know, and what they are named.

    Returns
    -------
    list of dict
        As :class:`verger.result.derived.OtherLabel`, the label with the most photos first.
    """
    names = np.array(labelled.names.take(pa.array(rows)).to_pylist(), object)
    is_named = scored.probability >= threshold
    counted = []
    for name in sorted(set(names)):
        taken = np.bincount(scored.predicted[(names == name) & is_named], minlength=1)
        n_named = int(taken.sum())
        usual = labelled.labels[int(taken.argmax())] if n_named else None
        n = int((names == name).sum())
        counted.append({"label": name, "n": n, "named": n_named, "taken_for": usual})
    return sorted(counted, key=lambda one: -one["n"])


def _load_to_test(output: Output, there: Output, files: ClassifierFiles) -> Classifier:
    """Load a classifier of a result, which must be of the contract of another one."""
    if output.root == there.root:
        raise ConfigError(
            f"against={there.root}: must be another result than OUT; --split tests on OUT"
        )
    classifier = Classifier.load(output, output.read_run(), files.npz)
    _check_contracts(output, there, classifier)
    return classifier


def _read_known(there: Output, names: tuple[str, ...], label_map: Mapping[str, str]) -> Labelled:
    """Read the labelled photos of another result, some of which must have known labels."""
    labelled = read_labelled(there, names, label_map)
    if (labelled.targets < 0).all():
        raise ClassifierError(
            f"against={there.root}: none of its {len(labelled)} photos has one of the "
            f"{len(names)} labels that the classifier knows; --label-map gives labels other names"
        )
    return labelled


def _check_contracts(output: Output, there: Output, classifier: Classifier) -> None:
    ours = output.read_run()
    try:
        theirs = there.read_run()
    except OutputError as err:  # which says OUT
        raise OutputError(str(err).replace("OUT=", "against=", 1)) from err
    for place, record in ((output, ours), (there, theirs)):
        if record.contract_hash != classifier.contract_hash:
            raise ContractError(
                f"the classifier of OUT={output.root} takes features of contract "
                f"{classifier.contract_hash[:12]}, and {place.root} has those of "
                f"{record.contract_hash[:12]}: another model or preprocessing made them"
            )
