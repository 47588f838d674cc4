"""Whether a result is what a run would make it: found out on the driver, without an engine."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from itertools import chain

from verger.errors import SourceError, VergerError
from verger.files.folder import Entry
from verger.job.context import Run
from verger.job.plan import Plan, list_source
from verger.job.record import REDUCE_OPTIONS, REPORT_OPTIONS, with_listing
from verger.result.ledger import Composition, compare, compose, read_ledger, rows_files
from verger.result.output import JOURNAL, PUBLISH, REPORT, RUN, STOPPED, Output
from verger.result.record import RunRecord
from verger.source.listing import Listing
from verger.source.notes import describe_source


def up_to_date(run: Run, planned: Plan, *, reduce: bool) -> RunRecord | None:
    """Return the record of a result that a run would not change; None if it has something to do.

    The listing, the ledger, the contract, the options of the PCA and the files' sizes are
    compared. What the files hold is not read: ``verger validate`` does that.

    Parameters
    ----------
    run : Run
    planned : Plan
    reduce : bool
        Whether the run is to fit a PCA, validate and report.
    """
    record = _finished_result(run, planned, reduce=reduce)
    if record is None:
        return None
    listing = planned.listing or _without_spark(run, planned.source)
    composition = None if listing is None else _same_composition(run, record, listing)
    if listing is None or composition is None:
        return None
    notes = describe_source(listing, run.config.label_from, composition.labels)
    return replace(
        record,
        counts=replace(record.counts, computed=0, relabelled=0),
        notices=(*run.notices, *notes),  # of this listing: its labels may be from another list
        seconds=dict(run.seconds),
        spent=None,
        up_to_date=True,
    )


def _finished_result(run: Run, planned: Plan, *, reduce: bool) -> RunRecord | None:
    """Return the record of OUT if it is whole, of this version, and asks for the same."""
    output, config, folder = run.output, run.config, run.output.folder
    if config.overwrite or not folder.exists(RUN):
        return None
    if folder.exists(PUBLISH) or folder.folders(JOURNAL) or output.own_files(STOPPED):
        return None
    record = output.read_run()
    if record.finished is None or record.verger != version("verger"):
        return None
    if (record.contract_hash, record.source) != (planned.model.contract.hash, planned.source):
        return None
    if reduce and not _has_same_pca(run, record):
        return None
    return record if _has_its_files(output, record) else None


def _has_same_pca(run: Run, record: RunRecord) -> bool:
    """Whether the PCA is the one that is asked for, every check held, and there is a report."""
    if record.pca is None or "pca" not in record.files:
        return False
    asked = (*REDUCE_OPTIONS, *REPORT_OPTIONS)
    if any(record.option(name) != getattr(run.config, name) for name in asked):
        return False
    if not record.checks or not all(check.holds for check in record.checks):
        return False
    return run.output.folder.exists(REPORT)


def _has_its_files(output: Output, record: RunRecord) -> bool:
    there = {entry for table in record.files for entry in output.folder.files(table)}
    parts = chain.from_iterable(record.files.values())
    return there >= {Entry(part.name, part.size) for part in parts}


def _without_spark(run: Run, source: str) -> Listing | None:
    """List a source that Spark is to read; None where only Spark reaches it."""
    if "://" in source and not source.startswith("s3://"):
        return None
    try:
        return list_source(run, source)
    except SourceError:
        return None


def _same_composition(run: Run, record: RunRecord, listing: Listing) -> Composition | None:
    """Return the rows of a result if every listed photo has its own, and its group; else None."""
    config, before = run.config, replace(record.counts, computed=0, relabelled=0)
    if with_listing(before, listing) != before:  # as after most changes: no file is read
        return None
    try:
        ledger = read_ledger(run.output.folder, rows_files(record.files, []))
    except VergerError:  # the run itself says what is wrong
        return None
    work = compare(listing.photos, ledger, accept_truncated=config.accept_truncated)
    if len(work.todo) or len(work.rejected) > config.max_error_rate * len(listing.photos):
        return None
    composition = compose(listing.photos, ledger, prune=config.prune)
    same = with_listing(composition.counts, listing) == before and not composition.changes
    return composition if same and listing.groups == run.output.read_groups() else None
