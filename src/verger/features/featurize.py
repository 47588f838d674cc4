"""Photos to features: the only Arrow function of the pipeline.

Fetch, decode, resize and infer happen in one pass inside the Python worker; pixels never leave
it. What comes back is one row a photo: features, or a reason why there are none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from verger.config import MAX_PIXELS
from verger.errors import SchemaError
from verger.features.isolate import deadline, decode_apart
from verger.features.model import Model, ModelSession, load_model, open_cached
from verger.features.preprocess import DecodeError, Photo, decode_photo
from verger.files.reading import WAS_THERE, Unread, read_ahead, too_large
from verger.result.clock import Clock
from verger.result.journal import Attempt, BatchWriter
from verger.schema import CONTRACT_KEY, IMAGES, OUTCOMES, Reason, arrow_schema, spark_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from verger.files.shares import Shares

#: Rows in an Arrow batch that goes back to Spark: 64 x 1280 float32 are 330 kB.
ROWS_PER_BATCH = 64

Outcome = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the bytes of photos become pixels.

    Attributes
    ----------
    max_pixels : int
        Largest width x height that is decoded.
    accept_truncated : bool
        Let photos pass that were cut off, marked as ``truncated``.
    timeout_s : float or None
        How long the decoder may take for one photo. A photo that takes longer ends the worker
        process; Spark tries its task again, and the second time photos are decoded apart.
    apart : bool
        Decode in another process, which may crash or hang: slower by about 1 ms a photo.
    """

    max_pixels: int = MAX_PIXELS
    accept_truncated: bool = False
    timeout_s: float | None = None
    apart: bool = False

    def decode(self, content: bytes, size: int) -> Photo:
        """Decode one photo to (size, size, 3) pixels.

        Raises
        ------
        DecodeError
        """
        if self.apart:
            return decode_apart(
                content,
                size=size,
                max_pixels=self.max_pixels,
                accept_truncated=self.accept_truncated,
                timeout_s=self.timeout_s,
            )
        with deadline(self.timeout_s):
            return decode_photo(
                content,
                size=size,
                max_pixels=self.max_pixels,
                accept_truncated=self.accept_truncated,
            )


def featurize(
    images: DataFrame,
    *,
    model: Model | str = "mobilenet_v2",
    micro_batch: int = 8,
    decoding: Decoding | None = None,
) -> DataFrame:
    """Compute the features of a DataFrame of images.

    Parameters
    ----------
    images : DataFrame
        ``path``, ``modification_time``, ``length``, ``label`` and, where Spark has read the
        files, ``content``; see :func:`verger.read_images`.
    model : Model or str
        Loaded on the driver and broadcast once.
    micro_batch : int
        Photos per call of the model; has no influence on the features.
    decoding : Decoding, optional
        Bounds of the decoder.

    Returns
    -------
    DataFrame
        One row a photo, columns :data:`verger.schema.OUTCOMES`. Where ``reason`` is null the
        row has ``features`` (array<float>, ``n_features`` long), ``width`` and ``height``;
        elsewhere it has ``reason`` and ``detail`` and no features. The metadata of the column
        ``features`` names the contract.

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    if isinstance(model, str):
        model = load_model(model)
    shared = images.sparkSession.sparkContext.broadcast(model)
    decoding = decoding or Decoding()

    def featurize_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from featurize_batches(
            batches,
            open_cached(shared.value),
            micro_batch=micro_batch,
            decoding=_decoding_of_task(decoding),
        )

    outcomes = _select_images(images).mapInArrow(featurize_partition, spark_schema(OUTCOMES))
    return outcomes.withMetadata("features", {CONTRACT_KEY: model.contract.hash})


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How tasks compute the features of their photos, and how often they commit.

    Attributes
    ----------
    model : Model
    commit_every : int
        Photos in a batch, at most: a partition's last one may have fewer.
    micro_batch : int
        Photos per call of the model.
    decoding : Decoding
    """

    model: Model
    commit_every: int
    micro_batch: int = 8
    decoding: Decoding = Decoding()


