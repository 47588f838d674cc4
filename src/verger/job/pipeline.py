"""The stages in order: what is written where, from which table, and how long it took.

::

    source -> featurize -> features/ rejected/ -> reduce -> pca/ models/ -> validate -> report

Read this file from top to bottom to know what ``verger run`` does.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from verger.config import Config
from verger.engine.session import (
    check_environment,
    check_hadoop_reads,
    get_session,
    settings_for_block,
)
from verger.errors import (
    ConfigError,
    ErrorRateError,
    OutputExistsError,
    ReduceError,
    ValidationError,
)
from verger.features.featurize import (
    Decoding,
    Extraction,
    commit_features,
    commit_shares,
    commit_unread,
)
from verger.features.model import Model, find_card, load_model
from verger.features.precision import int8_model, keep_model
from verger.files.paths import normalize_source
from verger.files.shares import Shares
from verger.files.tables import Part
from verger.job import validate
from verger.job.context import Run, Watch, no_watch
from verger.job.losses import list_losses
from verger.job.overseer import check_error_rate, error_inside, overseen, worth_another_try
from verger.job.publish import publish_features
from verger.job.record import REDUCE_OPTIONS, command_line, describe_pca, describe_run, spectrum_csv
from verger.job.resume import State, find_state
from verger.pca import plots
from verger.pca.fit import FittedPCA, fit_pca
from verger.pca.moments import StoredMoments, load_moments, sum_stored_moments
from verger.pca.scores import write_scores
from verger.pca.spark_models import write_spark_model
from verger.result.clock import sum_by_worker
from verger.result.journal import Attempt, Start, latest_attempt, start_attempt
from verger.result.ledger import Known, compare, compose, read_known, sources_of
from verger.result.output import (
    MOMENTS_NPZ,
    PCA_NPZ,
    RUN,
    SCREE,
    SPARK_PCA,
    SPECTRUM,
    STAGED,
    Output,
)
from verger.result.record import PCARecord, RunRecord
from verger.source.cut import cut_listing
from verger.source.listing import Listing, list_photos
from verger.source.spark_reader import list_with_spark, read_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from verger.result.journal import Batch
    from verger.result.ledger import Work


#: Jobs that are tried for one run: the second and third go on from what the one before has
#: committed, and decode apart.
ROUNDS = 3


# Whole commands


def run(
    source: str,
    out: str | Path,
    config: Config,
    *,
    watch: Watch = no_watch,
    notices: tuple[str, ...] = (),
) -> RunRecord:
    """Featurize, reduce, validate all that was written, and report.

    A run that was killed goes on where it was; a finished one takes in what is new.

    Parameters
    ----------
    source : str
        Folder or bucket of photos.
    out : path
        Folder of the result, or ``s3://bucket/prefix``.
    config : Config
    watch : Watch, optional
        Shows progress.
    notices : tuple of str
        What the report should tell its reader beside the numbers.

    Returns
    -------
    RunRecord
        What ``run.json`` holds.

    Raises
    ------
    VergerError
        See :mod:`verger.errors`; what was committed before stays in OUT.
    """
    run = Run(Output.at(out), config, watch, notices)
    planned = plan(run, source, reduce=True)
    _import_meanwhile("matplotlib.figure", "pyspark.ml.linalg")
    with run.locked(), _ended(run):
        _featurize(run, planned, reduce=True)
        if _pca_is_stale(run):
            _reduce(run)
        _validate(run)
        _report(run)
    return run.output.read_run()


def run_featurize(
    source: str, out: str | Path, config: Config, *, watch: Watch = no_watch
) -> RunRecord:
    """Write ``features/`` and ``rejected/`` alone; see :func:`run`."""
    run = Run(Output.at(out), config, watch)
    planned = plan(run, source, reduce=False)
    with run.locked(), _ended(run):
        _featurize(run, planned, reduce=False)
    return run.output.read_run()


def run_reduce(out: str | Path, config: Config, *, watch: Watch = no_watch) -> RunRecord:
    """Fit the PCA of a stored table ``features`` and write all that belongs to it.

    Raises
    ------
    OutputExistsError
        If there is a PCA already and ``overwrite`` is off.
    """
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    with run.locked():
        if "pca" in run.output.read_run().files and not config.overwrite:
            raise OutputExistsError(
                f"OUT={run.output.root}: has a PCA already; --overwrite replaces it"
            )
        _reduce(run)
    return run.output.read_run()


def run_validate(out: str | Path, config: Config, *, watch: Watch = no_watch) -> validate.Report:
    """Re-derive every count of a stored result; see :mod:`verger.job.validate`."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    spark = _session(run)
    with run.stage("validate"):
        return validate.validate_output(spark, run.output)


