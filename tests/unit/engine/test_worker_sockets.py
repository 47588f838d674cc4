"""Sockets of Python workers: in a folder that goes with the process, and only where they fit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from verger import Config
from verger.engine import session
from verger.engine.session import session_settings

ENABLED, FOLDER = (f"spark.python.unix.domain.socket.{name}" for name in ("enabled", "dir"))


@pytest.fixture(autouse=True)
def _folder_anew() -> Iterator[None]:
    session._socket_folder.cache_clear()
    yield
    session._socket_folder.cache_clear()


def test_a_local_session_gets_a_folder_for_sockets() -> None:
    """The same for every session of a process: its JVM is the same."""
    settings = session_settings(Config(), local=True)
    assert settings[ENABLED] == "true"
    assert Path(settings[FOLDER]).is_dir()
    assert session_settings(Config(), local=True)[FOLDER] == settings[FOLDER]
    assert ENABLED not in session_settings(Config(), local=False)


def test_a_setting_of_the_users_own_wins() -> None:
    assert session_settings(Config(conf={ENABLED: "false"}), local=True)[ENABLED] == "false"


def test_a_path_that_is_too_long_for_a_socket_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR may be anything; an address of a socket may not."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert ENABLED not in session_settings(Config(), local=True)


def test_the_folder_goes_with_the_process() -> None:
    code = (
        "from verger import Config; from verger.engine.session import session_settings; "
        f"print(session_settings(Config(), local=True)[{FOLDER!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert not Path(done.stdout.strip()).exists()
