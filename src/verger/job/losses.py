"""What is removed from OUT when its features or its PCA are replaced, said before it happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verger.config import Config
from verger.errors import OutputExistsError
from verger.result.output import CLASSIFIER_NPZ, EVALUATION, INDEX, INSPECTION, Output

# What a user has made by a command of its own, and the command.
_MADE = (
    (CLASSIFIER_NPZ, "trained classifier", "verger classify train"),
    (EVALUATION, "evaluation", "verger classify evaluate"),
    (INSPECTION, "inspection", "verger inspect"),
    (INDEX, "index", "verger inspect --approximate"),
)


def list_losses(output: Output) -> list[str]:
    """Name what OUT has that does not outlive its features and its PCA, and what makes it again."""
    return [
        f"remove the {what} of the present result; {command} makes it again"
        for name, what, command in _MADE
        if output.folder.exists(name)
    ]


def describe_reduce(out: str | Path, config: Config) -> dict[str, Any]:
    """Return the resolved configuration and what ``verger reduce`` would do; write nothing.

    Returns
    -------
    dict
        ``config``, ``steps`` and ``losses``: the last steps, which remove something.

    Raises
    ------
    OutputError
        If OUT is no result.
    OutputExistsError
        If there is a PCA already and ``overwrite`` is off.
    """
    output = Output.at(out)
    record = output.read_run()
    has_pca = "pca" in record.files
    if has_pca and not config.overwrite:
        raise OutputExistsError(f"OUT={output.root}: has a PCA already; --overwrite replaces it")
    n, losses = record.counts.featurized, list_losses(output)
    steps = [
        f"fit a PCA to the features of {n:,} photos and keep components = {config.components}",
        f"{'replace the PCA in' if has_pca else 'write it to'} {output.root}",
    ]
    return {"config": config.as_dict(), "steps": steps + losses, "losses": losses}
