"""What is removed from OUT when its features or its PCA are replaced, said before it happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verger.config import Config
from verger.errors import OutputExistsError
from verger.result.classifiers import ClassifierFiles, list_classifiers, list_described
from verger.result.output import INDEX, INSPECTION, Output


def list_losses(output: Output) -> list[str]:
    """Name what OUT has that does not outlive its features and its PCA, and what makes it again."""
    exists = output.folder.exists
    made = [_made("trained classifier", "train", each) for each in list_classifiers(output)]
    tested = [each for each in list_described(output) if exists(each.evaluation)]
    made += [_made("evaluation", "evaluate", each) for each in tested]
    made += [("inspection", "verger inspect")] * exists(INSPECTION)
    made += [("index", "verger inspect --approximate")] * exists(INDEX)
    return [
        f"remove the {what} of the present result; {command} makes it again"
        for what, command in made
    ]


def _made(what: str, command: str, files: ClassifierFiles) -> tuple[str, str]:
    """Say what a user has made for a classifier by a command of its own, and the command."""
    if not files.name:
        return what, f"verger classify {command}"
    return f"{what} {files.name!r}", f"verger classify {command} --name {files.name}"


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
