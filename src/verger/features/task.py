"""What a task of a run does: read its share of the photos, featurize it, commit it in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from operator import itemgetter

import pyarrow as pa

from verger.engine.tasks import Task
from verger.features.model import Model, open_cached
from verger.features.outcomes import Decoding, featurize_rows, read_rows
from verger.files.reading import WAS_THERE, Unread, refuse
from verger.files.shares import Shares
from verger.result.clock import Clock
from verger.result.journal import Attempt, BatchWriter
from verger.schema import OUTCOMES, Reason, arrow_schema, outcome_columns

#: Rows that become Arrow's at once: 64 x 1280 float32 are 330 kB.
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How tasks compute the features of their photos, and how often they commit.

    Attributes
    ----------
    model : Model
    writer : BatchWriter
        Commits their batches.
    commit_every : int
        Photos in a batch, at most: a task's last one may have fewer.
    micro_batch : int
        Photos per call of the model.
    decoding : Decoding
    """

    model: Model
    writer: BatchWriter
    commit_every: int
    micro_batch: int = 1
    decoding: Decoding


def commit_share(task: Task, work: tuple[Shares, Extraction]) -> list[str]:
    """Featurize the share of one task, and commit it; return the names of its batches.

    Batches that an attempt of the same task has committed before it died are left out.
    """
    shares, extraction = work
    done = extraction.writer.committed_keys() if task.attempt else set()
    batches = shares.batches(task.number, extraction.commit_every)
    return list(commit_images(batches, task, extraction, done=done))


def commit_images(
    images: Iterable[pa.RecordBatch],
    task: Task,
    extraction: Extraction,
    *,
    done: set[str] | None = None,
) -> Iterator[str]:
    """Featurize images, and commit them batch by batch.

    Parameters
    ----------
    images : iterable of pyarrow.RecordBatch
        As for :func:`verger.features.outcomes.read_rows`; of any size.
    task : Task
        A task that is tried again decodes apart: what killed it before may have been a photo.
    extraction : Extraction
    done : set of str, optional
        Keys of batches to leave out. None for images that come in another order when the task is
        tried again: batches of the same number are not the same then, and of two rows of a path
        the younger counts.

    Yields
    ------
    str
        The name of every batch.
    """
    session = open_cached(extraction.model)
    columns = outcome_columns(session.contract.as_dict())
    decoding = extraction.decoding
    if task.attempt:
        decoding = replace(decoding, apart=True)
    for number, group in groupby(cut_images(images, extraction.commit_every), itemgetter(0)):
        key = f"{task.number:06}-{number:05}"
        if done is None:
            key += f"-{task.attempt}"
        elif key in done:
            continue
        clock = Clock()
        outcomes = featurize_rows(
            chain.from_iterable(read_rows(rows) for _, rows in group),
            session,
            micro_batch=extraction.micro_batch,
            decoding=decoding,
            clock=clock,
        )
        yield extraction.writer.commit(key, list(to_arrow(outcomes, columns)), clock)


def cut_images(
    images: Iterable[pa.RecordBatch], n_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut Arrow batches at every multiple of ``n_rows``, and number what lies between."""
    seen = 0
    for batch in images:
        start = 0
        while start < len(batch):
            number, offset = divmod(seen, n_rows)
            rows = batch.slice(start, n_rows - offset)
            yield number, rows
            start += len(rows)
            seen += len(rows)


def to_arrow(
    outcomes: Iterable[dict[str, object]], columns: tuple[str, ...] = OUTCOMES
) -> Iterator[pa.RecordBatch]:
    """Gather outcomes into Arrow batches; see :func:`verger.schema.outcome_columns`."""
    schema = arrow_schema(columns)
    rows: list[dict[str, object]] = []
    for outcome in outcomes:
        rows.append(outcome)
        if len(rows) == _ROWS_AT_ONCE:
            yield pa.RecordBatch.from_pylist(rows, schema)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


def commit_unread(photos: pa.Table, attempt: Attempt) -> None:
    """Commit photos that Spark's reader has left out, each with its reason.

    Parameters
    ----------
    photos : pyarrow.Table
        Columns :data:`verger.schema.IMAGES`.
    attempt : Attempt
    """
    if not len(photos):
        return
    rows = []
    for photo in photos.to_pylist():
        unread = refuse(photo["path"], photo["length"], slashes=True)
        unread = unread or Unread(Reason.VANISHED, WAS_THERE)
        rows.append(photo | {"reason": unread.reason.value, "detail": unread.detail})
    batch = pa.RecordBatch.from_pylist(rows, arrow_schema(OUTCOMES))
    BatchWriter.of(attempt).commit("unread", [batch], Clock())
