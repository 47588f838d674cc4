"""Which engine the runs of a test have: the local one, or the Spark of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

#: For tests of what may not depend on the engine; the others of ``tests/run`` have the local one.
BOTH_ENGINES = pytest.mark.parametrize("engine", ["local", "spark"], indirect=True)
ON_SPARK = pytest.mark.parametrize("engine", ["spark"], indirect=True)


@contextmanager
def local_engine() -> Iterator[None]:
    """Let runs overlook the session that other tests have started, and have one worker process.

    Two are started by the commands, and by the tests of the engine itself: a start costs as much
    time as the few photos of a test.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("verger.engine.choose.has_active_session", lambda: False)
        patched.setattr("verger.engine.local.default_workers", lambda: 1)
        yield