def commit_features(images: DataFrame, attempt: Attempt, extraction: Extraction) -> None:
    """Compute the features of a DataFrame of images, and commit them batch by batch.

    The tasks write what they have computed by themselves; nothing but the names of batches
    comes back.

    Parameters
    ----------
    images : DataFrame
        As for :func:`featurize`.
    attempt : Attempt
        Where the batches are committed.
    extraction : Extraction

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    # Photos whose bytes Spark has moved come in any order when their task is tried again: then
    # batches of the same number are not the same, and of two rows the younger counts.
    ordered = "content" not in images.columns
    commit = _committing(images.sparkSession, attempt, extraction, ordered=ordered)
    _select_images(images).mapInArrow(commit, "batch string").collect()


def commit_shares(
    spark: SparkSession, shares: Shares, attempt: Attempt, extraction: Extraction
) -> None:
    """Do the same for photos that the tasks read from their :class:`verger.files.shares.Shares`.

    Parameters
    ----------
    spark : SparkSession
    shares : Shares
        Columns :data:`verger.schema.IMAGES`.
    attempt, extraction
        As for :func:`commit_features`.
    """
    commit = _committing(spark, attempt, extraction, ordered=True)

    def commit_share(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                yield from commit(shares.batches(task, ROWS_PER_BATCH))

    tasks = spark.range(0, shares.n_tasks, 1, shares.n_tasks)
    tasks.mapInArrow(commit_share, "batch string").collect()


def _committing(
    spark: SparkSession, attempt: Attempt, extraction: Extraction, *, ordered: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what a task does with its images: it yields the names of the batches it commits.

    ``ordered`` tells whether a task that is tried again gets its photos in the same order.
    """
    shared = spark.sparkContext.broadcast(extraction.model)
    writer = BatchWriter.of(attempt)
    # What a task carries with it: the model goes by the broadcast.
    commit_every, micro_batch = extraction.commit_every, extraction.micro_batch
    how = extraction.decoding

    def commit_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task, attempt_number = _task()
        done = writer.committed_keys() if ordered and attempt_number else set()
        session = open_cached(shared.value)
        _settle()
        decoding = _decoding_of_task(how)
        for number, group in groupby(_numbered(batches, commit_every), itemgetter(0)):
            key = f"{task:06}-{number:05}"
            if not ordered:
                key += f"-{attempt_number}"
            if key in done:  # by an attempt of this task that died later
                continue
            clock = Clock()
            outcomes = list(
                featurize_batches(
                    (batch for _, batch in group),
                    session,
                    micro_batch=micro_batch,
                    decoding=decoding,
                    clock=clock,
                )
            )
            yield pa.RecordBatch.from_pydict({"batch": [writer.commit(key, outcomes, clock)]})

    return commit_partition


@cache
def _settle() -> None:
    """Leave out of garbage collections what a worker has loaded, once.

    Spark collects after every task, and 30,000 objects that stay take 5 to 10 ms.
    """
    gc.freeze()


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
        unread = too_large(photo["length"]) or Unread(Reason.VANISHED, WAS_THERE)
        rows.append(photo | {"reason": unread.reason.value, "detail": unread.detail})
    batch = pa.RecordBatch.from_pylist(rows, arrow_schema(OUTCOMES))
    BatchWriter.of(attempt).commit("unread", [batch], Clock())


def _select_images(images: DataFrame) -> DataFrame:
    missing = [name for name in IMAGES if name not in images.columns]
    if missing:
        raise SchemaError(f"images: column {missing[0]!r} is missing; it has {images.columns}")
    extra = ["content"] if "content" in images.columns else []
    return images.select(*IMAGES, *extra)


def _task() -> tuple[int, int]:
    """Return the number of this task's partition, and how many attempts of it have died."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return (context.partitionId(), context.attemptNumber()) if context else (0, 0)


def _decoding_of_task(decoding: Decoding) -> Decoding:
    """Decode apart in a task that is tried again: what killed it before may have been a photo."""
    return replace(decoding, apart=True) if _task()[1] else decoding


def _numbered(
    batches: Iterator[pa.RecordBatch], n_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut Arrow batches at every multiple of ``n_rows``, and number what lies between."""
    seen = 0
    for batch in batches:
        start = 0
        while start < len(batch):
            number, offset = divmod(seen, n_rows)
            rows = batch.slice(start, n_rows - offset)
            yield number, rows
            start += len(rows)
            seen += len(rows)


def featurize_batches(
    batches: Iterator[pa.RecordBatch],
    session: ModelSession,
    *,
    micro_batch: int = 8,
    decoding: Decoding | None = None,
    clock: Clock | None = None,
) -> Iterator[pa.RecordBatch]:
    """Turn Arrow batches of images into Arrow batches of outcomes; needs no Spark.

    Parameters
    ----------
    batches : iterator of pyarrow.RecordBatch
        Columns of :data:`verger.schema.IMAGES`, and perhaps ``content``.
    session : ModelSession
    micro_batch : int
    decoding : Decoding, optional
    clock : Clock, optional
        Told what the time goes to.

    Yields
    ------
    pyarrow.RecordBatch
        Columns :data:`verger.schema.OUTCOMES`, as many rows as came in, in their order.
    """
    schema = arrow_schema(OUTCOMES)
    size = session.contract.input_size
    clock = clock or Clock()
    read = clock.waiting("read", _read_rows(batches))
    decoded = _decode_rows(read, size, decoding or Decoding(), clock)
    rows: list[Outcome] = []
    for row in _infer_rows(decoded, session, micro_batch, clock):
        rows.append(row)
        if len(rows) == ROWS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


