"""A result for an explorer: one Parquet file as embedding-atlas reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from verger.config import Config
from verger.engine.tasks import run_pieces
from verger.errors import OutputError
from verger.features.preprocess import DecodeError, decode_full_size
from verger.files.folder import Folder, check_target
from verger.files.paths import is_below
from verger.files.reading import Unread, read_ahead
from verger.files.tables import encode
from verger.files.vectors import iter_vectors
from verger.job.context import Run, Watch, no_watch
from verger.result.output import Output
from verger.similar.neighbors import Neighbors, find_neighbors
from verger.similar.rows import cut_evenly, read_stored_rows

#: Longer side of the pictures, in pixels, and neighbours of each photo.
PIXELS, N_NEIGHBORS = 192, 15
_PHOTOS_AT_ONCE = 256


def export_atlas(
    out: str | Path, path: str | Path, *, overwrite: bool = False, watch: Watch = no_watch
) -> int:
    """Write a table that embedding-atlas opens; return how many photos it has.

    Columns are ``path``, ``label``, ``projection_x`` and ``projection_y`` (the first two principal
    components), ``neighbors`` (``ids``, numbers of rows, and ``distances``, 1 less the cosine) and
    ``image`` (``bytes``, a JPEG of up to :data:`PIXELS` pixels, null where the photo cannot be read
    any more, and ``path``).

    Raises
    ------
    OutputError
        If OUT has no PCA or too few photos.
    ConfigError, OutputExistsError, OutputError
        As from :func:`verger.files.folder.check_target`.
    """
    target = check_target(path, "atlas.parquet", overwrite=overwrite)
    run = Run(Output.at(out), Config(), watch)
    record = run.output.read_run()
    names = run.output.part_names("pca")
    with run:
        rows, table = read_stored_rows(run.output, ["label"])
        if len(table) < 2:
            raise OutputError(f"OUT={run.output.root}: has {len(table)} photos; a map needs 2")
        with run.stage("search", len(table)):
            neighbors = find_neighbors(run.engine, rows, N_NEIGHBORS)
        paths = table["path"].to_pylist()
        with run.stage("draw", len(table)):
            work = cut_evenly(len(paths), _PHOTOS_AT_ONCE, run.engine.n_cores)
            pieces = [(start, paths[start:stop]) for start, stop in work]
            drawn = dict(run_pieces(run.engine, _draw, pieces, record.source))
    pictures = [picture for start in sorted(drawn) for picture in drawn[start]]
    x, y = _projection(run.output, names, paths)
    columns = {
        "path": table["path"],
        "label": table["label"],
        "projection_x": pa.array(x),
        "projection_y": pa.array(y),
        "neighbors": _neighbor_column(neighbors),
        "image": pa.array(
            [{"bytes": b, "path": p} for b, p in zip(pictures, paths, strict=True)],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
    }
    written = pa.table(columns)
    Folder(str(target.parent)).write(target.name, encode(written, written.schema))
    return len(table)


def _projection(
    output: Output, names: list[str], paths: list[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the first two principal components of photos, (n,) each; NaN for one without."""
    place = {path: i for i, path in enumerate(paths)}
    found = np.full((len(paths), 2), np.nan, np.float32)
    for block in iter_vectors(output.folder, names, ["path", "features_pca"]):
        two = np.pad(block.x[:, :2], ((0, 0), (0, max(0, 2 - block.x.shape[1]))))
        for path, scores in zip(block.rows.column("path").to_pylist(), two, strict=True):
            if path in place:
                found[place[path]] = scores
    return found[:, 0], found[:, 1]


def _neighbor_column(neighbors: Neighbors) -> pa.Array:
    n, k = neighbors.row.shape
    offsets = pa.array(np.arange(0, n * k + 1, k, dtype=np.int32))
    distances = np.clip(1 - neighbors.similarity, 0, None)
    ids = pa.ListArray.from_arrays(offsets, pa.array(neighbors.row.ravel()))
    far = pa.ListArray.from_arrays(offsets, pa.array(distances.astype(np.float32).ravel()))
    return pa.StructArray.from_arrays([ids, far], ["ids", "distances"])


def _draw(
    pieces: Iterator[tuple[int, list[str]]], source: str
) -> Iterator[tuple[int, list[bytes | None]]]:
    for start, paths in pieces:
        allowed = [path for path in paths if is_below(path, source)]
        drawn = dict(zip(allowed, map(_picture, read_ahead(allowed)), strict=True))
        yield start, [drawn.get(path) for path in paths]


def _picture(content: bytes | Unread) -> bytes | None:
    if isinstance(content, Unread):
        return None
    try:
        image = Image.fromarray(decode_full_size(content, least=PIXELS))
    except DecodeError:
        return None
    image.thumbnail((PIXELS, PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
