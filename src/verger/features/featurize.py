"""The DataFrame face of featurizing: photos that Spark holds, and tables that it gets back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.engine.tasks import OnProgress, Task
from verger.errors import SchemaError
from verger.features.model import Model, load_model, open_cached
from verger.features.outcomes import Decoding, featurize_rows, read_rows
from verger.features.task import Extraction, commit_images, to_arrow
from verger.schema import CONTRACT_KEY, FEATURES, IMAGES, OUTCOMES, REJECTED, spark_schema

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

    from verger.engine.spark import SparkEngine


def featurize(
    images: DataFrame,
    *,
    model: Model | str = "mobilenet_v2",
    micro_batch: int = 1,
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
    work = partial(_featurize_partition, shared, micro_batch, decoding or Decoding())
    outcomes = _select_images(images).mapInArrow(work, spark_schema(OUTCOMES))
    return outcomes.withMetadata("features", {CONTRACT_KEY: model.contract.hash})


def _featurize_partition(
    shared: Broadcast[Model],
    micro_batch: int,
    decoding: Decoding,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    outcomes = featurize_rows(
        chain.from_iterable(map(read_rows, batches)),
        open_cached(shared.value),
        micro_batch=micro_batch,
        decoding=replace(decoding, apart=True) if _task().attempt else decoding,
    )
    yield from to_arrow(outcomes)


def _task() -> Task:
    """Return the task of Spark's that this process works on."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return Task(context.partitionId(), context.attemptNumber()) if context else Task(0, 0)


def commit_frame(
    engine: SparkEngine, images: DataFrame, extraction: Extraction, on_progress: OnProgress
) -> None:
    """Featurize images that Spark's own reader has read, and commit them batch by batch.

    Parameters
    ----------
    engine : SparkEngine
    images : DataFrame
        As for :func:`featurize`, with ``content``.
    extraction : Extraction
    on_progress : callable
        What it raises cancels the job.
    """
    shared = engine.session.sparkContext.broadcast(extraction)
    batches = _select_images(images).mapInArrow(partial(_commit_partition, shared), "batch string")
    try:
        with engine.watched(on_progress):
            batches.collect()
    finally:
        shared.destroy()


def _commit_partition(
    shared: Broadcast[Extraction], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for name in commit_images(batches, _task(), shared.value):
        yield pa.RecordBatch.from_pydict({"batch": [name]})


def _select_images(images: DataFrame) -> DataFrame:
    missing = [name for name in IMAGES if name not in images.columns]
    if missing:
        raise SchemaError(f"images: column {missing[0]!r} is missing; it has {images.columns}")
    extra = ["content"] if "content" in images.columns else []
    return images.select(*IMAGES, *extra)


def split_outcomes(outcomes: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split what :func:`featurize` returns into the tables ``features`` and ``rejected``."""
    features = outcomes.where("reason IS NULL").select(*FEATURES)
    rejected = outcomes.where("reason IS NOT NULL").select(*REJECTED)
    return features, rejected