def run_report(out: str | Path, config: Config, *, watch: Watch = no_watch) -> RunRecord:
    """Write ``report.html`` and ``report.json`` of a stored result."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    with run.locked():
        _report(run)
    return run.output.read_run()


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Write down that a run has come to its end, though it may be a bad one.

    A run that was killed never says so, and goes on if it is started again, with ``--overwrite``
    too.
    """
    try:
        yield
    except (ErrorRateError, ReduceError, ValidationError):
        if run.output.folder.exists(RUN):
            _write_end(run)
        raise
    _write_end(run)


def _write_end(run: Run) -> None:
    record = run.output.read_run()
    if record.finished is None:  # else it is of a run before this one
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        run.check_lock()
        run.output.write_run(replace(record, finished=finished))


# Before Spark


@dataclass(frozen=True)
class Plan:
    """What a run would do, as far as it is known without Spark.

    Attributes
    ----------
    source : str
        In the form in which it is stored.
    listing : Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    model : Model
    """

    source: str
    listing: Listing | None
    model: Model


def plan(run: Run, source: str, *, reduce: bool) -> Plan:
    """Find every mistake that can be found before Spark starts; write nothing."""
    listing = check_and_list(run, source, reduce=reduce)
    model = _find_model(run, listing)
    root = listing.source if listing else normalize_source(source)
    find_state(run.output, root, model.contract, overwrite=run.config.overwrite)
    check_environment()
    return Plan(root, listing, model)


def check_and_list(run: Run, source: str, *, reduce: bool) -> Listing | None:
    """Check the output, list the source, and check what can be checked of the PCA.

    Returns
    -------
    Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    """
    config = run.config
    if config.legacy_parquet and not run.output.folder.is_local:
        raise ConfigError(
            f"legacy_parquet with OUT={run.output.root}: only Spark writes such files, and only "
            "to a folder"
        )
    run.output.prepare(source=source, overwrite=config.overwrite)
    if config.reader != "arrow":
        check_hadoop_reads(source, config)
        return None
    with run.stage("list"):
        listing = list_photos(
            source, glob=config.glob, recursive=config.recursive, label_from=config.label_from
        )
    if reduce:
        _check_count(len(listing.photos), source, config)
    return listing


def _check_count(n: int, source: str, config: Config) -> None:
    """Refuse a PCA that so few photos cannot have."""
    k = config.components
    if n == 1:
        raise ConfigError(
            f"source {source}: has 1 photo, and a PCA needs 2; verger featurize needs no more"
        )
    if isinstance(k, int) and k > n - 1:
        raise ConfigError(
            f"components={k} must be between 1 and {n - 1}: the source has {n} photos, and n "
            "photos vary in n - 1 directions"
        )


def _find_model(run: Run, listing: Listing | None) -> Model:
    """Load the model, and calibrate it where that is asked for."""
    config = run.config
    with run.stage("load model") as on_progress:
        model = load_model(
            config.model,
            weights=config.weights,
            weights_sha256=config.weights_sha256,
            input_size=config.input_size,
            on_progress=on_progress,
        )
    if config.precision == "float32" or listing is None:  # the latter only with float32
        return model
    with run.stage("calibrate"):
        return int8_model(run.output, listing, model, config)


def describe_plan(
    source: str, out: str | Path, config: Config, *, reduce: bool = True
) -> dict[str, Any]:
    """Return the resolved configuration and what a run would do.

    Starts no Spark, downloads nothing, and writes nothing but a model's graph into the cache.
    """
    run = Run(Output.at(out), config)
    listing = check_and_list(run, source, reduce=reduce)
    if listing:
        n_labels = len(listing.photos["label"].unique())
        listed = (
            f"read {len(listing.photos):,} photos ({listing.n_bytes / 1e6:,.1f} MB, "
            f"{n_labels:,} labels) of {listing.source}"
        )
    else:
        listed = f"let Spark list and read {source}"
    model = None if _weights_are_missing(config) else _find_model(run, listing)
    steps = [_model_step(config, model), listed, *_output_steps(run, listing, model)]
    if reduce:
        steps.append(f"fit a PCA and keep components = {config.components}")
    steps += [f"if features or PCA change, {loss}" for loss in list_losses(run.output)]
    return {"config": config.as_dict(), "steps": steps}


