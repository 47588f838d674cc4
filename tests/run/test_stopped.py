"""Runs that fail leave a report: it is then that one is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.engines import BOTH_ENGINES
from support.runs import CONFIG, rows
from verger.errors import ErrorRateError, OutputError, ReduceError, ValidationError
from verger.job import pipeline

LENIENT = replace(CONFIG, max_error_rate=1.0, components=0.9)


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    """Return a copy of the photos, beside 40 files that are none."""
    source = Path(shutil.copytree(photos, tmp_path / "source"))
    for i in range(40):
        (source / f"bad{i:02}.jpg").write_text("no photo")
    return source


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a run as soon as too many photos are rejected."""
    monkeypatch.setattr("verger.job.overseer.LOOK_S", 0.0)


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every job end before its rejected photos are counted."""
    monkeypatch.setattr("verger.job.overseer.LOOK_S", 600)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


STRICT = replace(CONFIG, max_error_rate=0.1, components=0.9, commit_every=2, partitions=35)


@BOTH_ENGINES
def test_a_run_that_is_stopped_early_leaves_a_report_of_what_was_rejected(
    source: Path, tmp_path: Path, looks_at_once: None
) -> None:
    """It says that there is no result, why, and which photos; the run resumes as ever."""
    out = tmp_path / "out"
    with pytest.raises(ErrorRateError, match=rf"stopped early; .*; its report is {out}/report.ht"):
        pipeline.run(str(source), out, STRICT)
    found = report(out)
    counts = found["counts"]
    assert counts["listed"] == 70
    assert 7 < counts["rejected"] <= 40
    assert found["reasons"] == {"not an image": counts["rejected"]}
    assert len(found["rejected"]) == counts["rejected"]
    assert all("/bad" in row["path"] for row in found["rejected"])
    assert sum(row["featurized"] for row in found["classes"]) == counts["featurized"]
    assert "photos were rejected" in found["stopped"]
    assert counts["computed"] == counts["featurized"] + counts["rejected"]
    page = (out / "report.html").read_text()
    assert not re.search(r"\d of them were done before this run", page)
    assert "This run was stopped, and is no result" in page
    n_open = 70 - counts["rejected"] - counts["featurized"]
    assert not n_open or re.search(rf"<b>{n_open}</b>not done", page)
    assert not (out / "run.json").exists()
    with pytest.raises(OutputError, match="its run is not finished"):
        pipeline.run_report(out, CONFIG)
    record = pipeline.run(str(source), out, replace(STRICT, max_error_rate=1.0))
    assert record.counts.computed <= 70 - counts["rejected"] - counts["featurized"]
    assert (record.counts.featurized, record.counts.rejected) == (30, 40)
    assert report(out)["stopped"] is None
    assert all(check.holds for check in record.checks)


@pytest.mark.parametrize("look", ["looks_at_once", "nobody_looks"])
def test_a_result_that_stays_keeps_its_report(
    source: Path, tmp_path: Path, request: pytest.FixtureRequest, look: str
) -> None:
    """The report of the run that did not replace it lies apart until a run gets through."""
    request.getfixturevalue(look)
    out = tmp_path / "out"
    bad = sorted(source.glob("bad*.jpg"))
    for photo in bad:
        photo.rename(photo.with_suffix(".away"))
    pipeline.run(str(source), out, CONFIG)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for photo in bad:
        photo.with_suffix(".away").rename(photo)
    with pytest.raises(ErrorRateError, match=rf"its report is {out}/stopped/report.html"):
        pipeline.run(str(source), out, STRICT)
    assert {p: p.read_bytes() for p in before} == before
    found = report(out / "stopped")
    assert found["counts"]["listed"] == 70
    assert found["counts"]["featurized"] == 30  # those of the result count
    assert found["map"] is None
    assert "of 70 photos were rejected" in found["stopped"]
    assert pipeline.run_validate(out, CONFIG).holds
    pipeline.run(str(source), out, LENIENT)
    assert not (out / "stopped").exists()
    assert report(out)["counts"]["rejected"] == 40


def test_a_report_that_lies_apart_goes_when_nothing_is_left_to_do(
    source: Path, tmp_path: Path, nobody_looks: None
) -> None:
    """The bad photos are taken away again: the result needs no new file."""
    out, away = tmp_path / "out", tmp_path / "away"
    away.mkdir()
    bad = sorted(source.glob("bad*.jpg"))
    for photo in bad:
        photo.rename(away / photo.name)
    pipeline.run(str(source), out, CONFIG)
    for photo in bad:
        (away / photo.name).rename(photo)
    with pytest.raises(ErrorRateError):
        pipeline.run_featurize(str(source), out, STRICT)
    assert (out / "stopped" / "report.html").is_file()
    for photo in bad:
        photo.unlink()
    record = pipeline.run(str(source), out, replace(CONFIG, prune=True))
    assert record.counts.listed == record.counts.featurized == 30
    assert not (out / "stopped").exists()


def test_photos_that_are_tried_again_are_reported_once(
    source: Path, tmp_path: Path, looks_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rows of a photo the younger counts in a report too."""
    for photo in source.glob("bad*.jpg"):
        photo.unlink()
        photo.symlink_to(tmp_path / "nowhere")
    for _ in range(2):  # what led nowhere leads to an empty file later, and is tried again
        with pytest.raises(ErrorRateError):
            pipeline.run(str(source), tmp_path / "out", replace(STRICT, partitions=1))
        (tmp_path / "nowhere").touch()
    found = report(tmp_path / "out")
    paths = [row["path"] for row in found["rejected"]]
    assert len(paths) == len(set(paths)) == found["counts"]["rejected"]
    assert sum(row["rejected"] for row in found["classes"]) == found["counts"]["rejected"]


