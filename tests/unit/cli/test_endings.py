"""Signals end a command with its clean-up, one line and an exit code of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys, tempfile, time
from verger import cli
from verger.job import pipeline

def run(*_, **__):
    with tempfile.TemporaryDirectory():
        print("begun", flush=True)
        time.sleep(60)

pipeline.run = run
sys.argv = ["verger", "run", "a", "b"]
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "verger: interrupted; "), (signal.SIGTERM, 143, "verger: terminated; ")],
)
def test_a_signal_ends_a_command_in_one_line_and_leaves_nothing(
    tmp_path: Path, number: int, code: int, says: str
) -> None:
    """SIGTERM is answered as Ctrl-C is: what runs cleans up, and the line says what to do."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip().startswith(says)
    assert err.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []
