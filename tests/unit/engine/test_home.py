"""A user without a name or a home, as containers have, and where Verger's cache is then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from verger.engine.home import (
    cache_folders,
    environment_for_block,
    java_locale,
    matplotlib_variables,
    user_home,
    user_name,
    verger_home,
)
from verger.errors import ConfigError, EnvironmentNotReadyError


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the temporary folder of a user that the system does not know, without a variable."""
    for name in ("HOME", "VERGER_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"VERGER_HOME": "/data/verger", "XDG_CACHE_HOME": "/cache"}, "/data/verger"),
        ({"VERGER_HOME": "~/verger"}, "{home}/verger"),
        ({"XDG_CACHE_HOME": "{home}/cache"}, "{home}/cache/verger"),
        ({}, "{home}/.cache/verger"),
        ({"VERGER_HOME": "", "XDG_CACHE_HOME": ""}, "{home}/.cache/verger"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], home: str
) -> None:
    """VERGER_HOME comes before XDG_CACHE_HOME, which comes before the home folder's cache."""
    for name in ("VERGER_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    assert verger_home() == Path(home.format(home=tmp_path))


@pytest.mark.parametrize("home", [None, "/proc", "/nowhere", "/proc/version"])
def test_without_a_home_the_cache_is_among_the_temporary_files(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """A home that is missing or cannot be written costs no run: the cache is this user's own."""
    if home:
        monkeypatch.setenv("HOME", home)
    denied = {"/", "/proc"}
    allowed = os.access
    monkeypatch.setattr(
        "os.access",
        lambda path, mode: allowed(path, mode) and not (mode & 2 and str(path) in denied),
    )
    assert user_name() is None
    assert user_home() is None
    assert verger_home() == nobody / f"verger-home-{os.getuid()}"
    assert verger_home().stat().st_mode & 0o777 == 0o700
    assert matplotlib_variables() == {"MPLCONFIGDIR": str(verger_home() / "matplotlib")}


def test_a_home_that_can_be_written_is_used(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a name may have a home; its owner's matplotlib keeps its own folder."""
    monkeypatch.setenv("HOME", str(nobody))
    assert user_home() == nobody
    assert verger_home() == nobody / ".cache" / "verger"
    assert matplotlib_variables() == {}


def test_a_cache_that_can_only_be_read_is_read(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """YARN gives every user HOME=/home/, where root may have left a cache."""
    monkeypatch.setenv("HOME", str(nobody))
    theirs = nobody / ".cache" / "verger"
    theirs.mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr("os.access", lambda path, mode: not mode & 2 and allowed(path, mode))
    assert verger_home() == nobody / f"verger-home-{os.getuid()}"
    assert cache_folders() == [verger_home(), theirs]
    assert matplotlib_variables() == {"MPLCONFIGDIR": str(verger_home() / "matplotlib")}


def test_a_temporary_folder_of_somebody_elses_is_not_used(nobody: Path) -> None:
    """What others can write might hold weights and graphs of theirs."""
    folder = nobody / f"verger-home-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(EnvironmentNotReadyError, match="others can write to it; set VERGER_HOME"):
        verger_home()
    folder.rmdir()
    (nobody / "theirs").mkdir(mode=0o700)
    folder.symlink_to(nobody / "theirs")
    with pytest.raises(EnvironmentNotReadyError, match="others can write to it"):
        verger_home()


def test_a_tilde_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named ~ is never made in the current one."""
    monkeypatch.setenv("VERGER_HOME", "~/verger")
    with pytest.raises(ConfigError, match=r"VERGER_HOME=~/verger: no such home folder"):
        verger_home()


@pytest.mark.parametrize(
    ("variables", "added"),
    [
        ({}, {"LC_ALL": "C.UTF-8"}),
        ({"LANG": "de_DE.UTF-8"}, {}),
        ({"LC_CTYPE": "C.utf8", "LANG": "C"}, {}),
        ({"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, {"LC_ALL": "C.UTF-8"}),
        ({"LC_ALL": "", "LC_CTYPE": "fr_FR.ISO-8859-1"}, {"LC_ALL": "C.UTF-8"}),
    ],
)
def test_java_reads_names_as_utf8(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], added: dict[str, str]
) -> None:
    """A locale of UTF-8 is left as it is; in any other Java would leave files out."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert java_locale() == added


def test_variables_are_set_for_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards what was there before is there again."""
    monkeypatch.setenv("ORCHARD", "old")
    monkeypatch.delenv("MEADOW", raising=False)
    with environment_for_block({"ORCHARD": "new", "MEADOW": "green"}):
        assert (os.environ["ORCHARD"], os.environ["MEADOW"]) == ("new", "green")
    assert os.environ["ORCHARD"] == "old"
    assert "MEADOW" not in os.environ
