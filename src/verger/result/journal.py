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
one job of Spark. What counts is the latest attempt: the batches that its ``start.json`` takes
over from those before it, and its own. A task of a dead attempt that still writes somewhere
writes into a folder that nobody reads any more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from verger.errors import OutputError
from verger.files.folder import Folder
from verger.files.tables import Part, stored_schema, write_part
from verger.result.clock import Clock
from verger.result.output import JOURNAL, Output, as_json
from verger.schema import FEATURES, REJECTED

#: Rejected photos that a marker spells out.
FIRST_REJECTED = 3


_READERS = 16


@dataclass(frozen=True)
class Batch:
    """A committed unit of work.

    Attributes
    ----------
    name : str
        Of its marker, below the journal.
    key : str
        What it is of: the same photos have the same key, whichever attempt of a task did them.
    features, rejected : Part or None
        Its files, named below OUT; None where there is no such row.
    reasons : dict of str to int
        Rejected photos by reason.
    first : list of dict
        ``path``, ``reason`` and ``detail`` of the first rejected ones.
    spent : dict
        What :meth:`verger.result.clock.Clock.reading` said when the batch was written.
    """

    name: str
    key: str
    features: Part | None
    rejected: Part | None
    reasons: dict[str, int]
    first: list[dict[str, str]]
    spent: dict[str, Any]

    @property
    def parts(self) -> dict[str, Part]:
        """Table to file, for the tables that it has rows of."""
        found = {"features": self.features, "rejected": self.rejected}
        return {table: part for table, part in found.items() if part}

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
    """One job of Spark, and all that it can count on.

    Attributes
    ----------
    output : Output
    name : str
        ``0001`` and so on.
    start : dict
        ``contract_hash``, ``contract``, ``source``, ``fresh``; see :func:`start_attempt`.
    """

    output: Output
    name: str
    start: dict[str, Any] = field(repr=False)

    @property
    def path(self) -> str:
        """Folder of the attempt, below OUT."""
        return f"{JOURNAL}/{self.name}"

    @property
    def shares(self) -> str:
        """Folder of what its tasks are to do, below OUT."""
        return f"{self.path}/shares"

    @property
    def adopted(self) -> list[str]:
        """Names of the markers that it took over."""
        return list(self.start["adopted"])

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
        values = json.loads(folder.read(f"{JOURNAL}/{name}"))
        features, rejected = (
            Part(**values[table]) if values[table] else None for table in ("features", "rejected")
        )
        return Batch(
            name,
            values["key"],
            features,
            rejected,
            values["reasons"],
            values["first"],
            values["spent"],
        )
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise OutputError(
            f"{folder.address(JOURNAL)}/{name}: cannot be read: {err}; "
            "delete the folder .journal to begin anew"
        ) from err


def latest_attempt(output: Output) -> Attempt | None:
    """Return the attempt that counts, or None where no run is unfinished."""
    names: Sequence[str] = output.folder.folders(JOURNAL)
    for name in reversed(names):
        with suppress(FileNotFoundError, ValueError):
            return Attempt(output, name, json.loads(output.folder.read(_start_of(name))))
    return None


def _markers_in(folder: Folder, attempt: str) -> list[str]:
    names = (entry.name.rsplit("/", 1)[-1] for entry in folder.files(attempt))
    return [name for name in names if name.endswith(".json") and name != "start.json"]


def _start_of(attempt: str) -> str:
    return f"{JOURNAL}/{attempt}/start.json"


def start_attempt(output: Output, start: Mapping[str, Any], adopted: Sequence[str]) -> Attempt:
    """Begin an attempt that takes over committed batches.

    Parameters
    ----------
    output : Output
    start : mapping
        ``source``, ``contract``, ``contract_hash``, and ``fresh``: whether the result that OUT
        holds is to be replaced, not added to.
    adopted : sequence of str
        Names of markers.
    """
    heads = (name.split("-")[0] for name in output.folder.folders(JOURNAL))
    number = max((int(head) for head in heads if head.isdigit()), default=0) + 1
    # No other has or had this name: a task of a dead run may still write into its own.
    name = f"{number:04}-{uuid.uuid4().hex[:8]}"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record = {**start, "adopted": list(adopted), "started": started}
    output.folder.write(_start_of(name), as_json(record))
    return Attempt(output, name, record)


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
        contract = attempt.start["contract_hash"]
        schemas = (stored_schema(columns, contract) for columns in (FEATURES, REJECTED))
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
        marker = {
            "key": key,
            **{table: part.as_dict() if part else None for table, part in parts.items()},
            "reasons": {entry["values"]: entry["counts"] for entry in counts},
            "first": rejected.select(["path", "reason", "detail"])[:FIRST_REJECTED].to_pylist(),
            "spent": clock.reading(),
        }
        self.folder.write(f"{self.path}/{name}.json", as_json(marker))
        return name

    def _write(self, name: str, rows: pa.Table, table: str) -> Part | None:
        if not len(rows):
            return None
        schema = self.features_schema if table == "features" else self.rejected_schema
        name = f"{self.path}/{name}.{table}.parquet"
        return write_part(self.folder, name, rows.select(schema.names), schema)
