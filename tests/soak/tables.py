"""The tables of a result, and whether they are those of the undisturbed run: bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

#: How many paths a message names.
FIRST_PATHS = 3


@dataclass(frozen=True)
class Tables:
    """``features`` and ``rejected`` of one result, sorted by path.

    Paths are those below the source, so that a folder and a bucket can be compared.
    """

    features: pa.Table
    rejected: pa.Table

    def without(self, column: str) -> Tables:
        return Tables(self.features.drop_columns(column), self.rejected.drop_columns(column))


def read_tables(filesystem: fs.FileSystem, root: str, source: str) -> Tables:
    """Read a result as any reader of Parquet would."""
    return Tables(*(_read(filesystem, f"{root}/{name}", source) for name in _NAMES))


_NAMES = ("features", "rejected")


def _read(filesystem: fs.FileSystem, folder: str, source: str) -> pa.Table:
    table = pq.read_table(folder, filesystem=filesystem).combine_chunks()
    prefix = source.rstrip("/") + "/"
    texts = {name for name in ("path", "detail") if name in table.column_names}
    for name in texts:
        values = [v and v.replace(prefix, "") for v in table[name].to_pylist()]
        table = table.set_column(
            table.column_names.index(name), name, pa.array(values, pa.string())
        )
    return table.sort_by("path").combine_chunks()


def compare(expected: Tables, found: Tables) -> list[str]:
    """Return every difference in words; none if the tables are the same, row for row."""
    return [
        f"{name}: {difference}"
        for name in _NAMES
        for difference in _differences(getattr(expected, name), getattr(found, name))
    ]


def _differences(expected: pa.Table, found: pa.Table) -> list[str]:
    if expected.schema.names != found.schema.names or expected.schema.types != found.schema.types:
        return [f"columns {found.schema.names} should be {expected.schema.names}"]
    paths = _path_differences(expected["path"].to_pylist(), found["path"].to_pylist())
    if paths:
        return paths
    differing = [name for name in expected.column_names if not _same(expected[name], found[name])]
    return [f"{name}: {_first(expected, found, name)}" for name in differing]


def _path_differences(expected: list[str], found: list[str]) -> list[str]:
    lost, more = set(expected) - set(found), set(found) - set(expected)
    n_double = len(found) - len(set(found))
    named = {"lost": lost, "too many": more}
    words = [f"{len(s)} {w}: {sorted(s)[:FIRST_PATHS]}" for w, s in named.items() if s]
    return words + ([f"{n_double} doubled"] if n_double else [])


def _same(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    if pa.types.is_list(expected.type):
        return np.array_equal(_vectors(expected).view(np.uint32), _vectors(found).view(np.uint32))
    return bool(expected.equals(found))


def _first(expected: pa.Table, found: pa.Table, name: str) -> str:
    """Say how far two columns are apart."""
    if pa.types.is_list(expected.schema.field(name).type):
        ours, theirs = _vectors(expected[name]), _vectors(found[name])
        if ours.shape != theirs.shape:
            return f"{ours.shape} became {theirs.shape}"
        n = int((ours.view(np.uint32) != theirs.view(np.uint32)).any(axis=1).sum())
        return f"{n} rows differ, by up to {np.abs(ours - theirs).max():.2e}"
    pairs = zip(expected["path"], expected[name], found[name], strict=True)
    rows = [f"{p}: {a} became {b}" for p, a, b in pairs if a.as_py() != b.as_py()]
    return f"{len(rows)} rows differ; {rows[0] if rows else ''}"


def _vectors(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of vectors as an array (n, n_features) of float32."""
    values = np.concatenate([c.flatten().to_numpy() for c in column.chunks] or [np.empty(0)])
    return np.ascontiguousarray(values, np.float32).reshape(len(column), -1)
