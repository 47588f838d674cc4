"""Models of Spark's own: a fitted PCA as ``PCAModel``, and the files that Spark loads."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

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


def to_spark_model(pca: FittedPCA) -> PCAModel:
    """Return Spark's own ``PCAModel`` of a fitted PCA, without Spark's fit.

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
        _uid(), _py2java(context, matrix), _py2java(context, ratio)
    )
    model = PCAModel(java_model)
    return model._set(k=pca.n_components, inputCol=INPUT, outputCol=OUTPUT)


def _parameters(pca: FittedPCA) -> tuple[DenseMatrix, DenseVector]:
    """Return the matrix (n_features, k) and the ratios (k,)."""
    from pyspark.ml.linalg import DenseMatrix, DenseVector

    n_features, k = pca.projection.shape
    matrix = DenseMatrix(n_features, k, pca.projection.ravel(order="F"))
    return matrix, DenseVector(pca.explained_variance_ratio[: pca.n_components])


def _uid() -> str:
    from pyspark.ml.util import Identifiable

    return f"PCA_{Identifiable().uid.rsplit('_', 1)[-1]}"


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
    import pyspark

    uid = _uid()
    metadata = {
        "class": "org.apache.spark.ml.feature.PCAModel",
        "timestamp": time.time_ns() // 1_000_000,
        "sparkVersion": pyspark.__version__,
        "uid": uid,
        "paramMap": {"k": pca.n_components, "inputCol": INPUT, "outputCol": OUTPUT},
        "defaultParamMap": {"outputCol": f"{uid}__output"},
    }
    return json.dumps(metadata, separators=(",", ":")).encode() + b"\n"


def _data(pca: FittedPCA) -> bytes:
    import pyspark
    from pyspark.ml.linalg import MatrixUDT, VectorUDT
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import StructField, StructType

    types = {"pc": MatrixUDT(), "explainedVariance": VectorUDT()}
    row = {
        name: dict(zip(cast(StructType, kind.sqlType()).names, kind.serialize(value), strict=True))
        for (name, kind), value in zip(types.items(), _parameters(pca), strict=True)
    }
    schema = StructType([StructField(name, kind) for name, kind in types.items()])
    footer = {
        "org.apache.spark.version": pyspark.__version__,
        "org.apache.spark.sql.parquet.row.metadata": schema.json(),
    }
    fields = [pa.field(name, to_arrow_type(kind.sqlType())) for name, kind in types.items()]
    table = pa.Table.from_pylist([row], pa.schema(fields, metadata=footer))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


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
