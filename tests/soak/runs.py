"""Runs of Verger as people start them, and what may befall them while they last."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from support import processes
from verger.schema import Reason

#: Longest that a run may take before it counts as hanging.
LIMIT_S = 600.0
_POLL_S = 0.005


@dataclass(frozen=True)
class Place:
    """Where a result goes, and a way to look at it that no fault befalls.

    Attributes
    ----------
    address : str
        As it is typed.
    filesystem : pyarrow.fs.FileSystem
    root : str
        The address in that file system's terms.
    """

    address: str
    filesystem: fs.FileSystem
    root: str

    @property
    def in_bucket(self) -> bool:
        """Whether it is one."""
        return self.address.startswith("s3://")

    def files(self, below: str = "") -> list[str]:
        """List all files below a folder by their names below the root; none if it is not there."""
        folder = f"{self.root}/{below}".rstrip("/")
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        paths = (info.path for info in infos if info.type == fs.FileType.File)
        return sorted(path.removeprefix(f"{self.root}/") for path in paths)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._info(name).type == fs.FileType.File)

    def is_there(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def _info(self, name: str) -> fs.FileInfo:
        return self.filesystem.get_file_info(f"{self.root}/{name}")

    def read(self, name: str) -> dict:
        """Read a record."""
        with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
            return json.loads(stream.read())


@dataclass(frozen=True)
class Command:
    """A command line of Verger, the same however often it is started.

    Attributes
    ----------
    verb : str
        ``run`` or ``featurize``.
    source : str
    out : Place
    options : tuple of str
    environment : mapping
    logs : Path
        Folder of what it prints.
    """

    verb: str
    source: str
    out: Place
    options: tuple[str, ...]
    environment: Mapping[str, str]
    logs: Path

    def log_of(self, number: int, stream: str) -> Path:
        """Return the file of what the first, the second, ... run has printed."""
        return self.logs / f"{number}.{stream}"

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Start it as the leader of a session of its own."""
        self.logs.mkdir(parents=True, exist_ok=True)
        out, err = (self.log_of(number, name).open("wb") for name in ("stdout", "stderr"))
        words = [sys.executable, "-m", "verger", self.verb, self.source, self.out.address]
        with out, err:
            return subprocess.Popen(
                [*words, *self.options],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )


@dataclass(frozen=True)
class Moment:
    """When a disturbance strikes: once ``holds`` does, and a little later.

    Attributes
    ----------
    words : str
    holds : callable
        Of the run's seconds and its journal.
    pause_s : float
    """

    words: str
    holds: Callable[[float, Journal], bool]
    pause_s: float = 0.0


@dataclass(frozen=True)
class Disturbance:
    """What befalls a run.

    Attributes
    ----------
    moment : Moment
    strike : callable
        Takes the run's session; returns what was hit, or an empty text if nothing was there yet.
    """

    moment: Moment
    strike: Callable[[int], str]


@dataclass(frozen=True)
class Ran:
    """How a run went.

    Attributes
    ----------
    session : int
        Of all its processes on this machine.
    code : int
        Exit code; minus the signal's number if it was killed.
    words : list of str
        What it said on standard error.
    hit : str
        What the disturbance hit; empty if it came too late, or there was none.
    committed : int
        Photos that OUT accounts for after it; the next run must not compute them again.
    seconds : float
    """

    session: int
    code: int
    words: list[str]
    hit: str
    committed: int
    seconds: float

    @property
    def last_word(self) -> str:
        return self.words[-1] if self.words else ""


def carry_out(command: Command, disturbance: Disturbance | None = None, *, number: int = 1) -> Ran:
    """Start a run, disturb it at its moment, and wait for its end."""
    journal = Journal(command.out)
    started = time.monotonic()
    run = command.start(number)
    hit = ""
    try:
        if disturbance:
            hit = _disturb(run, disturbance, journal, started)
        code = run.wait(max(1.0, LIMIT_S - (time.monotonic() - started)))
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"a run hangs: {command.verb} after {LIMIT_S} s, hit: {hit}") from None
    finally:
        if run.poll() is None:
            processes.end_session(run.pid)
            run.wait()
    seconds = round(time.monotonic() - started, 1)
    if hit and journal.is_publishing():
        hit += ", half published"
    words = command.log_of(number, "stderr").read_text("utf-8", "replace").splitlines()
    return Ran(run.pid, code, [w for w in words if w.strip()], hit, journal.n_photos(), seconds)


def _disturb(
    run: subprocess.Popen[bytes], disturbance: Disturbance, journal: Journal, started: float
) -> str:
    moment = disturbance.moment
    deadline = started + LIMIT_S
    while not moment.holds(time.monotonic() - started, journal):
        if run.poll() is not None or time.monotonic() > deadline:
            return ""
        time.sleep(_POLL_S)
    time.sleep(moment.pause_s)
    while run.poll() is None and time.monotonic() < deadline:
        hit = disturbance.strike(run.pid)
        if hit:
            return hit
        time.sleep(_POLL_S)
    return ""


class Journal:
    """What OUT holds while its run is unfinished, read from the outside."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def n_batches(self) -> int:
        """Count the committed batches of all attempts."""
        return len(self._markers())

    def n_photos(self) -> int:
        """Count the photos that a next run must not compute again.

        Those are the rows of the result, if there is one, else of the batches that the latest
        attempt can count on; less those that were rejected for what may have passed.
        """
        if self.is_published():
            counts = self._place.read("run.json")["counts"]
            return counts["listed"] - _passing(counts["reasons"])
        markers = self._markers()
        attempts = sorted({name.split("/")[1] for name in markers})
        attempts = [a for a in attempts if self._place.has(f".journal/{a}/start.json")]
        if not attempts:
            return 0
        start = self._read(f".journal/{attempts[-1]}/start.json")
        counted = {f".journal/{name}" for name in start.get("adopted", ())}
        counted |= {name for name in markers if name.split("/")[1] == attempts[-1]}
        batches = {name: self._read(name) for name in sorted(counted)}
        by_key = {(n.split("/")[1], b["key"]): b for n, b in batches.items() if b}
        return sum(_rows(batch) for batch in by_key.values())

    def is_publishing(self) -> bool:
        """Whether the result is being moved into place right now."""
        return self._place.has(".journal/publish.json")

    def is_published(self) -> bool:
        """Whether the features are there."""
        return self._place.has("run.json")

    def _markers(self) -> list[str]:
        try:
            names = [name.split("/") for name in self._place.files(".journal")]
        except OSError:  # it goes while it is listed
            return []
        markers = (n for n in names if len(n) == 3 and n[1][:4].isdigit() and n[2] != "start.json")
        return ["/".join(n) for n in markers if n[2].endswith(".json") and n[2][0] != "."]

    def _read(self, name: str) -> dict:
        try:
            return self._place.read(name)
        except (OSError, ValueError):  # it went since it was listed
            return {}


def _rows(batch: dict) -> int:
    rows = sum(batch[table]["rows"] for table in ("features", "rejected") if batch.get(table))
    return rows - _passing(batch["reasons"])


def _passing(reasons: dict[str, int]) -> int:
    return sum(n for reason, n in reasons.items() if Reason(reason).may_pass)
