"""A real cluster, whose machines have Java and nothing of ours: the table is the laptop's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import processes
from support.cluster import Cluster, bare_environment, run_cluster
from support.runs import new_bucket, rows, stored_rows
from verger.files.folder import Folder

#: Small batches, so that a worker can be killed between them.
OPTIONS = (
    "--model",
    "efficientnet_lite0",
    "--components",
    "5",
    "--commit-every",
    "2",
    "--json",
    "--partitions",
    "6",
    "--conf",
    "spark.driver.host=127.0.0.1",
)


@pytest.fixture(scope="module")
def cluster(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a master and two workers on what a bare machine has."""
    folder = tmp_path_factory.mktemp("cluster") / "cluster"
    with run_cluster(folder, bare_environment()) as running:
        yield running


def start(cluster: Cluster, source: object, out: object, *options: str) -> subprocess.Popen[str]:
    """Start the command of a user, in whose environment nothing speaks of workers."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK", "SPARK"))}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "verger",
            "run",
            str(source),
            str(out),
            *OPTIONS,
            *options,
            "--master",
            cluster.master,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(run: subprocess.Popen[str]) -> dict[str, object]:
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    record: dict[str, object] = json.loads(out)
    return record


def test_a_cluster_writes_the_tables_of_a_laptop_into_a_bucket(
    cluster: Cluster, s3: str, finished: Path, photos: Path
) -> None:
    """Workers get Python, packages, Verger and the model from the driver: row for row the same.

    Spark's model is written too, though neither driver nor workers have a library of Hadoop's for
    S3. One executor is enough for it: each unpacks the archive of the environment.
    """
    bucket = new_bucket(s3)
    record = finish(start(cluster, photos, f"s3://{bucket}/out", "--conf", "spark.cores.max=1"))
    assert record["counts"]["computed"] == 30
    folder = Folder(f"s3://{bucket}/out")
    assert stored_rows(folder) == rows(finished)
    assert stored_rows(folder, "pca").keys() == rows(finished, "pca").keys()
    assert [e.name for e in folder.files("models/pca/data")]
    assert [e.name for e in folder.files("models/pca/metadata")]


def test_a_killed_executor_costs_nothing_but_time(
    cluster: Cluster, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """The run itself goes on, and ends with the very table, in a folder of this machine."""
    run = start(cluster, photos, tmp_path / "out")
    journal = tmp_path / "out" / ".journal"
    try:
        assert processes.wait_until(lambda: run.poll() is not None or _committed(journal), 120)
        executors = [p for p in cluster.processes() if processes.is_executor(p)]
        assert processes.kill(executors[:1]) == 1
    finally:
        record = finish(run)
    assert record["counts"]["featurized"] == 30
    assert rows(tmp_path / "out") == rows(finished)
    assert rows(tmp_path / "out", "pca").keys() == rows(finished, "pca").keys()
    assert (tmp_path / "out" / "models" / "pca" / "metadata").is_dir()


def _committed(journal: Path) -> bool:
    return any(path for path in journal.glob("*/*.json") if path.name != "start.json")
