"""Temporary files go with their process, or with the next one if it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from verger.config import Config
from verger.engine.choose import start_engine
from verger.engine.scratch import PREFIX, sweep_parts, sweep_scratch

MAKE = """
import sys
from verger.engine.scratch import scratch_folder
assert scratch_folder() is scratch_folder()
(scratch_folder() / "large").write_bytes(bytes(1000))
print(scratch_folder(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that nobody else uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


class Owner:
    """A process that has made its folder, and waits."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAKE], stdin=pipe, stdout=pipe, text=True
        )
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())

    def end(self, number: int | None = None) -> None:
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate(timeout=30)


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.end()


def test_a_process_that_ends_takes_its_folder_along(owner: Owner, temporary: Path) -> None:
    """Nothing is left where the process ends by itself."""
    assert (owner.folder.parent, owner.folder.name[: len(PREFIX)]) == (temporary, PREFIX)
    owner.end()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_process_is_swept_by_the_next(owner: Owner, temporary: Path) -> None:
    """kill -9 leaves the folder; the next process that makes one removes it."""
    owner.end(signal.SIGKILL)
    assert (owner.folder / "large").exists()
    Owner().end()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_process_that_lives_stays(owner: Owner) -> None:
    """Whoever sweeps, a running process keeps its files."""
    assert sweep_scratch() == []
    other = Owner()
    assert (owner.folder / "large").exists()
    other.end()
    assert (owner.folder / "large").exists()


def test_what_others_have_made_is_not_touched(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Folders without our lock, and links to folders elsewhere, stay."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}bare").mkdir()
    (temporary / "verger-photos").mkdir()
    (temporary / "verger-photos" / "lock").touch()
    before = sorted(temporary.iterdir())
    assert sweep_scratch() == []
    assert sorted(temporary.iterdir()) == before
    assert (elsewhere / "lock").exists()


def test_a_forked_child_leaves_the_folder_to_its_parent(temporary: Path) -> None:
    """A child that ends by the normal way removes nothing of its parent's."""
    code = (
        "import os, sys\n"
        "from verger.engine.scratch import scratch_folder\n"
        "folder = scratch_folder()\n"
        "if os.fork() == 0:\n    sys.exit()\n"
        "os.wait()\nassert folder.exists()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(temporary.iterdir()) == []
    assert os.environ["TMPDIR"] == str(temporary)


def test_the_next_run_sweeps_on_the_local_engine_too(owner: Owner) -> None:
    """Whatever engine it takes, a run removes what a killed one has left."""
    owner.end(signal.SIGKILL)
    start_engine(Config()).stop()
    assert not owner.folder.exists()


def test_half_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """A half file is removed once it is an hour old; a new one and a whole one stay."""
    for name in ("tmpabc.part", ".graph.12.part", "new.part", "whole"):
        (tmp_path / name).touch()
        if name != "new.part":
            os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    sweep_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.part", "whole"]
