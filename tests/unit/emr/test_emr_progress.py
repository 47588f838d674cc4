"""How far a run is, read out of the journal that it writes anyway."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from verger.emr.runs import CommitCounter
from verger.files.shares import Shares
from verger.files.tables import Part
from verger.result.journal import Attempt, Start, start_attempt
from verger.result.output import Output, as_json


def commit(attempt: Attempt, key: str, n: int) -> None:
    """Write the marker of a batch of so many photos."""
    part = Part(f"{attempt.path}/{key}.features.parquet", n, 1, "0" * 64)
    marker = {
        "key": key,
        "features": part.as_dict(),
        "rejected": None,
        "reasons": {},
        "first": [],
        "spent": {"worker": "w", "read": 0, "decode": 0, "model": 0, "write": 0},
    }
    attempt.output.folder.write(f"{attempt.path}/{key}-0123456789ab.json", as_json(marker))


def begin(output: Output, n: int, adopted: tuple[str, ...] = ()) -> Attempt:
    """Begin an attempt that has so many photos to do."""
    start = Start(
        source="s3://photos",
        contract_hash="x",
        contract={},
        fresh=True,
        overwrite=False,
        adopted=adopted,
    )
    attempt = start_attempt(output, start)
    photos = pa.table({"path": [str(i) for i in range(n)], "partition": [i % 3 for i in range(n)]})
    Shares.write(output.folder, attempt.shares, photos, 3)
    return attempt


def test_committed_photos_are_counted_of_those_to_do(tmp_path: Path) -> None:
    output, progress = Output.at(tmp_path), CommitCounter(str(tmp_path))
    assert progress.read() is None
    attempt = begin(output, 10)
    assert progress.read() == (0, 10)
    commit(attempt, "00000-00", 4)
    assert progress.read() == (4, 10)
    commit(attempt, "00001-00", 3)
    assert progress.read() == (7, 10)


def test_a_run_that_goes_on_counts_what_was_done_before(tmp_path: Path) -> None:
    """Seven of ten were done when it was cut off; the next attempt has three to do."""
    output, progress = Output.at(tmp_path), CommitCounter(str(tmp_path))
    first = begin(output, 10)
    commit(first, "00000-00", 7)
    assert progress.read() == (7, 10)
    second = begin(output, 3, tuple(first.markers()))
    assert progress.read() == (7, 10)
    commit(second, "00000-00", 3)
    assert progress.read() == (10, 10)


def test_a_journal_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    attempt = begin(Output.at(tmp_path), 10)
    attempt.output.folder.write(f"{attempt.path}/00000-00-0123456789ab.json", b"{")
    assert CommitCounter(str(tmp_path)).read() is None
    assert CommitCounter("gs://elsewhere/out").read() is None
