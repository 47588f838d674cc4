"""Small pictures of photos, laid out on one sheet: the page carries a single image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from verger.engine.tasks import Engine, run_pieces
from verger.features.preprocess import DecodeError, decode_photo
from verger.files.paths import is_below, is_reachable
from verger.files.reading import Unread, read_ahead

TILE_PIXELS = 48
TILE_COLUMNS = 40


def draw_sheet(
    engine: Engine, paths: Sequence[str], source: str
) -> tuple[dict[str, int], bytes | None]:
    """Lay thumbnails of the photos on one JPEG; a photo that is gone has none.

    Parameters
    ----------
    engine : Engine
    paths : sequence of str
    source : str
        Photos that are not below it are not read.

    Returns
    -------
    tiles : dict of path to tile number
    sheet : bytes or None
        None where no photo could be read.
    """
    paths = [path for path in paths if is_below(path, source)]
    tiles = _draw_tiles(engine, paths) if paths and is_reachable(source) else {}
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


def _draw_tiles(engine: Engine, paths: Sequence[str]) -> dict[str, bytes]:
    """Let the tasks read the photos; return (TILE_PIXELS, TILE_PIXELS, 3) uint8 of each."""
    drawn = run_pieces(engine, _draw_share, paths, None, n_tasks=engine.n_cores)
    return {path: tile for path, tile in drawn if tile is not None}


def _draw_share(paths: Iterator[str], _: None) -> Iterator[tuple[str, bytes | None]]:
    names = sorted(paths)  # rows of a file are read in their order
    return zip(names, map(_tile, read_ahead(names)), strict=True)


def _tile(content: bytes | Unread) -> bytes | None:
    if isinstance(content, Unread):
        return None
    try:
        return decode_photo(content, size=TILE_PIXELS).pixels.tobytes()
    except DecodeError:
        return None
