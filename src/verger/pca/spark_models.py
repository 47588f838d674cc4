"""Models of Spark's own: a fitted PCA as ``PCAModel``, and the files that Spark loads."""

from __future__ import annotations

import io
import json
import re
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from verger.engine.scratch import scratch_folder
from verger.files.folder import Folder
from verger.pca.fit import FittedPCA

if TYPE_CHECKING:
    from pyspark.ml.feature import PCAModel
    from pyspark.ml.linalg import DenseMatrix, DenseVector
    from pyspark.ml.util import MLWritable

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
    matrix, ratio = _parameters(pca)
    context = session.sparkContext
    # The constructor is private to Scala's package and public in the class file.
    jvm: Any = context._jvm
    java_model = jvm.org.apache.spark.ml.feature.PCAModel(
        f"PCA_{uuid.uuid4().hex[-12:]}", _py2java(context, matrix), _py2java(context, ratio)
    )
    model = (kind or PCAModel)(java_model)
    return model._set(k=pca.n_components, inputCol=INPUT, outputCol=OUTPUT)


def _parameters(pca: FittedPCA) -> tuple[DenseMatrix, DenseVector]:
    """Return the matrix (n_features, k) and the ratios (k,)."""
    from pyspark.ml.linalg import DenseMatrix, DenseVector

    n_features, k = pca.projection.shape
    matrix = DenseMatrix(n_features, k, pca.projection.ravel(order="F"))
    return matrix, DenseVector(pca.explained_variance_ratio[: pca.n_components])


def write_spark_model(pca: FittedPCA, folder: Folder, name: str) -> list[str]:
    """Write a fitted PCA in Spark's format; return the names of the files in the folder.

    Spark would write it from an executor, which reaches no folder of the driver's, and no bucket
    without libraries of Hadoop's. The format is that of ``PCAModelWriter`` and
    ``DefaultParamsWriter``, the same since Spark 2.0: a line of JSON, and a row of Parquet whose
    footer names Spark's own types.
    """
    success = b""
    files = {
        "metadata/part-00000": _metadata(pca),
        "metadata/_SUCCESS": success,
        "data/part-00000.snappy.parquet": _data(pca),
        "data/_SUCCESS": success,
    }
    for file, content in files.items():
        folder.write(f"{name}/{file}", content)
    return [f"{name}/{file}" for file in files]


def _metadata(pca: FittedPCA) -> bytes:
    uid = f"PCA_{uuid.uuid4().hex[-12:]}"
    metadata = {
        "class": "org.apache.spark.ml.feature.PCAModel",
        "timestamp": time.time_ns() // 1_000_000,
        "sparkVersion": _spark_version(),
        "uid": uid,
        "paramMap": {"k": pca.n_components, "inputCol": INPUT, "outputCol": OUTPUT},
        "defaultParamMap": {"outputCol": f"{uid}__output"},
    }
    return json.dumps(metadata, separators=(",", ":")).encode() + b"\n"


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


def _data(pca: FittedPCA) -> bytes:
    n_features, k = pca.projection.shape
    ratios = pca.explained_variance_ratio[: pca.n_components]
    # Both are dense: type 1, without indices; the matrix is stored column by column.
    matrix = (1, n_features, k, None, None, pca.projection.ravel(order="F"), False)
    columns = {
        "pc": ("MatrixUDT", _MATRIX, matrix),
        "explainedVariance": ("VectorUDT", _VECTOR, (1, None, None, ratios)),
    }
    spark = [
        _field(name, _udt(kind, fields), nullable=True)
        for name, (kind, fields, _) in columns.items()
    ]
    footer = {
        "org.apache.spark.version": _spark_version(),
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(
            {"type": "struct", "fields": spark}
        ),
    }
    arrow = [
        pa.field(name, pa.struct([pa.field(f, _ARROW[t], nullable=n) for f, t, n in fields]))
        for name, (_, fields, _) in columns.items()
    ]
    row = {
        name: dict(zip((f for f, _, _ in fields), values, strict=True))
        for name, (_, fields, values) in columns.items()
    }
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], pa.schema(arrow, metadata=footer)), buffer)
    return buffer.getvalue()


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


def save_spark_model(model: MLWritable, folder: Folder, name: str) -> list[str]:
    """Save a model of Spark's in Spark's own format; return the names of its files below OUT.

    Executors of a cluster write it: they must reach the folder, or have what Spark needs for a
    bucket. From a local session it goes over the disk, and needs nothing.
    """
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if folder.is_local:
        model.save(Path(folder.address(name)).as_uri())
        return _visible(folder, name)
    if session is None or not str(session.sparkContext.master).startswith("local"):
        model.save(re.sub("^s3:", "s3a:", folder.address(name)))
        return _visible(folder, name)
    with TemporaryDirectory(dir=scratch_folder()) as place:
        model.save(Path(place, "model").as_uri())
        disk = Folder(f"{place}/model")
        names = _visible(disk, "")
        for file in names:
            folder.write(f"{name}/{file}", disk.read(file))
        return [f"{name}/{file}" for file in names]


def _visible(folder: Folder, name: str) -> list[str]:
    """List the files that are not checksums of Hadoop's."""
    files = folder.files(name, recursive=True)
    return [file.name for file in files if not file.name.rsplit("/", 1)[-1].startswith(".")]
