"""Signals end a command with its clean-up, one line and an exit code of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from verger import Config
from verger.cli.endings import end
from verger.job import pipeline

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
    [(signal.SIGINT, 130, "verger: interrupted"), (signal.SIGTERM, 143, "verger: terminated")],
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


@pytest.mark.parametrize("is_committed", [True, False])
def test_only_what_resumes_is_said_to_resume(
    is_committed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run that has committed nothing begins again, and so does any other command."""

    def featurize(run: pipeline.Run, *_: object, **__: object) -> None:
        run.saved = is_committed
        raise KeyboardInterrupt

    for name in ("plan", "up_to_date", "check_engine"):
        monkeypatch.setattr(pipeline, name, lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "featurize", featurize)
    with pytest.raises(KeyboardInterrupt) as caught:
        pipeline.run_featurize("photos", tmp_path / "out", Config())
    assert end(caught.value) == 130
    said = "; what is committed is kept; run the same command again, and it resumes"
    assert capsys.readouterr().err == f"verger: interrupted{said * is_committed}\n"
