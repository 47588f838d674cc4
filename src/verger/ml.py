"""Verger's stages as citizens of Spark ML: they go into a ``Pipeline``, save and load.

Everything here is a face on :mod:`verger.features.outcomes` and :mod:`verger.pca.fit`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.ml import Estimator, Transformer
from pyspark.ml import Model as FittedStage
from pyspark.ml.feature import PCAModel
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DoubleType,
    FloatType,
    StringType,
    StructField,
    StructType,
)

from verger.engine.spark import Carried, is_connect, share
from verger.errors import ConfigError, SchemaError, SourceError
from verger.features.columns import check_free, find_column, find_vectors
from verger.features.model import Model, load_model, open_cached
from verger.features.outcomes import Outcome, Row, featurize_rows
from verger.files.folder import Folder
from verger.files.paths import normalize_source
from verger.pca.fit import FittedPCA, fit_pca
from verger.pca.moments import sum_moments
from verger.pca.spark_models import spark_parameters, to_spark_model, write_spark_model

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

HANDLE_INVALID = ("error", "skip", "keep")


def _to_text(value: Any) -> str:
    """Return the text of a parameter that names a file, which may be given as a path."""
    return TypeConverters.toString(os.fspath(value) if isinstance(value, os.PathLike) else value)


class ImageFeaturizer(
    Transformer, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable
):
    """Turn a column of photos' bytes into a column of feature vectors.

    Parameters
    ----------
    inputCol : str
        Binary column, by default ``content`` as ``binaryFile`` names it; ``a.b`` may be a field
        of a struct.
    outputCol : str
        Vector column of ``n_features`` (1280) numbers, by default ``features``; a column of the
        table is never overwritten.
    modelName : str
        As ``name`` of :func:`verger.load_model`.
    weights : path
        File of weights, or empty for the published ones.
    microBatch : int
        Photos per call of the model.
    handleInvalid : {"error", "skip", "keep"}
        What becomes of a photo without features: an error that says why, no row, or a row
        with a null vector.
    reasonCol : str
        Where not empty, a string column that says why a kept photo has no features.

    Examples
    --------
    >>> photo = [(bytearray(Path("apple.jpg").read_bytes()),)]
    >>> table = verger.get_session().createDataFrame(photo, ["content"])
    >>> stage = verger.ImageFeaturizer(modelName="efficientnet_lite0")
    >>> stage.transform(table).first().features.size
    1280
    """

    modelName: Param[str] = Param(Params._dummy(), "modelName", "name of the model", _to_text)
    weights: Param[str] = Param(Params._dummy(), "weights", "file of weights, or empty", _to_text)
    microBatch: Param[int] = Param(
        Params._dummy(), "microBatch", "photos per call of the model", TypeConverters.toInt
    )
    handleInvalid: Param[str] = Param(
        Params._dummy(), "handleInvalid", "error, skip or keep", TypeConverters.toString
    )
    reasonCol: Param[str] = Param(
        Params._dummy(), "reasonCol", "column of reasons, or empty", TypeConverters.toString
    )

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(
            inputCol="content",
            outputCol="features",
            modelName="mobilenet_v2",
            weights="",
            microBatch=8,
            handleInvalid="error",
            reasonCol="",
        )
        self._set(**params)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        how = self.getOrDefault(self.handleInvalid)
        if how not in HANDLE_INVALID:
            raise ConfigError(f"handleInvalid={how!r} must be one of {', '.join(HANDLE_INVALID)}")
        name, reason = self.getInputCol(), self.getOrDefault(self.reasonCol)
        contents, kind = find_column(dataset, name, f"inputCol={name!r}")
        if not isinstance(kind, BinaryType):
            raise SchemaError(
                f"inputCol={name!r} must be a binary column, not {kind.simpleString()}"
            )
        written = {"outputCol": self.getOutputCol()} | ({"reasonCol": reason} if reason else {})
        check_free(dataset, written)
        model = load_model(
            self.getOrDefault(self.modelName), weights=self.getOrDefault(self.weights) or None
        )
        shared = share(dataset.sparkSession, model)
        outcome = _outcome_udf(shared, self.getOrDefault(self.microBatch), how)
        column = f"__{self.uid}"
        output = dataset.withColumn(column, outcome(contents))
        if how == "skip":
            output = output.where(F.col(f"{column}.reason").isNull())
        vector = F.when(
            F.col(f"{column}.features").isNotNull(), array_to_vector(F.col(f"{column}.features"))
        )
        output = output.withColumn(self.getOutputCol(), vector)
        if reason:
            output = output.withColumn(reason, F.col(f"{column}.reason"))
        return output.drop(column)


_OUTCOME = StructType(
    [StructField("features", ArrayType(FloatType())), StructField("reason", StringType())]
)


def _outcome_udf(shared: Broadcast[Model] | Carried, micro_batch: int, how: str) -> Any:
    def featurize_contents(series: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        session = open_cached(shared.value)
        for contents in series:
            rows: list[Row] = [({}, content or b"") for content in contents]
            outcomes = list(featurize_rows(rows, session, micro_batch=micro_batch))
            if how == "error":
                _raise_first(outcomes)
            yield pd.DataFrame(
                {
                    "features": [outcome.get("features") for outcome in outcomes],
                    "reason": [_reason_text(outcome) for outcome in outcomes],
                }
            )

    # Not deterministic as far as the optimiser goes: it would compute features twice to push
    # a filter on the reason below the projection.
    featurize_contents.__annotations__ = {
        "series": Iterator[pd.Series],
        "return": Iterator[pd.DataFrame],
    }
    return pandas_udf(featurize_contents, _OUTCOME).asNondeterministic()


def _reason_text(outcome: Outcome) -> str | None:
    reason = outcome.get("reason")
    return f"{reason}: {outcome['detail']}" if reason else None


def _raise_first(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        text = _reason_text(outcome)
        if text:
            raise SourceError(
                f"a photo has no features ({text}); handleInvalid='skip' or 'keep' goes on"
            )


class PCA(Estimator, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable):
    """Fit a PCA exactly and in one pass; gives Spark's own ``pyspark.ml.feature.PCAModel``.

    Over Spark Connect, where that model's JVM is out of reach, it gives :class:`NumpyPCAModel`.

    Rows without a vector are left out; see :func:`verger.sum_moments`.

    Parameters
    ----------
    k : int
        Number of components.
    share : float
        Where above 0, the share of variance to keep instead of ``k``.
    inputCol : str
        Column of vectors, or of arrays of numbers; by default ``features``. Those of one table
        have one length and only finite numbers.
    outputCol : str
        Column that the model writes, by default ``features_pca``.

    Examples
    --------
    >>> rows = [([1.0, 2.0],), ([3.0, 5.0],), ([4.0, 4.0],)]
    >>> table = verger.get_session().createDataFrame(rows, ["features"])
    >>> verger.PCA(k=1).fit(table).transform(table).columns
    ['features', 'features_pca']
    """

    k: Param[int] = Param(Params._dummy(), "k", "number of components", TypeConverters.toInt)
    share: Param[float] = Param(
        Params._dummy(), "share", "share of variance, or 0", TypeConverters.toFloat
    )

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(k=50, share=0.0, inputCol="features", outputCol="features_pca")
        self._set(**params)

    def _fit(self, dataset: DataFrame) -> PCAModel | NumpyPCAModel:
        name, written = self.getInputCol(), self.getOutputCol()
        find_vectors(dataset, name, f"inputCol={name!r}")
        check_free(dataset, {"outputCol": written})
        kept = self.getOrDefault(self.share)
        pca = fit_pca(
            sum_moments(dataset, name), float(kept) if kept > 0 else int(self.getOrDefault(self.k))
        )
        if is_connect(dataset.sparkSession):
            return NumpyPCAModel(pca).setInputCol(name).setOutputCol(written)
        model = to_spark_model(pca, TolerantPCAModel).setInputCol(name).setOutputCol(written)
        vars(model)["n_samples"] = pca.n_samples
        return model


class TolerantPCAModel(PCAModel):
    """Spark's own ``PCAModel``, saved as such, which takes what :class:`PCA` was fitted to.

    Its input may also be arrays, and rows without a vector get no scores: Spark's own fails on
    both. A model that was saved and loaded is Spark's own.

    Attributes
    ----------
    n_samples : int
        Rows that it was fitted to.
    """

    n_samples: int = 0

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name, written = self.getInputCol(), self.getOutputCol()
        arrays = find_vectors(dataset, name, f"inputCol={name!r}")
        check_free(dataset, {"outputCol": written})
        java: Any = self._java_obj
        n_features = java.pc().numRows()
        told = F.concat(
            F.lit(f"inputCol={name!r} has a vector of "),
            F.size(arrays).cast("string"),
            F.lit(f" numbers, which must have n_features={n_features}"),
        )
        vectors = array_to_vector(
            F.when(arrays.isNull(), F.array_repeat(F.lit(0.0), n_features))
            .when(F.size(arrays) == n_features, arrays)
            .otherwise(F.raise_error(told))
        )
        filled = f"__{self.uid}"
        scored = super(TolerantPCAModel, self.copy({self.inputCol: filled}))._transform(
            dataset.withColumn(filled, vectors)
        )
        scores, _ = find_column(scored, written, f"outputCol={written!r}")
        return scored.withColumn(written, F.when(arrays.isNotNull(), scores)).drop(filled)


class NumpyPCAModel(FittedStage, HasInputCol, HasOutputCol):
    """The model of :class:`PCA` over Spark Connect: what :class:`TolerantPCAModel` does, by numpy.

    Attributes
    ----------
    pca : FittedPCA
    """

    def __init__(self, pca: FittedPCA) -> None:
        super().__init__()
        self.pca = pca

    @property
    def n_samples(self) -> int:
        """Rows that it was fitted to."""
        return self.pca.n_samples

    @property
    def pc(self) -> DenseMatrix:
        """The matrix, (n_features, k)."""
        return spark_parameters(self.pca)[0]

    @property
    def explainedVariance(self) -> DenseVector:  # Spark's name
        """The share of variance of each component, (k,)."""
        return spark_parameters(self.pca)[1]

    def setInputCol(self, value: str) -> NumpyPCAModel:
        """Name the column of vectors or arrays."""
        return self._set(inputCol=value)

    def setOutputCol(self, value: str) -> NumpyPCAModel:
        """Name the column that is written."""
        return self._set(outputCol=value)

    def save(self, path: str) -> None:
        """Write it as Spark's own ``PCAModel`` into a new folder, which Spark loads.

        Parameters
        ----------
        path : str
            A folder of the client's, or ``s3://bucket/prefix``.
        """
        parent, _, name = normalize_source(path.removeprefix("file://")).rpartition("/")
        columns = (self.getInputCol(), self.getOutputCol())
        write_spark_model(self.pca, Folder(parent), name, columns=columns)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name, written = self.getInputCol(), self.getOutputCol()
        arrays = find_vectors(dataset, name, f"inputCol={name!r}")
        check_free(dataset, {"outputCol": written})
        scores = _scores_udf(self.pca.projection, name)(arrays)
        return dataset.withColumn(written, F.when(arrays.isNotNull(), array_to_vector(scores)))


def _scores_udf(projection: npt.NDArray[np.float64], name: str) -> Any:
    def score(arrays: pd.Series) -> pd.Series:
        return arrays.map(_score, na_action="ignore")

    def _score(vector: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if len(vector) != len(projection):
            raise SchemaError(
                f"inputCol={name!r} has a vector of {len(vector)} numbers, which must have "
                f"n_features={len(projection)}"
            )
        scores: npt.NDArray[np.float64] = vector @ projection
        return scores

    score.__annotations__ = {"arrays": pd.Series, "return": pd.Series}
    return pandas_udf(score, ArrayType(DoubleType()))
