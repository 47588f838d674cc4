"""Stored tables: Parquet files that tasks write whole and read by themselves.

The vectors of a table never pass through Spark's rows: there the JVM would handle every single
number. Tasks hand pyarrow's batches to Parquet and take them back from it, on disks and in
buckets alike; Spark decides which task does what.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.footer import check_pages, read_chunks
from verger.files.reading import READ_ATTEMPTS, READ_PAUSE_S
from verger.schema import CONTRACT_KEY, MEASURES, arrow_schema, normal_labels, spark_json

#: Rows of features in one Parquet file: about 32 MB.
ROWS_PER_FILE = 6_000
#: Files that are read at the same time to be joined.
_READS_AT_ONCE = 8
#: Columns of vectors, which name the contract.
VECTORS = ("features", "features_pca")

#: Where Spark looks for its own schema, and with it for the metadata of columns.
_SPARK_ROWS = "org.apache.spark.sql.parquet.row.metadata"


@dataclass(frozen=True)
class Part:
    """One Parquet file of a table.

    Attributes
    ----------
    name : str
        Below the folder that holds it.
    rows : int
    size : int
        In bytes.
    sha256 : str
    """

    name: str
    rows: int
    size: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def stored_schema(columns: tuple[str, ...], contract: str) -> pa.Schema:
    """Return the Arrow schema of a stored table: its footer names the contract, for Spark too.

    Parameters
    ----------
    columns : tuple of str
        A table of :mod:`verger.schema`.
    contract : str
        Hash of the feature contract.
    """
    spark = spark_json(columns, {name: {CONTRACT_KEY: contract} for name in VECTORS})
    metadata = {CONTRACT_KEY: contract, _SPARK_ROWS: spark}
    return pa.schema(_with_ids(arrow_schema(columns)), metadata)


def _with_ids(schema: pa.Schema) -> list[pa.Field]:
    """Give columns the numbers that Iceberg gives those of a new table: all of them, then elements.

    A reader of a catalogue finds its columns by these numbers. The measures of photos, which older
    tables lack, are numbered last, as columns that were added.
    """
    first = [column.name for column in schema if column.name not in MEASURES]
    lists = [f"{name}.element" for name in first if pa.types.is_list(schema.field(name).type)]
    number = {name: {_ID: str(i)} for i, name in enumerate([*first, *lists, *MEASURES], start=1)}
    fields = []
    for column in schema:
        kind = column.type
        if pa.types.is_list(kind):
            element = pa.field(
                "element", kind.value_type, metadata=number[f"{column.name}.element"]
            )
            kind = pa.list_(element)
        fields.append(pa.field(column.name, kind, metadata=number[column.name]))
    return fields


_ID = "PARQUET:field_id"


def contract_in(metadata: pq.FileMetaData) -> str:
    """Return the hash of the contract that a Parquet file names, or ``none``."""
    try:
        spark = json.loads(metadata.metadata[_SPARK_ROWS.encode()])
        fields = {field["name"]: field.get("metadata", {}) for field in spark["fields"]}
        named = [fields[name][CONTRACT_KEY] for name in VECTORS if name in fields]
    except (TypeError, KeyError, ValueError):
        return "none"
    return str(named[0]) if named else "none"


def encode(table: pa.Table, schema: pa.Schema) -> bytes:
    """Write a table as the bytes of a Parquet file of one row group for 6,000 rows."""
    sink = pa.BufferOutputStream()
    # A dictionary of float vectors is built and then thrown away.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(sink, schema, use_dictionary=texts, write_page_checksum=True) as writer:
        writer.write_table(table.cast(schema), row_group_size=ROWS_PER_FILE)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_part(folder: Folder, name: str, table: pa.Table, schema: pa.Schema) -> Part:
    """Write a Parquet file whole.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = encode(table, schema)
    folder.write(name, content)
    return part_of(name, len(table), content)


def part_of(name: str, rows: int, content: bytes) -> Part:
    """Describe a file by its bytes."""
    return Part(name, rows, len(content), hashlib.sha256(content).hexdigest())


def part_name(table: str) -> str:
    """Return a name below OUT that no other file of the table has, or ever had."""
    return f"{table}/part-{uuid.uuid4().hex}.parquet"


# A file may come from a stranger: its footer is checked before anything is decoded

#: What any file may take in memory, whatever its size. The largest features of a small file,
#: 6,000 equal vectors of 1,280 numbers, take 31 MB.
DECODED_BYTES = 128_000_000
#: What a larger file may take, as a multiple of its size. Snappy, which compresses the tables,
#: reaches 22.
DECODED_RATIO = 32

# Bytes of a value in memory. A text counts by its length, once that is known.
_WIDTHS = {
    "BOOLEAN": 1,
    "INT32": 4,
    "INT64": 8,
    "INT96": 12,
    "FLOAT": 4,
    "DOUBLE": 8,
    "BYTE_ARRAY": 4,
}


