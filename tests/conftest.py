"""What several tests share."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# A cache of the tests' own, so that no test depends on what a developer has fetched.
os.environ["VERGER_HOME"] = os.environ.get("VERGER_TEST_HOME") or tempfile.mkdtemp("-verger")
os.environ["KERAS_HOME"] = str(Path(os.environ["VERGER_HOME"], "no-keras-here"))

from support.engines import local_engine
from support.java import hurry_java
from support.results import train, write_result
from support.runs import CONFIG
from verger import Config, get_session
from verger.features.model import Model, load_model
from verger.job import pipeline
from verger.source.render import render_dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# A loaded machine is slow: only the time limit of a whole test is one.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


#: Folders whose tests take the longest come first, so that no process ends long before another.
SLOWEST_FIRST = ("cluster", "cloud", "spark", "run", "unit")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by folder; within one they stay as pytest-randomly has mixed them."""
    places = {Path(__file__).parent / name: i for i, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: min(places.get(p, len(places)) for p in item.path.parents))


def pytest_unconfigure() -> None:
    """Remove that cache, which may hold an environment of 200 MB."""
    if "VERGER_TEST_HOME" not in os.environ:
        shutil.rmtree(os.environ["VERGER_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 6 rendered classes of 5 photos; do not write to it."""
    folder = tmp_path_factory.mktemp("rendered") / "photos"
    render_dataset(folder, n_classes=6, per_class=5, seed=3)
    return folder


@pytest.fixture
def any_time() -> Iterator[Path]:
    """Return a folder that keeps times of 64 bits, as tmpfs does and ext4 does not."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no tmpfs to write to")
    folder = Path(tempfile.mkdtemp("-verger", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def model() -> Model:
    """Return real weights that every machine has: EfficientNet-Lite0."""
    return load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def aws_server() -> Iterator[str]:
    """Start moto, which plays AWS, and return its address; its memory is this whole process'."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="session")
def trained(photos: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a result of the rendered photos with a classifier; do not write to it."""
    out = tmp_path_factory.mktemp("trained") / "out"
    train(write_result(out, photos, model))
    return out


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
def java(request: pytest.FixtureRequest) -> None:
    """Let every Java start quickly that is started from now on."""
    cache = getattr(request.config, "cache", None)  # none with -p no:cacheprovider
    hurry_java(cache and cache.mkdir("java"))


@pytest.fixture(scope="session")
def spark(java: None, s3: str) -> Iterator[SparkSession]:
    """Start Spark on two cores."""
    conf = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "2g"}
    session = get_session(Config(master="local[2]", conf=conf, app_name="verger-tests"))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of a whole run of the local engine; do not write to it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with local_engine():
        pipeline.run(str(photos), out, CONFIG)
    return out


@pytest.fixture
def result(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the result, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "result"))
