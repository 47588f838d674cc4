"""Photos to features: rows in, outcomes out.

Every way to features leads through :func:`featurize_rows`: a run's tasks, the DataFrame API, Spark
ML, one photo on the command line, the page. Fetch, decode, resize and infer happen in one pass in
one process; pixels never leave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from verger.config import MAX_PIXELS
from verger.features.isolate import deadline, decode_apart
from verger.features.model import ModelSession
from verger.features.preprocess import SQUARE, DecodeError, Photo, Resizing, decode_photo
from verger.features.quality import measure_quality
from verger.files.reading import Unread, read_ahead
from verger.result.clock import Clock
from verger.schema import IMAGES, MEASURES, VIEWS, Reason, clamp_times

#: Rejected photos that wait for the next call of the model, at most.
_ROWS_WAITING = 64

_TIME = IMAGES.index("modification_time")

#: A row of the table of images, and what became of the photo: columns of
#: :data:`verger.schema.OUTCOMES` by name.
Outcome = dict[str, Any]
#: A row and the bytes of its photo, or why there are none.
Row = tuple[Outcome, bytes | Unread]


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
        process; its task is tried again, and the second time photos are decoded apart.
    apart : bool
        Decode in another process, which may crash or hang: slower by about 1 ms a photo.
    """

    max_pixels: int = MAX_PIXELS
    accept_truncated: bool = False
    timeout_s: float | None = None
    apart: bool = False

    def decode(
        self, content: bytes, size: int, views: str = "whole", resizing: Resizing = SQUARE
    ) -> Photo:
        """Decode one photo, and crops of it, to (size, size, 3) pixels each.

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
                views=views,
                resizing=resizing,
                timeout_s=self.timeout_s,
            )
        with deadline(self.timeout_s):
            return decode_photo(
                content,
                size=size,
                max_pixels=self.max_pixels,
                accept_truncated=self.accept_truncated,
                views=views,
                resizing=resizing,
            )


def read_rows(images: pa.Table | pa.RecordBatch) -> Iterator[Row]:
    """Pair every photo's row with its bytes, from the column ``content`` or from its file.

    Parameters
    ----------
    images : pyarrow.Table or RecordBatch
        Columns :data:`verger.schema.IMAGES`, and ``content`` where Spark has read the files.
    """
    # The frame may be the user's own, and Python's datetime ends with the year 9999.
    times = clamp_times(images["modification_time"])
    listed = images.select(IMAGES)
    rows = listed.set_column(_TIME, IMAGES[_TIME], times).to_pylist()
    contents: Iterator[bytes | Unread]
    if "content" in images.schema.names:
        contents = (
            _check_length(value.as_py(), row["length"])
            for value, row in zip(images["content"], rows, strict=True)
        )
    else:
        paths = [row["path"] or "" for row in rows]
        contents = read_ahead(paths, [row["length"] for row in rows])
    yield from zip(rows, contents, strict=True)


def _check_length(content: bytes | None, length: int | None) -> bytes | Unread:
    if content is None:
        return Unread(Reason.EMPTY, "its content is null")
    if length is None or len(content) == length:
        return content
    detail = f"listed with {length} bytes, read {len(content)}: it was changed since"
    return Unread(Reason.READ_ERROR, detail)


def featurize_rows(
    rows: Iterable[Row],
    session: ModelSession,
    *,
    micro_batch: int = 1,
    decoding: Decoding | None = None,
    clock: Clock | None = None,
) -> Iterator[Outcome]:
    """Turn photos into features, or into a reason why there are none.

    Parameters
    ----------
    rows : iterable of (dict, bytes or Unread)
        As :func:`read_rows` yields them. A photo that could not be read keeps its reason.
    session : ModelSession
    micro_batch : int
        Photos per call of the model; has no influence on the features.
    decoding : Decoding, optional
        Bounds of the decoder.
    clock : Clock, optional
        Measures what the time is spent on.

    Yields
    ------
    dict
        One for each row, in their order: the row with ``features`` (ndarray of shape
        (n_features,), float32), ``width``, ``height``, ``truncated`` and the measures of
        :mod:`verger.features.quality`, or with ``reason`` and ``detail``. Where the contract names
        crops, with ``views`` besides: their features, one after the other.
    """
    clock = clock or Clock()
    contract = session.contract
    photos = decode_rows(
        clock.waiting("read", rows),
        contract.input_size,
        decoding or Decoding(),
        clock,
        views=contract.views,
        resizing=contract.resizing,
    )
    yield from _infer_rows(photos, session, micro_batch, clock)


def decode_rows(
    rows: Iterable[Row],
    size: int,
    decoding: Decoding,
    clock: Clock,
    *,
    views: str = "whole",
    resizing: Resizing = SQUARE,
) -> Iterator[tuple[Outcome, Photo | Unread]]:
    """Decode photos, one after the other; see :func:`featurize_rows`."""
    for row, content in rows:
        if isinstance(content, Unread):
            yield row, content
            continue
        photo: Photo | Unread
        try:
            with clock.part("decode"):
                # Spark's rows have a bytearray.
                photo = decoding.decode(bytes(content), size, views, resizing)
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
        if n_photos == micro_batch or len(waiting) == _ROWS_WAITING:
            yield from _outcomes(waiting, session, clock)
            waiting, n_photos = [], 0
    yield from _outcomes(waiting, session, clock)


def _outcomes(
    rows: list[tuple[Outcome, Photo | Unread]], session: ModelSession, clock: Clock
) -> Iterator[Outcome]:
    photos = [photo for _, photo in rows if isinstance(photo, Photo)]
    size, n_views = session.contract.input_size, session.contract.n_views
    pixels = np.empty((len(photos), n_views, size, size, 3), np.uint8)
    for target, decoded in zip(pixels, photos, strict=True):
        target[:] = decoded.views
    with clock.part("decode"):
        measures = iter([_measure(photo) for photo in photos])
    with clock.part("model"):
        vectors = session.predict(pixels.reshape(-1, size, size, 3))
        features = iter(vectors.reshape(len(photos), n_views, *vectors.shape[1:]))
    for row, photo in rows:
        if isinstance(photo, Unread):
            yield row | {"reason": photo.reason.value, "detail": photo.detail}
        else:
            yield row | _vector_or_reason(next(features), next(measures), photo, session)


def _measure(photo: Photo) -> Outcome:
    measures = measure_quality(photo.pixels, min(photo.width, photo.height))
    return dict(zip(MEASURES, measures, strict=True))


def _vector_or_reason(
    features: Any, measures: Outcome, photo: Photo, session: ModelSession
) -> Outcome:
    """Say what the vectors (n_views, n_features) of a photo are worth."""
    n_views = session.contract.n_views
    shape = n_views, session.contract.n_features
    if features.shape != shape or not np.isfinite(features).all():
        detail = f"shape {features.shape[1:]}, {int((~np.isfinite(features)).sum())} not finite"
        return {"reason": Reason.MODEL_OUTPUT.value, "detail": detail}
    crops = {VIEWS: features[1:].ravel()} if n_views > 1 else {}
    return crops | {
        "features": features[0],
        "width": photo.width,
        "height": photo.height,
        "truncated": photo.truncated,
        **measures,
    }
