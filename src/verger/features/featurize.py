"""The DataFrame face of featurizing: photos that Spark holds, and tables that it gets back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.engine.spark import Carried, current_task, share
from verger.engine.tasks import OnProgress
from verger.errors import SchemaError
from verger.features.columns import find_column
from verger.features.model import Model, load_model, open_cached
from verger.features.outcomes import Decoding, featurize_rows, read_rows
from verger.features.task import Extraction, commit_images, to_arrow
from verger.schema import (
    CONTRACT_KEY,
    FEATURES,
    IMAGES,
    MEASURES,
    OUTCOMES,
    REJECTED,
    VIEWS,
    outcome_columns,
    spark_schema,
)

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

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
        ``path`` and, if it has them, ``modification_time`` (or ``modificationTime``),
        ``length``, ``label`` and ``content``, the bytes of the files; see
        :func:`verger.read_images`. Without ``content`` the tasks read the files. A label may be
        a number; columns of other names are left out.
    model : Model or str
        Loaded on the driver and broadcast once; over Spark Connect sent with each job.
    micro_batch : int
        Photos per call of the model; has no influence on the features.
    decoding : Decoding, optional
        Bounds of the decoder.

    Returns
    -------
    DataFrame
        One row a photo, columns :func:`verger.schema.outcome_columns`. Where ``reason`` is null the
        row has ``features`` (array<float>, ``n_features`` long), ``width``, ``height`` and
        :data:`verger.schema.MEASURES`; elsewhere it has ``reason`` and ``detail`` and no features.
        The metadata of the column ``features`` names the contract.

    Raises
    ------
    SchemaError
        If ``path`` is missing, or a column has a type that cannot be meant.

    Examples
    --------
    >>> images = verger.read_images(verger.get_session(), "photos/").limit(2)
    >>> outcomes = verger.featurize(images, model="efficientnet_lite0")
    >>> [len(row.features) for row in outcomes.collect()]
    [1280, 1280]
    """
    if isinstance(model, str):
        model = load_model(model)
    shared = share(images.sparkSession, model)
    work = partial(_featurize_partition, shared, micro_batch, decoding or Decoding())
    columns = outcome_columns(model.contract.as_dict())
    outcomes = _select_images(images).mapInArrow(work, spark_schema(columns))
    return outcomes.withMetadata("features", {CONTRACT_KEY: model.contract.hash})


def _featurize_partition(
    shared: Broadcast[Model] | Carried,
    micro_batch: int,
    decoding: Decoding,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    session = open_cached(shared.value)
    outcomes = featurize_rows(
        chain.from_iterable(map(read_rows, batches)),
        session,
        micro_batch=micro_batch,
        decoding=replace(decoding, apart=True) if current_task().attempt else decoding,
    )
    yield from to_arrow(outcomes, outcome_columns(session.contract.as_dict()))


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
    for name in commit_images(batches, current_task(), shared.value):
        yield pa.RecordBatch.from_pydict({"batch": [name]})


#: Columns of a photo that a table may lack, and a name that Spark's ``binaryFile`` gives it.
_OPTIONAL = {"modification_time": "modificationTime", "length": "length", "label": "label"}


def _select_images(images: DataFrame) -> DataFrame:
    """Return the columns that featurizing takes, of the types that it takes them in."""
    from pyspark.sql import functions as F

    there = {name.lower() for name in images.columns}
    types = {field.name: field.dataType for field in spark_schema((*IMAGES, "content"))}
    columns = []
    for name in (*IMAGES, "content"):
        other = _OPTIONAL.get(name, name)
        called = name if name in there or other.lower() not in there else other
        if called.lower() in there or name == "path":
            columns.append(_as_type(images, called, types[name]).alias(name))
        elif name != "content":
            columns.append(F.lit(None).cast(types[name]).alias(name))
    return images.select(*columns)


def _as_type(images: DataFrame, name: str, wanted: DataType) -> Column:
    """Return a column of images in the type that is wanted, if it can be meant."""
    from pyspark.sql import functions as F
    from pyspark.sql import types as t

    column, kind = find_column(images, name, f"images: column {name!r}")
    may_be: dict[str, tuple[type[DataType], ...]] = {
        "path": (t.BinaryType,),
        "label": (t.NumericType, t.BooleanType, t.DateType, t.BinaryType),
        "length": (t.NumericType,),  # pandas has doubles where some are missing
        "content": (),
    }
    times = (t.TimestampNTZType, t.DateType)
    if not isinstance(kind, (type(wanted), t.NullType, *may_be.get(name, times))):
        raise SchemaError(
            f"images: column {name!r} is {kind.simpleString()}, and must be {wanted.simpleString()}"
        )
    if isinstance(kind, t.FloatType | t.DoubleType):
        column = F.nanvl(column, F.lit(None))
    return column.cast(wanted)


def split_outcomes(outcomes: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split what :func:`featurize` returns into the tables ``features`` and ``rejected``.

    Raises
    ------
    SchemaError
        If a column is missing.

    Examples
    --------
    >>> images = verger.read_images(verger.get_session(), "photos/").limit(2)
    >>> outcomes = verger.featurize(images, model="efficientnet_lite0")
    >>> features, rejected = verger.split_outcomes(outcomes)
    >>> rejected.columns
    ['path', 'label', 'length', 'modification_time', 'reason', 'detail']
    """
    from pyspark.sql import functions as F

    for name in MEASURES:
        if name not in outcomes.columns:  # they are of before photos were measured
            outcomes = outcomes.withColumn(name, F.lit(None).cast("float"))
    for name in OUTCOMES:
        find_column(outcomes, name, f"outcomes: column {name!r}")
    crops = [name for name in outcomes.columns if name == VIEWS]
    features = outcomes.where("reason IS NULL").select(*FEATURES, *crops)
    rejected = outcomes.where("reason IS NOT NULL").select(*REJECTED)
    return features, rejected
