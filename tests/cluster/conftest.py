"""YARN for the tests of this folder, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.yarn import NoMavenError, Yarn, fetch_artifacts, run_yarn


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
