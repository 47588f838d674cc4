"""Photos to features: the only Arrow function of the pipeline.

Fetch, decode, resize and infer happen in one pass inside the Python worker; pixels never leave
it. What comes back is one row a photo: features, or a reason why there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from verger.config import MAX_PIXELS
from verger.errors import SchemaError
from verger.model import Model, Predictor, load_model, open_cached
from verger.preprocess import DecodeError, Photo, decode_photo
from verger.schema import CONTRACT_KEY, IMAGES, OUTCOMES, Reason, arrow_schema, spark_schema
from verger.storage import Unread, read_ahead

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

#: Rows in an Arrow batch that goes back to Spark: 64 x 1280 float32 are 330 kB.
ROWS_PER_BATCH = 64

Outcome = dict[str, Any]


def featurize(
    images: DataFrame,
    *,
    model: Model | str = "mobilenet_v2",
    micro_batch: int = 8,
    max_pixels: int = MAX_PIXELS,
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
    max_pixels : int
        Largest width x height that is decoded.

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
    missing = [name for name in IMAGES if name not in images.columns]
    if missing:
        raise SchemaError(f"images: column {missing[0]!r} is missing; it has {images.columns}")
    if isinstance(model, str):
        model = load_model(model)
    shared = images.sparkSession.sparkContext.broadcast(model)
    columns = [*IMAGES, *(["content"] if "content" in images.columns else [])]
    outcomes = images.select(*columns).mapInArrow(
        _arrow_function(shared, micro_batch, max_pixels), spark_schema(OUTCOMES)
    )
    return outcomes.withMetadata("features", {CONTRACT_KEY: model.contract.hash})


def _arrow_function(shared: Broadcast[Model], micro_batch: int, max_pixels: int) -> Any:
    def featurize_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = open_cached(shared.value)
        yield from featurize_batches(
            batches, predictor, micro_batch=micro_batch, max_pixels=max_pixels
        )

    return featurize_partition


def featurize_batches(
    batches: Iterator[pa.RecordBatch],
    predictor: Predictor,
    *,
    micro_batch: int = 8,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[pa.RecordBatch]:
    """Turn Arrow batches of images into Arrow batches of outcomes; needs no Spark.

    Parameters
    ----------
    batches : iterator of pyarrow.RecordBatch
        Columns of :data:`verger.schema.IMAGES`, and ``content`` or not.
    predictor : Predictor

    Yields
    ------
    pyarrow.RecordBatch
        Columns :data:`verger.schema.OUTCOMES`, as many rows as came in, in their order.
    """
    schema = arrow_schema(OUTCOMES)
    decoded = _decode_rows(_read_rows(batches), predictor.contract.input_size, max_pixels)
    rows: list[Outcome] = []
    for row in _infer_rows(decoded, predictor, micro_batch):
        rows.append(row)
        if len(rows) == ROWS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


def _read_rows(
    batches: Iterator[pa.RecordBatch],
) -> Iterator[tuple[Outcome, bytes | Unread]]:
    """Pair every photo's row with its bytes, from the column or from the file."""
    for batch in batches:
        rows = batch.select(IMAGES).to_pylist()
        if "content" in batch.schema.names:
            contents: Iterator[bytes | Unread] = (
                value.as_py() or b"" for value in batch.column("content")
            )
        else:
            contents = read_ahead(row["path"] for row in rows)
        yield from zip(rows, contents, strict=True)


def _decode_rows(
    rows: Iterator[tuple[Outcome, bytes | Unread]], size: int, max_pixels: int
) -> Iterator[tuple[Outcome, Photo | Unread]]:
    for row, content in rows:
        if isinstance(content, Unread):
            yield row, content
            continue
        try:
            yield row, decode_photo(content, size=size, max_pixels=max_pixels)
        except DecodeError as err:
            yield row, Unread(err.reason, err.detail)


def _infer_rows(
    rows: Iterator[tuple[Outcome, Photo | Unread]], predictor: Predictor, micro_batch: int
) -> Iterator[Outcome]:
    """Run the model on every ``micro_batch`` photos; rejected ones pass in their place."""
    waiting: list[tuple[Outcome, Photo | Unread]] = []
    n_photos = 0
    for row in rows:
        waiting.append(row)
        n_photos += isinstance(row[1], Photo)
        if n_photos == micro_batch or len(waiting) == ROWS_PER_BATCH:
            yield from _outcomes(waiting, predictor)
            waiting, n_photos = [], 0
    yield from _outcomes(waiting, predictor)


def _outcomes(
    rows: list[tuple[Outcome, Photo | Unread]], predictor: Predictor
) -> Iterator[Outcome]:
    photos = [photo for _, photo in rows if isinstance(photo, Photo)]
    size = predictor.contract.input_size
    pixels = np.empty((len(photos), size, size, 3), np.uint8)
    for target, decoded in zip(pixels, photos, strict=True):
        target[:] = decoded.pixels
    features = iter(predictor.predict(pixels))
    for row, photo in rows:
        if isinstance(photo, Unread):
            yield row | {"reason": photo.reason.value, "detail": photo.detail}
        else:
            yield row | _vector_or_reason(next(features), photo, predictor)


def _vector_or_reason(features: Any, photo: Photo, predictor: Predictor) -> Outcome:
    if features.shape != (predictor.contract.n_features,) or not np.isfinite(features).all():
        detail = f"shape {features.shape}, {int((~np.isfinite(features)).sum())} not finite"
        return {"reason": Reason.MODEL_OUTPUT.value, "detail": detail}
    return {"features": features, "width": photo.width, "height": photo.height}


def outcomes_of_contents(
    contents: Iterable[bytes | None],
    predictor: Predictor,
    *,
    micro_batch: int = 8,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Outcome]:
    """Featurize photos given by their bytes, one outcome each, in their order.

    Yields
    ------
    dict
        ``features``, ``width`` and ``height``, or ``reason`` and ``detail``.
    """
    rows: Iterator[tuple[Outcome, bytes | Unread]] = (({}, c or b"") for c in contents)
    decoded = _decode_rows(rows, predictor.contract.input_size, max_pixels)
    yield from _infer_rows(decoded, predictor, micro_batch)


def split_outcomes(outcomes: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split what :func:`featurize` returns into the tables ``features`` and ``rejected``."""
    from verger.schema import FEATURES, REJECTED

    features = outcomes.where("reason IS NULL").select(*FEATURES)
    rejected = outcomes.where("reason IS NOT NULL").select(*REJECTED)
    return features, rejected
