"""``verger classify compare``: the classifiers of a result beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verger.errors import OutputError
from verger.result.classifiers import list_described
from verger.result.derived import Evaluation, Training
from verger.result.output import Output


def compare_classifiers(out: str | Path) -> list[dict[str, Any]]:
    """Say of every classifier of a result how it was trained, and what it is worth.

    Parameters
    ----------
    out : path
        Folder of a result, or ``s3://bucket/prefix``.

    Returns
    -------
    list of dict
        ``name`` (empty for the one without), ``method``, ``on``, ``n_labels``, ``n_photos``;
        ``trained`` (ISO time, or None); and None where it was not tested: ``split``, ``against``,
        ``n_test``, ``accuracy``, ``top5``, ``log_loss``, ``threshold``, ``coverage``, ``error``,
        ``others``. ``tested_as``: options of the training that the test trained by, where they
        are not those of the classifier; else None.

    Raises
    ------
    OutputError
        If OUT is no result, or has neither a classifier nor an evaluation.
    """
    output = Output.at(out)
    output.read_run()
    rows = []
    for files in list_described(output):
        training = output.read_derived(Training, files.training)
        evaluation = output.read_derived(Evaluation, files.evaluation)
        rows.append(_row(files.name, training, evaluation))
    if not rows:
        raise OutputError(f"OUT={output.root}: has no classifier; verger classify trains one")
    return rows


# Options that make another classifier of the same photos.
_OPTIONS = ("method", "on", "n_neighbors", "other", "label_map")


def _tested_as(training: Training | None, evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Return the options of a test by a split, which trains by its own, that differ."""
    if training is None or evaluation is None or evaluation.against is not None:
        return None
    kept, tested = training.recipe, evaluation.recipe
    return {name: tested.get(name) for name in _OPTIONS if tested.get(name) != kept.get(name)}


def _row(name: str, training: Training | None, evaluation: Evaluation | None) -> dict[str, Any]:
    about = training or evaluation
    assert about is not None  # noqa: S101 - listed because one of them is there
    tested = evaluation.evaluation if evaluation else None
    scores, at = (tested.scores, tested.threshold) if tested else (None, None)
    return {
        "name": name,
        "method": about.recipe.get("method"),
        "on": about.recipe.get("on"),
        "n_labels": about.n_labels,
        "n_photos": about.n_photos,
        "trained": training.created if training else None,
        "split": tested.split if tested else None,
        "tested_as": _tested_as(training, evaluation) or None,
        "against": evaluation.against if evaluation else None,
        "n_test": tested.n_test if tested else None,
        "accuracy": scores.accuracy if scores else None,
        "top5": scores.top5 if scores else None,
        "log_loss": scores.log_loss if scores else None,
        "threshold": at.threshold if at else None,
        "coverage": at.coverage if at else None,
        "error": at.error if at else None,
        "others": at.others if at else None,
    }
