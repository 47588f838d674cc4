"""The folder of a result: what lies where, and how a new result takes the place of an old one.

``run.json`` is the result: it names every file of every table. A new result is written beside
the old one, announced in the journal, moved into place file by file, and is the result once its
``run.json`` is. Whoever finds the announcement finishes the move; see docs/guarantees.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from verger.errors import ConfigError, OutputError, OutputExistsError, SchemaError
from verger.files.folder import Folder, is_half_written
from verger.files.paths import normalize_source
from verger.files.records import MAX_RECORD_BYTES, as_json, from_plain, parse_json, read_record
from verger.files.tables import Part, read_part
from verger.result.record import RunRecord
from verger.schema import INSPECTED

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("features", "rejected", "groups", "pca")
RUN = "run.json"
#: What is under way; the leading dot hides it from readers of Parquet.
JOURNAL = ".journal"
PUBLISH = f"{JOURNAL}/publish.json"
LOCK = f"{JOURNAL}/lock.json"
#: Files of the next result, named below it as they will be named below OUT.
STAGED = f"{JOURNAL}/staged"
#: What is derived from the features, and goes when they are replaced.
DERIVED = (
    "pca",
    "models",
    "explained_variance.csv",
    "scree.png",
    "classifier",
    "predictions",
    "index",
    "inspection",
    "report.html",
    "report.json",
    "stopped",
)
#: Models that made the features and could not be made again; see :mod:`verger.features.precision`.
EXTRACTOR = "extractor"
#: Everything that Verger ever writes below OUT; nothing else is ever touched.
OWN_NAMES = (*TABLES, *DERIVED, EXTRACTOR, RUN, JOURNAL)

SPARK_PCA = "models/pca"
PCA_NPZ = "models/pca.npz"
MOMENTS_NPZ = "models/moments.npz"
SPECTRUM = "explained_variance.csv"
SCREE = "scree.png"
REPORT = "report.html"
#: Folder of the report of a run that was stopped, and has not replaced the result in OUT.
STOPPED = "stopped"
SPARK_CLASSIFIER = "models/classifier"
#: The vectors of its known photos lie beside it, in a file that is named after their sha256.
CLASSIFIER_NPZ = "models/classifier.npz"
TRAINING = "classifier/training.json"
EVALUATION = "classifier/evaluation.json"
PREDICTIONS = "predictions"
INDEX = "index/index.json"
INSPECTION = "inspection/inspection.json"

_WRITES = {"pca": "reduce", **dict.fromkeys(INSPECTED, "inspect")}

T = TypeVar("T")


@dataclass(frozen=True)
class _Announcement:
    """A new result that is being moved into place: ``publish.json``."""

    record: RunRecord
    add: tuple[tuple[str, str], ...]
    remove: tuple[str, ...]
    attempts: bool


@dataclass(frozen=True)
class _Files:
    """The files that an inspection names."""

    files: Mapping[str, tuple[Part, ...]]


@dataclass(frozen=True)
class Output:
    """The folder OUT.

    Attributes
    ----------
    root : str
        An absolute folder, or ``s3://bucket/prefix``.
    """

    root: str

    @classmethod
    def at(cls, out: str | Path) -> Output:
        """Return the layout below a folder, a ``file://`` address or ``s3://bucket/prefix``.

        Raises
        ------
        ConfigError
            If it is elsewhere.
        """
        text = normalize_source(str(out))
        if "://" in text and not text.startswith("s3://"):
            raise ConfigError(
                f"OUT={out}: must be a folder that driver and workers share, or s3://bucket/prefix"
            )
        return cls(text)

    @property
    def folder(self) -> Folder:
        """Its files."""
        return Folder(self.root)

    def address(self, name: str = "") -> str:
        """Return the address of a file as people write it."""
        return self.folder.address(name)

    # Before a run

    def prepare(self, *, source: str, overwrite: bool) -> None:
        """Check that OUT may be written; changes nothing.

        Raises
        ------
        OutputExistsError
            If it holds anything that is no result of Verger's: nothing else is ever replaced.
        ConfigError
            If it lies inside the source, or the source inside it: the report's pictures would
            be listed as photos, or the photos be replaced.
        OutputError
            If it cannot be written.
        """
        self._check_apart(normalize_source(source))
        self.check_folder()
        if not self._holds_anything():
            return
        if not self.folder.exists(RUN) and not self._is_under_way():
            raise OutputExistsError(
                f"OUT={self.root}: is not empty, and holds no result of Verger's; "
                "choose another folder"
            )
        if not overwrite and self.folder.exists(RUN):
            self.read_run()

    def _is_under_way(self) -> bool:
        """Whether a run was begun here: there is a journal, and nothing that is not ours."""
        return bool(self.folder.files(JOURNAL, recursive=True)) and all(
            name.split("/")[0] in OWN_NAMES for name in self._top_names()
        )

    def _top_names(self) -> list[str]:
        files = (entry.name for entry in self.folder.files())
        # run.json may have been half written; whoever holds the lock sweeps it away.
        return [*self.folder.folders(), *(name for name in files if not is_half_written(name))]

    def check_folder(self) -> None:
        """Check that it can be a folder that is written to.

        Raises
        ------
        OutputError
        """
        if not self.folder.is_local:
            return
        root = Path(self.root)
        try:
            is_folder = root.is_dir()
            taken = root.is_symlink() or root.exists()
        except (OSError, RuntimeError) as err:  # too long a name, a circle of links
            raise OutputError(f"OUT={root}: cannot be a folder: {err}") from err
        if taken and not is_folder:
            what = "a link to nowhere" if root.is_symlink() else "a file"
            raise OutputError(f"OUT={root}: is {what}, not a folder; choose another name")
        self._check_writable(root)

    def _check_apart(self, source: str) -> None:
        if not lie_apart(self.root, source):
            raise ConfigError(f"OUT={self.root}: must lie outside SRC={source}, and not around it")

    def _holds_anything(self) -> bool:
        if not self.folder.is_local:
            return bool(self._top_names())
        try:
            return any(not _is_leftover(entry) for entry in Path(self.root).iterdir())
        except FileNotFoundError:
            return False
        except OSError as err:
            raise OutputError(f"OUT={self.root}: cannot be read: {err.strerror}") from err

    @staticmethod
    def _check_writable(root: Path) -> None:
        """Find out by the nearest folder that exists, so that a refusal leaves nothing behind."""
        existing = root
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(f"OUT={root}: {existing} cannot be written; choose another folder")

    # The record

    def read_run(self) -> RunRecord:
        """Read ``run.json``.

        Raises
        ------
        OutputError
            If it is missing.
        SchemaError
            If it is damaged, not Verger's, or of a version without resume.
        """
        place = self.address(RUN)
        try:
            values = parse_json(self.folder.read(RUN, MAX_RECORD_BYTES))
        except FileNotFoundError as err:
            raise OutputError(f"OUT={self.root}: has no run.json; {self._why_none()}") from err
        except (OSError, ValueError) as err:
            raise SchemaError(f"{place}: cannot be read: {err}") from err
        try:
            return from_plain(RunRecord, values)
        except ValueError as err:
            raise SchemaError(
                f"{place}: is not of this version of Verger's: {err}; "
                "verger run with --overwrite writes it anew"
            ) from err

    def _why_none(self) -> str:
        if self.folder.files(JOURNAL, recursive=True):
            return "its run is not finished: the same verger run goes on from there"
        return "is this the folder of a finished verger run?"

    def write_run(self, record: RunRecord) -> None:
        """Replace ``run.json`` in one step."""
        self.folder.write(RUN, as_json(record))

    def read_derived(self, kind: type[T], name: str) -> T | None:
        """Read a record that is derived from the tables, such as :data:`EVALUATION`.

        Parameters
        ----------
        kind : type
            A dataclass; see :func:`verger.files.records.read_record`.
        name : str

        Returns
        -------
        record or None
            None where there is none.

        Raises
        ------
        SchemaError
            If it cannot be read.
        """
        try:
            return read_record(kind, self.folder.read(name, MAX_RECORD_BYTES))
        except FileNotFoundError:
            return None
        except ValueError as err:
            raise SchemaError(f"{self.address(name)}: cannot be read: {err}; remove it") from err

    def parts(self, table: str) -> list[Part]:
        """Return the files of a table, by ``run.json``; of one of an inspection, by its record.

        Raises
        ------
        OutputError
            If there is no such table, saying which command writes it.
        """
        files = self.read_run().files
        if table in INSPECTED:
            inspected = self.read_derived(_Files, INSPECTION)
            files = inspected.files if inspected else {}
        if table not in files:
            command = _WRITES.get(table, "run or verger featurize")
            raise OutputError(
                f"OUT={self.root}: has no table {table!r}; verger {command} writes it"
            )
        return list(files[table])

    def part_names(self, table: str) -> list[str]:
        """Return the names of the files of a table, by ``run.json``."""
        return [part.name for part in self.parts(table)]

    def read_groups(self) -> pa.Table | None:
        """Read which photos a list puts into groups: ``path`` and ``group``; None without any."""
        parts = self.read_run().files.get("groups")
        return read_part(self.folder, parts[0].name) if parts else None

    # Publishing

    def publish(
        self,
        record: RunRecord,
        *,
        add: Iterable[tuple[str, str]],
        remove: Iterable[str],
        attempts: bool,
    ) -> None:
        """Let new files take the place of old ones; once begun, it is finished by whoever is next.

        Parameters
        ----------
        record : RunRecord
            What ``run.json`` says from then on.
        add : iterable of (str, str)
            Name of a file in the journal, and its name in the result.
        remove : iterable of str
            Files of the old result.
        attempts : bool
            Whether the result now holds what all attempts have committed, so that they may go.
        """
        moves = tuple(add)
        kept = {target for _, target in moves}
        gone = tuple(name for name in remove if name not in kept)
        announced = _Announcement(record, moves, gone, attempts)
        self.folder.write(PUBLISH, as_json(announced))
        self._carry_out(announced)

    def finish_publishing(self) -> bool:
        """Finish what a killed process has announced and not carried out; return whether it had.

        Whoever calls this holds the lock.

        Raises
        ------
        SchemaError
            If the announcement cannot be read.
        OutputError
            If it names a file that no result has: somebody else may have written it.
        """
        try:
            announced = read_record(_Announcement, self.folder.read(PUBLISH, MAX_RECORD_BYTES))
        except FileNotFoundError:
            return False
        except ValueError as err:
            raise SchemaError(
                f"{self.address(PUBLISH)}: cannot be read: {err}; remove it, and verger run "
                "with --overwrite writes the result again"
            ) from err
        for name in (*announced.remove, *chain.from_iterable(announced.add)):
            if name.split("/")[0] not in OWN_NAMES:
                raise OutputError(
                    f"{self.address(PUBLISH)}: {name!r} is no name of a file of a result; "
                    "somebody else may have written it: do not use this folder"
                )
        self._carry_out(announced)
        return True

    def _carry_out(self, announced: _Announcement) -> None:
        # Old files go first: a reader of the folder may miss rows for a moment, but sees none
        # twice.
        for name in announced.remove:
            self.folder.remove(name)
        for origin, target in announced.add:
            self.folder.move(origin, target)
        self.write_run(announced.record)
        self.folder.remove_tree(STAGED)
        if announced.attempts:
            self.clear_journal()
        self.folder.remove(PUBLISH)

    def clear_journal(self) -> None:
        """Remove what the journal holds, but the lock and the announcement.

        The latest attempt goes first, and of each its beginning, without which it is none: what
        is left when this is interrupted never names a file that is gone.
        """
        for name in reversed(self.folder.folders(JOURNAL)):
            self.folder.remove(f"{JOURNAL}/{name}/start.json")
            self.folder.remove_tree(f"{JOURNAL}/{name}")

    def derived_files(self) -> list[str]:
        """List all files that were derived from the features."""
        return [file for name in DERIVED for file in self.own_files(name)]

    def own_files(self, name: str) -> list[str]:
        """List the files that one of our names stands for; a link is a file, never what is behind.

        Parameters
        ----------
        name : str
            One of :data:`OWN_NAMES`.
        """
        if self.folder.is_local and Path(self.address(name)).is_symlink():
            return [name]
        if self.folder.exists(name):
            return [name]
        return [entry.name for entry in self.folder.files(name, recursive=True)]


def lie_apart(one: str, other: str) -> bool:
    """Whether neither of two places lies inside the other, links followed."""
    first, second = _resolved(one), _resolved(other)
    return (
        first != second
        and not first.startswith(second + "/")
        and not second.startswith(first + "/")
    )


def _resolved(place: str) -> str:
    """Return a place with its links followed, to find one inside the other."""
    if "://" in place:
        return place.rstrip("/")
    try:
        return str(Path(place).resolve())
    except (OSError, RuntimeError):
        return place


def _is_leftover(entry: Path) -> bool:
    """Whether an entry is the empty journal of a run that did nothing."""
    return entry.name == JOURNAL and not any(path.is_file() for path in entry.rglob("*"))
