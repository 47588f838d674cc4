"""Spark ML's part in a regression: fitting what is too large for the driver, and the file format.

Verger writes the files, as those of the PCA, so that this needs no Java.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from verger.classify.regression import Array, Regression, scale_of
from verger.files.folder import Folder
from verger.pca.spark_models import StoredModel, dense_matrix, dense_vector, new_uid, scalar

#: Share of the loss that the last iterations must gain to go on. By Spark's own, 1e-6, a fit ends
#: where probabilities between two classes are 1e-3 off, and 1e-2 with a weak penalty.
_TOLERANCE = 1e-9

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Standardised features, and the column of numbered classes.
_SCALED, _TARGET = "z", "target"


def fit_on_spark(
    frame: DataFrame, column: str, reg_params: Sequence[float], iterations: int
) -> Iterator[Regression]:
    """Fit Spark's StandardScaler and LogisticRegression for each of some penalties.

    Parameters
    ----------
    frame : DataFrame
        Of :meth:`verger.classify.vectors.LabelledVectors.frame`.
    column : str
        Its column of vectors.
    reg_params, iterations
        As for :func:`verger.classify.regression.fit_regressions`.

    Yields
    ------
    Regression
        For each penalty. A class without photos gets a small probability.
    """
    from pyspark.ml.classification import LogisticRegression
    from scipy.fft import idct

    kept = frame.persist()
    try:
        scaled, mean, scale = _rotate(kept, column)
        for reg_param in reg_params:
            model: Any = LogisticRegression(
                featuresCol=_SCALED,
                labelCol=_TARGET,
                family="multinomial",
                regParam=reg_param,
                maxIter=iterations,
                tol=_TOLERANCE,
                standardization=False,
            ).fit(scaled)
            yield Regression(
                mean,
                scale,
                idct(model.coefficientMatrix.toArray(), norm="ortho"),
                model.interceptVector.toArray(),
                reg_param,
            )
    finally:
        kept.unpersist()


def _rotate(frame: DataFrame, column: str) -> tuple[DataFrame, Array, Array]:
    """Standardise vectors and rotate them; return them with the means and the scale.

    Spark divides features by their deviation within the fit and weighs penalties by it, which does
    not converge for the small deviations that the floor leaves. A rotation, here the cosine
    transform, gives all features deviations of one magnitude; it changes neither loss nor penalty,
    and its inverse turns the coefficients back.
    """
    from pyspark.ml.feature import DCT, ElementwiseProduct, StandardScaler
    from pyspark.ml.linalg import Vectors

    centre = StandardScaler(inputCol=column, outputCol="x0", withMean=True, withStd=False)
    scaler: Any = centre.fit(frame)
    scale = scale_of(scaler.std.toArray())
    divider = ElementwiseProduct(inputCol="x0", outputCol="z0", scalingVec=Vectors.dense(1 / scale))
    rotation = DCT(inputCol="z0", outputCol=_SCALED)
    scaled = rotation.transform(divider.transform(scaler.transform(frame)))
    return scaled, scaler.mean.toArray(), scale


def write_pipeline(
    regression: Regression, labels: Sequence[str], column: str, folder: Folder, name: str
) -> list[str]:
    """Write a regression as Spark's ``PipelineModel``; return the names of its files.

    It standardises a column of vectors, computes probabilities, and names the likeliest label.

    Parameters
    ----------
    regression : Regression
    labels : sequence of str
    column : str
    folder : Folder
    name : str
        Where in the folder.
    """
    stages = [_scaler(regression, column), _classifier(regression), _names(labels)]
    pipeline = StoredModel(
        kind="PipelineModel",
        uid=new_uid("PipelineModel"),
        parameters={"stageUids": [stage.uid for stage in stages]},
    )
    files = pipeline.write(folder, name)
    for number, stage in enumerate(stages):
        files += stage.write(folder, f"{name}/stages/{number}_{stage.uid}")
    return files


def _scaler(regression: Regression, column: str) -> StoredModel:
    uid = new_uid("StandardScaler")
    return StoredModel(
        kind="feature.StandardScalerModel",
        uid=uid,
        parameters={"inputCol": column, "outputCol": _SCALED, "withMean": True, "withStd": True},
        defaults={"outputCol": f"{uid}__output", "withMean": False, "withStd": True},
        columns={"std": dense_vector(regression.scale), "mean": dense_vector(regression.mean)},
    )


def _classifier(regression: Regression) -> StoredModel:
    n_labels, n_features = regression.coefficients.shape
    return StoredModel(
        kind="classification.LogisticRegressionModel",
        uid=new_uid("LogisticRegression"),
        parameters={
            "featuresCol": _SCALED,
            "labelCol": _TARGET,
            "family": "multinomial",
            "regParam": regression.reg_param,
            "standardization": False,
        },
        defaults=_DEFAULTS,
        columns={
            "numClasses": scalar("integer", n_labels),
            "numFeatures": scalar("integer", n_features),
            "interceptVector": dense_vector(regression.intercepts),
            "coefficientMatrix": dense_matrix(regression.coefficients, by_rows=True),
            "isMultinomial": scalar("boolean", value=True),
        },
    )


#: Of Spark's ``LogisticRegression``, since 3.1.
_DEFAULTS = {
    "aggregationDepth": 2,
    "elasticNetParam": 0.0,
    "family": "auto",
    "featuresCol": "features",
    "fitIntercept": True,
    "labelCol": "label",
    "maxBlockSizeInMB": 0.0,
    "maxIter": 100,
    "predictionCol": "prediction",
    "probabilityCol": "probability",
    "rawPredictionCol": "rawPrediction",
    "regParam": 0.0,
    "standardization": True,
    "threshold": 0.5,
    "tol": 1e-6,
}


def _names(labels: Sequence[str]) -> StoredModel:
    uid = new_uid("IndexToString")
    return StoredModel(
        kind="feature.IndexToString",
        uid=uid,
        parameters={
            "inputCol": "prediction",
            "outputCol": "predicted_label",
            "labels": list(labels),
        },
        defaults={"outputCol": f"{uid}__output"},
    )