def _model_step(config: Config, model: Model | None) -> str:
    if model is None:
        address = find_card(config.model).weights.address()
        return f"fetch the weights of {config.model} from {address}"
    contract = model.contract
    name = contract.model if config.precision == "float32" else f"{contract.model} in int8"
    return f"use {name}, contract {contract.short_hash}: {contract.n_features} features"


def _weights_are_missing(config: Config) -> bool:
    if not config.built_in_model or config.weights is not None:
        return False
    return find_card(config.model).weights.find() is None


def _output_steps(run: Run, listing: Listing | None, model: Model | None) -> list[str]:
    """Say what becomes of what OUT holds."""
    config, output = run.config, run.output
    holds = output.folder.exists(RUN)
    verb = ("replace the result in" if config.overwrite else "add to") if holds else "write to"
    if listing is None or model is None:
        return [f"{verb} {output.root}"]
    state = find_state(output, listing.source, model.contract, overwrite=config.overwrite)
    known = _read_known(output, state)
    work = compare(listing.photos, known, accept_truncated=config.accept_truncated)
    n_done = len(listing.photos) - len(work.todo)
    done = f" ({n_done:,} are done already)" if n_done else ""
    steps = [f"compute the features of {len(work.todo):,} photos{done}", f"{verb} {output.root}"]
    if work.gone:
        what = "drop" if config.prune else "keep"
        steps.append(f"{what} the rows of {len(work.gone):,} photos that have disappeared")
    return steps


def _session(run: Run) -> SparkSession:
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        return get_session(run.config)
    with run.stage("start Spark"):
        return get_session(run.config, brief=True)


def _import_meanwhile(*names: str) -> None:
    """Load in a thread what the last stages need, while this one waits for Java to start."""

    def load() -> None:
        for name in names:
            importlib.import_module(name)

    threading.Thread(target=load, name="import", daemon=True).start()


# The stages


def _featurize(run: Run, planned: Plan, *, reduce: bool) -> None:
    """Write ``features/``, ``rejected/`` and ``run.json``.

    A result with too many rejected photos takes the place of none that is there; where there is
    none, it shows what was rejected.
    """
    started = datetime.now(UTC)
    config, output, model = run.config, run.output, planned.model
    spark = _session(run)
    listing = _listing(run, spark, planned, reduce=reduce)
    # Once more, now that nobody else may change it.
    state = find_state(output, listing.source, model.contract, overwrite=config.overwrite)
    n_computed = _compute(run, spark, planned, listing, state)
    with run.stage("write"):
        batches = _batches(output)
        known = read_known(output.folder, sources_of(state.published, batches))
        found = compose(listing.photos, known, prune=config.prune)
        counts = replace(
            found.counts, computed=n_computed, bytes=listing.n_bytes, ignored=listing.ignored
        )
        ours = [batch for batch in batches if batch.name not in set(state.markers)]
        spent = (
            sum_by_worker(
                [(batch.n_photos, batch.spent) for batch in ours],
                wall_s=run.seconds["featurize"],
                cores=spark.sparkContext.defaultParallelism,
            )
            if ours
            else None
        )
        record = describe_run(
            run, listing.source, model, spark, started=started, counts=counts, spent=spent
        )
        if output.folder.exists(RUN):
            check_error_rate(output.root, config, listing.photos, known, replaces=True)
        run.check_lock()
        if state.record is None or found.changes:
            record = publish_features(
                spark,
                output,
                found,
                record,
                added=state.record is not None,
                legacy=config.legacy_parquet,
            )
        else:
            record = _carry_over(state.record, record)
            output.clear_journal()
    _save(run, record)
    check_error_rate(output.root, config, listing.photos, known, replaces=False)


