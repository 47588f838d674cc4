"""The share of rejected photos: of those that are listed, and of no others."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from verger.config import Config
from verger.errors import ErrorRateError
from verger.job.overseer import check_error_rate
from verger.result.ledger import Ledger


def known(**reasons: str | None) -> Ledger:
    rows = pd.DataFrame({"path": list(reasons), "reason": list(reasons.values())})
    return Ledger([], rows, rows[:0])


def check(listed: str, found: Ledger, rate: float, **options: Any) -> None:
    photos = pa.table({"path": list(listed)})
    check_error_rate("/out", Config(max_error_rate=rate), photos, found, **options)


def test_a_share_up_to_the_bound_passes() -> None:
    """One of four is a quarter, and no more."""
    found = known(a="empty", b=None, c=None, d=None)
    check("abcd", found, 0.25, replaces=False)
    with pytest.raises(ErrorRateError, match=r"1 of 4 photos were rejected \(1 empty\)"):
        check("abcd", found, 0.24, replaces=False)


def test_photos_that_have_disappeared_do_not_count() -> None:
    """Whoever deletes his broken photos has none."""
    check("bcd", known(a="empty", b=None, c=None, d=None), 0.0, replaces=False)


@pytest.mark.parametrize(
    ("replaces", "told"),
    [(True, "the result in /out is as it was"), (False, "what was done is in /out, see verger")],
)
def test_it_is_told_what_became_of_the_work(replaces: bool, told: str) -> None:
    """Whether a result that was there before has been replaced."""
    with pytest.raises(ErrorRateError, match=told):
        check("a", known(a="empty"), 0.0, replaces=replaces)
