"""The local engine: results by task, workers that die, errors, cancelling, and what is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from support import tasks
from verger.engine.local import LocalEngine
from verger.engine.tasks import TASK_ATTEMPTS, run_pieces
from verger.errors import EnvironmentNotReadyError, OutputError, TasksLostError


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(2)
    yield engine
    engine.stop()


def _of_engines() -> list[psutil.Process]:
    """Return fork servers and workers: they have the same command line."""
    below = psutil.Process().children(recursive=True)
    alive = [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "engine.forkserver" in str(p.cmdline())]


def test_results_come_by_task_whoever_is_done_first(engine: LocalEngine) -> None:
    """Result i is that of task i, and every call gets what is carried."""
    assert engine.run(tasks.add, 20, 100) == [100 + i for i in range(20)]


def test_no_tasks_give_no_results(engine: LocalEngine) -> None:
    """Nothing is started for nothing."""
    assert engine.run(tasks.add, 0, 1) == []


def test_workers_serve_one_run_after_the_other(engine: LocalEngine) -> None:
    """A second function meets the processes that the first one has warmed up."""
    first = set(engine.run(tasks.process, 8, None))
    assert set(engine.run(tasks.process, 8, None)) <= first
    assert os.getpid() not in first


def test_workers_are_forked_from_what_was_loaded_ahead(engine: LocalEngine) -> None:
    """The module is there before the task asks for it; its process is no fork of this one."""
    engine.start("verger.features.task")
    assert engine.run(tasks.has_loaded, 1, "verger.features.task") == [True]
    server, worker = _of_engines()
    assert worker.ppid() == server.pid
    assert server.ppid() == os.getpid()
    engine.stop()
    assert _of_engines() == []


def test_a_task_that_is_tried_again_says_why_without_secrets(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line: it may come from a bucket's address."""
    told = OSError("https://me:hunter2@host/x\nforged line")
    with pytest.raises(OSError, match="forged"):
        engine.run(tasks.fail, 1, told)
    assert caplog.messages == [
        "task 0 is tried again: it raised OSError: https://(hidden)@host/x"
    ] * (TASK_ATTEMPTS - 1)


def test_what_cannot_be_imported_ahead_is_told_by_the_task(engine: LocalEngine) -> None:
    """The fork server goes on, and keeps no error to itself."""
    engine.start("no_such_module")
    assert engine.run(tasks.add, 3, 1) == [1, 2, 3]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        engine.run(tasks.import_module, 1, "no_such_module")


