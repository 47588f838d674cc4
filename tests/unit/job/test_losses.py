"""A new PCA removes what was derived from the features: it is said before, and done after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from support.results import train, write_vectors
from verger.cli import app
from verger.errors import OutputExistsError
from verger.job.losses import list_losses
from verger.result.classifiers import ClassifierFiles
from verger.result.output import INSPECTION, Output
from verger.result.record import Counts


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Return a result with a PCA, a trained classifier and an inspection."""
    x = np.random.default_rng(0).exponential(size=(12, 8)).astype(np.float32)
    output = write_vectors(tmp_path / "out", x)
    record = output.read_run()
    counts = Counts(listed=12, featurized=12, rejected=0)
    files = {**record.files, "pca": ()}
    output.write_run(dataclasses.replace(record, files=files, counts=counts))
    train(output)
    output.folder.write(INSPECTION, b"{}")
    return output


def test_a_dry_run_of_reduce_names_what_is_removed_and_what_makes_it_again(output: Output) -> None:
    line = ["reduce", output.root, "--overwrite", "--dry-run"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "fit a PCA to the features of 12 photos" in done.stdout
    assert f"replace the PCA in {output.root}" in done.stdout
    assert "remove the trained classifier" in done.stdout
    assert "verger classify train makes it again" in done.stdout
    assert "remove the inspection" in done.stdout
    plan = json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)
    assert plan["steps"][2:] == plan["losses"] == list_losses(output)


def test_named_classifiers_and_their_evaluations_are_named_too(output: Output) -> None:
    train(output).save(output.folder, ClassifierFiles("means").npz)
    output.folder.write(ClassifierFiles("coarse").evaluation, b"{}")
    losses = list_losses(output)
    assert len(losses) == 4
    assert "classifier 'means'" in losses[1]
    assert "verger classify train --name means" in losses[1]
    assert "evaluation 'coarse'" in losses[2]
    assert "verger classify evaluate --name coarse" in losses[2]


def test_reduce_says_it_before_it_begins_and_keeps_it_until_the_new_pca_is_whole(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reduction that fails has removed nothing."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("verger.job.pipeline.run_reduce", fail)
    done = CliRunner().invoke(app, ["reduce", output.root, "--overwrite"])
    assert "once the new PCA is whole: remove the trained classifier" in done.stderr
    assert output.folder.exists("models/classifier.npz")


def test_without_overwrite_a_pca_is_refused_and_nothing_is_announced(output: Output) -> None:
    done = CliRunner().invoke(app, ["reduce", output.root, "--dry-run"])
    assert isinstance(done.exception, OutputExistsError)
    assert "has a PCA already; --overwrite replaces it" in str(done.exception)
    assert done.stdout == ""


def test_a_result_without_derived_files_loses_nothing(tmp_path: Path) -> None:
    output = write_vectors(tmp_path / "out", np.ones((3, 4), np.float32))
    assert list_losses(output) == []
