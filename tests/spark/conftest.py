"""One session of Spark for all tests, and one result to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.runs import CONFIG
from verger import Config, get_session
from verger import run as run_verger

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def s3(aws_server: str) -> str:
    """Return the address of a local S3.

    The workers of Spark inherit the environment of the JVM, so it has to be set before.
    """
    os.environ |= {
        "AWS_ENDPOINT_URL": aws_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }
    return aws_server


@pytest.fixture(scope="session")
def spark(s3: str) -> Iterator[SparkSession]:
    """Start Spark on two cores."""
    conf = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "2g"}
    session = get_session(Config(master="local[2]", conf=conf, app_name="verger-tests"))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def finished(spark: SparkSession, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of a run; do not write to it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    run_verger(str(photos), out, CONFIG)
    return out


@pytest.fixture
def result(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the result, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "result"))
