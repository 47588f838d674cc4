"""What several tests share."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A cache of the tests' own, so that no test depends on what a developer has fetched.
os.environ["VERGER_HOME"] = os.environ.get("VERGER_TEST_HOME") or tempfile.mkdtemp("-verger")
# Half a minute of work for half of the cores, behind the back of a test.
os.environ["VERGER_CLASS_ARCHIVE"] = "off"
os.environ["KERAS_HOME"] = str(Path(os.environ["VERGER_HOME"], "no-keras-here"))

from support.results import train, write_result
from verger.features.model import Model, load_model
from verger.source.render import render_dataset


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 6 rendered classes of 5 photos; do not write to it."""
    folder = tmp_path_factory.mktemp("rendered") / "photos"
    render_dataset(folder, n_classes=6, per_class=5, seed=3)
    return folder


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
