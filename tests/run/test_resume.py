"""A run that was killed goes on, a source that changed is followed, and nothing else is done."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.engines import BOTH_ENGINES
from support.runs import CONFIG, rows
from verger import Config
from verger.engine.local import LocalEngine
from verger.errors import (
    BusyError,
    ContractError,
    ErrorRateError,
    OutputExistsError,
    TasksLostError,
    ValidationError,
)
from verger.features.model import Model
from verger.features.task import commit_share
from verger.job import pipeline
from verger.result.journal import latest_attempt
from verger.result.lock import locked
from verger.result.output import JOURNAL, Output
from verger.result.record import Counts

LENIENT = dataclasses.replace(CONFIG, max_error_rate=1.0, components=0.9)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos, which a test may change."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


# Killed


def _kill_after_a_batch(source: Path, out: Path, *one_core: str) -> int:
    """Start a run in a process of its own, and kill it once it has committed something."""
    command = [
        sys.executable,
        "-m",
        "verger",
        "featurize",
        str(source),
        str(out),
        "--model",
        "efficientnet_lite0",
        *one_core,
        "--commit-every",
        "4",
        "--partitions",
        "3",
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while len(list(out.glob(f"{JOURNAL}/0001-*/*.json"))) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return len(list(out.glob(f"{JOURNAL}/0001-*/0*.json")))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an engine is started."""

    def start(*_: Any) -> Any:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("verger.job.context.start_engine", start)


