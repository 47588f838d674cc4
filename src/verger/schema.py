"""Columns, types and closed lists of the tables that the stages meet in.

This module knows neither Spark nor Arrow at import time, so that everything may import it;
:func:`arrow_schema` and :func:`spark_schema` build the two engines' forms on demand.

The column names of a photo are those of Spark's ``binaryFile``, in snake case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

IMAGES = ("path", "modification_time", "length", "label")
#: What :func:`verger.features.quality.measure_quality` measures on the pixels of the whole photo:
#: mean and standard deviation of the luma, and the standard deviation of its Laplacian, in units of
#: a luma of 0 to 1. Tables of before they were measured lack them, and read as null.
MEASURES = ("brightness", "contrast", "sharpness")
#: ``truncated`` is true only where ``--accept-truncated`` let a photo pass that was cut off.
FEATURES = (
    "path",
    "label",
    "features",
    "width",
    "height",
    "length",
    "modification_time",
    "truncated",
    *MEASURES,
)
#: Of a result whose contract names crops of every photo: their features, one after the other.
VIEWS = "views"
REJECTED = ("path", "label", "length", "modification_time", "reason", "detail")
#: What the one Arrow function returns: both tables in one, told apart by ``reason``.
OUTCOMES = (*FEATURES, "reason", "detail")
PCA = ("path", "label", "features_pca")
#: Photos that a list puts into groups: photos of one group have one number.
GROUPS = ("path", "group")
PREDICTIONS = ("path", "label", "prediction", "probability")
#: Of ``verger inspect``: a row for every member of a group, for every photo with a doubtful label,
#: and for every outlier of a class.
DUPLICATES = ("group", "kind", "across", "size", "path", "label", "nearest", "similarity", "sha256")
MISLABELLED = (
    "path",
    "label",
    "suggestion",
    "score",
    "n_votes",
    "n_against",
    "nearest",
    "similarity",
    "similarity_own",
)
OUTLIERS = ("path", "label", "score", "distance", "median")
#: Of ``verger inspect``: a row for every flaw of a photo, with what was measured and its limit.
QUALITY = ("path", "label", "flaw", "value", "limit")
INSPECTED = ("duplicates", "mislabelled", "outliers", "quality")

#: First and last modification time that a table holds, in milliseconds since 1970: the years 1678
#: to 2261, in which pandas' nanoseconds, Python's datetime and Spark hold it in every time zone. A
#: file system keeps any 64 bits; a time outside is stored as the nearest of these.
TIMES_MS = (-9_214_560_000_000, 9_214_646_399_999)

#: Key of the feature contract's hash in the metadata of the vector column, and so in the
#: footer of every Parquet file.
CONTRACT_KEY = "verger.contract"

# Arrow's names of the types. Times are UTC and kept to the millisecond, the finest that
# Hadoop and S3 both give, so that both readers write the same table.
_TYPES = {
    "path": "string",
    "label": "string",
    "length": "int64",
    "modification_time": "timestamp",
    "content": "binary",
    "features": "vector",
    "features_pca": "vector",
    "views": "vector",
    "width": "int32",
    "height": "int32",
    "truncated": "bool",
    "brightness": "float",
    "contrast": "float",
    "sharpness": "float",
    "prediction": "string",
    "probability": "double",
    "group": "int32",
    "kind": "string",
    "across": "string",
    "size": "int32",
    "nearest": "string",
    "similarity": "double",
    "similarity_own": "double",
    "sha256": "string",
    "suggestion": "string",
    "score": "double",
    "n_votes": "int32",
    "n_against": "int32",
    "distance": "double",
    "flaw": "string",
    "value": "double",
    "limit": "double",
    "median": "double",
    "reason": "string",
    "detail": "string",
}


class Reason(StrEnum):
    """Why a photo has no features: the closed list of ``rejected.reason``."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not an image"
    UNSUPPORTED_FORMAT = "unsupported format"
    TOO_MANY_PIXELS = "too many pixels"
    VANISHED = "vanished before reading"
    PERMISSION = "permission denied"
    READ_ERROR = "read error"
    UNREADABLE_KEY = "unreadable key"
    DECODE_TIMEOUT = "decode time-out"
    DECODER_CRASHED = "decoder crashed"
    MODEL_OUTPUT = "not a finite vector from the model"

    @property
    def may_pass(self) -> bool:
        """Whether the same photo may have features another time; if so, the next run tries."""
        return self in _PASSING


