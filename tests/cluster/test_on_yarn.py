"""A real YARN: the table is the laptop's, in client and in cluster mode, whatever is killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import processes
from support.runs import rows, stored_rows
from support.yarn import OPTIONS, Yarn, finish, start, submit
from verger.files.folder import Folder

# A loaded machine takes minutes for what takes half of one: the first test of both starts YARN.
pytestmark = pytest.mark.timeout(900)


def has_batch(folder: Folder) -> bool:
    """Whether a task has committed one: its marker is there."""
    names = [entry.name for entry in folder.files(".journal", recursive=True)]
    return any(n.endswith(".json") and not n.endswith(("start.json", "lock.json")) for n in names)


def test_client_mode_loses_an_executor_and_nothing_else(
    yarn: Yarn, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """Containers get Python, packages, Verger and the model from the driver."""
    out = tmp_path / "out"
    command = (sys.executable, "-m", "verger", "run", photos, out, *OPTIONS, "--master", "yarn")
    run = start(yarn, *command)
    try:
        folder = Folder(str(out))
        assert processes.wait_until(lambda: run.poll() is not None or has_batch(folder), 300)
        assert processes.kill(yarn.processes("YarnCoarseGrainedExecutorBackend")) >= 1
    finally:
        record = json.loads(finish(run))
    assert record["counts"]["featurized"] == 30
    assert rows(out) == rows(finished)
    assert rows(out, "pca") == rows(finished, "pca")
    assert yarn.applications()[0]["finalStatus"] == "SUCCEEDED"


def test_cluster_mode_resumes_in_yarns_second_attempt(
    yarn: Yarn, orchard: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Photos, weights and result are in a bucket, and the home folder cannot be written."""
    bucket, expected = orchard
    out = Folder(f"{bucket}/out")
    run = submit(
        yarn, tmp_path / "main.py", f"{bucket}/raw", out.root, "--weights", f"{bucket}/lite0.pth"
    )
    try:
        assert processes.wait_until(lambda: run.poll() is not None or has_batch(out), 300)
        assert processes.kill(yarn.processes("ApplicationMaster")) >= 1
    finally:
        finish(run)
    assert stored_rows(out) == expected
    application = yarn.applications()[0]
    assert application["finalStatus"] == "SUCCEEDED"
    attempts = yarn.ask(f"apps/{application['id']}/appattempts")["appAttempts"]["appAttempt"]
    assert len(attempts) == 2
    record = json.loads(out.read("run.json"))
    assert 0 < record["counts"]["computed"] < record["counts"]["featurized"] == 30