@BOTH_ENGINES
def test_a_killed_run_pays_only_for_what_it_had_not_committed(
    engine: str, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """Driver, Java and workers die by kill -9; the next run ends with the very same table."""
    out = tmp_path / "out"
    one_core = ("--master", "local[1]") if engine == "spark" else ("--workers", "1")
    n_batches = _kill_after_a_batch(photos, out, *one_core)
    assert not (out / "features").exists()
    attempt = latest_attempt(Output.at(out))
    assert attempt is not None
    n_committed = sum(batch.n_photos for batch in attempt.batches())
    assert n_committed >= 2 * n_batches
    done = pipeline.run_featurize(str(photos), out, CONFIG)
    # A worker whose driver is gone may commit the batch that it is at.
    assert 0 < done.counts.computed <= 30 - n_committed
    found, expected = rows(out), rows(finished)
    assert found == expected
    assert {path.name for path in out.iterdir()} == {"features", "rejected", "run.json"}


def test_a_run_that_was_killed_while_it_wrote_run_json_goes_on(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are in place, run.json is half written: the next run computes nothing."""
    out = tmp_path / "out"

    def dies(*_: Any) -> None:
        (out / ".run.json.686ddbd4.part").write_text('{"verger":')
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Output, "write_run", dies)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_featurize(str(photos), out, CONFIG)
    assert (out / "features").is_dir()
    assert not (out / "run.json").exists()
    done = pipeline.run_featurize(str(photos), out, CONFIG)
    assert done.counts.computed == 0
    assert rows(out) == rows(finished)
    assert {path.name for path in out.iterdir()} == {"features", "rejected", "run.json"}


def test_a_second_run_on_one_out_is_refused(photos: Path, tmp_path: Path) -> None:
    """While one run holds OUT another is refused, and leaves it as it is."""
    out = Output.at(tmp_path / "out")
    with locked(out), pytest.raises(BusyError, match="another run is writing to it"):
        pipeline.run_featurize(str(photos), out.root, CONFIG)


@BOTH_ENGINES
def test_a_worker_that_dies_of_a_photo_costs_that_photo_alone(source: Path, tmp_path: Path) -> None:
    """A decoder that takes its process with it, every time, rejects one photo and stops nothing.

    The time-out is so short that this photo cannot be decoded within it: the kernel ends the
    worker, and the task that is tried again decodes apart.
    """
    wide = next(source.iterdir()) / "wide.png"
    Image.new("L", (13_000, 13_000), "red").save(wide, compress_level=1)
    config = dataclasses.replace(LENIENT, decode_timeout_s=0.5, partitions=2)
    found = pipeline.run_featurize(str(source), tmp_path / "out", config)
    assert found.counts.reasons == {"decode time-out": 1}
    (lost,) = rows(tmp_path / "out", "rejected").values()
    assert lost["path"] == str(wide)
    assert len(rows(tmp_path / "out")) == 30


def test_tasks_that_are_lost_are_followed_by_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the engine gives up on a task, the driver says so and tries once more, decoding apart."""
    apart: list[bool] = []
    real = LocalEngine.run

    def lose(self: LocalEngine, function: Any, n_tasks: int, carry: Any, **how: Any) -> Any:
        if function is commit_share:
            apart.append(carry[1].decoding.apart)
            if len(apart) == 1:
                raise TasksLostError("task 0: its worker process died 4 times")
        return real(self, function, n_tasks, carry, **how)

    monkeypatch.setattr(LocalEngine, "run", lose)
    pipeline.run_featurize(str(photos), tmp_path / "out", CONFIG)
    assert apart == [False, True]
    assert caplog.messages == [
        "task 0: its worker process died 4 times; going on from what is committed, with decoding "
        "apart"
    ]
    assert len(rows(tmp_path / "out")) == 30


# Changed sources


@pytest.mark.parametrize("options", [{}, {"master": "local[1]"}, {"reader": "spark"}])
def test_a_run_with_nothing_to_do_starts_no_engine_and_writes_nothing(
    result: Path, photos: Path, no_engine: None, options: dict[str, Any]
) -> None:
    """On any engine, the same command again is answered by the driver alone."""
    before = {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}
    found = pipeline.run(str(photos), result, dataclasses.replace(CONFIG, **options))
    assert found.up_to_date
    assert (found.counts.computed, found.pca.n_components) == (0, 5)
    other = pipeline.run(str(photos), result, dataclasses.replace(CONFIG, exclude=("Nope",)))
    assert other.up_to_date
    assert len(other.notices) == len(found.notices) + 1  # of this listing, not of the last run's
    assert before == {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}


def test_a_result_that_has_lost_a_file_or_is_asked_for_another_pca_is_not_up_to_date(
    result: Path, photos: Path, no_engine: None
) -> None:
    with pytest.raises(AssertionError, match="an engine was started"):
        pipeline.run(str(photos), result, dataclasses.replace(CONFIG, components=0.9))
    min((result / "pca").iterdir()).unlink()
    with pytest.raises(AssertionError, match="an engine was started"):
        pipeline.run(str(photos), result, CONFIG)


def test_new_photos_cost_only_themselves_and_the_pca_is_updated(
    source: Path, photos: Path, tmp_path: Path
) -> None:
    """Added photos are computed alone; sums are added to, and equal a fresh fit to 1e-9."""
    out, whole = tmp_path / "out", sorted(source.iterdir())
    aside = tmp_path / "aside"
    shutil.move(whole[-1], aside)
    pipeline.run(str(source), out, CONFIG)
    (old_part,) = (out / "features").glob("*.parquet")
    shutil.move(aside, whole[-1])
    found = pipeline.run(str(source), out, CONFIG)
    assert dataclasses.replace(found.counts, bytes=0) == Counts(
        listed=30, featurized=30, rejected=0, computed=5
    )
    assert found.pca.summed == 5
    assert [(one.computed, one.engine, one.seconds["featurize"] > 0) for one in found.runs] == [
        (25, "local", True)
    ]
    assert old_part.exists()
    fresh = tmp_path / "fresh"
    pipeline.run(str(source), fresh, CONFIG)
    assert rows(out) == rows(fresh)
    for name in ("explained_variance_ratio", "mean"):
        added, fitted = (np.load(o / "models" / "pca.npz")[name] for o in (out, fresh))
        np.testing.assert_allclose(added, fitted, rtol=0, atol=1e-9)
    assert all(check.holds for check in found.checks)


@BOTH_ENGINES
def test_changed_photos_replace_their_rows(source: Path, tmp_path: Path) -> None:
    """A photo of another content or time is done again; the PCA is fitted to what is there now."""
    out = tmp_path / "out"
    pipeline.run(str(source), out, CONFIG)
    first, second, *_ = sorted(source.rglob("*.jpg"))
    before = rows(out)
    Image.new("RGB", (50, 60), "blue").save(first)
    os.utime(second, ns=(0, 1_700_000_000_000_000_000))
    found = pipeline.run(str(source), out, CONFIG)
    assert found.counts.computed == 2
    after = rows(out)
    assert (after[str(first)]["width"], after[str(first)]["height"]) == (50, 60)
    assert after[str(second)]["modification_time"].year == 2023
    unchanged = before.keys() - {str(first), str(second)}
    assert {path: after[path] for path in unchanged} == {path: before[path] for path in unchanged}
    assert found.pca.summed == 30
    assert all(check.holds for check in found.checks)


@BOTH_ENGINES
def test_photos_that_disappeared_are_told_and_leave_with_prune(
    source: Path, tmp_path: Path
) -> None:
    """Rows of deleted photos are kept and counted until --prune lets them go, everywhere."""
    out = tmp_path / "out"
    pipeline.run(str(source), out, CONFIG)
    lost = min(source.rglob("*.jpg"))
    lost.unlink()
    found = pipeline.run(str(source), out, CONFIG)
    counts = found.counts
    assert (counts.listed, counts.gone, counts.computed) == (29, 1, 0)
    assert str(lost) in rows(out)
    assert all(check.holds for check in found.checks)
    found = pipeline.run(str(source), out, dataclasses.replace(CONFIG, prune=True))
    counts = found.counts
    assert (counts.listed, counts.gone, counts.computed) == (29, 0, 0)
    assert str(lost) not in rows(out)
    assert str(lost) not in rows(out, "pca")
    assert found.pca.n_samples == 29


def test_photos_that_could_not_be_read_are_tried_again(source: Path, tmp_path: Path) -> None:
    """A photo that is readable now gets features, and one that is no image is left alone."""
    out, link = tmp_path / "out", next(source.iterdir()) / "link.jpg"
    link.symlink_to(tmp_path / "later.jpg")
    (source / "text.jpg").write_text("no photo")
    found = pipeline.run_featurize(str(source), out, LENIENT)
    assert found.counts.reasons == {"vanished before reading": 1, "not an image": 1}
    shutil.copy(min(source.rglob("*_*.jpg")), tmp_path / "later.jpg")
    found = pipeline.run_featurize(str(source), out, LENIENT)
    assert found.counts.reasons == {"not an image": 1}
    assert found.counts.computed == 1
    assert len(rows(out)) == 31


def test_truncated_photos_pass_only_when_asked_and_are_marked(source: Path, tmp_path: Path) -> None:
    """--accept-truncated redoes the photos that were cut off, marks them, and takes it back."""
    out, cut = tmp_path / "out", source / "cut.jpg"
    whole = min(source.rglob("*_*.jpg")).read_bytes()
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    found = pipeline.run_featurize(str(source), out, LENIENT)
    assert found.counts.reasons == {"truncated": 1}
    accepting = dataclasses.replace(LENIENT, accept_truncated=True)
    found = pipeline.run_featurize(str(source), out, accepting)
    assert (found.counts.truncated, found.counts.computed) == (1, 1)
    assert {path for path, row in rows(out).items() if row["truncated"]} == {str(cut)}
    found = pipeline.run_featurize(str(source), out, LENIENT)
    assert found.counts.reasons == {"truncated": 1}
    assert str(cut) not in rows(out)


# What never mixes


def test_features_of_two_contracts_never_mix(
    result: Path, photos: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another contract is refused with both hashes, and OUT stays as it is."""
    contract = dataclasses.replace(model.contract, resize="another rule")
    other = dataclasses.replace(model, contract=contract)
    monkeypatch.setattr("verger.job.plan.load_model", lambda *_, **__: other)
    before = {p: p.read_bytes() for p in result.rglob("*") if p.is_file()}
    with pytest.raises(ContractError) as caught:
        pipeline.run(str(photos), result, CONFIG)
    for said in (model.contract.short_hash, contract.short_hash, "--overwrite"):
        assert said in str(caught.value)
    assert {p: p.read_bytes() for p in result.rglob("*") if p.is_file()} == before


def test_another_source_is_not_added_to_a_result(result: Path, source: Path) -> None:
    """A result is of one source; another one is refused with both names."""
    with pytest.raises(
        OutputExistsError,
        match=r"holds the result of SRC=.*, and this is SRC=.*by their full paths",
    ):
        pipeline.run(str(source), result, CONFIG)


def test_overwrite_begins_anew_and_keeps_the_old_until_then(
    result: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replacement that fails leaves the old result; started again, it goes on where it was."""
    before = {p: p.read_bytes() for p in result.rglob("*") if p.is_file()}
    config = dataclasses.replace(CONFIG, overwrite=True)

    def fail(*_: Any, **__: Any) -> None:
        raise ValidationError("not today")

    with monkeypatch.context() as patched:
        patched.setattr("verger.job.compute.compose", fail)
        with pytest.raises(ValidationError, match="not today"):
            pipeline.run(str(source), result, config)
    assert {p: p.read_bytes() for p in before} == before
    shutil.rmtree(min(p for p in source.iterdir() if p.is_dir()))
    found = pipeline.run(str(source), result, dataclasses.replace(config, prune=True))
    assert (found.counts.listed, found.counts.computed) == (25, 0)
    assert all(path.startswith(str(source)) for path in rows(result))
    assert all(check.holds for check in found.checks)


def test_overwrite_that_was_killed_after_it_published_goes_on(
    result: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it fits the PCA, --overwrite is not begun anew; once it has ended, it is."""
    config = dataclasses.replace(CONFIG, overwrite=True)

    class Killed(BaseException):
        """The process is gone."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("verger.job.reduce.fit_pca", die)
        with pytest.raises(Killed):
            pipeline.run(str(source), result, config)
    assert "finished" not in record(result)
    found = pipeline.run(str(source), result, config)
    assert found.counts.computed == 0
    assert "finished" in record(result)
    assert pipeline.run(str(source), result, config).counts.computed == 30


def test_overwrite_is_asked_for_or_not(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a killed run that was to add, --overwrite begins anew all the same."""
    out = tmp_path / "another"

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("verger.job.reduce.fit_pca", die)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(str(source), out, CONFIG)
    found = pipeline.run(str(source), out, dataclasses.replace(CONFIG, overwrite=True))
    assert found.counts.computed == 30


# Too many rejected


def test_a_result_is_not_replaced_by_rejected_photos(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos that have all become unreadable leave the rows that they had, and are kept aside."""
    out = tmp_path / "out"
    pipeline.run(str(source), out, CONFIG)
    before = {p: p.read_bytes() for p in out.rglob("*.parquet")}
    for photo in source.rglob("*.jpg"):
        photo.write_text("no photo")
    monkeypatch.setattr("verger.job.overseer.LOOK_S", 60)  # the job ends before anybody looks
    with pytest.raises(ErrorRateError, match=r"30 of 30 photos.* is as it was"):
        pipeline.run_featurize(str(source), out, CONFIG)
    assert {p: p.read_bytes() for p in before} == before
    found = pipeline.run_featurize(str(source), out, LENIENT)
    assert (found.counts.rejected, found.counts.computed) == (30, 0)


@BOTH_ENGINES
def test_too_many_rejected_photos_stop_the_run_early_and_nothing_is_lost(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is cancelled once the rate cannot be met; reasons are named, batches are kept."""
    for i in range(40):
        (source / f"0{i}.jpg").write_text("no photo")
    out = tmp_path / "out"
    config = dataclasses.replace(
        CONFIG, max_error_rate=0.0, components=0.9, commit_every=2, partitions=35
    )
    monkeypatch.setattr("verger.job.overseer.LOOK_S", 0.01)
    with pytest.raises(ErrorRateError) as caught:
        pipeline.run(str(source), out, config)
    text = str(caught.value)
    assert "not an image" in text
    assert f"first {source}/0" in text
    assert "stopped early" in text
    attempt = latest_attempt(Output.at(out))
    assert attempt is not None
    n_kept = sum(batch.n_photos for batch in attempt.batches())
    assert 0 < n_kept < 70
    found = pipeline.run(str(source), out, dataclasses.replace(config, max_error_rate=1.0))
    # Tasks that were running when the job was cancelled may have committed one batch more.
    assert 0 < found.counts.computed <= 70 - n_kept
    assert (found.counts.featurized, found.counts.rejected) == (30, 40)


def test_no_error_is_allowed_where_none_is_allowed(photos: Path, tmp_path: Path) -> None:
    """With max_error_rate=0 a clean source passes."""
    config: Config = dataclasses.replace(CONFIG, max_error_rate=0.0)
    found = pipeline.run_featurize(str(photos), tmp_path / "out", config)
    assert found.counts.rejected == 0