def _read_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[Outcome, bytes | Unread]]:
    """Pair every photo's row with its bytes, from the column or from the file."""
    for batch in batches:
        rows = batch.select(IMAGES).to_pylist()
        if "content" in batch.schema.names:
            contents: Iterator[bytes | Unread] = (
                _check_length(value.as_py() or b"", row["length"])
                for value, row in zip(batch["content"], rows, strict=True)
            )
        else:
            contents = read_ahead([row["path"] for row in rows], [row["length"] for row in rows])
        yield from zip(rows, contents, strict=True)


def _check_length(content: bytes, length: int | None) -> bytes | Unread:
    if length is None or len(content) == length:
        return content
    detail = f"listed with {length} bytes, read {len(content)}: it was changed since"
    return Unread(Reason.READ_ERROR, detail)


def _decode_rows(
    rows: Iterator[tuple[Outcome, bytes | Unread]], size: int, decoding: Decoding, clock: Clock
) -> Iterator[tuple[Outcome, Photo | Unread]]:
    for row, content in rows:
        if isinstance(content, Unread):
            yield row, content
            continue
        photo: Photo | Unread
        try:
            with clock.part("decode"):
                photo = decoding.decode(content, size)
        except DecodeError as err:
            photo = Unread(err.reason, err.detail)
        del content  # it would be held while the model works
        yield row, photo


def _infer_rows(
    rows: Iterator[tuple[Outcome, Photo | Unread]],
    session: ModelSession,
    micro_batch: int,
    clock: Clock,
) -> Iterator[Outcome]:
    """Run the model on every ``micro_batch`` photos; rejected ones pass in their place."""
    waiting: list[tuple[Outcome, Photo | Unread]] = []
    n_photos = 0
    for row in rows:
        waiting.append(row)
        n_photos += isinstance(row[1], Photo)
        if n_photos == micro_batch or len(waiting) == ROWS_PER_BATCH:
            yield from _outcomes(waiting, session, clock)
            waiting, n_photos = [], 0
    yield from _outcomes(waiting, session, clock)


def _outcomes(
    rows: list[tuple[Outcome, Photo | Unread]], session: ModelSession, clock: Clock
) -> Iterator[Outcome]:
    photos = [photo for _, photo in rows if isinstance(photo, Photo)]
    size = session.contract.input_size
    pixels = np.empty((len(photos), size, size, 3), np.uint8)
    for target, decoded in zip(pixels, photos, strict=True):
        target[:] = decoded.pixels
    with clock.part("model"):
        features = iter(session.predict(pixels))
    for row, photo in rows:
        if isinstance(photo, Unread):
            yield row | {"reason": photo.reason.value, "detail": photo.detail}
        else:
            yield row | _vector_or_reason(next(features), photo, session)


def _vector_or_reason(features: Any, photo: Photo, session: ModelSession) -> Outcome:
    if features.shape != (session.contract.n_features,) or not np.isfinite(features).all():
        detail = f"shape {features.shape}, {int((~np.isfinite(features)).sum())} not finite"
        return {"reason": Reason.MODEL_OUTPUT.value, "detail": detail}
    return {
        "features": features,
        "width": photo.width,
        "height": photo.height,
        "truncated": photo.truncated,
    }


def decode_listed(photos: pa.Table, size: int, decoding: Decoding) -> Iterator[Photo | Unread]:
    """Read and decode listed photos in this process.

    Parameters
    ----------
    photos : pyarrow.Table
        Columns of :data:`verger.schema.IMAGES`.
    size : int
    decoding : Decoding

    Yields
    ------
    Photo or Unread
        One for each photo, in their order.
    """
    batches = iter(photos.to_batches(max_chunksize=ROWS_PER_BATCH))
    for _, photo in _decode_rows(_read_rows(batches), size, decoding, Clock()):
        yield photo


def outcomes_of_contents(
    contents: Iterable[bytes | Unread | None],
    session: ModelSession,
    *,
    micro_batch: int = 8,
    decoding: Decoding | None = None,
) -> Iterator[Outcome]:
    """Featurize photos given by their bytes, one outcome each, in their order.

    A photo that could not be read keeps the reason that it brings.

    Yields
    ------
    dict
        ``features``, ``width`` and ``height``, or ``reason`` and ``detail``.
    """
    rows: Iterator[tuple[Outcome, bytes | Unread]] = (({}, c or b"") for c in contents)
    size, clock = session.contract.input_size, Clock()
    decoded = _decode_rows(rows, size, decoding or Decoding(), clock)
    yield from _infer_rows(decoded, session, micro_batch, clock)


def split_outcomes(outcomes: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split what :func:`featurize` returns into the tables ``features`` and ``rejected``."""
    from verger.schema import FEATURES, REJECTED

    features = outcomes.where("reason IS NULL").select(*FEATURES)
    rejected = outcomes.where("reason IS NOT NULL").select(*REJECTED)
    return features, rejected
