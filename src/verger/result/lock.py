"""The lock of OUT: one process at a time may write to it."""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verger.errors import BusyError, OutputError, VergerError
from verger.files.records import as_json, read_record
from verger.result.journal import latest_attempt
from verger.result.output import JOURNAL, LOCK, PUBLISH, Output

# Who may write

BEAT_S = 10.0


#: A lock of another machine's whose heart has not beaten for so long is stale.
STALE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock: ``lock.json``.

    Attributes
    ----------
    id : str or None
        None where the file is half written, or written by something that is no run of ours.
    pid : int
    host : str
    place : str
        Kernel and process namespace that ``pid`` belongs to.
    process_started : str or None
        In ticks since boot: process numbers are used again.
    beats : int
        Grows while the process is alive.
    since : str
        ISO time.
    """

    id: str | None = None
    pid: int = 0
    host: str = ""
    place: str = ""
    process_started: str | None = None
    beats: int = 0
    since: str = ""


Waiting = Callable[[], AbstractContextManager[Any]]


class Lock:
    """The right to write to OUT, held by one process at a time.

    On one machine a lock is stale when its process is dead. Of another machine's process only
    the heart is seen: its owner rewrites the lock every :data:`BEAT_S` seconds.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._id = uuid.uuid4().hex
        self._beats = 0
        self._done = threading.Event()
        self._lost = False
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def acquire(self, waiting: Waiting = nullcontext) -> None:
        """Take the lock, or refuse because another run has it.

        Parameters
        ----------
        waiting : callable, optional
            Makes a context that lasts while the lock of another run is looked at: of another
            machine's, that takes up to :data:`STALE_S` seconds.

        Raises
        ------
        BusyError
            Naming the process that has it.
        """
        while not self._output.folder.create(LOCK, self._content()):
            held = self._read()
            if held is None:
                continue
            with waiting():
                stale = _is_stale(held, self._read)
            if not stale:
                raise BusyError(
                    f"OUT={self._output.root}: another run is writing to it (process "
                    f"{held.pid} on {held.host} since {held.since}); "
                    "wait for it, or choose another folder"
                )
            self._remove_stale(held)
        self._heart.start()

    def _remove_stale(self, held: Holder) -> None:
        """Remove the lock that was found stale, unless another run has done so and has its own."""
        folder = self._output.folder
        if not folder.is_local:
            if self._read() == held:
                folder.remove(LOCK)
            return
        lock = Path(folder.address(LOCK))
        # Swept, as other half-done files are, should this process die here.
        name = f"{JOURNAL}/.lock.{self._id[:8]}.part"
        aside = Path(folder.address(name))
        with suppress(FileNotFoundError):
            lock.rename(aside)
            if self._read(name) != held:  # another's: it gets it back
                with suppress(FileExistsError):
                    lock.hardlink_to(aside)
            aside.unlink()

    def check(self) -> None:
        """Refuse to go on if somebody else has taken the lock.

        Raises
        ------
        BusyError
        """
        held = self._read()
        if self._lost or held is None or held.id != self._id:
            raise BusyError(
                f"OUT={self._output.root}: another run has taken it over; nothing was replaced"
            )

    def release(self) -> None:
        """Give the lock back."""
        self._done.set()
        if self._heart.is_alive():
            self._heart.join()
        with suppress(VergerError, OSError):
            held = self._read()
            if held is not None and held.id == self._id:
                self._let_go()

    def _let_go(self) -> None:
        """Remove the lock; in a bucket with the empty object that stands for its folder."""
        folder = self._output.folder
        if not folder.is_local and [e.name for e in folder.files(JOURNAL, recursive=True)] == [
            LOCK
        ]:
            folder.remove_tree(JOURNAL)
        else:
            folder.remove(LOCK)

    def _content(self) -> bytes:
        return as_json(
            Holder(
                id=self._id,
                pid=os.getpid(),
                host=platform.node(),
                place=_place(),
                process_started=_started(os.getpid()),
                beats=self._beats,
                since=_SINCE,
            )
        )

    def _read(self, name: str = LOCK) -> Holder | None:
        try:
            return read_record(Holder, self._output.folder.read(name))
        except FileNotFoundError:
            return None
        except ValueError:
            return Holder()  # it is stale once it does not change

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with suppress(OutputError, OSError):  # a full disk; the next beat may pass
                held = self._read()
                if held is None or held.id not in (None, self._id):
                    self._lost = True
                    return
                self._beats += 1
                self._output.folder.write(LOCK, self._content())


_SINCE = datetime.now(UTC).isoformat(timespec="seconds")


def _place() -> str:
    """Name the kernel and the process namespace that a process number belongs to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since boot: numbers are used again.

    None for one that has died, though its parent, in a container often without an init, may not
    have asked for its end.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2]
        state, *_ = numbers = after_name.split()
        return None if state == "Z" else numbers[19]
    except (OSError, ValueError, IndexError):
        return None


def _is_stale(held: Holder, read: Callable[[], Holder | None]) -> bool:
    if held.place == _place():
        return _started(held.pid) != held.process_started or not _is_alive(held.pid)
    until = time.monotonic() + STALE_S
    while time.monotonic() < until:
        time.sleep(STALE_S / 30)
        if read() != held:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(output: Output, waiting: Waiting = nullcontext) -> Iterator[Lock]:
    """Hold the lock of OUT, finish what a killed run was publishing, and tidy up behind it.

    Parameters
    ----------
    output : Output
    waiting : callable, optional
        As for :meth:`Lock.acquire`.
    """
    lock = Lock(output)
    made = output.folder.is_local and not Path(output.root).exists()
    lock.acquire(waiting)
    try:
        output.folder.sweep()
        output.folder.sweep(JOURNAL)
        output.finish_publishing()
        yield lock
    finally:
        _forget_empty_attempt(lock, output)
        lock.release()
        if output.folder.is_local:
            root = Path(output.root)
            for folder in (root / JOURNAL, *((root,) if made else ())):
                with suppress(OSError):  # not empty: something was done
                    folder.rmdir()


def _forget_empty_attempt(lock: Lock, output: Output) -> None:
    """Leave no journal where nothing was committed."""
    with suppress(VergerError, OSError):
        lock.check()
        attempt = latest_attempt(output)
        if output.folder.exists(PUBLISH):  # what is staged there is still to be moved
            return
        if attempt and not attempt.adopted and not attempt.own_markers():
            output.clear_journal()
