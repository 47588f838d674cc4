"""``verger classify train``: train a classifier on a result and store it there.

::

    features/ -> train -> models/classifier.npz, models/references-*.npy, models/classifier/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verger.classify.classifier import is_references, references_named
from verger.classify.frames import measure_films
from verger.classify.near_copies import group_near_copies
from verger.classify.projection import stored_projection
from verger.classify.recipe import Recipe, choose_split, describe_recipe, read_trainable
from verger.classify.regression import fits_in_memory
from verger.classify.spark_regression import write_pipeline
from verger.classify.training import train
from verger.classify.vectors import LabelledVectors, vector_column
from verger.config import Config
from verger.engine.choose import check_engine, has_active_session
from verger.engine.session import check_environment, get_session
from verger.engine.tasks import Engine
from verger.errors import OutputError
from verger.features.contract import count_views
from verger.files.folder import Folder
from verger.files.npz import read_npz
from verger.files.records import as_json, to_plain
from verger.job.context import Run, Watch, no_watch
from verger.result.classifiers import UNNAMED, ClassifierFiles, list_classifiers
from verger.result.derived import Training
from verger.result.output import STAGED, Output

if TYPE_CHECKING:
    from verger.classify.splits import SplitStrategy
    from verger.classify.training import Trained
    from verger.classify.vectors import Labelled


def train_classifier(
    out: str | Path,
    config: Config,
    recipe: Recipe,
    *,
    also: Sequence[str | Path] = (),
    name: str = "",
    watch: Watch = no_watch,
) -> dict[str, Any]:
    """Train a classifier on all labelled photos of a result, or of some, and store it there.

    Parameters
    ----------
    out : path
        Folder of a result, or ``s3://bucket/prefix``.
    config : Config
    recipe : Recipe
        Its split says how the folds are cut that choose penalty and threshold.
    also : sequence of path
        Other results of the same contract, whose photos are learnt too.
    name : str
        Of the classifier, beside others; the one without a name is the report's.
    watch

    Returns
    -------
    dict
        ``classifier/training.json``.

    Raises
    ------
    ClassifierError, OutputError
        With fewer than two classes; with ``on="pca"`` where the result has no PCA.
    """
    run, files = Run(Output.at(out), config, watch), ClassifierFiles(name)
    projection = stored_projection(run.output) if recipe.on == "pca" else None
    with open_vectors(run, recipe, also) as (vectors, strategy):
        contract, n = run.output.read_run().contract_hash, len(vectors.labelled)
        with run.stage("train", n) as progress:
            how: Any = {"contract_hash": contract, "on_fits": progress.on_fits}
            reduced, every = replace(vectors, projection=projection), np.arange(n)
            trained = train(reduced, every, recipe, strategy, **how)
        with run.stage("write"):
            names = stage_classifier(run.output, trained, files)
        about = describe_recipe(recipe, vectors.labelled) | vars(trained.fit)
        on_pca = "fitted on all photos" if projection else None
        training = Training(**about, on_pca=on_pca, contract_hash=contract, seconds=run.seconds)
        run.check_lock()
        publish_classifier(run.output, names, training, files)
    return to_plain(training)  # type: ignore[no-any-return]


@contextmanager
def open_vectors(
    run: Run, recipe: Recipe, also: Sequence[str | Path]
) -> Iterator[tuple[LabelledVectors, SplitStrategy]]:
    """Find mistakes, lock OUT and start what the method needs; give the vectors and the split.

    Parameters
    ----------
    run : Run
    recipe : Recipe
    also : sequence of path
        As for :func:`train_classifier`.
    """
    others = tuple(map(Output.at, also))
    labelled = read_trainable((run.output, *others), recipe)
    strategy = choose_split(labelled, recipe)
    needs_spark = check_method(run, recipe, labelled)
    with run, run.locked():
        engine = start_method(run, needs_spark=needs_spark)
        vectors = LabelledVectors(engine, run.output, labelled, also=others)
        vectors, strategy = measure_films(vectors, recipe, strategy)
        yield group_near_copies(vectors, recipe, strategy)


def check_method(run: Run, recipe: Recipe, labelled: Labelled) -> bool:
    """Find out whether what a method needs could be started, without starting it.

    Returns
    -------
    bool
        Whether Spark ML has to fit: a regression that does not fit into this machine's memory.

    Raises
    ------
    EnvironmentNotReadyError
        If it needs Spark, and that could not be started.
    """
    record = run.output.read_run()
    n_vectors = len(labelled) * count_views(record.contract)
    size = n_vectors, record.model.n_features, len(labelled.labels)
    needs_spark = recipe.method == "logistic" and not fits_in_memory(*size)
    if needs_spark:
        check_environment(run.config)
    else:
        check_engine(run.config)
    return needs_spark


def start_method(run: Run, *, needs_spark: bool) -> Engine:
    """Start what a method needs: where Spark ML fits a regression, Spark runs the tasks too."""
    if needs_spark and not has_active_session():
        with run.stage("start Spark"):
            get_session(run.config)
    return run.engine


def stage_classifier(
    output: Output, trained: Trained, files: ClassifierFiles = UNNAMED
) -> list[str]:
    """Write a classifier into the journal; return the names that its files will have in OUT."""
    output.folder.remove_tree(STAGED)
    staged, classifier, names = Folder(output.address(STAGED)), trained.classifier, []
    if trained.regression is not None:
        column = vector_column(classifier.on == "pca")
        names = write_pipeline(
            trained.regression, classifier.names, column, staged, files.spark_model
        )
    return [*names, *classifier.save(staged, files.npz)]


@dataclass(frozen=True)
class _Compared:
    """The other result that an evaluation tested the classifier on, if any."""

    against: str | None


def publish_classifier(
    output: Output, names: Sequence[str], training: Training, files: ClassifierFiles = UNNAMED
) -> None:
    """Let a staged classifier take the place of the one in OUT, with what was said of that one.

    If it is killed, OUT has the old classifier or the new one, and the next command that writes
    to OUT finishes the move.

    Parameters
    ----------
    output : Output
    names : sequence of str
        As :func:`stage_classifier` returns them: the classifier is the last.
    training : Training
    files : ClassifierFiles, optional
    """
    output.folder.write(f"{STAGED}/{files.training}", as_json(training))
    stale = output.own_files(files.spark_model)
    evaluation = output.read_derived(_Compared, files.evaluation)
    if evaluation is not None and evaluation.against is not None:
        stale += [files.evaluation, *output.own_files(files.predictions)]
    *before, last = names
    output.publish(
        output.read_run(),
        add=[(f"{STAGED}/{name}", name) for name in (*before, files.training, last)],
        remove=stale,
        attempts=False,
    )
    # Only now: until it is replaced the old classifier needs its vectors.
    try:
        kept = {_references_of(output, each) for each in list_classifiers(output)}
    except (OutputError, FileNotFoundError):  # one that cannot be read now still needs its vectors
        return
    for entry in output.folder.files("models"):
        if is_references(entry.name) and entry.name not in kept:
            output.folder.remove(entry.name)


def _references_of(output: Output, files: ClassifierFiles) -> str | None:
    content = output.folder.read(files.npz)
    try:
        return references_named(read_npz(content))
    except ValueError:  # damaged, so that it is trained again
        return None
