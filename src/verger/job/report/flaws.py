"""Photos that are dark, light, uniform, blurry, or of an odd size or shape, as a table.

They are told by the columns of the table ``features``; no photo is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.engine.tasks import Engine, run_pieces
from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.tables import Piece, iter_pieces
from verger.schema import MEASURES, QUALITY, arrow_schema

#: Brightness of a dark and of a light photo, contrast of a uniform one, sharpness of a blurry one.
#: Of 2,936 photos of groceries 3 are less sharp than 0.02, and were seen to be blurred; of 6,874 of
#: Fruits-360 none is.
DARK, LIGHT, UNIFORM, BLURRY = 0.15, 0.95, 0.05, 0.02
#: How often the median's shorter side is that of a small photo, and of a large one; and the ratio
#: of the sides of a long one.
SMALL, LARGE, LONG = 0.25, 4.0, 2.5

_SIDES = ["path", "width", "height"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]


class Flaw(StrEnum):
    """What may be wrong with a photo, whatever it shows."""

    DARK = "dark"
    LIGHT = "light"
    UNIFORM = "uniform"
    BLURRY = "blurry"
    SMALL = "small"
    LARGE = "large"
    LONG = "long"


@dataclass(frozen=True)
class Flaws:
    """The photos with a flaw.

    Attributes
    ----------
    table : pyarrow.Table
        Columns :data:`verger.schema.QUALITY`: a row for every flaw of a photo, the worst of each
        flaw first.
    counts : mapping of str to int
        Photos with each flaw, whether the table has all of them or the worst.
    n_photos, n_measured : int
        All photos, and those whose brightness, contrast and sharpness are known.
    """

    table: pa.Table = field(repr=False)
    counts: Mapping[str, int]
    n_photos: int
    n_measured: int


def look_for_flaws(
    engine: Engine, folder: Folder, pieces: Sequence[Piece], most: int | None = None
) -> Flaws:
    """Let the tasks find the photos with a flaw.

    Parameters
    ----------
    engine : Engine
    folder : Folder
    pieces : sequence of Piece
        Of the table ``features``.
    most : int, optional
        Photos of each flaw that are returned.

    Raises
    ------
    SchemaError
        If a file cannot be read, or sizes or measures are no numbers.
    """
    n_tasks = engine.n_cores
    sides = run_pieces(engine, _count_sides, pieces, folder, n_tasks=n_tasks, light=True)
    wanted = _Wanted(folder, _median(sides), most)
    found = run_pieces(engine, _look_in_share, pieces, wanted, n_tasks=n_tasks, light=True)
    tables = [arrow_schema(QUALITY).empty_table(), *(share.table for share in found)]
    counts = {flaw.value: sum(share.counts[flaw.value] for share in found) for flaw in Flaw}
    return Flaws(
        _worst(pa.concat_tables(tables), most),
        {flaw: n for flaw, n in counts.items() if n},
        sum(share.n_photos for share in found),
        sum(share.n_measured for share in found),
    )


class _Wanted(NamedTuple):
    folder: Folder
    median_side: float
    most: int | None


def _count_sides(pieces: Iterator[Piece], folder: Folder) -> Iterator[tuple[Floats, Counts]]:
    """Yield the shorter sides of each batch of rows, and how many photos have them."""
    for batch in iter_pieces(folder, pieces, _SIDES):
        shorter = np.minimum(_numbers(batch, "width"), _numbers(batch, "height"))
        yield np.unique(shorter[np.isfinite(shorter)], return_counts=True)


def _median(sides: Sequence[tuple[Floats, Counts]]) -> float:
    """Return the median of the sides that were counted, of two in the middle the lower."""
    side = np.concatenate([np.empty(0), *(side for side, _ in sides)])
    if not len(side):
        return float("nan")
    order = np.argsort(side, kind="stable")
    upto = np.cumsum(np.concatenate([n for _, n in sides])[order])
    return float(side[order][np.searchsorted(upto, upto[-1] / 2)])


def _look_in_share(pieces: Iterator[Piece], wanted: _Wanted) -> Iterator[Flaws]:
    tables, n_photos, n_measured = [arrow_schema(QUALITY).empty_table()], 0, 0
    counts = dict.fromkeys(map(str, Flaw), 0)
    for batch in iter_pieces(wanted.folder, pieces, [*_SIDES, "label", *MEASURES]):
        found = find_flaws(batch, wanted.median_side)
        for flaw in found["flaw"].value_counts().to_pylist():
            counts[flaw["values"]] += flaw["counts"]
        tables.append(found if wanted.most is None else _worst(found, wanted.most))
        n_photos += len(batch)
        n_measured += len(batch) - batch.column("brightness").null_count
    yield Flaws(pa.concat_tables(tables), counts, n_photos, n_measured)


def find_flaws(photos: pa.Table | pa.RecordBatch, median_side: float) -> pa.Table:
    """Find the photos with a flaw.

    Parameters
    ----------
    photos : pyarrow.Table or RecordBatch
        Columns ``path``, ``label``, ``width``, ``height`` and :data:`verger.schema.MEASURES` of the
        table ``features``. A photo for which one is null has no flaw of that kind.
    median_side : float
        Of the shorter sides of all photos, in pixels.

    Returns
    -------
    pyarrow.Table
        Columns :data:`verger.schema.QUALITY`: a row for every flaw of a photo.
    """
    brightness, contrast, sharpness = (_numbers(photos, name) for name in MEASURES)
    width, height = _numbers(photos, "width"), _numbers(photos, "height")
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    ratio = longer / np.maximum(shorter, 1)
    is_plain = (contrast < UNIFORM) & (brightness >= DARK) & (brightness <= LIGHT)
    small, large = SMALL * median_side, LARGE * median_side
    flaws = [
        (Flaw.DARK, brightness, DARK, brightness < DARK),
        (Flaw.LIGHT, brightness, LIGHT, brightness > LIGHT),
        (Flaw.UNIFORM, contrast, UNIFORM, is_plain),
        (Flaw.BLURRY, sharpness, BLURRY, (sharpness < BLURRY) & (contrast >= UNIFORM)),
        (Flaw.SMALL, shorter, small, shorter < small),
        (Flaw.LARGE, shorter, large, shorter > large),
        (Flaw.LONG, ratio, LONG, ratio > LONG),
    ]
    tables = []
    for flaw, values, limit, is_flawed in flaws:
        rows = np.flatnonzero(is_flawed)
        constant = [pa.repeat(value, len(rows)) for value in (flaw.value, limit)]
        path, label = (photos[name].take(pa.array(rows)) for name in ("path", "label"))
        columns = [path, label, constant[0], values[rows], constant[1]]
        tables.append(pa.table(columns, names=QUALITY).cast(arrow_schema(QUALITY)))
    return pa.concat_tables(tables)


def _numbers(photos: pa.Table | pa.RecordBatch, name: str) -> Floats:
    """Return a column of numbers; NaN for null, and for what is no number."""
    try:
        numbers = np.asarray(photos[name].cast(pa.float64()))
    except (KeyError, pa.ArrowException) as err:
        raise SchemaError(f"features: column {name!r} must hold numbers: {err}") from err
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _worst(table: pa.Table, most: int | None) -> pa.Table:
    """Return all rows of a table ``quality``, or some of each flaw: by flaw, the worst first."""
    excess = np.abs(_numbers(table, "value") - _numbers(table, "limit"))
    by_flaw = [
        table.append_column("excess", pa.array(excess)).filter(
            pa.compute.equal(table["flaw"], flaw.value)
        )
        for flaw in Flaw
    ]
    order = [("excess", "descending"), ("path", "ascending")]
    return pa.concat_tables([rows.sort_by(order)[:most] for rows in by_flaw]).select(QUALITY)
