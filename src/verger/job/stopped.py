"""The report of a run that was stopped because too many photos were rejected.

It is then that a report is needed, and there is no result yet: it is about what was committed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from verger.errors import ErrorRateError, VergerError
from verger.files.tables import Piece
from verger.job.context import Run
from verger.job.plan import committed_batches
from verger.job.record import describe_run
from verger.job.resume import State
from verger.redaction import redact
from verger.result.ledger import Composition, RowsFile, compose, read_ledger, rows_files
from verger.result.output import REPORT, RUN, STOPPED

if TYPE_CHECKING:
    from verger.features.model import Model
    from verger.source.listing import Listing


def report_stopped(
    run: Run,
    model: Model,
    listing: Listing,
    state: State,
    *,
    started: datetime,
    err: ErrorRateError,
) -> str:
    """Write the report of a run that was stopped; return where it is, as a clause.

    It lies where the report of a result would, and in a folder of its own if OUT has a result.
    The next run that gets through removes it. What was committed stays as it is.
    """
    from verger.job.report.stage import Rows, Stopped, write_report

    below = f"{STOPPED}/" if run.output.folder.exists(RUN) else ""
    try:
        with run.stage("report"):
            batches = committed_batches(run.output)
            done = _compose_committed(run, listing, rows_files(state.published, batches))
            n_computed = sum(b.n_photos for b in batches if b.name not in state.markers)
            counts = replace(done.counts, computed=n_computed)
            record = describe_run(run, listing, model, started=started, counts=counts)
            rows = Rows(_pieces(done, "features"), _pieces(done, "rejected"))
            run.check_lock()
            write_report(run.engine, run.output, record, Stopped(redact(str(err)), rows, below))
    except (VergerError, OSError) as failed:
        return f"its report cannot be written: {failed}"
    return f"its report is {run.output.address(below + REPORT)}"


def _compose_committed(run: Run, listing: Listing, files: list[RowsFile]) -> Composition:
    """Compose what a result would be made of, if only the photos that are done were listed."""
    ledger = read_ledger(run.output.folder, files)
    paths = pa.array(ledger.rows["path"], pa.string())
    done = listing.photos.filter(pc.is_in(listing.photos["path"], value_set=paths))
    return compose(done, ledger, prune=run.config.prune)


def _pieces(done: Composition, table: str) -> list[Piece]:
    kept = (Piece(part.name, part.rows) for part in done.kept[table])
    return list(chain(kept, done.pieces[table]))
