"""The stage that computes features: ``features/``, ``rejected/`` and ``run.json``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.engine.session import settings_for_block
from verger.engine.spark import SparkEngine
from verger.engine.tasks import OnProgress
from verger.errors import ErrorRateError, TasksLostError
from verger.features.featurize import commit_frame
from verger.features.outcomes import Decoding
from verger.features.precision import keep_model
from verger.features.task import Extraction, commit_share, commit_unread
from verger.files.shares import Shares
from verger.job.context import Run
from verger.job.overseer import Overseer, check_error_rate
from verger.job.plan import Plan, check_count, committed_batches, listing_options, read_ledger_of
from verger.job.publish import publish_features
from verger.job.record import REDUCE_OPTIONS, describe_run
from verger.job.resume import State, find_state
from verger.job.stopped import report_stopped
from verger.result.clock import Spent, sum_by_worker
from verger.result.journal import Attempt, Batch, BatchWriter, Start, start_attempt
from verger.result.ledger import compare, compose, read_ledger, rows_files
from verger.result.output import RUN, STOPPED, Output
from verger.result.record import RunRecord
from verger.source.cut import cut_listing
from verger.source.listing import Listing
from verger.source.spark_reader import list_with_spark, read_images

if TYPE_CHECKING:
    from verger.features.model import Model
    from verger.result.ledger import Ledger, Work


_LOG = logging.getLogger("verger")

#: Jobs that are tried for one run: the second and third go on from what the one before has
#: committed, and decode apart.
ROUNDS = 3


# The stages


def featurize(run: Run, planned: Plan, *, reduce: bool) -> None:
    """Write ``features/``, ``rejected/`` and ``run.json``.

    A result with too many rejected photos takes the place of none that is there; where there is
    none, it shows what was rejected. A run that was stopped leaves a report of that.

    Raises
    ------
    ErrorRateError
        If too many photos were rejected.
    """
    started = datetime.now(UTC)
    config, output, model = run.config, run.output, planned.model
    listing = _listing(run, planned, reduce=reduce)
    # Once more, now that nobody else may change it.
    state = find_state(output, listing.source, model.contract, overwrite=config.overwrite)
    try:
        n_computed = _compute(run, planned, listing, state)
        with run.stage("write"):
            record, ledger = _publish(run, model, listing, state, started, n_computed)
    except ErrorRateError as err:
        told = report_stopped(run, model, listing, state, started=started, err=err)
        raise ErrorRateError(f"{err}; {told}") from err
    run.save(record)
    check_error_rate(output.root, config, listing.photos, ledger, replaces=False)


def _publish(
    run: Run, model: Model, listing: Listing, state: State, started: datetime, n_computed: int
) -> tuple[RunRecord, Ledger]:
    """Publish what was committed; return the record of the result, and all its rows."""
    config, output, engine = run.config, run.output, run.engine
    batches = committed_batches(output)
    ledger = read_ledger(output.folder, rows_files(state.published, batches))
    if output.folder.exists(RUN):
        check_error_rate(output.root, config, listing.photos, ledger, replaces=True)
    composition = compose(listing.photos, ledger, prune=config.prune)
    ours = [batch for batch in batches if batch.name not in set(state.markers)]
    record = describe_run(
        run,
        listing,
        model,
        started=started,
        counts=replace(composition.counts, computed=n_computed),
        labels=composition.labels,
        spent=_spent(run, ours),
    )
    run.check_lock()
    added, groups = state.record is not None, listing.groups
    if state.record is not None:
        record = replace(record, runs=(*state.record.runs, state.record.as_past()))
    if state.record is not None and not composition.changes and groups == output.read_groups():
        output.clear_journal()
        for name in output.own_files(STOPPED):
            output.folder.remove(name)
        return _carry_over(state.record, record), ledger
    how = {"added": added, "legacy": config.legacy_parquet}
    record = publish_features(engine, output, composition, record, groups=groups, **how)
    return record, ledger


def _spent(run: Run, batches: Sequence[Batch]) -> Spent | None:
    """Sum what the batches of this run have cost; None where no worker had anything to do."""
    if not batches:
        return None
    readings = [(batch.n_photos, batch.spent) for batch in batches]
    return sum_by_worker(readings, wall_s=run.seconds["featurize"], cores=run.engine.n_cores)


def _listing(run: Run, planned: Plan, *, reduce: bool) -> Listing:
    if planned.listing is not None:
        return planned.listing
    config, source = run.config, planned.source
    with run.stage("list"):
        session = _spark(run).session
        listing = list_with_spark(session, source, **listing_options(config))
    if reduce:
        check_count(len(listing.photos), source, config)
    return listing


def _compute(run: Run, planned: Plan, listing: Listing, state: State) -> int:
    """Commit the features of all photos that have none yet; return how many there were.

    A job that dies of a photo, or of a machine, is followed by another that goes on from what
    was committed.
    """
    contract, markers, n_todo = planned.model.contract, state.markers, []
    if not markers:
        run.output.clear_journal()
    start = Start(
        model=run.config.model,
        source=listing.source,
        contract_hash=contract.hash,
        contract=contract.as_dict(),
        fresh=state.record is None,
        overwrite=run.config.overwrite,
    )
    keep_model(run.output, planned.model)
    for number in range(1, ROUNDS + 1):
        attempt = start_attempt(run.output, replace(start, adopted=tuple(markers)))
        ledger = read_ledger_of(run.output, state)
        work = compare(listing.photos, ledger, accept_truncated=run.config.accept_truncated)
        n_todo.append(len(work.todo))
        if not n_todo[-1]:
            break
        try:
            _commit(run, planned, listing, work, attempt, careful=number > 1)
            break
        except TasksLostError as err:
            if number == ROUNDS:
                raise
            _LOG.warning("%s; going on from what is committed, with decoding apart", err)
            markers = attempt.markers()
    return n_todo[0]


#: Rows of Arrow batches that hold photos' bytes: Spark's 10,000 would be 50 GB of phone photos.
_FEW_ROWS = {"spark.sql.execution.arrow.maxRecordsPerBatch": "16"}


def _commit(
    run: Run, planned: Plan, listing: Listing, work: Work, attempt: Attempt, *, careful: bool
) -> None:
    """Run the one job that reads photos."""
    config, engine = run.config, run.engine
    extraction = Extraction(
        model=planned.model,
        writer=BatchWriter.of(attempt),
        commit_every=config.commit_every,
        micro_batch=config.micro_batch,
        decoding=Decoding(
            accept_truncated=config.accept_truncated,
            timeout_s=config.decode_timeout_s,
            apart=careful,
        ),
    )
    overseer = Overseer(attempt, config, before=work.rejected, n_listed=len(listing.photos))
    with run.stage("featurize", len(work.todo)) as progress:
        on_progress = partial(_both, overseer.on_tasks, progress.on_tasks)
        if isinstance(engine, SparkEngine) and config.reader == "spark":
            _commit_with_sparks_reader(run, listing, work, attempt, extraction, on_progress)
            return
        photos, n_tasks = cut_listing(work.todo, engine.n_cores, config.partitions)
        shares = Shares.write(run.output.folder, attempt.shares, photos, n_tasks)
        engine.run(commit_share, n_tasks, (shares, extraction), on_progress=on_progress)


def _both(first: OnProgress, second: OnProgress, done: int, n_tasks: int) -> None:
    first(done, n_tasks)
    second(done, n_tasks)


def _commit_with_sparks_reader(
    run: Run,
    listing: Listing,
    work: Work,
    attempt: Attempt,
    extraction: Extraction,
    on_progress: OnProgress,
) -> None:
    config, engine = run.config, _spark(run)
    images = read_images(
        engine.session,
        Listing(listing.source, work.todo, {}, listing.recursive),
        glob=config.glob,
        reader="spark",
        partitions=config.partitions,
    )
    with settings_for_block(engine.session, _FEW_ROWS):
        commit_frame(engine, images, extraction, on_progress)
    commit_unread(_without_batch(attempt.output, work.todo, attempt), attempt)


def _spark(run: Run) -> SparkEngine:
    """Return the engine of a run whose reader is Spark's."""
    assert isinstance(run.engine, SparkEngine)  # noqa: S101 - reader="spark" wants Spark
    return run.engine


def _without_batch(output: Output, photos: pa.Table, attempt: Attempt) -> pa.Table:
    """Return the photos that an attempt has committed no row of: Spark's reader left them out."""
    batches = attempt.read(attempt.own_markers())
    done = read_ledger(output.folder, rows_files({}, batches)).rows["path"]
    return photos.filter(pa.array(~photos["path"].to_pandas().isin(done)))


def _carry_over(old: RunRecord, record: RunRecord) -> RunRecord:
    """Return the record of a run that had nothing to do: the PCA and all files stay."""
    config = dict(record.config) | {name: old.option(name) for name in REDUCE_OPTIONS}
    return replace(record, files=old.files, pca=old.pca, config=config)
