"""Two nodes of YARN, one of them labelled as EMR labels those on demand (make test-cluster)."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.runs import rows
from support.yarn import LABEL, finish, run_yarn, submit


@pytest.mark.timeout(600)
def test_the_driver_is_kept_on_the_labelled_node(
    java: None, s3: str, jars: Path, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """By the setting that EMR's cluster gets too; executors go where there is room."""
    label = ("--conf", f"spark.yarn.am.nodeLabelExpression={LABEL}")
    with run_yarn(tmp_path / "yarn", jars, nodes=2) as yarn:
        nodes = yarn.ask("nodes")["nodes"]["node"]
        assert len(nodes) == 2
        (labelled,) = [node["id"] for node in nodes if node.get("nodeLabels") == [LABEL]]
        finish(submit(yarn, tmp_path / "main.py", photos, tmp_path / "out", spark=label))
        (application,) = yarn.applications()
        attempts = yarn.ask(f"apps/{application['id']}/appattempts")["appAttempts"]
    assert application["amNodeLabelExpression"] == LABEL
    assert [attempt["nodeId"] for attempt in attempts["appAttempt"]] == [labelled]
    assert rows(tmp_path / "out") == rows(finished)
