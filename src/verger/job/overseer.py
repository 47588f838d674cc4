"""Watches the job that computes features, and ends it when too many photos are rejected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from verger.config import Config
from verger.errors import ErrorRateError, OutputError
from verger.result.journal import FIRST_REJECTED, Attempt, Batch, Rejection

if TYPE_CHECKING:
    import pyarrow as pa

    from verger.result.ledger import Ledger

#: How often the journal is read while the job runs: a bucket charges for every request.
LOOK_S = 1.0
_LOOK_AT_BUCKET_S = 10.0


class Overseer:
    """Counts the rejected photos of a run while its job commits batches.

    Parameters
    ----------
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
        If there are too many already.
    """

    def __init__(
        self, attempt: Attempt, config: Config, *, before: Sequence[Rejection], n_listed: int
    ) -> None:
        self._attempt = attempt
        self._seen: set[str] = set()
        self._batches: dict[str, Batch] = {}
        self._before = before
        self._n_listed = n_listed
        self._config = config
        self._pause_s = LOOK_S if attempt.output.folder.is_local else _LOOK_AT_BUCKET_S
        self._looked = time.monotonic()
        self._check()

    def on_tasks(self, *_: int) -> None:
        """Read what was committed since the last look, at most once in a while.

        Raises
        ------
        ErrorRateError
            If the run can no longer end within ``max_error_rate``; names the first rejected
            photos. What is committed stays committed.
        """
        if time.monotonic() - self._looked < self._pause_s:
            return
        self._looked = time.monotonic()
        with suppress(OutputError, OSError):  # the next look may succeed
            fresh = [name for name in self._attempt.own_markers() if name not in self._seen]
            found = self._attempt.read(fresh)
            self._seen |= {batch.name for batch in found}
            # By key: two attempts of one task may both commit it.
            self._batches |= {batch.key: batch for batch in found}
        self._check()

    def _check(self) -> None:
        if self._n_rejected > self._config.max_error_rate * self._n_listed:
            raise self._error()

    @property
    def _n_rejected(self) -> int:
        return len(self._before) + sum(batch.n_rejected for batch in self._batches.values())

    def _error(self) -> ErrorRateError:
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


def check_error_rate(
    root: str, config: Config, photos: pa.Table, ledger: Ledger, *, replaces: bool
) -> None:
    """Fail a run of which too many photos were rejected.

    Parameters
    ----------
    root : str
        OUT.
    config : Config
    photos : pyarrow.Table
        The listed ones: rows of photos that have disappeared do not count.
    ledger : Ledger
        What became of them.
    replaces : bool
        Whether the result of a run before would be replaced, and is not.

    Raises
    ------
    ErrorRateError
    """
    here = ledger.rows[ledger.rows["path"].isin(photos["path"].to_pandas())]
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
