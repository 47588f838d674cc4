"""Batches count when they are committed, once, of the latest attempt; one run writes at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from support.results import run_record
from verger.errors import BusyError, OutputError
from verger.files.folder import Folder
from verger.files.tables import read_part
from verger.result import lock as module
from verger.result.clock import Clock
from verger.result.journal import BatchWriter, Start, latest_attempt, start_attempt
from verger.result.lock import Lock, locked
from verger.result.output import JOURNAL, LOCK, Output
from verger.schema import OUTCOMES, arrow_schema

START = Start(source="/photos", contract_hash="f00d", contract={}, fresh=True, overwrite=False)


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output.at(tmp_path / "out")


def outcomes(*names: str, reason: str | None = None) -> list[pa.RecordBatch]:
    row: dict[str, Any] = (
        {"reason": reason, "detail": "why"}
        if reason
        else {"features": [1.0, 2.0], "width": 3, "height": 4, "truncated": False}
    )
    return [pa.RecordBatch.from_pylist([{"path": n} | row for n in names], arrow_schema(OUTCOMES))]


# Batches


def test_a_committed_batch_says_what_it_holds(out: Output) -> None:
    """The marker names the files, their rows and sums, the reasons, and the first rejected."""
    attempt = start_attempt(out, START)
    rows = [*outcomes("a", "b"), *outcomes("c", "d", "e", "f", reason="empty")]
    BatchWriter.of(attempt).commit("000001-00000", rows, Clock())
    (batch,) = attempt.batches()
    assert (batch.n_photos, batch.n_rejected, batch.reasons) == (6, 4, {"empty": 4})
    assert [row.path for row in batch.first] == ["c", "d", "e"]
    assert batch.features is not None
    assert read_part(out.folder, batch.features.name)["path"].to_pylist() == ["a", "b"]
    assert batch.rejected is not None
    assert read_part(out.folder, batch.rejected.name)["path"].to_pylist() == ["c", "d", "e", "f"]


def test_folders_that_begin_with_no_decimal_are_no_attempts(out: Output) -> None:
    """A superscript is a digit, and no number."""
    out.folder.write(f"{JOURNAL}/²-x/start.json", b"{}")
    assert start_attempt(out, START).name.startswith("0001-")


def test_a_batch_without_its_marker_is_none(out: Output) -> None:
    """Killed between the files and the marker, nothing is committed."""
    attempt = start_attempt(out, START)
    BatchWriter.of(attempt).commit("000001-00000", outcomes("a"), Clock())
    (marker,) = Path(out.root).glob(f"{JOURNAL}/{attempt.name}/000001*.json")
    marker.unlink()
    assert attempt.batches() == []
    assert BatchWriter.of(attempt).committed_keys() == set()


def test_a_batch_that_two_tasks_committed_counts_once(out: Output) -> None:
    """A task that was tried twice leaves two markers of one batch, of which one counts."""
    attempt = start_attempt(out, START)
    for _ in range(2):
        BatchWriter.of(attempt).commit("000001-00000", outcomes("a"), Clock())
    BatchWriter.of(attempt).commit("000001-00001", outcomes("b"), Clock())
    assert [batch.key for batch in attempt.batches()] == ["000001-00000", "000001-00001"]
    assert BatchWriter.of(attempt).committed_keys() == {"000001-00000", "000001-00001"}


def test_an_attempt_takes_over_what_was_committed_before_it_and_nothing_later(out: Output) -> None:
    """What a task of a dead attempt commits after the next has begun is never counted."""
    first = start_attempt(out, START)
    BatchWriter.of(first).commit("000001-00000", outcomes("a"), Clock())
    second = start_attempt(out, replace(START, adopted=tuple(first.markers())))
    BatchWriter.of(first).commit("000002-00000", outcomes("late"), Clock())
    BatchWriter.of(second).commit("000001-00000", outcomes("b"), Clock())
    latest = latest_attempt(out)
    assert latest is not None
    assert latest.name == second.name
    assert latest.name.startswith("0002-")
    tables = [read_part(out.folder, b.features.name) for b in latest.batches() if b.features]
    assert [t["path"].to_pylist() for t in tables] == [["a"], ["b"]]


def test_no_attempt_has_the_name_of_one_before_it(out: Output) -> None:
    """A task of a dead run writes where nobody reads, though all attempts were forgotten since."""
    first = start_attempt(out, START)
    out.clear_journal()
    second = start_attempt(out, START)
    BatchWriter.of(first).commit("000001-00000", outcomes("late"), Clock())
    assert second.batches() == []
    assert BatchWriter.of(second).committed_keys() == set()
    assert latest_attempt(out) == second


def test_forgetting_attempts_can_be_interrupted(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left never names a batch that is gone."""
    first = start_attempt(out, START)
    BatchWriter.of(first).commit("000001-00000", outcomes("a"), Clock())
    start_attempt(out, replace(START, adopted=tuple(first.markers())))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(Folder, "remove_tree", die)
            with pytest.raises(KeyboardInterrupt):
                out.clear_journal()
        latest = latest_attempt(out)
        assert latest is None or latest.batches()