def test_a_first_result_of_too_many_rejected_photos_has_its_report(
    source: Path, tmp_path: Path, nobody_looks: None
) -> None:
    """The tables are published, and the report of them says that the run failed."""
    out = tmp_path / "out"
    with pytest.raises(ErrorRateError, match=rf"what was done is in .*its report is {out}/report"):
        pipeline.run(str(source), out, STRICT)
    assert len(rows(out, "rejected")) == 40
    found = report(out)
    assert found["stopped"] is None
    assert "This run failed: 40 of 70 photos were rejected" in "\n".join(found["notices"])
    assert "finished" in json.loads((out / "run.json").read_text())
    record = pipeline.run(str(source), out, LENIENT)
    assert not any("This run failed" in notice for notice in record.notices)
    assert (record.counts.computed, record.pca.n_samples) == (0, 30)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("verger.job.reduce.fit_pca", ReduceError),
        ("verger.job.validate.Validation.raise_if_broken", ValidationError),
    ],
)
def test_a_result_that_fails_later_has_its_report_too(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
    error: type[Exception],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("not today")

    monkeypatch.setattr(spoil, fail)
    with pytest.raises(error, match=rf"not today; its report is {tmp_path}/out/report.html"):
        pipeline.run(str(photos), tmp_path / "out", CONFIG)
    assert "This run failed: not today" in report(tmp_path / "out")["notices"]
    monkeypatch.undo()
    pipeline.run_reduce(tmp_path / "out", replace(CONFIG, overwrite=True))
    pipeline.run_report(tmp_path / "out", CONFIG)
    assert report(tmp_path / "out")["notices"] == []


def test_a_report_that_fails_hides_no_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is told, and so is what became of the report."""

    def full(*_: Any) -> None:
        raise OutputError("no space left")

    for look, place in ((0.0, "a"), (600, "b")):
        monkeypatch.setattr("verger.job.overseer.LOOK_S", look)
        monkeypatch.setattr("verger.job.report.stage.write_report", full)
        says = r"photos were rejected .*; its report cannot be written: no space left"
        with pytest.raises(ErrorRateError, match=says):
            pipeline.run(str(source), tmp_path / place, STRICT)


@pytest.mark.parametrize("command", ["run", "featurize"])
def test_the_command_line_names_the_report_and_ends_in_1(
    source: Path, tmp_path: Path, command: str
) -> None:
    options = ["--model", "efficientnet_lite0", "--max-error-rate", "0"]
    arguments = [sys.executable, "-m", "verger", command, str(source), str(tmp_path / "out")]
    done = subprocess.run([*arguments, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"; its report is {tmp_path}/out/report.html")
    assert (tmp_path / "out" / "report.html").is_file()
