"""The stages in order: what is written where, from which table, and how long it took.

::

    source -> featurize -> features/ rejected/ -> reduce -> pca/ models/ -> validate -> report

Read this file from top to bottom to know what ``verger run`` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from verger.config import Config
from verger.engine.choose import check_engine
from verger.errors import (
    KEPT,
    ErrorRateError,
    OutputExistsError,
    ReduceError,
    ValidationError,
    VergerError,
)
from verger.job import validate
from verger.job.compute import featurize
from verger.job.context import Run, Watch, no_watch
from verger.job.plan import committed_batches, plan
from verger.job.record import REPORT_OPTIONS
from verger.job.reduce import pca_is_stale, reduce_features
from verger.job.unchanged import up_to_date
from verger.redaction import redact
from verger.result.output import REPORT, Output
from verger.result.record import FAILED, RunRecord

# Whole commands


def run(
    source: str | Path,
    out: str | Path,
    config: Config,
    *,
    watch: Watch = no_watch,
    notices: tuple[str, ...] = (),
) -> RunRecord:
    """Featurize, reduce, validate and report; resume a killed run, take in what is new.

    Parameters
    ----------
    source : path
        Folder or bucket of photos.
    out : path
        Folder of the result, or ``s3://bucket/prefix``.
    config : Config
    watch, notices
        Shows progress; what the report tells its reader beside the numbers.

    Returns
    -------
    RunRecord
        What ``run.json`` holds; with ``up_to_date`` if there was nothing to do.

    Raises
    ------
    VergerError
        See :mod:`verger.errors`; what was committed before stays in OUT.

    Examples
    --------
    >>> verger.run("photos/", "result/", verger.Config(model="efficientnet_lite0")).counts.listed
    30
    """
    run = Run(Output.at(out), config, watch, notices)
    _check_report(config)
    with run:
        planned = plan(run, os.fspath(source), reduce=True)
        if unchanged := up_to_date(run, planned, reduce=True):
            return unchanged
        check_engine(config)
        with run.locked(), _ended(run):
            featurize(run, planned, reduce=True)
            if pca_is_stale(run):
                reduce_features(run)
            _validate(run)
            _report(run)
    return run.output.read_run()


def run_featurize(
    source: str | Path, out: str | Path, config: Config, *, watch: Watch = no_watch
) -> RunRecord:
    """Write ``features/`` and ``rejected/`` alone; see :func:`run`."""
    run = Run(Output.at(out), config, watch)
    with run:
        planned = plan(run, os.fspath(source), reduce=False)
        if unchanged := up_to_date(run, planned, reduce=False):
            return unchanged
        check_engine(config)
        with run.locked(), _ended(run):
            featurize(run, planned, reduce=False)
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
    with run, run.locked():
        if "pca" in run.output.read_run().files and not config.overwrite:
            raise OutputExistsError(
                f"OUT={run.output.root}: has a PCA already; --overwrite replaces it"
            )
        reduce_features(run)
    return run.output.read_run()


def run_validate(
    out: str | Path, config: Config, *, watch: Watch = no_watch
) -> validate.Validation:
    """Re-derive every count of a stored result; see :mod:`verger.job.validate`."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    with run:
        engine = run.engine
        with run.stage("validate"):
            return validate.validate_output(engine, run.output)


def run_report(out: str | Path, config: Config, *, watch: Watch = no_watch) -> RunRecord:
    """Write ``report.html`` and ``report.json`` of a stored result."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    _check_report(config)
    with run, run.locked():
        _report(run)
    return run.output.read_run()


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Write down that a run has come to its end, though it may be a bad one.

    What ends it before has the note :data:`verger.errors.KEPT`, if something is committed.

    A run that was killed never says so, and goes on if it is started again, with ``--overwrite``
    too. A run that fails with a result leaves a report of it.
    """
    try:
        yield
    except (ErrorRateError, ReduceError, ValidationError) as err:
        if not run.saved:  # what OUT holds is of a run before this one
            raise
        told = _report_failure(run, err)
        _write_end(run)
        raise type(err)(f"{err}; {told}") from err
    except BaseException as err:
        if _has_committed(run):
            err.add_note(KEPT)
        raise
    _write_end(run)


def _has_committed(run: Run) -> bool:
    with suppress(VergerError, OSError):
        return run.saved or bool(committed_batches(run.output))
    return False


def _report_failure(run: Run, err: VergerError) -> str:
    """Write the report of a result that is not what it should be; return where it is."""
    record = run.output.read_run()
    run.save(replace(record, notices=(*record.notices, f"{FAILED}{redact(str(err))}")))
    try:
        _report(run)
    except (VergerError, OSError) as failed:
        return f"its report cannot be written: {failed}"
    return f"its report is {run.output.address(REPORT)}"


def _write_end(run: Run) -> None:
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    run.check_lock()
    run.output.write_run(replace(run.output.read_run(), finished=finished))


def _validate(run: Run) -> None:
    with run.stage("validate"):
        report = validate.validate_output(run.engine, run.output)
    run.save(replace(run.output.read_run(), checks=report.checks))
    report.raise_if_broken()


def _check_report(config: Config) -> None:
    """Find out before anything is computed whether the report can be made as it is asked for."""
    if config.neighbour_map:
        from verger.job.report.neighbours import require_tsne

        require_tsne()


def _report(run: Run) -> None:
    from verger.job.report.stage import write_report

    record = run.timed(run.output.read_run())
    asked = {name: getattr(run.config, name) for name in REPORT_OPTIONS}
    given = {name: value for name, value in asked.items() if value}
    record = replace(record, config=dict(record.config) | given)
    engine = run.engine
    run.check_lock()
    with run.stage("report"):
        write_report(engine, run.output, record)
    run.save(record)
