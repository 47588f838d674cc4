"""Verger's stages as citizens of Spark ML: they go into a ``Pipeline``, save and load.

Everything here is a face on :mod:`verger.features.outcomes` and :mod:`verger.pca.fit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.ml import Estimator, Transformer
from pyspark.ml.feature import PCAModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, BinaryType, FloatType, StringType, StructField, StructType

from verger.errors import ConfigError, SchemaError
from verger.features.model import Model, load_model, open_cached
from verger.features.outcomes import Outcome, Row, featurize_rows
from verger.pca.fit import fit_pca
from verger.pca.moments import sum_moments
from verger.pca.spark_models import to_spark_model

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

HANDLE_INVALID = ("error", "skip", "keep")


class ImageFeaturizer(
    Transformer, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable
):
    """Turn a column of photos' bytes into a column of feature vectors.

    Parameters
    ----------
    inputCol : str
        Binary column, by default ``content`` as ``binaryFile`` names it.
    outputCol : str
        Vector column of ``n_features`` (1280) numbers, by default ``features``.
    modelName : str
        As ``name`` of :func:`verger.load_model`.
    weights : str
        File of weights, or empty for the published ones.
    microBatch : int
        Photos per call of the model.
    handleInvalid : {"error", "skip", "keep"}
        What becomes of a photo without features: an error that says why, no row, or a row
        with a null vector.
    reasonCol : str
        Where not empty, a string column that says why a kept photo has no features.
    """

    modelName: Param[str] = Param(
        Params._dummy(), "modelName", "name of the model", TypeConverters.toString
    )
    weights: Param[str] = Param(
        Params._dummy(), "weights", "file of weights, or empty", TypeConverters.toString
    )
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
        self._check_input(dataset)
        model = load_model(
            self.getOrDefault(self.modelName), weights=self.getOrDefault(self.weights) or None
        )
        shared = dataset.sparkSession.sparkContext.broadcast(model)
        outcome = _outcome_udf(shared, self.getOrDefault(self.microBatch), how)
        column = "__verger_outcome"
        output = dataset.withColumn(column, outcome(F.col(self.getInputCol())))
        if how == "skip":
            output = output.where(F.col(f"{column}.reason").isNull())
        vector = F.when(
            F.col(f"{column}.features").isNotNull(), array_to_vector(F.col(f"{column}.features"))
        )
        output = output.withColumn(self.getOutputCol(), vector)
        reason = self.getOrDefault(self.reasonCol)
        if reason:
            output = output.withColumn(reason, F.col(f"{column}.reason"))
        return output.drop(column)

    def _check_input(self, dataset: DataFrame) -> None:
        name = self.getInputCol()
        kind = dict(dataset.dtypes).get(name)
        if kind != BinaryType().simpleString():
            raise SchemaError(f"inputCol={name!r} must be a binary column, not {kind}")


_OUTCOME = StructType(
    [StructField("features", ArrayType(FloatType())), StructField("reason", StringType())]
)


def _outcome_udf(shared: Broadcast[Model], micro_batch: int, how: str) -> Any:
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
            raise ValueError(
                f"a photo has no features ({text}); handleInvalid='skip' or 'keep' goes on"
            )


class PCA(Estimator, HasInputCol, HasOutputCol, DefaultParamsReadable, DefaultParamsWritable):
    """Fit a PCA exactly and in one pass; gives Spark's own ``pyspark.ml.feature.PCAModel``.

    Parameters
    ----------
    k : int
        Number of components.
    share : float
        Where above 0, the share of variance to keep instead of ``k``.
    inputCol : str
        Column of vectors, or of arrays of numbers; by default ``features``.
    outputCol : str
        Column that the model writes, by default ``features_pca``.
    """

    k: Param[int] = Param(Params._dummy(), "k", "number of components", TypeConverters.toInt)
    share: Param[float] = Param(
        Params._dummy(), "share", "share of variance, or 0", TypeConverters.toFloat
    )

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(k=50, share=0.0, inputCol="features", outputCol="features_pca")
        self._set(**params)

    def _fit(self, dataset: DataFrame) -> PCAModel:
        name = self.getInputCol()
        if name not in dataset.columns:
            raise SchemaError(f"inputCol={name!r} is missing; the table has {dataset.columns}")
        is_vector = isinstance(dataset.schema[name].dataType, VectorUDT)
        column = vector_to_array(F.col(name)) if is_vector else F.col(name)
        moments = sum_moments(dataset.select(column.alias("features")))
        share = self.getOrDefault(self.share)
        pca = fit_pca(moments, float(share) if share > 0 else int(self.getOrDefault(self.k)))
        model = to_spark_model(pca)
        return model.setInputCol(name).setOutputCol(self.getOutputCol())
