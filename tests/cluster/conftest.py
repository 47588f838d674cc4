"""YARN for the tests of this folder, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import local_engine
from support.runs import CONFIG, fill_bucket, rows
from support.yarn import NoMavenError, Yarn, fetch_artifacts, run_yarn
from verger.features.model import find_card
from verger.files.folder import Folder
from verger.job import pipeline


@pytest.fixture(scope="session")
def jars(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of YARN's artifacts; skip where Maven does not bring them."""
    cache = getattr(request.config, "cache", None)  # none with -p no:cacheprovider
    try:
        return fetch_artifacts(cache.mkdir("yarn") if cache else tmp_path_factory.mktemp("yarn"))
    except NoMavenError as err:
        pytest.skip(f"YARN comes from Maven Central: {err}")


@pytest.fixture(scope="session")
def yarn(
    java: None, s3: str, jars: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Yarn]:
    """Start a ResourceManager and a NodeManager, in whose containers the bucket can be opened."""
    with run_yarn(tmp_path_factory.mktemp("yarn") / "yarn", jars) as running:
        yield running


@pytest.fixture(scope="session")
def orchard(
    s3: str, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """Return a bucket with photos and weights, and the features that the local engine gives."""
    bucket, _ = fill_bucket(s3, photos)
    weights = find_card("efficientnet_lite0").weights.find()
    assert weights is not None
    Folder(f"s3://{bucket}").write("lite0.pth", weights.read_bytes())
    out = tmp_path_factory.mktemp("orchard") / "out"
    with local_engine():
        pipeline.run(f"s3://{bucket}/raw", out, CONFIG)
    return f"s3://{bucket}", rows(out)
