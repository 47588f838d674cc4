"""Records are read as they were written, and what is no record is refused with its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.results import run_record
from verger.errors import OutputError, SchemaError
from verger.files.records import MAX_RECORD_BYTES, as_json, read_record, to_plain
from verger.files.tables import Part
from verger.result.clock import Clock, sum_by_worker
from verger.result.journal import latest_attempt
from verger.result.lock import Lock
from verger.result.output import JOURNAL, LOCK, PUBLISH, RUN, Output
from verger.result.record import Check, Counts, PCARecord, RunRecord

PCA = PCARecord(
    n_samples=3,
    n_components=2,
    components=0.9,
    kept=0.95,
    standardize=False,
    center=False,
    first_ratios=(0.7, 0.2),
    k={"0.8": 1},
)
FULL = run_record(
    source="/photos",
    counts=Counts(listed=3, featurized=2, rejected=1, reasons={"empty": 1}, bytes=9),
    config={"overwrite": True, "components": 0.9, "glob": ["*.jpg"]},
    files={"features": (Part("features/a.parquet", 2, 9, "f00d"),), "rejected": ()},
    pca=PCA,
    checks=(Check("all is well", True, "3"),),
    spent=sum_by_worker([(3, Clock().reading())], wall_s=2, cores=2),
    finished="2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output.at(tmp_path / "out")


@pytest.mark.parametrize("record", [FULL, run_record()])
def test_a_record_is_read_as_it_was_written(out: Output, record: RunRecord) -> None:
    """Reading a record and writing it again changes no byte of run.json."""
    out.write_run(record)
    before = out.folder.read(RUN)
    assert out.read_run() == record
    out.write_run(out.read_run())
    assert out.folder.read(RUN) == before


def test_what_a_record_does_not_say_is_not_written() -> None:
    """A result without PCA, checks or an end has no such keys, and the others in their order."""
    plain = to_plain(run_record())
    assert not {"pca", "checks", "spent", "finished"} & set(plain)
    assert list(to_plain(FULL))[:4] == ["verger", "source", "output", "started"]


def test_an_old_run_json_is_readable(out: Output) -> None:
    """Keys that came later may be missing, and keys that are not known any more may be there."""
    old = to_plain(FULL) | {"more": 1}
    for key in ("verger", "started", "command", "versions", "machine", "notices", "config"):
        del old[key]
    old["counts"] = {"listed": 3, "featurized": 2, "rejected": 1}
    old["spent"]["workers"][0]["shares"] = {"read": 1.0}
    out.folder.write(RUN, json.dumps(old).encode())
    record = out.read_run()
    assert record.counts == Counts(listed=3, featurized=2, rejected=1)
    assert record.option("overwrite") is False


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (["source"], 3, r"source=3 must be text"),
        (["source"], None, r"source=None must be text"),
        (["counts"], [], r"counts=\[\] must be an object"),
        (["counts", "listed"], "3", r"counts.listed='3' must be a whole number"),
        (["counts", "listed"], True, r"counts.listed=True must be a whole number"),
        (["counts", "listed"], 3.5, r"counts.listed=3.5 must be a whole number"),
        (["counts", "listed"], -3, r"counts: listed=-3 must be at least 0"),
        (["counts", "rejected"], 10**30, r"counts.rejected=10+ must be a whole number"),
        (["counts", "reasons"], {"empty": "1"}, r"counts.reasons.empty='1' must be a whole number"),
        (["counts", "reasons"], {"empty": -1}, r"reasons.empty=-1 must be at least 0"),
        (["seconds"], {"list": -1.0}, r"seconds.list=-1.0 must be at least 0"),
        (["seconds"], {"list": {}}, r"seconds.list=\{\} must be a number"),
        (["files"], {"features": [{"name": "a"}]}, r"'files.features\[0\].rows' is missing"),
        (["files"], {"features": {"name": "a"}}, r"files.features=.* must be a list"),
        (["files", "features", 0, "rows"], -1, r"rows=-1 must be at least 0"),
        (["model", "published"], "yes", r"model.published='yes' must be true or false"),
        (["pca", "first_ratios"], ["a"], r"pca.first_ratios\[0\]='a' must be a number"),
        (["pca", "components"], "all", r"pca.components='all' must be a number"),
        (["checks"], [{"name": "x", "holds": 1, "detail": ""}], r"checks\[0\].holds=1 must be"),
        (["notices"], "note", r"notices='note' must be a list"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_key(
    out: Output, path: list[Any], value: object, told: str
) -> None:
    """A wrongly typed run.json is one message that names file and key, not a traceback."""
    plain = to_plain(FULL)
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    out.folder.write(RUN, json.dumps(plain).encode())
    with pytest.raises(SchemaError, match=rf"out/run\.json: is not of this version.*{told}"):
        out.read_run()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DEEP, "nested too deeply"),
        ('{"contract": ' + DEEP + "}", "nested too deeply"),
        ('{"seconds": {"list": NaN}}', "NaN is not a JSON number"),
        ('{"seconds": {"list": -Infinity}}', "-Infinity is not a JSON number"),
        ("9" * 5000, "cannot be read"),
    ],
)
def test_a_hostile_run_json_is_refused(out: Output, text: str, told: str) -> None:
    """Depth, NaN and endless numbers are one message."""
    out.folder.write(RUN, text.encode())
    with pytest.raises(SchemaError, match=rf"out/run\.json: .*{told}"):
        out.read_run()


@pytest.mark.parametrize("key", ["seconds", "contract"])
def test_a_number_too_large_for_a_float_is_refused(out: Output, key: str) -> None:
    """1e999 is JSON, and infinite: nothing could be computed with it, nor could it be written."""
    text = json.dumps(to_plain(FULL) | {key: {"list": "HUGE"}}).replace('"HUGE"', "1e999")
    out.folder.write(RUN, text.encode())
    with pytest.raises(SchemaError, match=rf"{key}.list=inf must be"):
        out.read_run()


def test_a_file_that_would_fill_the_memory_is_not_parsed() -> None:
    """JSON takes ten times its size in memory."""
    with pytest.raises(ValueError, match=r"size=64,000,001 bytes must be at most 64,000,000"):
        read_record(Check, b" " * (MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", DEEP.encode(), b'{"record": 3}'])
def test_a_damaged_announcement_is_refused(out: Output, content: bytes) -> None:
    """A publish.json that nobody can carry out is told with what to do."""
    out.folder.write(PUBLISH, content)
    with pytest.raises(SchemaError, match=r"publish\.json: cannot be read: .*remove it"):
        out.finish_publishing()


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b'{"adopted": 3}', DEEP.encode()])
def test_an_attempt_without_its_beginning_is_none(out: Output, content: bytes) -> None:
    """A damaged start.json begins no attempt."""
    out.folder.write(f"{JOURNAL}/0001-x/start.json", content)
    assert latest_attempt(out) is None


@pytest.mark.parametrize(
    "changes", [{"key": 3}, {"features": []}, {"first": [{}]}, {"spent": {}}, {"reasons": None}]
)
def test_a_marker_of_other_types_is_refused(out: Output, changes: dict[str, object]) -> None:
    """What a batch holds is checked before it counts."""
    start = {"source": "", "contract_hash": "", "contract": {}, "fresh": True, "overwrite": False}
    out.folder.write(f"{JOURNAL}/0001-x/start.json", as_json(start))
    spent = {"worker": "w", "read": 0, "decode": 0, "model": 0, "write": 0}
    marker = {"key": "k", "features": None, "rejected": None, "reasons": {}, "first": []}
    good = marker | {"spent": spent}
    out.folder.write(f"{JOURNAL}/0001-x/k-1.json", as_json(good))
    attempt = latest_attempt(out)
    assert attempt is not None
    assert [batch.key for batch in attempt.batches()] == ["k"]
    out.folder.write(f"{JOURNAL}/0001-x/k-1.json", as_json(good | changes))
    with pytest.raises(OutputError, match=r"k-1\.json: cannot be read: .*must be|is missing"):
        attempt.batches()


@pytest.mark.parametrize("content", [b"[]", b'{"pid": "x", "id": 3}', b"{", DEEP.encode()])
def test_a_lock_that_is_no_record_is_stale(
    out: Output, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the lock's place and does not change is removed, and the lock taken."""
    monkeypatch.setattr("verger.result.lock.STALE_S", 0.1)
    out.folder.write(LOCK, content)
    lock = Lock(out)
    lock.acquire()
    lock.check()
    lock.release()
