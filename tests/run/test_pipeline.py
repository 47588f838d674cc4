"""The whole job: what lies in OUT afterwards, and what a failure leaves."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.engines import ON_SPARK
from support.runs import CONFIG, rows
from verger.errors import ErrorRateError, OutputExistsError, ReduceError
from verger.job import pipeline


def test_a_run_leaves_everything_that_is_promised(finished: Path) -> None:
    """Tables, models, spectrum, pictures, report and record are all there, and nothing else."""
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "features",
        "rejected",
        "pca",
        "models",
        "explained_variance.csv",
        "scree.png",
        "report.html",
        "report.json",
        "run.json",
    }
    assert (finished / "models" / "pca.npz").is_file()
    assert (finished / "scree.png").read_bytes().startswith(b"\x89PNG")


def test_no_task_of_a_sound_run_is_tried_again(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another attempt hides what went wrong in the first, and decodes slowly."""
    record = pipeline.run(str(photos), tmp_path / "out", CONFIG)
    assert record.counts.computed == 30
    assert caplog.messages == []


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every job end before its rejected photos are counted."""
    monkeypatch.setattr("verger.job.overseer.LOOK_S", 600)


@ON_SPARK
def test_spark_leaves_the_same_tables(finished: Path, photos: Path, tmp_path: Path) -> None:
    """Row for row what the local engine leaves, and run.json says who it was."""
    out = tmp_path / "out"
    record = pipeline.run(str(photos), out, CONFIG)
    assert record.machine["engine"] == "spark"
    assert json.loads((finished / "run.json").read_text())["machine"]["engine"] == "local"
    for table in ("features", "rejected", "pca"):
        assert rows(out, table) == rows(finished, table)
    assert {path.name for path in out.iterdir()} == {path.name for path in finished.iterdir()}
    assert all(check.holds for check in record.checks)


def test_a_run_on_one_machine_loads_no_spark(photos: Path, tmp_path: Path) -> None:
    """From the listing to the report: neither pyspark nor a Java is touched."""
    program = (
        "import sys, verger; from verger import Config; "
        f"record = verger.run({str(photos)!r}, {str(tmp_path / 'out')!r}, "
        "Config(model='efficientnet_lite0', components=5, workers=2)); "
        "print(record.machine['engine'], [m for m in ('pyspark', 'py4j') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"JAVA_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "local []"


def test_the_record_reconciles_with_the_tables(finished: Path) -> None:
    """run.json's counts, contract and checks are those of the files."""
    record = json.loads((finished / "run.json").read_text())
    features = rows(finished)
    assert record["counts"]["listed"] == 30
    assert record["counts"]["featurized"] == len(features) == 30
    assert record["counts"]["rejected"] == len(rows(finished, "rejected")) == 0
    assert all(check["holds"] for check in record["checks"])
    assert {len(row["features"]) for row in features.values()} == {1280}
    assert {row["label"] for row in features.values()} == {
        Path(path).parent.name for path in features
    }
    assert record["model"]["published"] is True
    stages = ["list", "load model", "featurize", "write", "reduce", "validate", "report"]
    assert list(record["seconds"]) == stages


def test_the_spectrum_is_written_whole(finished: Path) -> None:
    """explained_variance.csv has every component; ratios fall and sum to 1."""
    with (finished / "explained_variance.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row["component"] for row in rows] == list(range(1, 1281))
    ratios = [row["ratio"] for row in rows]
    assert ratios == sorted(ratios, reverse=True)
    assert sum(ratios) == pytest.approx(1)
    assert rows[-1]["cumulative"] == pytest.approx(1)


def test_other_components_replace_only_the_pca(result: Path) -> None:
    """verger reduce needs --overwrite for a second PCA, and leaves the features alone."""
    with pytest.raises(OutputExistsError, match="has a PCA already; --overwrite replaces it"):
        pipeline.run_reduce(result, CONFIG)
    before = sorted(path.name for path in (result / "features").iterdir())
    config = dataclasses.replace(CONFIG, components=0.5, center=True, overwrite=True)
    record = pipeline.run_reduce(result, config)
    assert record.pca.kept >= 0.5
    assert "--components 0.5 --center" in record.command
    assert not (result / "report.html").exists()  # it was about the PCA before
    scores = np.array([row["features_pca"] for row in rows(result, "pca").values()])
    assert scores.shape == (30, record.pca.n_components)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)
    assert sorted(path.name for path in (result / "features").iterdir()) == before


def test_too_many_components_name_the_bound(result: Path) -> None:
    """30 photos vary in at most 29 directions, and the old PCA stays."""
    config = dataclasses.replace(CONFIG, components=30, overwrite=True)
    with pytest.raises(
        ReduceError, match=r"components=30 must be between 1 and 29, .*n_samples=30"
    ):
        pipeline.run_reduce(result, config)
    assert (result / "pca").is_dir()


def test_too_many_rejected_photos_fail_the_run_and_keep_what_was_done(
    photos: Path, tmp_path: Path, nobody_looks: None
) -> None:
    """Above max_error_rate the run ends in an error that counts the reasons; the tables stay."""
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    shutil.copy(min(photos.rglob("*.jpg")), source / "good.jpg")
    (source / "bad.jpg").write_text("no photo")
    share = dataclasses.replace(CONFIG, components=0.9)
    says = r"1 of 2 photos were rejected \(1 not an image\).*first .*bad\.jpg: not an image"
    with pytest.raises(ErrorRateError, match=says):
        pipeline.run(str(source), out, share)
    assert len(rows(out)) == len(rows(out, "rejected")) == 1
    config = dataclasses.replace(share, max_error_rate=1.0)
    with pytest.raises(ReduceError, match="n_samples=1 must be at least 2"):
        pipeline.run(str(source), out, config)


def test_all_rejected_is_still_a_ledger(tmp_path: Path, nobody_looks: None) -> None:
    """A source of bad photos alone gives an empty features table and all rows in rejected."""
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (source / name).write_text("no photo")
    with pytest.raises(ErrorRateError, match="2 of 2 photos"):
        pipeline.run(str(source), out, dataclasses.replace(CONFIG, components=0.9))
    assert rows(out) == {}
    reasons = {(row["reason"], row["length"]) for row in rows(out, "rejected").values()}
    assert reasons == {("not an image", 8)}


def test_overwrite_replaces_the_result_and_all_that_came_of_it(
    result: Path, tmp_path: Path
) -> None:
    """Features of other photos never lie beside the PCA of the old ones."""
    source = tmp_path / "fewer"
    first = sorted(json.loads((result / "report.json").read_text())["classes"][:2], key=str)
    photos = Path(json.loads((result / "run.json").read_text())["source"])
    for entry in first:
        shutil.copytree(photos / entry["label"], source / entry["label"])
    (result / "mine.txt").write_text("not Verger's")
    config = dataclasses.replace(CONFIG, overwrite=True)
    pipeline.run_featurize(str(source), result, config)
    assert len(rows(result)) == 10
    assert {p.name for p in result.iterdir()} == {"features", "rejected", "run.json", "mine.txt"}


def test_tables_are_read_by_others_with_times_in_utc(finished: Path) -> None:
    """pyarrow sees an instant in UTC, not Spark's old INT96."""
    kind = pq.read_table(finished / "features").schema.field("modification_time").type
    assert str(kind) == "timestamp[us, tz=UTC]"
