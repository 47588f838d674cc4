"""What a run has done so far, where a killed one left it, and who may write.

::

    OUT/.journal/
      lock.json                        who writes; gone when nobody does
      0003-9ac4/start.json             what attempt 3 was asked, and which batches it took over
      0003-9ac4/shares/000000.parquet  which of its tasks does which photos
      0003-9ac4/00017-00-4be1.json     batch 17 is committed: names of its files, its counts
      0003-9ac4/00017-00-4be1.features.parquet  0003-9ac4/00017-00-4be1.rejected.parquet
      publish.json                     which files are being moved into the result

A batch is committed by its marker, the JSON file, which is written last and whole. An attempt is
one job. What counts is the latest attempt: the batches that its ``start.json`` takes
over from those before it, and its own. A task of a dead attempt that still writes somewhere
writes into a folder that nobody reads any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa

from verger.errors import OutputError
from verger.files.folder import Folder
from verger.files.records import (
    MAX_RECORD_BYTES,
    as_json,
    from_plain,
    parse_json,
    read_record,
    to_plain,
)
from verger.files.tables import Part, stored_schema, write_part
from verger.result.clock import Clock, Reading
from verger.result.output import JOURNAL, Output
from verger.schema import REJECTED, features_columns

#: Rejected photos that a marker spells out.
FIRST_REJECTED = 3


_READERS = 16


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an attempt was asked, and what it took over: ``start.json``.

    Attributes
    ----------
    source, contract_hash, contract
        As in ``run.json``.
    fresh : bool
        Whether the result that OUT holds is to be replaced, not added to.
    overwrite : bool
        Whether ``--overwrite`` asked for that.
    adopted : tuple of str
        Names of the markers of batches that were committed before.
    started : str
        ISO time.
    model : str
        As it was asked for: the contract has what it was resolved to.
    """

    source: str
    contract_hash: str
    contract: Mapping[str, object]
    fresh: bool
    overwrite: bool
    adopted: tuple[str, ...] = ()
    started: str = ""
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A rejected photo, and why."""

    path: str | None
    reason: str
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A committed unit of work: what its marker holds.

    Attributes
    ----------
    name : str
        Of its marker, below the journal.
    key : str
        What it is of: the same photos have the same key, whichever attempt of a task did them.
    features, rejected : Part or None
        Its files, named below OUT; None where there is no such row.
    reasons : mapping of str to int
        Rejected photos by reason.
    first : tuple of Rejection
        The first rejected ones.
    spent : Reading
        What the clock said when the batch was written.
    """

    name: str
    key: str
    features: Part | None
    rejected: Part | None
    reasons: Mapping[str, int]
    first: tuple[Rejection, ...]
    spent: Reading

    @property
    def parts(self) -> dict[str, Part]:
        """Table to file, for the tables that it has rows of."""
        both = {"features": self.features, "rejected": self.rejected}
        return {table: part for table, part in both.items() if part}

    @property
    def n_photos(self) -> int:
        """Photos that it accounts for."""
        return sum(part.rows for part in self.parts.values())

    @property
    def n_rejected(self) -> int:
        """Photos without features."""
        return self.rejected.rows if self.rejected else 0


