"""The user that runs this process, who may have no name and no home folder, and Verger's cache.

A container started as ``--user 12345`` has neither: its user is in no ``/etc/passwd``, and its
``HOME`` is missing or ``/``.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from verger.engine.scratch import temporary_folder
from verger.errors import ConfigError, EnvironmentNotReadyError


def user_name() -> str | None:
    """Return the name of the user that runs this process, or None if the system knows none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def user_home() -> Path | None:
    """Return the user's home folder, or None if there is none that files can be written to."""
    home = Path(os.path.expanduser("~"))  # Path.home() raises where there is no home
    return home if home.is_absolute() and os.access(home, os.W_OK | os.X_OK) else None


def verger_home() -> Path:
    """Return the folder of Verger's cache.

    It is ``VERGER_HOME``, else ``verger`` in the user's cache folder. Where that folder cannot be
    written, it is one of this user's own among the temporary files.

    Raises
    ------
    ConfigError
        If ``VERGER_HOME`` begins with ``~`` and there is no home folder.
    EnvironmentNotReadyError
        If the temporary folder is another user's.
    """
    return cache_folders()[0]


def cache_folders() -> list[Path]:
    """Return :func:`verger_home`, and behind it the user's own cache if it can only be read.

    An image or a home that cannot be written may hold weights and graphs.

    Raises
    ------
    ConfigError, EnvironmentNotReadyError
        As from :func:`verger_home`.
    """
    if given := os.environ.get("VERGER_HOME"):
        folder = Path(os.path.expanduser(given))
        if folder.parts[0].startswith("~"):
            raise ConfigError(f"VERGER_HOME={given}: no such home folder; give the whole path")
        return [folder]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    folder = cache / "verger"
    if cache.is_absolute() and can_be_made(folder):
        return [folder]
    is_readable = cache.is_absolute() and os.access(folder, os.R_OK | os.X_OK)
    return [temporary_home(), *([folder] if is_readable else [])]


def temporary_home() -> Path:
    """Return this user's folder among the temporary files, and make it if need be.

    Raises
    ------
    EnvironmentNotReadyError
        If it cannot be made, or others may write to it.
    """
    folder = temporary_folder() / f"verger-home-{os.getuid()}"
    advice = "set VERGER_HOME to a folder that this user can write"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as err:
        raise EnvironmentNotReadyError(f"{folder}: {err.strerror}; {advice}") from err
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise EnvironmentNotReadyError(f"{folder}: others can write to it; {advice}")
    return folder


def matplotlib_variables() -> dict[str, str]:
    """Return the variable that gives matplotlib a folder for its list of fonts, if it needs one.

    Without a home it would make a new one each time, and warn.
    """
    if user_home() or os.environ.get("MPLCONFIGDIR"):
        return {}
    return {"MPLCONFIGDIR": str(verger_home() / "matplotlib")}


@contextmanager
def environment_for_block(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that something reads when it starts, and then put back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def java_locale() -> dict[str, str]:
    """Return the variable by which Java reads file names as UTF-8, if the locale has another way.

    Java leaves out files whose names it cannot read.
    """
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "")
    return {} if re.search(r"(?i)utf-?8", locale) else {"LC_ALL": "C.UTF-8"}


def can_be_made(folder: Path) -> bool:
    """Whether a folder can be written, or could be made where the nearest one above it is."""
    whole = folder.absolute()
    # Path.exists() raises where the home is a folder of root's that must not be looked into.
    nearest = next(place for place in (whole, *whole.parents) if os.access(place, os.F_OK))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
