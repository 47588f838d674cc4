"""A log takes no more memory than its bound."""

from __future__ import annotations

import gzip

import pytest

from verger.emr import runs


@pytest.mark.parametrize("n_members", [1, 3])
def test_a_log_that_unpacks_to_much_is_cut(monkeypatch: pytest.MonkeyPatch, n_members: int) -> None:
    """Of one gzip member and of several."""
    monkeypatch.setattr(runs, "MAX_LOG_BYTES", 1000)
    assert runs.unzip_log(gzip.compress(bytes(900)) * n_members) == bytes(
        min(900 * n_members, 1000)
    )
    assert runs.unzip_log(gzip.compress(bytes(5000)) * n_members) == bytes(1000)
