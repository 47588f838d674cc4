"""Small pictures of photos, laid out on one sheet: the page carries a single image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from verger.features.preprocess import DecodeError, decode_photo
from verger.files.paths import is_reachable
from verger.files.reading import Unread, read_ahead
from verger.files.tables import in_tasks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TILE_PIXELS = 48
TILE_COLUMNS = 40


def draw_sheet(spark: SparkSession, paths: Sequence[str]) -> tuple[dict[str, int], bytes | None]:
    """Lay thumbnails of the photos on one JPEG; a photo that is gone has none.

    Returns
    -------
    tiles : dict of path to tile number
    sheet : bytes or None
        None where no photo could be read.
    """
    tiles = _draw_tiles(spark, paths) if paths and is_reachable(paths[0]) else {}
    if not tiles:
        return {}, None
    drawn = [path for path in paths if path in tiles]
    n_rows = -(-len(drawn) // TILE_COLUMNS)
    pixels = np.full((n_rows, TILE_COLUMNS, TILE_PIXELS, TILE_PIXELS, 3), 255, np.uint8)
    for i, path in enumerate(drawn):
        tile = np.frombuffer(tiles[path], np.uint8)
        pixels[divmod(i, TILE_COLUMNS)] = tile.reshape(TILE_PIXELS, TILE_PIXELS, 3)
    sheet = pixels.swapaxes(1, 2).reshape(n_rows * TILE_PIXELS, TILE_COLUMNS * TILE_PIXELS, 3)
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "JPEG", quality=80, optimize=True)
    return {path: i for i, path in enumerate(drawn)}, stream.getvalue()


def _draw_tiles(spark: SparkSession, paths: Sequence[str]) -> dict[str, bytes]:
    """Let the tasks read the photos; return (TILE_PIXELS, TILE_PIXELS, 3) uint8 of each."""

    def draw(share: Iterator[str]) -> Iterator[pa.RecordBatch]:
        names = list(share)
        tiles = [_tile(content) for content in read_ahead(names)]
        columns = [pa.array(names, pa.string()), pa.array(tiles, pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, ["path", "tile"])

    n_tasks = spark.sparkContext.defaultParallelism
    rows = in_tasks(spark, paths, draw, "path string, tile binary", n_tasks=n_tasks).collect()
    return {row["path"]: row["tile"] for row in rows if row["tile"] is not None}


def _tile(content: bytes | Unread) -> bytes | None:
    if isinstance(content, Unread):
        return None
    try:
        return decode_photo(content, size=TILE_PIXELS).pixels.tobytes()
    except DecodeError:
        return None