def test_where_the_system_gives_no_process_the_error_says_so(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether for the fork server or for a worker."""

    def refuse(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patched:
        patched.setattr("verger.engine.forkserver.ForkServer.fork", refuse)
        with pytest.raises(EnvironmentNotReadyError, match="cannot be started: Resource temporar"):
            engine.run(tasks.add, 3, 1)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(EnvironmentNotReadyError, match="cannot be started: No such file"):
        engine.run(tasks.add, 3, 1)


def test_a_worker_that_died_is_waited_for_once(engine: LocalEngine) -> None:
    """Its number may be another process' by then; the others are ended and waited for too."""
    with pytest.raises(TasksLostError):
        engine.run(tasks.die, 3, 1)
    assert _of_engines() == []
    assert engine.run(tasks.add, 3, 1) == [1, 2, 3]


def test_a_fork_server_that_dies_is_replaced(engine: LocalEngine) -> None:
    """Below workers that go on; a task whose end nobody saw is tried again."""
    assert engine.run(tasks.add, 3, 1) == [1, 2, 3]
    server = next(p for p in _of_engines() if p.ppid() == os.getpid())
    server.kill()
    server.wait()
    workers = set(engine.run(tasks.process, 8, None))
    assert len(_of_engines()) <= 3
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert engine.run(tasks.add, 3, 1) == [1, 2, 3]


def test_where_no_process_can_be_started_the_error_says_so(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentNotReadyError, match="they are forked from dies"):
        engine.run(tasks.add, 3, 1)


def test_a_worker_computes_on_one_thread(engine: LocalEngine) -> None:
    """There is one a core: more threads would only wait for one another."""
    assert engine.run(tasks.variable, 1, "OPENBLAS_NUM_THREADS") == ["1"]


def test_a_worker_imports_nothing_from_the_current_folder(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that lies in a folder of somebody's photos is not run by a command started there."""
    for name in ("pickle", "signal", "traceback", "verger"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    assert engine.run(tasks.is_safe_path, 1, None) == [True]
    assert not (tmp_path / "was-run").exists()


def test_a_workers_first_list_for_arrow_is_taken_without_pandas(engine: LocalEngine) -> None:
    """At the first attempt: it once failed each worker's first task, and nobody was told."""
    assert engine.run(tasks.lists_of_arrow, 1, [1, 2]) == [([1, 2], 0, False)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGALRM])
def test_a_worker_that_dies_costs_an_attempt_of_one_task(
    engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: int
) -> None:
    """The task is tried again in a new process, and knows it; no other task does."""
    attempts = engine.run(tasks.die_once, 6, (3, int(how), str(tmp_path / "died")))
    assert attempts == [0, 0, 0, 1, 0, 0]
    (told,) = caplog.messages
    assert told == f"task 3 is tried again: it lost its worker process by signal {int(how)}"


def test_a_task_that_kills_its_workers_is_given_up(engine: LocalEngine) -> None:
    """After as many attempts as Spark makes, and the error says how they died."""
    with pytest.raises(TasksLostError, match=f"task 1: .* died {TASK_ATTEMPTS} times.* signal 9"):
        engine.run(tasks.die, 3, 1)
    assert engine.run(tasks.add, 3, 0) == [0, 1, 2]  # and the engine is as good as new


def test_an_error_of_ours_is_raised_as_it_is(engine: LocalEngine) -> None:
    """With its text alone; where it was raised is a note."""
    with pytest.raises(OutputError, match="OUT=x: no space left") as caught:
        engine.run(tasks.fail, 4, OutputError("OUT=x: no space left"))
    assert str(caught.value) == "OUT=x: no space left"
    assert "in task" in caught.value.__notes__[0]


def test_another_error_is_raised_after_all_attempts(engine: LocalEngine, tmp_path: Path) -> None:
    """Like Spark, the engine tries again what may have been a passing fault."""
    note = tmp_path / "attempts"
    with pytest.raises(ZeroDivisionError):
        engine.run(tasks.divide, 1, str(note))
    assert note.read_text() == "0123"


def test_an_error_that_cannot_be_pickled_becomes_its_text(engine: LocalEngine) -> None:
    """The reader still learns its class and what it said."""
    with pytest.raises(RuntimeError, match="Stubborn: will not travel"):
        engine.run(tasks.fail_stubbornly, 1, None)


def test_what_progress_raises_ends_the_tasks(engine: LocalEngine) -> None:
    """That is how a run is ended whose photos are rejected."""

    def stop(done: int, n_tasks: int) -> None:
        assert n_tasks == 4
        if done:
            raise OutputError("enough")

    with pytest.raises(OutputError, match="enough"):
        engine.run(tasks.sleep, 4, [0.0, 600.0, 600.0, 600.0], on_progress=stop)
    assert _of_engines() == []


def test_progress_ends_with_all_tasks(engine: LocalEngine) -> None:
    """What is told never falls, and the last word is that all are done."""
    told: list[tuple[int, int]] = []
    engine.run(tasks.add, 5, 0, on_progress=lambda *seen: told.append(seen))
    assert told == sorted(told)
    assert told[-1] == (5, 5)


def test_arrays_come_back_to_the_bit(engine: LocalEngine) -> None:
    """Results are pickled, not printed."""
    sent = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    (back,) = engine.run(tasks.give_back, 1, sent)
    assert back.dtype == sent.dtype
    assert np.array_equal(back, sent)


@pytest.mark.parametrize("n_tasks", [None, 1, 3])
@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("n_pieces", [0, 2, 10])
def test_every_piece_is_done_once(
    engine: LocalEngine, n_pieces: int, n_tasks: int | None, light: bool
) -> None:
    """However pieces are dealt to tasks, or done by the driver."""
    pieces = list(range(n_pieces))
    found = run_pieces(engine, tasks.double, pieces, 1, n_tasks=n_tasks, light=light)
    assert sorted(found) == [2 * piece + 1 for piece in pieces]


def test_workers_end_with_their_engine(tmp_path: Path) -> None:
    """An engine whose process is killed leaves none of them, whatever they are doing."""
    program = (
        "from support import tasks\nfrom verger.engine.local import LocalEngine\n"
        f"LocalEngine(2).run(tasks.note_and_sleep, 2, {str(tmp_path)!r})"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        while len(workers := sorted(tmp_path.iterdir())) < 2:
            assert driver.poll() is None
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    _, left = psutil.wait_procs(
        [psutil.Process(int(w.name)) for w in workers if psutil.pid_exists(int(w.name))], timeout=30
    )
    assert left == []


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Workers do not import the script that started them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from support import tasks\nfrom verger.engine.local import LocalEngine\n"
        "engine = LocalEngine(2)\nprint(engine.run(tasks.add, 3, 1))\nengine.stop()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[1, 2, 3]\n"