def _listing(run: Run, spark: SparkSession, planned: Plan, *, reduce: bool) -> Listing:
    if planned.listing is not None:
        return planned.listing
    config, source = run.config, planned.source
    with run.stage("list"):
        listing = list_with_spark(
            spark,
            source,
            glob=config.glob,
            recursive=config.recursive,
            label_from=config.label_from,
        )
    if reduce:
        _check_count(len(listing.photos), source, config)
    return listing


def _batches(output: Output) -> list[Batch]:
    attempt = latest_attempt(output)
    return attempt.batches() if attempt else []


def _read_known(output: Output, state: State) -> Known:
    return read_known(output.folder, sources_of(state.published, _batches(output)))


def _compute(run: Run, spark: SparkSession, planned: Plan, listing: Listing, state: State) -> int:
    """Commit the features of all photos that have none yet; return how many there were.

    A job that dies of a photo, or of a machine, is followed by another that goes on from what
    was committed.
    """
    contract, markers, n_todo = planned.model.contract, state.markers, []
    if not markers:
        run.output.clear_journal()
    start = Start(
        source=listing.source,
        contract_hash=contract.hash,
        contract=contract.as_dict(),
        fresh=state.record is None,
        overwrite=run.config.overwrite,
    )
    keep_model(run.output, planned.model)
    for number in range(1, ROUNDS + 1):
        attempt = start_attempt(run.output, replace(start, adopted=tuple(markers)))
        known = _read_known(run.output, state)
        work = compare(listing.photos, known, accept_truncated=run.config.accept_truncated)
        n_todo.append(len(work.todo))
        if not n_todo[-1]:
            break
        try:
            _commit(run, spark, planned, listing, work, attempt, careful=number > 1)
            break
        except Exception as err:
            ours = error_inside(err)
            if ours is not None:
                raise ours from err
            if number == ROUNDS or not worth_another_try(err, spark):
                raise
            markers = attempt.markers()
    return n_todo[0]


#: Rows of Arrow batches that hold photos' bytes: Spark's 10,000 would be 50 GB of phone photos.
_FEW_ROWS = {"spark.sql.execution.arrow.maxRecordsPerBatch": "16"}


def _commit(
    run: Run,
    spark: SparkSession,
    planned: Plan,
    listing: Listing,
    work: Work,
    attempt: Attempt,
    *,
    careful: bool,
) -> None:
    """Run the one job that reads photos."""
    config = run.config
    extraction = Extraction(
        model=planned.model,
        commit_every=config.commit_every,
        micro_batch=config.micro_batch,
        decoding=Decoding(
            accept_truncated=config.accept_truncated,
            timeout_s=config.decode_timeout_s,
            apart=careful,
        ),
    )
    with (
        run.stage("featurize", len(work.todo), spark),
        overseen(spark, attempt, config, before=work.rejected, n_listed=len(listing.photos)),
    ):
        if config.reader == "arrow":
            parallelism = spark.sparkContext.defaultParallelism
            photos, n_tasks = cut_listing(work.todo, parallelism, config.partitions)
            shares = Shares.write(run.output.folder, attempt.shares, photos, n_tasks)
            commit_shares(spark, shares, attempt, extraction)
            return
        images = read_images(
            spark,
            Listing(listing.source, work.todo, {}, listing.recursive),
            glob=config.glob,
            reader="spark",
            partitions=config.partitions,
        )
        with settings_for_block(spark, _FEW_ROWS):
            commit_features(images, attempt, extraction)
        commit_unread(_without_batch(run.output, work.todo, attempt), attempt)


def _without_batch(output: Output, photos: pa.Table, attempt: Attempt) -> pa.Table:
    """Return the photos that an attempt has committed no row of: Spark's reader left them out."""
    batches = attempt.read(attempt.own_markers())
    done = read_known(output.folder, sources_of({}, batches)).rows["path"]
    return photos.filter(pa.array(~photos["path"].to_pandas().isin(done)))


def _carry_over(old: RunRecord, record: RunRecord) -> RunRecord:
    """Return the record of a run that had nothing to do: the PCA and all files stay."""
    config = dict(record.config) | {name: old.option(name) for name in REDUCE_OPTIONS}
    return replace(record, files=old.files, pca=old.pca, config=config)


