"""A folder for the temporary files of this process.

It is removed when the process ends. If the process is killed, the next one that needs such a folder
removes it: a process holds a lock on its folder, which the kernel releases however the process
ends. Identifiers of processes would not do, since containers that share a disk count their own.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from verger.errors import EnvironmentNotReadyError

#: How the folders' names begin.
PREFIX = "verger-scratch-"
#: File in the folder that its process has locked.
LOCK = "lock"

# A folder gets its name once it is locked. One that has kept this name was made by a process that
# was killed in between.
_UNNAMED = "verger-unnamed-"
_LEFT_AFTER_S = 3600.0


def temporary_folder() -> Path:
    """Return the system's folder for temporary files.

    Raises
    ------
    EnvironmentNotReadyError
        If there is none that can be written, as in a container that can only be read.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as err:
        raise EnvironmentNotReadyError(f"{err.strerror}; set TMPDIR to one") from err


@lru_cache(maxsize=1)
def scratch_folder() -> Path:
    """Return the folder for temporary files of this process, made at the first call.

    Raises
    ------
    EnvironmentNotReadyError
        As from :func:`temporary_folder`.
    """
    sweep_scratch()
    unnamed = Path(tempfile.mkdtemp(prefix=_UNNAMED, dir=temporary_folder()))
    lock = os.open(unnamed / LOCK, os.O_CREAT | os.O_RDWR, 0o600)  # open as long as the process
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = unnamed.with_name(unnamed.name.replace(_UNNAMED, PREFIX, 1))
    unnamed.rename(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch() -> list[Path]:
    """Remove the folders of processes that have been killed; return which."""
    swept = []
    for folder in temporary_folder().glob("verger-*"):
        if _is_ours(folder) and _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


def sweep_parts(folder: Path) -> None:
    """Remove the half files that killed processes have left in a folder of Verger's cache.

    A process that lives may be writing one; no file of the cache takes it an hour.
    """
    for part in folder.glob("*.part"):
        with suppress(OSError):  # another process may have removed it
            if time.time() - part.lstat().st_mtime > _LEFT_AFTER_S:
                part.unlink()


def _is_ours(folder: Path) -> bool:
    """Whether a path is a folder of this user's, and no link to one."""
    try:
        return not folder.is_symlink() and folder.is_dir() and folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _is_left(folder: Path) -> bool:
    """Whether the process that has made a folder is gone."""
    try:
        if folder.name.startswith(_UNNAMED):
            return time.time() - folder.stat().st_mtime > _LEFT_AFTER_S
        if not folder.name.startswith(PREFIX):
            return False
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its process lives
        return False
    finally:
        os.close(lock)
    return True