_PASSING = frozenset({Reason.VANISHED, Reason.PERMISSION, Reason.READ_ERROR, Reason.DECODE_TIMEOUT})


def features_columns(contract: Mapping[str, object]) -> tuple[str, ...]:
    """Return the columns of ``features`` in a result of a contract, given as its JSON values."""
    return (*FEATURES, VIEWS) if VIEWS in contract else FEATURES


def table_columns(contract: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return the columns of the tables of a result."""
    features = features_columns(contract)
    return {"features": features, "rejected": REJECTED, "groups": GROUPS, "pca": PCA}


def outcome_columns(contract: Mapping[str, object]) -> tuple[str, ...]:
    """Return the columns of what the one Arrow function returns, by a contract's JSON values."""
    return (*features_columns(contract), "reason", "detail")


def arrow_schema(columns: tuple[str, ...]) -> pa.Schema:
    """Build the Arrow schema of a table.

    Parameters
    ----------
    columns : tuple of str
        Names out of this module's tables, for instance :data:`FEATURES`.

    Returns
    -------
    pyarrow.Schema
        Vectors are ``list<float>``, times ``timestamp[us, UTC]``.
    """
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "float": pa.float32(),
        "double": pa.float64(),
        "binary": pa.binary(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "vector": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types[_TYPES[name]]) for name in columns])


def clamp_times(times: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return times as ``timestamp[us, UTC]``, those outside :data:`TIMES_MS` as the nearest in it.

    Parameters
    ----------
    times : pyarrow.Array or ChunkedArray of timestamp
        Null stays null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.timestamp("us", tz="UTC")
    first, last = (pa.scalar(1000 * time, pa.int64()) for time in TIMES_MS)
    micros = times.cast(kind, safe=False).cast(pa.int64())
    micros = pc.max_element_wise(micros, first, skip_nulls=False)
    return pc.min_element_wise(micros, last, skip_nulls=False).cast(kind)


def normal_labels(labels: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return labels in Unicode's form NFC.

    macOS unpacks ``Pêche`` as an ``e`` and an accent: another text, which prints alike.
    """
    import pyarrow.compute as pc

    return pc.utf8_normalize(labels, "NFC")


#: Arrow's types by the names that Spark and Hive give them.
_SPARK_NAMES = {
    "string": "string",
    "large_string": "string",
    "int32": "int",
    "int64": "bigint",
    "bool": "boolean",
    "float": "float",
    "double": "double",
    "binary": "binary",
}


def type_name(kind: pa.DataType) -> str:
    """Return Spark's name of an Arrow type, such as ``array<float>``; else Arrow's own."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{type_name(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp_ntz"
    return _SPARK_NAMES.get(str(kind), str(kind))


def spark_json(columns: tuple[str, ...], metadata: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table's schema as the JSON that Spark stores in the footer of a Parquet file.

    The same as ``StructType.json()``, without loading Spark.

    Parameters
    ----------
    columns : tuple of str
        Names out of this module's tables.
    metadata : mapping
        Of the columns that have some, by name.
    """
    types: dict[str, object] = {
        "int32": "integer",
        "int64": "long",
        "bool": "boolean",
        "vector": {"containsNull": True, "elementType": "float", "type": "array"},
    }
    fields = [
        {
            "metadata": dict(metadata.get(name, {})),
            "name": name,
            "nullable": True,
            "type": types.get(_TYPES[name], _TYPES[name]),
        }
        for name in columns
    ]
    return json.dumps({"fields": fields, "type": "struct"}, separators=(",", ":"), sort_keys=True)


def spark_schema(columns: tuple[str, ...]) -> StructType:
    """Build the Spark schema of a table; the same types as :func:`arrow_schema`.

    Parameters
    ----------
    columns : tuple of str
        Names out of this module's tables.

    Returns
    -------
    pyspark.sql.types.StructType
        Every field is nullable, as Parquet gives them back.
    """
    from pyspark.sql import types as t

    types = {
        "string": t.StringType(),
        "int32": t.IntegerType(),
        "int64": t.LongType(),
        "bool": t.BooleanType(),
        "float": t.FloatType(),
        "double": t.DoubleType(),
        "binary": t.BinaryType(),
        "timestamp": t.TimestampType(),
        "vector": t.ArrayType(t.FloatType()),
    }
    return t.StructType([t.StructField(name, types[_TYPES[name]]) for name in columns])