def _validate(run: Run) -> None:
    spark = _session(run)
    with run.stage("validate"):
        report = validate.validate_output(spark, run.output)
    _save(run, replace(run.output.read_run(), checks=report.checks))
    report.raise_if_broken()


def _pca_is_stale(run: Run) -> bool:
    """Whether the PCA is missing, or is not the one that is asked for."""
    record, config = run.output.read_run(), run.config
    if record.pca is None or "pca" not in record.files:
        return True
    return any(record.option(name) != getattr(config, name) for name in REDUCE_OPTIONS)


def _reduce(run: Run) -> None:
    """Write ``pca/``, ``models/``, ``explained_variance.csv`` and ``scree.png``."""
    output, config = run.output, run.config
    record = output.read_run()
    n, contract = record.counts.featurized, record.contract_hash
    if n < 2:
        raise ReduceError(
            f"n_samples={n} must be at least 2 for a PCA; "
            "the features are written, verger report shows them"
        )
    spark = _session(run)
    with run.stage("reduce", n, spark):
        moments, n_summed = _sum_moments(output, spark, contract)
        pca = fit_pca(
            moments.sums, config.components, standardize=config.standardize, center=config.center
        )
        output.folder.remove_tree(STAGED)
        features = output.parts("features")
        with ThreadPoolExecutor(1) as pool:
            scree = pool.submit(plots.scree_plot, pca)  # the tasks have work of their own
            parts = write_scores(
                spark, output.folder, features, pca, contract=contract, below=STAGED
            )
            written = _write_pca(output, pca, moments, contract)
            output.folder.write(f"{STAGED}/{SCREE}", scree.result())
        record = _with_pca(record, parts, describe_pca(pca, config, summed=n_summed), run)
        names = [*(part.name for part in parts), *written, SCREE]
        run.check_lock()
        output.publish(
            record,
            add=[(f"{STAGED}/{name}", name) for name in names],
            remove=output.derived_files(),
            attempts=False,
        )
    _save(run, record)


def _with_pca(record: RunRecord, parts: list[Part], pca: PCARecord, run: Run) -> RunRecord:
    """Return the record of a result with another PCA; its checks were about the one before."""
    options = dict(record.config) | {name: getattr(run.config, name) for name in REDUCE_OPTIONS}
    return replace(
        record,
        files=dict(record.files) | {"pca": tuple(parts)},
        pca=pca,
        checks=None,
        config=options,
        command=command_line(record.source, run.output, options),
    )


def _sum_moments(output: Output, spark: SparkSession, contract: str) -> tuple[StoredMoments, int]:
    """Return the sums over all features, and how many rows had to be read for them."""
    names = output.part_names("features")
    stored = load_moments(output.folder, MOMENTS_NPZ, contract=contract)
    if stored is None or not set(stored.parts) <= set(names):
        sums = sum_stored_moments(spark, output.folder, names)
        return StoredMoments(sums, tuple(names)), sums.n
    new = [name for name in names if name not in stored.parts]
    if not new:
        return stored, 0
    added = sum_stored_moments(spark, output.folder, new)
    return StoredMoments(stored.sums + added, tuple(names)), added.n


def _write_pca(output: Output, pca: FittedPCA, moments: StoredMoments, contract: str) -> list[str]:
    """Write the models and the spectrum into staging; return their names."""
    files = {
        PCA_NPZ: pca.to_npz(contract=contract),
        MOMENTS_NPZ: moments.to_npz(contract=contract),
        SPECTRUM: spectrum_csv(pca).encode(),
    }
    for name, content in files.items():
        output.folder.write(f"{STAGED}/{name}", content)
    spark_files = write_spark_model(pca, output.folder, f"{STAGED}/{SPARK_PCA}")
    return [*files, *(name.removeprefix(f"{STAGED}/") for name in spark_files)]


def _report(run: Run) -> None:
    from verger.job.report import write_report

    record = _timed(run, run.output.read_run())
    spark = _session(run)
    run.check_lock()
    with run.stage("report"):
        write_report(spark, run.output, record)
    _save(run, record)


def _timed(run: Run, record: RunRecord) -> RunRecord:
    """Return a record with the seconds of the stages that have ended."""
    return replace(record, seconds=dict(record.seconds) | run.seconds)


def _save(run: Run, record: RunRecord) -> None:
    run.check_lock()
    run.output.write_run(_timed(run, record))
