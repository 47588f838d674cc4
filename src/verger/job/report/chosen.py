"""Which rows of the tables the page shows: the same at every call, however the files are cut.

Photos are taken by a digest of their path, not by name: the first frames of a film look alike.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.engine.tasks import Engine, run_pieces
from verger.files.folder import Folder
from verger.files.tables import Piece, digest_paths, iter_pieces
from verger.files.vectors import VectorRows, iter_vectors
from verger.result.output import Output

P = TypeVar("P")
#: Of shape (n_points, n_components).
Scores = npt.NDArray[np.float32]

#: Points of the map, each of which costs the page some 80 bytes; and of a map of neighbours, of
#: which t-SNE takes minutes for more.
MAP_POINTS, NEIGHBOUR_POINTS = 100_000, 3_000
#: Components that the map can show, and the scores of all points together that the page has: each
#: costs it 2.7 bytes. 20,000 points have ten components, in a page of less than 4 MB.
MAP_COMPONENTS, MAP_SCORES = 50, 200_000
#: Thumbnails by class, in the class list.
CLASS_PHOTOS = 8
#: Rejected photos that the page lists; the table has all.
REJECTED_ROWS = 200


def choose_of_classes(
    engine: Engine, folder: Folder, features: Sequence[Piece]
) -> dict[str | None, tuple[int, list[str]]]:
    """Count the photos of every label that have features, and choose a few of each."""
    counts: Counter[str | None] = Counter()
    paths: dict[str | None, list[str]] = {}
    for found in _scan(engine, _choose_of_share, features, folder):
        for label, (n, chosen) in found.items():
            counts[label] += n
            paths.setdefault(label, []).extend(chosen)
    return {label: (n, _first(paths[label], CLASS_PHOTOS)) for label, n in counts.items()}


def _choose_of_share(
    pieces: Iterator[Piece], folder: Folder
) -> Iterator[dict[str | None, tuple[int, list[str]]]]:
    counts: Counter[str | None] = Counter()
    best: dict[str | None, list[tuple[int, str]]] = {}
    for batch in iter_pieces(folder, pieces, ["path", "label"]):
        labels, paths = (batch.column(name).to_pylist() for name in ("label", "path"))
        counts.update(labels)
        digests = digest_paths(batch.column("path")).tolist()
        for label, digest, path in zip(labels, digests, paths, strict=True):
            best.setdefault(label, []).append((digest, path))
        best = {label: heapq.nsmallest(CLASS_PHOTOS, rows) for label, rows in best.items()}
    yield {label: (n, [path for _, path in best[label]]) for label, n in counts.items()}


def _first(paths: list[str], n: int) -> list[str]:
    digests = digest_paths(pa.array(paths, pa.string())).tolist()
    return [path for _, path in heapq.nsmallest(n, zip(digests, paths, strict=True))]


def choose_points(
    engine: Engine, output: Output, most: int = MAP_POINTS
) -> tuple[list[str], list[str | None], Scores]:
    """Choose photos, up to a number, with their first scores.

    Returns
    -------
    paths : list of str
    labels : list of str or None
    scores : ndarray of shape (n_points, n_components), float32
        Of the first :data:`MAP_COMPONENTS` components at most.
    """
    names = output.part_names("pca")
    n_points = min(most, sum(part.rows for part in output.parts("pca")))
    n_components = max(2, min(MAP_COMPONENTS, MAP_SCORES // max(n_points, 1)))
    wanted = _Wanted(output.folder, most, n_components)
    tables = run_pieces(
        engine, _choose_points_of_share, names, wanted, n_tasks=engine.n_cores, light=True
    )
    if not tables:
        return [], [], np.empty((0, 0), np.float32)
    chosen = _lowest(pa.concat_tables(tables), most).combine_chunks()
    scores = np.stack(chosen["scores"].to_numpy()) if len(chosen) else np.empty((0, 0), np.float32)
    return chosen["path"].to_pylist(), chosen["label"].to_pylist(), scores


class _Wanted(NamedTuple):
    folder: Folder
    points: int
    components: int


def _choose_points_of_share(names: Iterator[str], wanted: _Wanted) -> Iterator[pa.Table]:
    kept: pa.Table | None = None
    for block in iter_vectors(wanted.folder, names, ["path", "label", "features_pca"]):
        points = _with_digests(block, wanted.components)
        points = points if kept is None else pa.concat_tables([kept, points])
        kept = _lowest(points, wanted.points)
    if kept is not None:
        yield kept.combine_chunks()


def _with_digests(block: VectorRows, n_components: int) -> pa.Table:
    batch, scores = block.rows, block.x[:, :n_components].astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), scores.shape[1])
    columns = {"path": batch.column("path"), "label": batch.column("label"), "scores": lists}
    return pa.table(columns | {"digest": digest_paths(batch.column("path"))})


def _lowest(points: pa.Table, n: int) -> pa.Table:
    return points.sort_by([("digest", "ascending"), ("path", "ascending")])[:n]


def _scan(
    engine: Engine,
    function: Callable[[Iterator[P], Folder], Any],
    work: Sequence[P],
    folder: Folder,
) -> list[Any]:
    """Apply a function once a core, to a core's share of the files."""
    return run_pieces(engine, function, work, folder, n_tasks=engine.n_cores, light=True)


def choose_rejected(
    folder: Folder, pieces: Sequence[Piece]
) -> tuple[Counter[str | None], list[dict[str, Any]]]:
    """Count the rejected photos by label; return the first by path too."""
    counts: Counter[str | None] = Counter()
    first: list[dict[str, Any]] = []
    columns = ["path", "label", "length", "reason", "detail"]
    for batch in iter_pieces(folder, pieces, columns):
        counts.update(batch.column("label").to_pylist())
        rows = batch.sort_by("path")[:REJECTED_ROWS].to_pylist()
        first = sorted([*first, *rows], key=lambda row: str(row["path"]))[:REJECTED_ROWS]
    return counts, first


def path_below(path: str, source: str) -> str:
    """Return a path relative to the source it was found in."""
    _, _, rest = path.partition(source.rstrip("/") + "/")
    return rest or path
