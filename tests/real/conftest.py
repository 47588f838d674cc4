"""The real photos and weights, where a machine has them: VERGER_SHARED names their folder."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import verger
from verger.features.model import Model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SHARED = Path(os.environ.get("VERGER_SHARED", "../shared"))


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the real MobileNetV2 weights."""
    return SHARED / "weights" / "mobilenet_v2_1.0_224_no_top.h5"


@pytest.fixture(scope="session")
def mobilenet_v2(weights: Path) -> Model:
    """Return MobileNetV2 with its real weights."""
    return verger.load_model("mobilenet_v2", weights=weights)


@pytest.fixture(scope="session")
def fruits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the folder Test of Fruits-360: 120 classes, 20,622 photos."""
    folder = tmp_path_factory.mktemp("fruits")
    with tarfile.open(SHARED / "data" / "fruits360-test.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder / "Test"


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Start Spark on two cores."""
    session = verger.get_session(verger.Config(master="local[2]", app_name="verger-real"))
    yield session
    session.stop()
