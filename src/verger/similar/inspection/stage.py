"""``verger inspect``: photos of a result that are worth a second look, by their features.

::

    features/ -> neighbors -> groups    copies, and nearly the same picture
                           -> votes     neighbours that carry another label
              -> outliers               far from the rest of their class
    the other columns -> quality        dark, light, uniform, blurry, of an odd size or shape
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from verger.config import Config
from verger.engine.choose import check_engine
from verger.errors import ConfigError
from verger.files.records import as_json, to_plain
from verger.files.tables import Piece, part_name, write_part
from verger.job.context import Run, Watch, no_watch
from verger.job.pipeline import run_report
from verger.job.report.flaws import look_for_flaws
from verger.result.inspected import Index
from verger.result.output import INSPECTION, REPORT, Output
from verger.similar.index import ensure_index, find_neighbors_by_index, require_faiss
from verger.similar.inspection.contents import hash_contents
from verger.similar.inspection.gallery import make_galleries
from verger.similar.inspection.groups import (
    Across,
    DuplicateKind,
    Group,
    find_contents,
    find_groups,
    find_suspects,
)
from verger.similar.inspection.outliers import (
    OUTLYING,
    SMALLEST_CLASS,
    measure_distances,
    score_outliers,
)
from verger.similar.inspection.photos import Photos, read_photos
from verger.similar.inspection.tables import table_of_doubts, table_of_groups, table_of_outliers
from verger.similar.inspection.votes import find_doubtful
from verger.similar.neighbors import Neighbors, find_neighbors


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What is looked for.

    Attributes
    ----------
    k : int
        Neighbours of each photo.
    near : float
        Cosine from which on two photos are nearly the same picture; above 0, at most 1.
    frames : str or None
        Where a path says film and frame; see :func:`verger.source.films.find_films`.
    approximate : bool
        Look neighbours up in an index instead of comparing every photo with every other.

    Raises
    ------
    ConfigError
        If a value is out of its bounds.
    """

    k: int = 10
    near: float = 0.98
    frames: str | None = None
    approximate: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_NEIGHBORS:
            raise ConfigError(f"k={self.k} must be between 1 and {MOST_NEIGHBORS}")
        if not 0 < self.near <= 1:
            raise ConfigError(f"near={self.near} must be above 0, and at most 1")


#: More neighbours say nothing new, and the driver holds 8 bytes of each.
MOST_NEIGHBORS = 100


def inspect_photos(
    out: str | Path, config: Config, criteria: Criteria, *, watch: Watch = no_watch
) -> dict[str, Any]:
    """Find copies, near copies, doubtful labels, outliers and flaws, and write them as tables.

    Parameters
    ----------
    out : path
        Folder of a result, or ``s3://bucket/prefix``.
    config : Config
        Says which engine runs the tasks.
    criteria : Criteria
    watch : Watch, optional
        Shows progress.

    Returns
    -------
    dict
        What ``inspection/inspection.json`` holds.

    Raises
    ------
    InspectionError
        With fewer than two photos.
    EnvironmentNotReadyError
        If ``approximate`` is asked for and faiss is not installed.
    """
    run = Run(Output.at(out), config, watch)
    if criteria.approximate:
        require_faiss()
    run.output.read_run()
    check_engine(config)
    with run, run.locked():
        photos = read_photos(run.output, criteria.frames)
        record = _inspect(run, photos, criteria)
    if run.output.folder.exists(REPORT):
        run_report(run.output.root, run.config, watch=run.watch)
    return record


def _inspect(run: Run, photos: Photos, criteria: Criteria) -> dict[str, Any]:
    index = None
    if criteria.approximate:
        with run.stage("index"):
            index = ensure_index(run.output)
    engine = run.engine
    with run.stage("search", len(photos)):
        if index is None:
            neighbors = find_neighbors(engine, photos.rows, criteria.k)
        else:
            neighbors = find_neighbors_by_index(engine, photos.rows, index, criteria.k)
    tables, told = _compare(run, photos, neighbors, criteria)
    record = _described(run, photos, criteria, index) | told | {"seconds": run.seconds}
    _write(run, record, tables)
    return record


def _compare(
    run: Run, photos: Photos, neighbors: Neighbors, criteria: Criteria
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Make the tables, and what the record says of them."""
    engine, source = run.engine, run.output.read_run().source
    with run.stage("compare"):
        suspects = find_suspects(photos, neighbors)
        contents = hash_contents(engine, photos, suspects, source)
        sums = dict(zip(suspects.tolist(), contents, strict=True))
        content = find_contents(photos, neighbors, sums)
        groups = find_groups(photos, neighbors, content, criteria.near)
        doubts = find_doubtful(photos, neighbors, content)
        distance = measure_distances(engine, photos)
        scores = score_outliers(distance, photos.targets)
        pieces = [Piece(part.name, part.rows) for part in run.output.parts("features")]
        flaws = look_for_flaws(engine, run.output.folder, pieces)
    tables = {
        "duplicates": table_of_groups(photos, neighbors, groups, sums),
        "mislabelled": table_of_doubts(photos, doubts),
        "outliers": table_of_outliers(photos, distance, scores),
        "quality": flaws.table,
    }
    counts = _count_groups(groups) | {n: len(tables[n]) for n in ("mislabelled", "outliers")}
    return tables, {
        "n_measured": flaws.n_measured,
        "counts": counts | {"quality": flaws.counts},
        "galleries": make_galleries(photos, groups, doubts, distance, scores),
    }


def _described(run: Run, photos: Photos, criteria: Criteria, index: Index | None) -> dict[str, Any]:
    n, n_without = Counter(photos.targets.tolist()), photos.n_without_features
    return {
        "verger": version("verger"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "contract_hash": run.output.read_run().contract_hash,
        "criteria": asdict(criteria) | {"outlying": OUTLYING},
        "search": {"exact": index is None, "index": index and to_plain(index)},
        "n_photos": len(photos),
        "n_labels": len(photos.labels),
        "n_unlabelled": n[-1],
        **({"n_without_features": n_without} if n_without else {}),
        "too_small": [name for i, name in enumerate(photos.labels) if n[i] < SMALLEST_CLASS],
    }


def _count_groups(groups: list[Group]) -> dict[str, Any]:
    """Count groups and photos by kind, and by what they lie across."""
    n_groups = Counter((group.kind, group.across) for group in groups)
    n_photos: Counter[tuple[DuplicateKind, Across]] = Counter()
    for group in groups:
        n_photos[group.kind, group.across] += len(group.rows)
    return {
        kind: {
            across: {"groups": n_groups[kind, across], "photos": n_photos[kind, across]}
            for across in Across
        }
        for kind in DuplicateKind
    }


def _write(run: Run, record: dict[str, Any], tables: dict[str, pa.Table]) -> None:
    """Write the tables, then what names them; then let those of an earlier inspection go."""
    run.check_lock()
    folder = run.output.folder
    files = {
        name: write_part(folder, part_name(f"inspection/{name}"), table, table.schema).as_dict()
        for name, table in tables.items()
    }
    old = [name for name in run.output.own_files("inspection") if name != INSPECTION]
    record["files"] = {name: [part] for name, part in files.items()}
    folder.write(INSPECTION, as_json(record))
    for name in set(old) - {part["name"] for part in files.values()}:
        folder.remove(name)
