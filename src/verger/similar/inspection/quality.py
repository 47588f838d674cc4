"""Photos that are dark, light, uniform, blurry, or of an odd size or shape, as a table.

They are decoded once more in the tasks, since a run keeps no pixels; their sizes are those of the
table ``features``.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.engine.tasks import Engine, run_pieces
from verger.features.outcomes import Decoding
from verger.features.preprocess import DecodeError
from verger.files.paths import is_below, is_reachable
from verger.files.reading import read_ahead
from verger.schema import QUALITY, arrow_schema
from verger.similar.inspection.photos import Photos

#: Mean of a dark and of a light photo, standard deviation of a uniform one, and of the Laplacian of
#: a blurry one: of the luma, from 0 to 1, at the side that :func:`measure_pixels` is given. Of 150
#: photos of groceries 1 has a Laplacian below 0.015, and all have one blurred by 1.5 % of its side.
DARK, LIGHT, UNIFORM, BLURRY = 0.15, 0.95, 0.05, 0.015
#: How often the median's shorter side is that of a small photo, and of a large one; and the ratio
#: of the sides of a long one.
SMALL, LARGE, LONG = 0.25, 4.0, 2.5
#: Largest side that photos are measured at, and smallest, in pixels.
MOST_SIDE, LEAST_SIDE = 224, 32

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_PHOTOS_AT_ONCE = 64

Floats = npt.NDArray[np.float64]


class Flaw(StrEnum):
    """What may be wrong with a photo, whatever it shows."""

    DARK = "dark"
    LIGHT = "light"
    UNIFORM = "uniform"
    BLURRY = "blurry"
    SMALL = "small"
    LARGE = "large"
    LONG = "long"


def measure_pixels(pixels: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the mean and the deviation of the luma, and the deviation of its Laplacian.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
    """
    luma = pixels.astype(np.float32) @ _LUMA / 255
    inner = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float(luma.mean()), float(luma.std()), float((around - 4 * inner).std())


def find_flaws(engine: Engine, photos: Photos, source: str) -> tuple[pa.Table, int]:
    """Measure photos, and make the table ``quality``: a row for every flaw, the worst first.

    Parameters
    ----------
    engine : Engine
    photos : Photos
    source : str
        Photos that are not below it are not read.

    Returns
    -------
    table : pyarrow.Table
        Columns :data:`verger.schema.QUALITY`.
    n_measured : int
        Photos that could be read again.
    """
    measures = _measure(engine, photos, source)
    mean, deviation, sharpness = measures.T
    shorter, ratio = photos.sides.min(axis=1), photos.sides.max(axis=1) / photos.sides.min(axis=1)
    median = float(np.nanmedian(shorter))
    is_plain = (deviation < UNIFORM) & (mean >= DARK) & (mean <= LIGHT)
    found = [
        (Flaw.DARK, mean, DARK, mean < DARK),
        (Flaw.LIGHT, mean, LIGHT, mean > LIGHT),
        (Flaw.UNIFORM, deviation, UNIFORM, is_plain),
        (Flaw.BLURRY, sharpness, BLURRY, (sharpness < BLURRY) & (deviation >= UNIFORM)),
        (Flaw.SMALL, shorter, SMALL * median, shorter < SMALL * median),
        (Flaw.LARGE, shorter, LARGE * median, shorter > LARGE * median),
        (Flaw.LONG, ratio, LONG, ratio > LONG),
    ]
    rows = [
        {
            "path": photos.paths[row],
            "label": photos.label_of(row),
            "flaw": flaw.value,
            "value": float(values[row]),
            "limit": float(limit),
        }
        for flaw, values, limit, is_flawed in found
        for row in _worst_first(values, limit, is_flawed)
    ]
    n_measured = int(np.isfinite(mean).sum())
    return pa.Table.from_pylist(rows, arrow_schema(QUALITY)), n_measured


def _worst_first(values: Floats, limit: float, is_flawed: npt.NDArray[np.bool_]) -> list[int]:
    rows = np.flatnonzero(is_flawed)
    order: list[int] = rows[np.argsort(-np.abs(values[rows] - limit), kind="stable")].tolist()
    return order


def _measure(engine: Engine, photos: Photos, source: str) -> Floats:
    """Return (n, 3) measures; NaN of a photo that cannot be read again."""
    measures = np.full((len(photos), 3), np.nan)
    shorter = np.nan_to_num(photos.sides.min(axis=1), nan=MOST_SIDE)
    sides = np.clip(shorter, LEAST_SIDE, MOST_SIDE).astype(int).tolist()
    wanted = [
        (row, path, int(length), side)
        for row, (path, length, side) in enumerate(
            zip(photos.paths, photos.lengths, sides, strict=True)
        )
        if is_below(path, source)
    ]
    work = [wanted[i : i + _PHOTOS_AT_ONCE] for i in range(0, len(wanted), _PHOTOS_AT_ONCE)]
    if work and is_reachable(source):
        for row, measured in run_pieces(
            engine, _measure_pieces, work, None, n_tasks=engine.n_cores
        ):
            measures[row] = measured
    return measures


def _measure_pieces(
    pieces: Iterator[list[tuple[int, str, int, int]]], _: None
) -> Iterator[tuple[int, tuple[float, float, float]]]:
    decoding = Decoding(accept_truncated=True)
    for piece in pieces:
        rows, paths, lengths, sides = zip(*piece, strict=True)
        contents = read_ahead(paths, lengths)
        for row, side, content in zip(rows, sides, contents, strict=True):
            if not isinstance(content, bytes):
                continue
            try:
                yield row, measure_pixels(decoding.decode(content, side).pixels)
            except DecodeError:  # changed since
                continue
