"""Watches the job that computes features: too many rejected photos, and whether to try again."""

from __future__ import annotations

import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from verger import errors
from verger.config import Config
from verger.errors import ErrorRateError, VergerError
from verger.result.journal import FIRST_REJECTED, Attempt, Batch, Rejection

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from verger.result.ledger import Known

#: How often the journal is looked at while the job runs: a bucket charges for every look.
LOOK_S = 1.0
_LOOK_AT_BUCKET_S = 10.0


class _Overseer:
    """Counts the rejected photos of a run while its job commits batches."""

    def __init__(
        self, attempt: Attempt, before: Sequence[Rejection], n_listed: int, config: Config
    ) -> None:
        self._attempt = attempt
        self._seen: set[str] = set()
        self._batches: dict[str, Batch] = {}
        self._before = before
        self._n_listed = n_listed
        self._config = config

    def too_many(self) -> bool:
        """Whether the run can no longer end within ``max_error_rate``."""
        fresh = [name for name in self._attempt.own_markers() if name not in self._seen]
        found = self._attempt.read(fresh)
        self._seen |= {batch.name for batch in found}
        # By key: two attempts of one task may both commit it.
        self._batches |= {batch.key: batch for batch in found}
        return self._n_rejected > self._config.max_error_rate * self._n_listed

    @property
    def _n_rejected(self) -> int:
        return len(self._before) + sum(batch.n_rejected for batch in self._batches.values())

    def error(self) -> ErrorRateError:
        reasons = Counter(row.reason for row in self._before)
        for batch in self._batches.values():
            reasons.update(batch.reasons)
        first = [*self._before, *(row for batch in self._batches.values() for row in batch.first)]
        n_done = sum(batch.n_photos for batch in self._batches.values())
        kept = (
            f"stopped early; what was done ({n_done} photos) is kept, and the same command with "
            "--max-error-rate 1 goes on from there"
        )
        return _error(self._n_rejected, self._n_listed, reasons, first, self._config, kept)


@contextmanager
def overseen(
    spark: SparkSession,
    attempt: Attempt,
    config: Config,
    *,
    before: Sequence[Rejection],
    n_listed: int,
) -> Iterator[None]:
    """Cancel the job of the block once more photos are rejected than ``max_error_rate`` allows.

    Parameters
    ----------
    spark : SparkSession
    attempt : Attempt
        Where the job commits its batches.
    config : Config
    before : sequence of Rejection
        Photos that were rejected before, and are not tried again.
    n_listed : int
        Photos of the source.

    Raises
    ------
    ErrorRateError
        Naming the first rejected photos; what is committed stays committed.
    """
    overseer = _Overseer(attempt, before, n_listed, config)
    if overseer.too_many():
        raise overseer.error()
    context, group = spark.sparkContext, f"verger-{uuid.uuid4().hex}"
    context.setJobGroup(group, "features of photos", interruptOnCancel=False)
    done, stopped = threading.Event(), threading.Event()
    pause_s = LOOK_S if attempt.output.folder.is_local else _LOOK_AT_BUCKET_S

    def look() -> None:
        while not done.wait(pause_s):
            with suppress(VergerError, OSError):  # the next look may succeed
                if overseer.too_many():
                    stopped.set()
                    context.cancelJobGroup(group)
                    return

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    try:
        yield
    except Exception:
        if stopped.is_set():
            raise overseer.error() from None
        raise
    finally:
        done.set()
        looker.join()
        context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]


def check_error_rate(
    root: str, config: Config, photos: pa.Table, known: Known, *, replaces: bool
) -> None:
    """Fail a run of which too many photos were rejected.

    Parameters
    ----------
    root : str
        OUT.
    config : Config
    photos : pyarrow.Table
        The listed ones: rows of photos that have disappeared do not count.
    known : Known
        What became of them.
    replaces : bool
        Whether the result of a run before would be replaced, and is not.

    Raises
    ------
    ErrorRateError
    """
    here = known.rows[known.rows["path"].isin(photos["path"].to_pandas())]
    rejected = here[here["reason"].notna()]
    if len(rejected) <= config.max_error_rate * len(photos):
        return
    rows = rejected.head(FIRST_REJECTED)
    first = [Rejection(path=p, reason=r) for p, r in zip(rows["path"], rows["reason"], strict=True)]
    kept = (
        f"the result in {root} is as it was, and what was done since is kept"
        if replaces
        else f"what was done is in {root}, see verger show OUT --table rejected"
    )
    kept += "; --max-error-rate 1 accepts it"
    reasons = rejected["reason"].value_counts().to_dict()
    raise _error(len(rejected), len(photos), reasons, first, config, kept)


def _error(
    n_rejected: int,
    n_listed: int,
    reasons: Mapping[str, int],
    first: Sequence[Rejection],
    config: Config,
    kept: str,
) -> ErrorRateError:
    most = sorted(reasons.items(), key=lambda item: -item[1])[:FIRST_REJECTED]
    named = ", ".join(f"{n} {reason}" for reason, n in most)
    examples = "; ".join(
        f"{row.path}: {row.reason}" + (f" ({row.detail})" if row.detail else "")
        for row in first[:FIRST_REJECTED]
    )
    return ErrorRateError(
        f"{n_rejected} of {n_listed} photos were rejected ({named}): more than "
        f"max_error_rate={config.max_error_rate}; first {examples}; {kept}"
    )


def worth_another_try(err: Exception, spark: SparkSession) -> bool:
    """Whether a job failed of a machine or of a photo, and not of something that will fail again.

    A worker or an executor that died may have died of a photo; the next job decodes apart.
    """
    if isinstance(err, VergerError) or error_inside(err) is not None:
        return False
    if spark.sparkContext._jsc is None or spark.sparkContext._jsc.sc().isStopped():
        return False
    text = str(err)
    return any(words in text for words in _DEATHS)


_DEATHS = (
    "Python worker exited unexpectedly",
    "Python worker failed to connect back",
    "ExecutorLostFailure",
    "Connection reset",
    "EOFException",
    "worker is no longer alive",
)


def error_inside(err: Exception) -> VergerError | None:
    """Return the error of ours that a task has raised and Spark has wrapped, or None."""
    found = re.findall(r"^\s*verger\.errors\.(\w+): (.*)$", str(err), re.MULTILINE)
    if not found:
        return None
    name, text = found[-1]
    kind = getattr(errors, name, VergerError)
    ours: VergerError = kind(text)
    return ours
