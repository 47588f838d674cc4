"""Photos that lie in the rows of a file: Parquet, or Arrow as ``datasets`` saves it.

A row has a path of its own, ``FILE.parquet/000000017``, as if the file were a folder: everything
that names and reads photos by their paths works with it. Rows are read one after the other, a few
at a time, so that a row group never has to be in memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import ipc

from verger.errors import ConfigError
from verger.files.paths import filesystem_of

PACKED_SUFFIXES = (".parquet", ".arrow")
_ROW = re.compile(r"(.+\.(?:parquet|arrow))/(\d{9})", re.IGNORECASE | re.DOTALL)
#: Names of a column of photos, where several columns hold bytes.
_NAMES = ("image", "img", "photo", "picture", "bytes", "content", "jpg", "png")
_LABELS = ("label", "labels")
#: Rows that are decoded at once, and bytes that are asked for at once.
_ROWS, _BUFFER_BYTES = 16, 8 << 20


def path_of_row(file: str, row: int) -> str:
    """Return the path of a row, from 0, in the order of the file."""
    return f"{file}/{row:09}"


def row_of(path: str) -> tuple[str, int] | None:
    """Return the file and the number of a row's path; None for a photo's own file."""
    found = _ROW.fullmatch(path)
    return (found[1], int(found[2])) if found else None


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are the photos, their names and their labels.

    Attributes
    ----------
    photo : str
        A column of bytes, or of structures that have ``bytes``.
    nested : bool
        Whether it is of structures.
    named : bool
        Whether they have ``path`` too.
    label : str or None
    names : tuple of str or None
        Names of labels that are integers.
    """

    photo: str
    nested: bool
    named: bool
    label: str | None
    names: tuple[str, ...] | None


def find_columns(schema: pa.Schema, label: str | None = None) -> Columns | None:
    """Find the column of photos in a schema; None if there is none.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of data sets of Hugging Face, its metadata say which column is of images.
    label : str, optional
        The column of labels; by default ``label`` or ``labels``, or the only one with names.

    Raises
    ------
    ConfigError
        If several columns may be the photos, or there is no such column of labels.
    """
    features = _features(schema)
    photos = [field.name for field in schema if _bytes_of(field.type) is not None]
    marked = [n for n in photos if features.get(n, {}).get("_type") == "Image"]
    named = [n for n in _NAMES if n in photos]
    choice = marked or (photos if len(photos) == 1 else named[:1])
    if not photos:
        return None
    if len(choice) != 1:
        raise ConfigError(f"columns {photos}: any may be the photos; keep one, or call it image")
    kind = schema.field(choice[0]).type
    nested = pa.types.is_struct(kind)
    found = _label_column(schema, features, label)
    return Columns(
        choice[0],
        nested,
        nested and kind.get_field_index("path") >= 0,
        found,
        _label_names(features.get(found or "", {})),
    )


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = said["info"]["features"]
        return {k: v for k, v in features.items() if isinstance(v, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _bytes_of(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return _bytes_of(kind.field(place).type) if place >= 0 else None
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return kind if is_bytes or pa.types.is_binary_view(kind) else None


def _label_column(schema: pa.Schema, features: dict[str, Any], label: str | None) -> str | None:
    if label is not None:
        if label not in schema.names:
            raise ConfigError(f"label_from='column:{label}': the columns are {schema.names}")
        return label
    usual = [name for name in _LABELS if name in schema.names]
    classes = [n for n, f in features.items() if f.get("_type") == "ClassLabel"]
    found = usual or (classes if len(classes) == 1 else [])
    return found[0] if found else None


def _label_names(feature: dict[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    return tuple(map(str, names)) if isinstance(names, list) else None


def read_schema(path: str) -> pa.Schema:
    """Return the schema of a file of photos.

    Raises
    ------
    OSError, pyarrow.ArrowInvalid
    """
    with _open(path) as stream:
        if path.lower().endswith(".parquet"):
            return pq.ParquetFile(stream).schema_arrow
        return _arrow(stream).schema


def iter_rows(
    path: str, columns: list[str], first: int = 0
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of a file a few at a time, each batch with the number of its first row.

    Parameters
    ----------
    path : str
    columns : list of str
        ``image.bytes`` is a field of a structure; Arrow's files give whole columns.
    first : int
        Nothing of the row groups before this row is read.

    Raises
    ------
    OSError, pyarrow.ArrowInvalid
    """
    with _open(path) as stream:
        start = 0
        if not path.lower().endswith(".parquet"):
            whole = list(dict.fromkeys(name.partition(".")[0] for name in columns))
            reader = _arrow(stream)
            for batch in _arrow_batches(reader):
                if start + len(batch) > first:
                    yield start, batch.select(whole)
                start += len(batch)
            return
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES)
        for group in range(file.num_row_groups):
            n = file.metadata.row_group(group).num_rows
            if start + n <= first:
                start += n
                continue
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                yield start, batch
                start += len(batch)


def _open(path: str) -> Any:
    filesystem, inner = filesystem_of(path)
    return filesystem.open_input_file(inner)


def _arrow(stream: Any) -> Any:
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return ipc.open_file(stream) if is_file else ipc.open_stream(stream)


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def photos_of(batch: pa.RecordBatch, columns: Columns) -> pa.Array:
    """Return the bytes of a batch's photos."""
    column = batch.column(columns.photo)
    return pc.struct_field(column, "bytes") if columns.nested else column


class RowReader:
    """Reads rows of files by their paths; rows that follow one another are read in one pass."""

    def __init__(self) -> None:
        self._file = ""
        self._batches: Iterator[tuple[int, pa.RecordBatch]] = iter(())
        self._columns = Columns("", False, False, None, None)
        self._start, self._batch = 0, pa.array([], pa.binary())

    def read(self, file: str, row: int) -> bytes | None:
        """Return the bytes of a row; None where they are null.

        Raises
        ------
        IndexError
            If the file has no such row.
        OSError, pyarrow.ArrowInvalid, ConfigError
        """
        if file != self._file or row < self._start:
            self._begin(file, row)
        try:
            while row >= self._start + len(self._batch):
                self._start, batch = next(self._batches)
                self._batch = photos_of(batch, self._columns)
        except StopIteration:
            self._file = ""
            raise IndexError(row) from None
        except BaseException:
            self._file = ""
            raise
        content = self._batch[row - self._start].as_py()
        return None if content is None else bytes(content)

    def _begin(self, file: str, row: int) -> None:
        self._file = ""
        columns = find_columns(read_schema(file))
        if columns is None:
            raise ConfigError(f"{file}: has no column of bytes")
        self._columns = columns
        name = self._columns.photo + (".bytes" if self._columns.nested else "")
        self._batches = iter_rows(file, [name], row)
        self._start, self._batch = 0, self._batch[:0]
        self._file = file


_readers = threading.local()


def read_row(file: str, row: int) -> bytes | None:
    """Read a row by this thread's reader; see :meth:`RowReader.read`."""
    if not hasattr(_readers, "reader"):
        _readers.reader = RowReader()
    found: bytes | None = _readers.reader.read(file, row)
    return found