def test_other_results_leave_what_is_committed(out: Output) -> None:
    """A PCA that is published while a run is unfinished takes none of its batches."""
    attempt = start_attempt(out, START)
    BatchWriter.of(attempt).commit("000001-00000", outcomes("a"), Clock())
    out.publish(run_record(), add=[], remove=[], attempts=False)
    assert len(attempt.batches()) == 1
    assert latest_attempt(out) == attempt
    out.publish(run_record(), add=[], remove=[], attempts=True)
    assert latest_attempt(out) is None


def test_a_batch_of_rejected_photos_alone(out: Output) -> None:
    """A batch without one vector is a batch too, and has no file of features."""
    attempt = start_attempt(out, START)
    BatchWriter.of(attempt).commit("000001-00000", outcomes("a", reason="empty"), Clock())
    (batch,) = attempt.batches()
    assert batch.features is None
    assert batch.n_photos == batch.n_rejected == 1


def test_a_damaged_marker_is_told_with_what_to_do(out: Output) -> None:
    """A marker that is no JSON stops the run: what it stood for is not known."""
    attempt = start_attempt(out, START)
    out.folder.write(f"{JOURNAL}/{attempt.name}/000001-00000-x.json", b"{")
    with pytest.raises(OutputError, match=r"cannot be read: .*delete the folder \.journal"):
        attempt.batches()


# The lock


def test_a_second_run_is_refused_and_named(out: Output) -> None:
    """While one holds the lock, another is told which process has it; afterwards it is free."""
    with locked(out):
        with pytest.raises(
            BusyError, match=rf"another run is writing to it \(process {os.getpid()}"
        ):
            Lock(out).acquire()
        assert json.loads(out.folder.read(LOCK))["pid"] == os.getpid()
    with locked(out):
        pass


def test_of_many_that_ask_at_once_one_has_it(out: Output) -> None:
    """Taking the lock is one step: of sixteen threads exactly one gets it."""
    taken: list[Lock] = []
    start = threading.Barrier(16)

    def take() -> None:
        lock = Lock(out)
        start.wait()
        try:
            lock.acquire()
        except BusyError:
            return
        taken.append(lock)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    taken[0].release()


