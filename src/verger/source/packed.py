"""The rows of files that hold photos, as a listing has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from verger.config import COLUMN
from verger.errors import ConfigError, SourceError
from verger.files.packed import (
    Columns,
    find_columns,
    iter_rows,
    path_of_row,
    photos_of,
    read_schema,
)
from verger.files.paths import explain


class PackedRow(NamedTuple):
    """A row of a file: ``length`` in bytes, 0 where they are null, and the time of its file."""

    path: str
    length: int
    label: str | None


def has_photo_column(path: str) -> bool:
    """Whether a file has a column that may be its photos.

    Raises
    ------
    SourceError
        If it cannot be read, as where it was cut off.
    """
    try:
        return find_columns(read_schema(path)) is not None
    except ConfigError:  # of several such columns it is not known which
        return True
    except (OSError, pa.ArrowException) as err:
        raise _unreadable(path, err) from err


def _unreadable(path: str, err: Exception) -> SourceError:
    return SourceError(
        f"source {path}: cannot be read: {explain(err)}; restore the file, or remove it, or leave "
        "it out with --exclude"
    )


def rows_of_file(path: str, label_from: str) -> list[PackedRow]:
    """List the rows of a file of photos.

    Parameters
    ----------
    path : str
    label_from : str
        ``parent`` takes the column of labels, ``column:NAME`` another one; an expression is
        searched in the name that a structure ``{bytes, path}`` has, or in the row's path.

    Raises
    ------
    SourceError
        If the file cannot be read.
    ConfigError
        If it has no such column.
    """
    named = label_from.removeprefix(COLUMN) if label_from.startswith(COLUMN) else None
    try:
        columns = find_columns(read_schema(path), named)
        if columns is None:
            raise ConfigError("has no column of bytes")
        return _rows(path, columns, label_from)
    except ConfigError as err:
        raise ConfigError(f"source {path}: {err}") from err
    except (OSError, pa.ArrowException) as err:
        if isinstance(err, SourceError):
            raise
        raise _unreadable(path, err) from err


def _rows(path: str, columns: Columns, label_from: str) -> list[PackedRow]:
    by_column = label_from == "parent" or label_from.startswith(COLUMN)
    by_name = not by_column and label_from != "none"
    wanted = [f"{columns.photo}.bytes" if columns.nested else columns.photo]
    if by_name and columns.named:
        wanted.append(f"{columns.photo}.path")
    if by_column and columns.label:
        wanted.append(columns.label)
    rows: list[PackedRow] = []
    for start, batch in iter_rows(path, wanted):
        lengths = pc.fill_null(pc.binary_length(photos_of(batch, columns)), 0).to_pylist()
        paths = [path_of_row(path, start + i) for i in range(len(batch))]
        labels: Sequence[str | None] = [None] * len(batch)
        if by_column and columns.label:
            labels = _labels(batch.column(columns.label), columns.names)
        elif by_name:
            names = _names(batch, columns) if columns.named else paths
            labels = [_searched(label_from, name) for name in names]
        rows += map(PackedRow, paths, lengths, labels)
    return rows


def _names(batch: pa.RecordBatch, columns: Columns) -> list[str | None]:
    names: list[str | None] = pc.struct_field(batch.column(columns.photo), "path").to_pylist()
    return names


def _searched(rule: str, name: str | None) -> str | None:
    found = re.search(rule, name or "")
    return found.group(1) if found else None


def _labels(column: pa.Array, names: tuple[str, ...] | None) -> list[str | None]:
    """Return labels as texts: an integer is its name, where there are names, and -1 is none."""
    values = column.to_pylist()
    if names is None or not pa.types.is_integer(column.type):
        return [None if value is None else str(value) for value in values]
    return [names[v] if v is not None and 0 <= v < len(names) else None for v in values]
