"""``verger classify train``: train a classifier on a result and store it there.

::

    features/ -> train -> models/classifier.npz, models/references.npy, models/classifier/
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verger.classify.classifier import CLASSIFIER_NPZ, REFERENCES_NPY
from verger.classify.recipe import Recipe, choose_split, describe_recipe, read_photos
from verger.classify.training import train
from verger.classify.vectors import Vectors, stored_projection
from verger.config import Config
from verger.engine.session import check_environment, get_session
from verger.files.records import as_json
from verger.job.context import Run, Watch, no_watch
from verger.pca.spark_models import save_spark_model
from verger.result.output import EVALUATION, PREDICTIONS, SPARK_CLASSIFIER, TRAINING, Output

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from verger.classify.training import Trained


def train_classifier(
    out: str | Path, config: Config, recipe: Recipe, *, watch: Watch = no_watch
) -> dict[str, Any]:
    """Train a classifier on all labelled photos of a result and store it there.

    Parameters
    ----------
    out : path
        Folder of a result, or ``s3://bucket/prefix``.
    config : Config
        Its settings of Spark are used.
    recipe : Recipe
        Its split says how the folds are cut that choose penalty and threshold.
    watch : Watch, optional
        Shows progress.

    Returns
    -------
    dict
        What ``classifier/training.json`` holds.

    Raises
    ------
    ClassifierError
        With fewer than two classes.
    OutputError
        With ``on="pca"`` where the result has no PCA.
    """
    run = Run(Output.at(out), config, watch)
    labelled = read_photos(run.output)
    strategy = choose_split(labelled, recipe)
    projection = stored_projection(run.output) if recipe.on == "pca" else None
    check_environment()
    with run.locked():
        contract = run.output.read_run().contract_hash
        vectors = Vectors(start_session(run), run.output, labelled, projection)
        with run.stage("train", len(labelled), vectors.spark):
            rows = np.arange(len(labelled))
            trained = train(vectors, rows, recipe, strategy, contract_hash=contract)
        run.check_lock()
        with run.stage("write"):
            _forget(run.output)
            _save(run.output, trained)
        record = (
            describe_recipe(recipe, labelled)
            | trained.record
            | {
                "on_pca": "fitted on all photos" if recipe.on == "pca" else None,
                "contract_hash": contract,
                "seconds": run.seconds,
            }
        )
        run.output.folder.write(TRAINING, as_json(record))
    return record


def start_session(run: Run) -> SparkSession:
    """Start Spark with a JVM that optimises: the regression is computed in it."""
    with run.stage("start Spark"):
        return get_session(run.config)


def _forget(output: Output) -> None:
    """Remove the classifier that was there, and what was found out about it alone."""
    output.folder.remove(CLASSIFIER_NPZ)
    output.folder.remove(REFERENCES_NPY)
    output.folder.remove_tree(SPARK_CLASSIFIER)
    evaluation = output.read_derived(dict[str, Any], EVALUATION)
    if evaluation is not None and evaluation["against"] is not None:
        output.folder.remove(EVALUATION)
        output.folder.remove_tree(PREDICTIONS)


def _save(output: Output, trained: Trained) -> None:
    if trained.model is not None:
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import IndexToString

        labels = list(trained.classifier.labels)
        names = IndexToString(inputCol="prediction", outputCol="predicted_label", labels=labels)
        whole = PipelineModel([*trained.model.stages, names])
        save_spark_model(whole, output.folder, SPARK_CLASSIFIER)
    trained.classifier.save(output)