def test_the_lock_of_a_dead_process_is_stale(out: Output) -> None:
    """A process that was killed holds nothing: the next one does not even wait."""
    code = (
        "import sys, os, signal\n"
        "from verger.result.lock import Lock\nfrom verger.result.output import Output\n"
        "Lock(Output.at(sys.argv[1])).acquire()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code, out.root]) as process:
        # Not reaped yet: the number of the dead process is still taken.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert out.folder.exists(LOCK)
        with locked(out) as lock:
            lock.check()


def test_a_number_that_is_used_again_is_another_process(out: Output) -> None:
    """The lock of process 4711 is stale though there is a process 4711: it began later."""
    with locked(out):
        held = json.loads(out.folder.read(LOCK))
    out.folder.write(LOCK, json.dumps(held | {"process_started": "1"}).encode())
    with locked(out):
        pass


def test_of_another_machine_only_the_heart_is_seen(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock of elsewhere that beats is held; one that does not is stale."""
    monkeypatch.setattr(module, "STALE_S", 0.3)
    with locked(out):
        held = json.loads(out.folder.read(LOCK))
    elsewhere = held | {"place": "another machine", "host": "another"}
    out.folder.write(LOCK, json.dumps(elsewhere).encode())
    said: list[str] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        said.append("waiting")
        yield

    done = threading.Event()

    def beat() -> None:
        beats = 0
        while not done.wait(0.01):
            beats += 1
            out.folder.write(LOCK, json.dumps(elsewhere | {"beats": beats}).encode())

    heart = threading.Thread(target=beat)
    heart.start()
    with pytest.raises(BusyError, match="on another since"):
        Lock(out).acquire(waiting)
    done.set()
    heart.join()
    assert said == ["waiting"]
    with locked(out):
        pass


def test_a_heart_beats_and_finds_that_the_lock_was_taken(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner rewrites the lock; one that was taken from it stops its run before it publishes."""
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    with locked(out) as lock:
        held = json.loads(out.folder.read(LOCK))
        while json.loads(out.folder.read(LOCK))["beats"] < 2:
            pass
        out.folder.write(LOCK, json.dumps(held | {"id": "somebody else"}).encode())
        with pytest.raises(BusyError, match="another run has taken it over"):
            lock.check()
    assert json.loads(out.folder.read(LOCK))["id"] == "somebody else"


def test_a_heart_finds_that_the_lock_is_gone(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that slept while another had OUT and ended does not get it back."""
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    others = set(threading.enumerate())
    with locked(out) as lock:
        held = out.folder.read(LOCK)
        out.folder.remove(LOCK)
        for heart in set(threading.enumerate()) - others:
            heart.join(20)
        out.folder.write(LOCK, held)
        with pytest.raises(BusyError, match="another run has taken it over"):
            lock.check()


def test_only_the_lock_that_was_found_stale_is_removed(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that find one lock stale at once: the slower leaves the faster one's alone."""
    monkeypatch.setattr(module, "STALE_S", 0.05)
    out.folder.write(LOCK, b"{}")
    faster = Lock(out)

    @contextmanager
    def overtaken() -> Iterator[None]:
        yield
        if json.loads(out.folder.read(LOCK)) == {}:
            faster.acquire()

    with pytest.raises(BusyError, match="another run is writing to it"):
        Lock(out).acquire(overtaken)
    faster.check()
    faster.release()
    assert out.folder.files(JOURNAL) == []


def test_a_run_that_did_nothing_leaves_nothing(out: Output) -> None:
    """An error before the first batch leaves neither a journal nor a folder that was not there."""

    def fail() -> None:
        with locked(out):
            start_attempt(out, START)
            raise OutputError("no luck")

    with pytest.raises(OutputError, match="no luck"):
        fail()
    assert not Path(out.root).exists()


def test_a_run_that_committed_something_keeps_it(out: Output) -> None:
    """An error after a batch leaves the batch for the next run, and no lock."""

    def fail() -> None:
        with locked(out):
            attempt = start_attempt(out, START)
            BatchWriter.of(attempt).commit("000001-00000", outcomes("a"), Clock())
            raise OutputError("no luck")

    with pytest.raises(OutputError, match="no luck"):
        fail()
    attempt = latest_attempt(out)
    assert attempt is not None
    assert len(attempt.batches()) == 1
    assert not out.folder.exists(LOCK)