def read_part(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns; a bucket that fails is asked again.

    Of :data:`verger.schema.MEASURES`, those that an older file lacks are null.

    Raises
    ------
    SchemaError
        If it is not there, cannot be read, or would take more memory than a file of its size may.
    """
    attempt = 1
    while True:
        try:
            with folder.open(name) as file:
                parquet, bound = open_parquet(file, columns, is_near=folder.is_local)
                rows = _decode_texts(parquet.read(columns=columns), bound)
                return _with_measures(rows, columns or ())
        except (OSError, ValueError, pa.ArrowException) as err:
            may_pass = isinstance(err, OSError) and not isinstance(err, FileNotFoundError)
            if folder.is_local or not may_pass or attempt == READ_ATTEMPTS:
                raise SchemaError(f"{folder.address(name)}: cannot be read: {err}") from err
        time.sleep(READ_PAUSE_S * 2 ** (attempt - 1))
        attempt += 1


def iter_part(
    folder: Folder, name: str, columns: Sequence[str], *, rows: int = ROWS_PER_FILE
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a Parquet file, a few thousand rows at a time; see :func:`read_part`.

    Raises
    ------
    SchemaError
        As :func:`read_part` does.
    """
    if not folder.is_local:  # an answer that ends in the middle is asked for again
        yield from read_part(folder, name, columns).to_batches(max_chunksize=rows)
        return
    try:
        with folder.open(name) as file:
            parquet, bound = open_parquet(file, columns, is_near=folder.is_local)
            for batch in iter_batches(parquet, bound, columns=list(columns), rows=rows):
                yield _with_measures(batch, columns)
    except (OSError, ValueError, pa.ArrowException) as err:
        raise SchemaError(f"{folder.address(name)}: cannot be read: {err}") from err


def iter_batches(
    parquet: pq.ParquetFile,
    bound: int,
    *,
    columns: list[str] | None = None,
    rows: int = ROWS_PER_FILE,
) -> Iterator[pa.RecordBatch]:
    """Read an opened Parquet file a few thousand rows at a time; see :func:`open_parquet`."""
    for batch in parquet.iter_batches(rows, columns=columns, use_threads=False):
        yield _decode_texts(batch, bound)


def open_parquet(
    file: pa.NativeFile, columns: Sequence[str] | None = None, *, is_near: bool = True
) -> tuple[pq.ParquetFile, int]:
    """Open a Parquet file whose rows fit into memory, by its footer.

    A file of a few kB may claim, or compress, gigabytes. Numbers are counted before they are
    decoded. Texts are left as a dictionary of the distinct ones, which a file cannot inflate.

    Parameters
    ----------
    file : pyarrow.NativeFile
    columns : sequence of str, optional
        The only ones that will be read.
    is_near : bool
        Whether a look at every page is quick. In a bucket, where it is not, a file of vectors
        is read whole first, and of other columns only the footer is checked.

    Returns
    -------
    parquet : pyarrow.parquet.ParquetFile
    bound : int
        Bytes that its rows may take in memory.

    Raises
    ------
    ValueError
        If its rows would take more, or its columns are not of a table's types.
    """
    chunks = read_chunks(file)
    size = file.size()
    bound = max(DECODED_BYTES, DECODED_RATIO * size)
    decoded = sum(max(c.values * _WIDTHS.get(c.physical_type, bound), c.size) for c in chunks)
    if decoded > bound:
        n_rows = sum(chunk.rows for chunk in chunks if chunk.column == chunks[0].column)
        raise ValueError(
            f"rows={n_rows:,} would take {decoded:,} bytes of memory; a file of {size:,} bytes "
            f"may take {bound:,}"
        )
    read = [c for c in chunks if columns is None or c.column[0] in columns]
    if not is_near and any(len(chunk.column) > 1 for chunk in read):
        file, is_near = pa.BufferReader(file.read_at(size, 0)), True
    for chunk in read:
        if is_near and chunk.values:
            check_pages(file, chunk)
    metadata = pq.read_metadata(file)
    _check_types(metadata.schema.to_arrow_schema())
    texts = {".".join(c.column) for c in chunks if c.physical_type == "BYTE_ARRAY"}
    return pq.ParquetFile(file, metadata=metadata, read_dictionary=sorted(texts)), bound


def _check_types(schema: pa.Schema) -> None:
    foreign = [f"{field.name} {field.type}" for field in schema if not _is_plain(field.type)]
    if foreign:
        raise ValueError(f"columns={foreign[:5]} are not of a type that tables have")


def _is_plain(kind: pa.DataType) -> bool:
    of = kind.value_type if pa.types.is_list(kind) else kind
    is_text = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return bool(is_text or pa.types.is_primitive(of))


_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


def _decode_texts(rows: _Rows, bound: int) -> _Rows:
    """Replace dictionaries of texts by the texts, if these fit into memory."""
    columns = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            size = sum(map(_text_size, chunks))
            if size > bound:
                raise ValueError(
                    f"the texts of column {name} would take {size:,} bytes of memory in "
                    f"{len(rows):,} rows; this file may take {bound:,}"
                )
            column = column.cast(column.type.value_type)
        columns.append(column)
    pairs = zip(rows.schema, columns, strict=True)
    schema = pa.schema([old.with_type(new.type) for old, new in pairs], rows.schema.metadata)
    return type(rows).from_arrays(columns, schema=schema)


def _with_measures(rows: _Rows, columns: Sequence[str]) -> _Rows:
    """Return rows with every measure that was asked for: null where their file has none."""
    for name in columns:
        if name in MEASURES and name not in rows.schema.names:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.float32()))
    return rows


