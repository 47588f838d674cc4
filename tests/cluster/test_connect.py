"""Spark Connect, by a server from pyspark's own files: the library gives the rows of a laptop."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.processes import end_session, wait_until
from support.runs import rows
from support.seaweed import free_port
from support.yarn import SPARK
from verger.engine.java import find_java

COLUMNS = ("path", "label", "features", "width", "height", "length")


@pytest.fixture(scope="module")
def server(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server of two cores, and return its address."""
    pytest.importorskip("grpc", reason="the client needs pip install 'pyspark[connect]'")
    if not list((SPARK / "jars").glob("spark-connect_*.jar")):
        pytest.skip("this pyspark carries no Connect server")
    port = free_port()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
    }
    words = [word for pair in settings.items() for word in ("--conf", "=".join(pair))]
    words += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    log = tmp_path_factory.mktemp("connect") / "log"
    with log.open("wb") as file:
        daemon = subprocess.Popen(
            [str(SPARK / "bin" / "spark-submit"), "--master", "local[2]", *words, "spark-internal"],
            env=os.environ
            | {
                "JAVA_HOME": str(find_java().spark_home()),
                "PYSPARK_PYTHON": sys.executable,
                "SPARK_LOCAL_IP": "127.0.0.1",
            },
            cwd=log.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        started = "Spark Connect server started"
        assert wait_until(lambda: started in log.read_text("utf-8", "replace"), 120, 0.2), log
        yield f"sc://127.0.0.1:{port}"
    finally:
        end_session(daemon.pid)
        daemon.wait()


def test_the_library_gives_the_rows_of_a_laptop(
    server: str, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """Both readers, a stage of Spark ML and a PCA; a whole run is refused with what to do."""
    done = subprocess.run(
        [sys.executable, "-m", "support.connect_client", server, str(photos), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, matrix = pickle.loads((tmp_path / "found").read_bytes())
    expected = rows(finished)
    for reader in ("arrow", "spark"):
        assert {path: plain(row) for path, row in found[reader].items()} == {
            path: plain(row) for path, row in expected.items()
        }
    assert len(found["scores"]) == 6
    for path, (features, scores) in found["scores"].items():
        np.testing.assert_array_equal(features.astype(np.float32), expected[path]["features"])
        np.testing.assert_allclose(scores, features @ matrix, rtol=1e-9)
    assert (tmp_path / "pca" / "metadata" / "part-00000").is_file()
    assert "read_images, featurize, ImageFeaturizer and PCA in that session" in found["refusal"]
    assert not (tmp_path / "out").exists()


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table, but for its time, which Spark gives without a zone."""
    return {name: row[name] for name in COLUMNS}