@dataclass(frozen=True)
class Attempt:
    """One job, and all that it can count on.

    Attributes
    ----------
    output : Output
    name : str
        ``0001`` and so on.
    start : Start
    """

    output: Output
    name: str
    start: Start = field(repr=False)

    @property
    def path(self) -> str:
        """Folder of the attempt, below OUT."""
        return f"{JOURNAL}/{self.name}"

    @property
    def shares(self) -> str:
        """Folder of what its tasks are to do, below OUT."""
        return f"{self.path}/shares"

    @property
    def adopted(self) -> tuple[str, ...]:
        """Names of the markers that it took over."""
        return self.start.adopted

    def own_markers(self) -> list[str]:
        """List the markers that it has written so far."""
        return [f"{self.name}/{name}" for name in _markers_in(self.output.folder, self.path)]

    def markers(self) -> list[str]:
        """Return the names of all markers that count."""
        return [*self.adopted, *self.own_markers()]

    def batches(self) -> list[Batch]:
        """Read every committed batch, those taken over first.

        A batch that two attempts of one task have committed counts once: both hold the same.
        """
        found = self.read(self.markers())
        by_key: dict[tuple[str, str], Batch] = {}
        for batch in found:
            by_key.setdefault((batch.name.split("/")[0], batch.key), batch)
        return list(by_key.values())

    def read(self, markers: Sequence[str]) -> list[Batch]:
        """Read markers of this journal.

        Raises
        ------
        OutputError
            If one is damaged.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda name: _read_marker(self.output.folder, name), markers))


def _read_marker(folder: Folder, name: str) -> Batch:
    try:
        values = parse_json(folder.read(f"{JOURNAL}/{name}", MAX_RECORD_BYTES))
        return from_plain(Batch, values | {"name": name} if isinstance(values, dict) else values)
    except (OSError, ValueError) as err:
        raise OutputError(
            f"{folder.address(JOURNAL)}/{name}: cannot be read: {err}; "
            "delete the folder .journal to begin again"
        ) from err


def latest_attempt(output: Output) -> Attempt | None:
    """Return the attempt that counts, or None where no run is unfinished."""
    names: Sequence[str] = output.folder.folders(JOURNAL)
    for name in reversed(names):
        with suppress(FileNotFoundError, ValueError):
            return Attempt(
                output,
                name,
                read_record(Start, output.folder.read(_start_of(name), MAX_RECORD_BYTES)),
            )
    return None


def _markers_in(folder: Folder, attempt: str) -> list[str]:
    names = (entry.name.rsplit("/", 1)[-1] for entry in folder.files(attempt))
    return [name for name in names if name.endswith(".json") and name != "start.json"]


def _start_of(attempt: str) -> str:
    return f"{JOURNAL}/{attempt}/start.json"


def start_attempt(output: Output, start: Start) -> Attempt:
    """Begin an attempt; its ``started`` is filled in.

    Parameters
    ----------
    output : Output
    start : Start
    """
    heads = (name.split("-")[0] for name in output.folder.folders(JOURNAL))
    number = max((int(head) for head in heads if head.isdecimal()), default=0) + 1
    # No other has or had this name: a task of a dead run may still write into its own.
    name = f"{number:04}-{uuid.uuid4().hex[:8]}"
    start = replace(start, started=datetime.now(UTC).isoformat(timespec="seconds"))
    output.folder.write(_start_of(name), as_json(start))
    return Attempt(output, name, start)


# In the tasks


@dataclass(frozen=True)
class BatchWriter:
    """Commits batches from inside a task.

    Attributes
    ----------
    folder : Folder
        OUT.
    path : str
        Folder of the attempt, below OUT.
    features_schema, rejected_schema : pyarrow.Schema
        As :func:`verger.files.tables.stored_schema` returns them.
    """

    folder: Folder
    path: str
    features_schema: pa.Schema
    rejected_schema: pa.Schema

    @classmethod
    def of(cls, attempt: Attempt) -> BatchWriter:
        """Return what commits the batches of an attempt."""
        contract = attempt.start.contract_hash
        tables = features_columns(attempt.start.contract), REJECTED
        schemas = (stored_schema(columns, contract) for columns in tables)
        return cls(attempt.output.folder, attempt.path, *schemas)

    def committed_keys(self) -> set[str]:
        """Return the keys of the batches that are committed already."""
        return {name.rsplit("-", 1)[0] for name in _markers_in(self.folder, self.path)}

    def commit(self, key: str, outcomes: Sequence[pa.RecordBatch], clock: Clock) -> str:
        """Write the rows of a batch, then its marker; return the marker's name.

        Parameters
        ----------
        key : str
            What the batch is of.
        outcomes : sequence of pyarrow.RecordBatch
            Columns :data:`verger.schema.OUTCOMES`.
        clock : Clock
            What the batch has cost; the time to write it is added.
        """
        name = f"{key}-{uuid.uuid4().hex[:12]}"
        table = pa.Table.from_batches(outcomes)
        lost = pa.compute.is_valid(table["reason"])
        rejected = table.filter(lost)
        with clock.part("write"):
            parts = {
                "features": self._write(name, table.filter(pa.compute.invert(lost)), "features"),
                "rejected": self._write(name, rejected, "rejected"),
            }
        counts = rejected["reason"].value_counts().to_pylist()
        first = rejected.select(["path", "reason", "detail"])[:FIRST_REJECTED].to_pylist()
        batch = Batch(
            name=name,
            key=key,
            **parts,
            reasons={entry["values"]: entry["counts"] for entry in counts},
            first=tuple(Rejection(**row) for row in first),
            spent=clock.reading(),
        )
        marker = {key: value for key, value in to_plain(batch).items() if key != "name"}
        self.folder.write(f"{self.path}/{name}.json", as_json(marker))
        return name

    def _write(self, name: str, rows: pa.Table, table: str) -> Part | None:
        if not len(rows):
            return None
        schema = self.features_schema if table == "features" else self.rejected_schema
        name = f"{self.path}/{name}.{table}.parquet"
        return write_part(self.folder, name, rows.select(schema.names), schema)