def _text_size(texts: pa.DictionaryArray) -> int:
    lengths = pa.compute.binary_length(texts.dictionary).cast(pa.int64())
    return pa.compute.sum(lengths.take(texts.indices)).as_py() or 0


def iter_parts(
    folder: Folder, names: Iterable[str], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read some columns of several Parquet files, one after the other."""
    return (batch for name in names for batch in iter_part(folder, name, columns))


def digest_paths(paths: pa.Array) -> npt.NDArray[np.uint64]:
    """Return a digest of 64 bits of every path, the same in every process; shape (n,), uint64.

    A missing path has that of an empty one.
    """
    digests = (
        hashlib.blake2b((path or "").encode(), digest_size=8).digest() for path in paths.to_pylist()
    )
    return np.frombuffer(b"".join(digests), np.uint64)


# One table of many files


@dataclass(frozen=True)
class Piece:
    """A file whose rows go into a table, less those of some paths, and with other labels.

    Attributes
    ----------
    name : str
    rows : int
    without : tuple of str
        Paths of rows that do not go in: a later file has them, or they are to leave.
    labels : mapping of str to (str or None)
        Path to label of rows that get another one.
    """

    name: str
    rows: int
    without: tuple[str, ...] = ()
    labels: Mapping[str, str | None] = field(default_factory=dict, repr=False)


def iter_pieces(
    folder: Folder, pieces: Iterable[Piece], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read some columns, ``path`` among them, of the rows of pieces."""
    for piece in pieces:
        for batch in iter_part(folder, piece.name, columns):
            yield _left_of(batch, piece)


def group_pieces(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Group files into runs of about :data:`ROWS_PER_FILE` rows, in their order."""
    groups: list[list[Piece]] = []
    n = ROWS_PER_FILE
    for piece in pieces:
        if n + piece.rows > ROWS_PER_FILE:
            groups.append([])
            n = 0
        groups[-1].append(piece)
        n += piece.rows
    return groups


def join_pieces(folder: Folder, pieces: Sequence[Piece], name: str, schema: pa.Schema) -> Part:
    """Write the rows of several files into one.

    Parameters
    ----------
    folder : Folder
    pieces : sequence of Piece
    name : str
        Of the new file.
    schema : pyarrow.Schema
        As :func:`stored_schema` returns it.
    """
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        tables = list(pool.map(lambda piece: _rows_of(folder, piece, schema.names), pieces))
    return write_part(
        folder, name, pa.concat_tables(tables) if tables else schema.empty_table(), schema
    )


def _rows_of(folder: Folder, piece: Piece, columns: Sequence[str]) -> pa.Table:
    rows = read_part(folder, piece.name, columns).replace_schema_metadata(None)
    # Columns that were filled in stand last.
    rows = rows.select([name for name in columns if name in rows.schema.names])
    if "label" in columns:
        labels = normal_labels(rows["label"])
        rows = rows.set_column(rows.schema.get_field_index("label"), "label", labels)
    return _left_of(rows, piece)


def _left_of(rows: _Rows, piece: Piece) -> _Rows:
    """Return the rows of a file that its piece keeps, with the labels that it gives them."""
    if piece.without:
        leaving = pa.compute.is_in(rows["path"], value_set=pa.array(piece.without, pa.string()))
        rows = rows.filter(pa.compute.invert(leaving))
    place = rows.schema.get_field_index("label")
    if not piece.labels or place < 0:
        return rows
    known = pa.array(piece.labels.keys(), pa.string())
    index = pa.compute.index_in(rows["path"], value_set=known)
    others = pa.array(piece.labels.values(), pa.string()).take(index)
    labels = pa.compute.if_else(index.is_valid(), others, rows["label"])
    return rows.set_column(place, "label", labels)
