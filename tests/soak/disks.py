"""Disks that fill up and disks that cannot be written: small memory disks of our own.

Mounting asks for a mount namespace of our own, which a user may have without being root where
the kernel lets him; all mounts go with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import wait_until

#: Set in the program that runs inside the namespace.
_INSIDE = "VERGER_SOAK_MOUNTS"


def enter_namespace() -> bool:
    """Start this program again in a mount namespace; returns whether mounts can be made."""
    if os.environ.get(_INSIDE):
        return os.environ[_INSIDE] == "yes"
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    probe = [*unshare, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        able = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    os.environ[_INSIDE] = "yes" if able else "no"
    if able:
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    return False


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Mount a memory disk of this size at a folder."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def resize(folder: Path, size_bytes: int) -> None:
    """Give a memory disk another size."""
    _mount("-o", f"remount,size={size_bytes}", folder)


def make_read_only(folder: Path) -> bool:
    """Refuse every write from now on; returns whether that came to be.

    The kernel refuses while a file is open for writing: it is asked until there is a gap.
    """
    return wait_until(lambda: _remount(folder, "ro"), 20, pause_s=0.002)


def make_writable(folder: Path) -> None:
    """Let writes pass again."""
    if not _remount(folder, "rw"):
        raise OSError(f"{folder}: cannot be made writable again")


def _remount(folder: Path, how: str) -> bool:
    command = ["mount", "-o", f"remount,{how}", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)
