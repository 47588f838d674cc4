"""The notebook for EMR, in a session that another process has made on YARN (make test-cluster)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.runs import rows, stored_rows
from support.yarn import SPARK, Yarn, finish, start
from verger.engine.environment import cached_environment
from verger.files.folder import Folder

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "emr_fruits.ipynb"
HOST = ROOT / "tests" / "support" / "host.py"


def configured() -> dict[str, Any]:
    """Return what the first cell asks of the session."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    (cell,) = [c for c in cells if "".join(c["source"]).startswith("%%configure")]
    asked: dict[str, Any] = json.loads("".join(cell["source"][1:]))
    return asked


@pytest.mark.timeout(600)
def test_every_cell_runs_in_a_session_that_is_there(
    yarn: Yarn, orchard: tuple[str, dict[str, Any]], finished: Path, photos: Path, tmp_path: Path
) -> None:
    """With photos and result in folders, then in a bucket; settings are those of the first cell."""
    bucket, in_bucket = orchard
    model = {"MODEL": "efficientnet_lite0", "WEIGHTS": f"{bucket}/lite0.pth"}
    asked = [
        {**model, "SOURCE": str(photos), "RESULT": str(tmp_path / "out")},
        {**model, "SOURCE": f"{bucket}/raw", "RESULT": f"{bucket}/notebook"},
    ]
    configure = configured()
    assert configure["archives"][0].endswith(".tar.gz#environment")
    # py4j's plain gateway is Livy's; one core and less memory suit the nodes of the tests.
    conf = configure["conf"] | {"spark.yarn.appMasterEnv.PYSPARK_PIN_THREAD": "false"}
    conf |= {"spark.executor.memoryOverhead": "550m", "spark.sql.shuffle.partitions": "2"}
    run = start(
        yarn,
        *(SPARK / "bin" / "spark-submit", "--master", "yarn", "--deploy-mode", "cluster"),
        *("--archives", f"{cached_environment(for_driver=True).as_uri()}#environment"),
        *(word for pair in conf.items() for word in ("--conf", "=".join(pair))),
        *(HOST, NOTEBOOK, json.dumps(asked)),
    )
    finish(run, timeout_s=500)
    assert rows(tmp_path / "out") == rows(finished)
    assert stored_rows(Folder(f"{bucket}/notebook")) == in_bucket
