"""Which rows of the tables the page shows: the same at every call, however the files are cut.

Photos are taken by a digest of their path, not by name: the first frames of a film look alike.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from verger.files.tables import digest_paths, iter_part, reading, run_in_tasks
from verger.pca.moments import vectors_of
from verger.result.output import Output

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Points of the map: more cannot be told apart, and each costs the page 100 bytes.
MAP_POINTS = 3000
#: Thumbnails by class, in the class list.
CLASS_PHOTOS = 8
#: Rejected photos that the page lists; the table has all.
REJECTED_ROWS = 200


def choose_of_classes(
    spark: SparkSession, output: Output
) -> dict[str | None, tuple[int, list[str]]]:
    """Count the photos of every label that have features, and choose a few of each."""

    def choose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts: Counter[str | None] = Counter()
        best: dict[str | None, list[tuple[int, str]]] = {}
        for batch in batches:
            labels, paths = (batch.column(name).to_pylist() for name in ("label", "path"))
            counts.update(labels)
            digests = digest_paths(batch.column("path")).tolist()
            for label, digest, path in zip(labels, digests, paths, strict=True):
                best.setdefault(label, []).append((digest, path))
            best = {label: heapq.nsmallest(CLASS_PHOTOS, rows) for label, rows in best.items()}
        rows = [
            {"label": label, "n": n, "paths": [path for _, path in best[label]]}
            for label, n in counts.items()
        ]
        if rows:
            yield pa.RecordBatch.from_pylist(rows)

    schema = "label string, n long, paths array<string>"
    counts: Counter[str | None] = Counter()
    paths: dict[str | None, list[str]] = {}
    for row in _scan(spark, output, "features", ["path", "label"], choose, schema):
        counts[row["label"]] += row["n"]
        paths.setdefault(row["label"], []).extend(row["paths"])
    return {label: (n, _first(paths[label], CLASS_PHOTOS)) for label, n in counts.items()}


def _first(paths: list[str], n: int) -> list[str]:
    digests = digest_paths(pa.array(paths, pa.string())).tolist()
    return [path for _, path in heapq.nsmallest(n, zip(digests, paths, strict=True))]


def choose_points(spark: SparkSession, output: Output) -> dict[str, list[Any]]:
    """Choose up to :data:`MAP_POINTS` photos with their first two scores."""

    def choose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        kept: pa.Table | None = None
        for batch in filter(len, batches):
            points = _with_digests(batch)
            kept = _lowest(points if kept is None else pa.concat_tables([kept, points]))
        if kept is not None:
            yield from kept.combine_chunks().to_batches()

    schema = "path string, label string, x double, y double, digest binary"
    columns = ["path", "label", "features_pca"]
    rows = _scan(spark, output, "pca", columns, choose, schema)
    rows = heapq.nsmallest(MAP_POINTS, rows, key=lambda row: (row["digest"], row["path"]))
    return {name: [row[name] for row in rows] for name in ("path", "label", "x", "y")}


def _with_digests(batch: pa.RecordBatch) -> pa.Table:
    scores = vectors_of(batch.column("features_pca")).astype(float)
    y = scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(batch))
    digests = digest_paths(batch.column("path")).astype(">u8").tobytes()
    return pa.table(
        {
            "path": batch.column("path"),
            "label": batch.column("label"),
            "x": scores[:, 0],
            "y": y,
            "digest": pa.array(
                [digests[i : i + 8] for i in range(0, len(digests), 8)], pa.binary()
            ),
        }
    )


def _lowest(points: pa.Table) -> pa.Table:
    return points.sort_by([("digest", "ascending"), ("path", "ascending")])[:MAP_POINTS]


def _scan(
    spark: SparkSession, output: Output, table: str, columns: list[str], function: Any, schema: str
) -> list[dict[str, Any]]:
    """Apply a function once a core, to a core's share of the files."""
    names = output.part_names(table)
    n_tasks = spark.sparkContext.defaultParallelism
    read = reading(output.folder, columns, function)
    return run_in_tasks(spark, names, read, schema, n_tasks=n_tasks)


def choose_rejected(output: Output) -> tuple[Counter[str | None], list[dict[str, Any]]]:
    """Count the rejected photos by label; return the first by path too."""
    counts: Counter[str | None] = Counter()
    first: list[dict[str, Any]] = []
    columns = ["path", "label", "length", "reason", "detail"]
    for name in output.part_names("rejected"):
        for batch in iter_part(output.folder, name, columns):
            counts.update(batch.column("label").to_pylist())
            rows = batch.sort_by("path")[:REJECTED_ROWS].to_pylist()
            first = sorted([*first, *rows], key=lambda row: str(row["path"]))[:REJECTED_ROWS]
    return counts, first
