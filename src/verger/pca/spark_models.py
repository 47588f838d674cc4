"""Models of Spark's own: a fitted PCA as ``PCAModel``, and the files that Spark loads."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from verger.files.folder import Folder
from verger.pca.fit import FittedPCA

if TYPE_CHECKING:
    from pyspark.ml.feature import PCAModel
    from pyspark.ml.linalg import DenseMatrix, DenseVector

Array = npt.NDArray[np.float64]

INPUT, OUTPUT = "features_vec", "features_pca"


def to_spark_model(pca: FittedPCA, kind: type[PCAModel] | None = None) -> PCAModel:
    """Return Spark's own ``PCAModel`` of a fitted PCA, or a subclass of it, without Spark's fit.

    The model's input column is ``features_vec`` and its output ``features_pca``, as in the
    notebook; both can be changed. It does not centre: Spark's never does.

    Raises
    ------
    EnvironmentNotReadyError
        Without an active session of classic Spark: over Spark Connect there is no JVM to hold
        the model.
    """
    from pyspark.ml.common import _py2java
    from pyspark.ml.feature import PCAModel
    from pyspark.sql import SparkSession

    from verger.errors import EnvironmentNotReadyError

    session = SparkSession.getActiveSession()
    if session is None or not hasattr(session, "_jvm"):
        raise EnvironmentNotReadyError("Spark's PCAModel needs an active session of classic Spark")
    matrix, ratio = spark_parameters(pca)
    context = session.sparkContext
    # The constructor is private to Scala's package and public in the class file.
    jvm: Any = context._jvm
    java_model = jvm.org.apache.spark.ml.feature.PCAModel(
        new_uid("PCA"), _py2java(context, matrix), _py2java(context, ratio)
    )
    model = (kind or PCAModel)(java_model)
    return model._set(k=pca.n_components, inputCol=INPUT, outputCol=OUTPUT)


def spark_parameters(pca: FittedPCA) -> tuple[DenseMatrix, DenseVector]:
    """Return the matrix (n_features, k) and the ratios (k,)."""
    from pyspark.ml.linalg import DenseMatrix, DenseVector

    n_features, k = pca.projection.shape
    matrix = DenseMatrix(n_features, k, pca.projection.ravel(order="F"))
    return matrix, DenseVector(pca.explained_variance_ratio[: pca.n_components])


def write_spark_model(
    pca: FittedPCA, folder: Folder, name: str, *, columns: tuple[str, str] = (INPUT, OUTPUT)
) -> list[str]:
    """Write a fitted PCA in Spark's format; return the names of the files in the folder.

    ``columns`` are those that the model reads and writes.
    """
    uid = new_uid("PCA")
    stored = StoredModel(
        kind="feature.PCAModel",
        uid=uid,
        parameters={"k": pca.n_components, "inputCol": columns[0], "outputCol": columns[1]},
        defaults={"outputCol": f"{uid}__output"},
        columns={
            "pc": dense_matrix(pca.projection, by_rows=False),
            "explainedVariance": dense_vector(pca.explained_variance_ratio[: pca.n_components]),
        },
    )
    return stored.write(folder, name)


def new_uid(stage: str) -> str:
    """Return a new name of a stage, as Spark makes them."""
    return f"{stage}_{uuid.uuid4().hex[-12:]}"


@dataclass(frozen=True)
class Column:
    """A column of a model's only row: its type for Spark and for Arrow, and its value."""

    spark: object
    arrow: pa.DataType
    value: object
    nullable: bool


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model as Spark stores it.

    Attributes
    ----------
    kind : str
        Its class, below ``org.apache.spark.ml``.
    uid : str
    parameters, defaults : mapping
        What was set, and what holds where nothing was.
    columns : mapping of str to Column
        What was fitted, in Spark's order; empty for a model of parameters alone.
    """

    kind: str
    uid: str
    parameters: Mapping[str, object]
    defaults: Mapping[str, object] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)

    def write(self, folder: Folder, name: str) -> list[str]:
        """Write it; return the names of the files in the folder.

        Spark would write it from an executor, which reaches no folder of the driver's, and no
        bucket without libraries of Hadoop's. The format is that of Spark's ``DefaultParamsWriter``
        and of its models' writers, the same since Spark 2.0: a line of JSON, and a row of Parquet
        whose footer names Spark's own types.
        """
        files = {"metadata/part-00000": self._metadata(), "metadata/_SUCCESS": b""}
        if self.columns:
            files |= {"data/part-00000.snappy.parquet": self._data(), "data/_SUCCESS": b""}
        for file, content in files.items():
            folder.write(f"{name}/{file}", content)
        return [f"{name}/{file}" for file in files]

    def _metadata(self) -> bytes:
        metadata = {
            "class": f"org.apache.spark.ml.{self.kind}",
            "timestamp": time.time_ns() // 1_000_000,
            "sparkVersion": _spark_version(),
            "uid": self.uid,
            "paramMap": self.parameters,
            "defaultParamMap": self.defaults,
        }
        return json.dumps(metadata, separators=(",", ":")).encode() + b"\n"

    def _data(self) -> bytes:
        spark = [_field(name, c.spark, nullable=c.nullable) for name, c in self.columns.items()]
        footer = {
            "org.apache.spark.version": _spark_version(),
            "org.apache.spark.sql.parquet.row.metadata": json.dumps(
                {"type": "struct", "fields": spark}
            ),
        }
        arrow = [pa.field(name, c.arrow, nullable=c.nullable) for name, c in self.columns.items()]
        row = {name: column.value for name, column in self.columns.items()}
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([row], pa.schema(arrow, metadata=footer)), buffer)
        return buffer.getvalue()


def _spark_version() -> str:
    try:
        return version("pyspark")
    except PackageNotFoundError:  # a managed Spark brings a pyspark that is no installed package
        import pyspark

        return pyspark.__version__


#: Columns of Spark's own types, as ``pyspark.ml.linalg`` has them, which takes half a second to
#: load: name, Spark's type and whether it may be null.
_INTS, _DOUBLES = "array<integer>", "array<double>"
_VECTOR = (
    ("type", "byte", False),
    ("size", "integer", True),
    ("indices", _INTS, True),
    ("values", _DOUBLES, True),
)
_MATRIX = (
    ("type", "byte", False),
    ("numRows", "integer", False),
    ("numCols", "integer", False),
    ("colPtrs", _INTS, True),
    ("rowIndices", _INTS, True),
    ("values", _DOUBLES, True),
    ("isTransposed", "boolean", False),
)
_ARROW = {
    "byte": pa.int8(),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
    _INTS: pa.list_(pa.field("element", pa.int32(), nullable=False)),
    _DOUBLES: pa.list_(pa.field("element", pa.float64(), nullable=False)),
}


def scalar(spark: str, value: object) -> Column:
    """Return a column of an ``integer`` or a ``boolean``."""
    return Column(spark, _ARROW[spark], value, nullable=False)


def dense_vector(values: Array) -> Column:
    """Return a column of a dense vector."""
    return _udt_column("VectorUDT", _VECTOR, (1, None, None, values))  # type 1 is dense


def dense_matrix(values: Array, *, by_rows: bool) -> Column:
    """Return a column of a dense matrix, stored row by row or column by column."""
    numbers = values.ravel(order="C" if by_rows else "F")
    return _udt_column("MatrixUDT", _MATRIX, (1, *values.shape, None, None, numbers, by_rows))


def _udt_column(
    kind: str, fields: Sequence[tuple[str, str, bool]], values: tuple[object, ...]
) -> Column:
    arrow = pa.struct([pa.field(f, _ARROW[t], nullable=n) for f, t, n in fields])
    row = dict(zip((f for f, _, _ in fields), values, strict=True))
    return Column(_udt(kind, fields), arrow, row, nullable=True)


def _udt(kind: str, fields: Sequence[tuple[str, str, bool]]) -> dict[str, object]:
    """Return a user-defined type as the JSON of Spark's schemas."""
    inner = [_field(name, _json_type(text), nullable=nullable) for name, text, nullable in fields]
    return {
        "type": "udt",
        "class": f"org.apache.spark.ml.linalg.{kind}",
        "pyClass": f"pyspark.ml.linalg.{kind}",
        "sqlType": {"type": "struct", "fields": inner},
    }


def _json_type(text: str) -> object:
    element = text.removeprefix("array<").removesuffix(">")
    if element == text:
        return text
    return {"type": "array", "elementType": element, "containsNull": False}


def _field(name: str, kind: object, *, nullable: bool) -> dict[str, object]:
    return {"name": name, "type": kind, "nullable": nullable, "metadata": {}}
