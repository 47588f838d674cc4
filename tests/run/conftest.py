"""Runs have the local engine, or the one that a test asks for; see :mod:`support.engines`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import local_engine
from verger import Config
from verger.engine import choose
from verger.engine.choose import has_active_session, start_engine
from verger.engine.local import LocalEngine
from verger.engine.tasks import Engine


@pytest.fixture(autouse=True, scope="module")
def locally() -> Iterator[None]:
    """Give the fixtures of a module the local engine too."""
    with local_engine():
        yield


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, locally: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of the engine that the runs of this test have."""
    name: str = getattr(request, "param", "local")
    if name == "spark":
        request.getfixturevalue("spark")
        monkeypatch.setattr(choose, "has_active_session", has_active_session)
    return name


@pytest.fixture
def started(engine: str) -> Iterator[Engine]:
    """Return that engine itself, for functions that take one."""
    tasks = start_engine(Config())
    assert tasks.name == engine
    yield tasks
    if isinstance(tasks, LocalEngine):
        tasks.stop()
