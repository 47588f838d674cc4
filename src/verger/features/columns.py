"""Columns of the user's data frames: found by their names, and checked by their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from verger.errors import SchemaError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType, StructField


def find_column(frame: DataFrame, name: str, what: str) -> tuple[Column, DataType]:
    """Return a column of a data frame, and its type.

    Parameters
    ----------
    frame : DataFrame
    name : str
        As it is; the dots in it are a part of it if there is such a column, else they lead to a
        field of a struct.
    what : str
        What errors call it.

    Raises
    ------
    SchemaError
        If there is no such column, or more than one.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    # Not by trial: Spark prints a page for every name that it does not find.
    fields, parts = frame.schema.fields, []
    for part in [name] if _matching(frame, fields, name) else name.split("."):
        same = _matching(frame, fields, part)
        if not same:
            raise SchemaError(f"{what} is missing; the table has {frame.columns}")
        if len(same) > 1:
            names = [field.name for field in same]
            raise SchemaError(f"{what} may be any of the columns {names}: drop all but one")
        parts.append(f"`{same[0].name.replace('`', '``')}`")
        kind = same[0].dataType
        fields = kind.fields if isinstance(kind, StructType) else []
    return F.col(".".join(parts)), kind


def _matching(frame: DataFrame, fields: Sequence[StructField], name: str) -> list[StructField]:
    key = _key_of(frame)
    return [field for field in fields if key(field.name) == key(name)]


def _key_of(frame: DataFrame) -> Callable[[str], str]:
    """Return what two names of one column have in common."""
    exact = frame.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true"
    return str if exact else str.lower


def check_free(frame: DataFrame, names: Mapping[str, str]) -> None:
    """Refuse to write a column that a data frame has already.

    Parameters
    ----------
    frame : DataFrame
    names : mapping of str to str
        Parameter to the name of the column that it asks for.

    Raises
    ------
    SchemaError
    """
    key = _key_of(frame)
    taken = {key(name) for name in frame.columns}
    for option, name in names.items():
        if key(name) in taken:
            raise SchemaError(
                f"{option}={name!r}: the table has such a column already; choose another name, "
                "or drop the column first"
            )
        taken.add(key(name))


def find_vectors(frame: DataFrame, name: str, what: str) -> Column:
    """Return a column of vectors, or of arrays of numbers, as arrays of float or double.

    A row without a vector stays null.

    Raises
    ------
    SchemaError
        If there is no such column, or it holds something else.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, DoubleType, FloatType, NumericType

    column, kind = find_column(frame, name, what)
    if isinstance(kind, VectorUDT):
        return F.when(column.isNotNull(), vector_to_array(column))
    if not isinstance(kind, ArrayType) or not isinstance(kind.elementType, NumericType):
        raise SchemaError(
            f"{what} must hold vectors or arrays of numbers, not {kind.simpleString()}"
        )
    is_float = isinstance(kind.elementType, FloatType | DoubleType)
    return column if is_float else column.cast("array<double>")
