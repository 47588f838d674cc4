"""A pack on Spark: the same table as from the folder, and no photo moves between tasks."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

import verger
from spark.conftest import CONFIG, fill_bucket
from verger.cli.packing import pack_photos
from verger.config import Config
from verger.errors import BusyError, ConfigError, ErrorRateError
from verger.features.featurize import Extraction, commit_features
from verger.features.model import Model
from verger.job import pipeline
from verger.result.journal import start_attempt
from verger.result.lock import locked
from verger.result.output import Output
from verger.source.listing import list_photos
from verger.source.spark_reader import read_images

PACK = Config(partitions=2)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(folder).to_pylist()}


@pytest.fixture(scope="module")
def packed(spark: SparkSession, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of the rendered photos; do not write to it."""
    root = tmp_path_factory.mktemp("packed") / "pack"
    manifest = pack_photos(str(photos), root, PACK)
    assert manifest["counts"]["packed"] == 30
    assert len(manifest["files"]) == 2
    return root


def test_a_pack_gives_the_very_result_of_its_folder(
    packed: Path, finished: Path, tmp_path: Path
) -> None:
    """Features, scores, paths, labels and counts are the folder's to the bit, and all holds."""
    out = tmp_path / "out"
    record = pipeline.run(str(packed), out, CONFIG)
    assert record["source"] == str(packed)
    folder = json.loads((finished / "run.json").read_text())
    assert record["counts"] == folder["counts"]
    assert all(check["holds"] for check in record["checks"])
    assert read(out / "features") == read(finished / "features")
    again = pipeline.run(str(packed), out, CONFIG)
    assert again["counts"]["computed"] == 0
    assert pipeline.run_validate(out, CONFIG).holds
    steps = pipeline.describe_plan(str(packed), out, CONFIG)["steps"]
    assert f"(0.1 MB, 6 labels) of the pack {packed}" in steps[1]
    assert "compute the features of 0 photos (30 are done already)" in steps[2]


def test_a_pack_is_plain_parquet(spark: SparkSession, packed: Path, photos: Path) -> None:
    """Spark and pyarrow read the photos without us, and every byte is there."""
    frame = spark.read.parquet((packed / "photos").as_uri())
    assert frame.columns == ["path", "modification_time", "length", "label", "content"]
    for row in pq.read_table(packed / "photos").to_pylist():
        assert row["content"] == Path(row["path"]).read_bytes()
        assert row["label"] == Path(row["path"]).parent.name
    assert frame.count() == len(list(photos.rglob("*.jpg"))) == 30


def test_resuming_reads_only_what_is_to_do(
    spark: SparkSession, photos: Path, tmp_path: Path
) -> None:
    """New and changed photos of a pack that was made anew are computed, and no other."""
    source, root, out = tmp_path / "photos", tmp_path / "pack", tmp_path / "out"
    shutil.copytree(photos, source)
    pack_photos(str(source), root, PACK)
    pipeline.run_featurize(str(root), out, CONFIG)
    old = {path.name for path in (root / "photos").iterdir()}
    first, second, *_ = sorted(source.rglob("*.jpg"))
    shutil.copy(first, first.with_name("new.jpg"))
    shutil.copyfile(max(photos.rglob("*.jpg")), second)
    pack_photos(str(source), root, dataclasses.replace(PACK, overwrite=True))
    assert not old & {path.name for path in (root / "photos").iterdir()}
    assert len(list((root / "listing").iterdir())) == 1
    record = pipeline.run_featurize(str(root), out, CONFIG)
    assert (record["counts"]["computed"], record["counts"]["featurized"]) == (2, 31)
    features = read(out / "features")
    twin = str(first.with_name("new.jpg"))
    assert features[twin]["features"] == features[str(first)]["features"]


def test_photos_that_could_not_be_packed_end_in_rejected(
    spark: SparkSession, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the manifest, and the run of the pack rejects them; the ledger holds."""
    source, root, out = tmp_path / "photos", tmp_path / "pack", tmp_path / "out"
    shutil.copytree(photos, source)
    lost = min(source.rglob("*.jpg"))
    lost.with_name("link.jpg").symlink_to(lost.with_name("nowhere.jpg"))
    with pytest.raises(ErrorRateError, match=r"1 of 31 photos could not be packed.*link\.jpg: van"):
        pack_photos(str(source), root, dataclasses.replace(PACK, max_error_rate=0.0))
    manifest = json.loads((root / "pack.json").read_text())
    assert [row["path"] for row in manifest["unreadable"]] == [str(lost.with_name("link.jpg"))]
    for number, computed in enumerate((31, 0)):
        record = pipeline.run(str(root), out, CONFIG)
        counts = record["counts"]
        assert (counts["listed"], counts["featurized"], counts["rejected"]) == (31, 30, 1), number
        assert counts["computed"] == computed
        assert all(check["holds"] for check in record["checks"])
    (row,) = read(out / "rejected").values()
    assert (row["reason"], row["length"]) == ("vanished before reading", 0)
    assert row["label"] == lost.parent.name


def test_a_pack_in_a_bucket_of_photos_in_a_bucket(
    spark: SparkSession, s3: str, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """Photos, pack and result may all be s3://, and the features are the folder's."""
    names = fill_bucket(s3, "cellar", photos)
    manifest = pack_photos("s3a://cellar/raw/", "s3://cellar/pack", PACK)
    assert (manifest["source"], manifest["counts"]["packed"]) == ("s3://cellar/raw", 30)
    record = pipeline.run_featurize("s3://cellar/pack/", tmp_path / "out", CONFIG)
    assert record["source"] == "s3://cellar/pack"
    local = {path: row["features"] for path, row in read(finished / "features").items()}
    for path, row in read(tmp_path / "out" / "features").items():
        name = path.removeprefix("s3://cellar/raw/")
        assert row["label"] == name.split("/")[0]
        assert row["features"] == local[str(names[name])]
    with locked(Output.at("s3://cellar/pack")), pytest.raises(BusyError, match="another run"):
        pack_photos("s3://cellar/raw", "s3://cellar/pack", Config(overwrite=True))


def test_sparks_reader_and_a_pack_do_not_go_together(
    spark: SparkSession, packed: Path, tmp_path: Path
) -> None:
    """--reader spark with a pack is refused by the run, its dry run and the library."""
    config = dataclasses.replace(CONFIG, reader="spark")
    for attempt in (
        lambda: pipeline.run(str(packed), tmp_path / "out", config),
        lambda: pipeline.describe_plan(str(packed), tmp_path / "out", config),
        lambda: read_images(spark, str(packed), reader="spark"),
    ):
        with pytest.raises(ConfigError, match="which only the arrow reader reads"):
            attempt()


def test_a_part_of_a_killed_packing_is_no_pack_and_goes(
    spark: SparkSession, photos: Path, packed: Path, tmp_path: Path
) -> None:
    """Without its manifest a pack is begun anew, and what lay there is removed."""
    root = tmp_path / "pack"
    shutil.copytree(packed, root)
    (root / "pack.json").unlink()
    old = {path.name for path in (root / "photos").iterdir()}
    with pytest.raises(verger.VergerError, match=r"no photo in it \(left out: 3 \.parquet\)"):
        list_photos(str(root))
    pack_photos(str(photos), root, PACK)
    assert not old & {path.name for path in (root / "photos").iterdir()}
    assert len(list_photos(str(root)).photos) == 30


# No photo moves


def exchanges(frame: DataFrame) -> list[str]:
    """Return every exchange in Spark's plan, before and after it has run."""
    execution = frame._jdf.queryExecution()
    text = execution.executedPlan().toString()
    frame.write.format("noop").mode("overwrite").save()
    text += frame._jdf.queryExecution().executedPlan().toString()
    assert "mapInArrow" in text.replace("MapInArrow", "mapInArrow")
    return re.findall(r"\w*Exchange\b", text)


@pytest.mark.parametrize("kind", ["arrow", "spark", "pack"])
def test_no_photo_is_shuffled(
    spark: SparkSession, photos: Path, packed: Path, model: Model, kind: str
) -> None:
    """The one exchange of a plan is the broadcast of the listing, with every reader."""
    source = packed if kind == "pack" else photos
    images = read_images(spark, str(source), reader="spark" if kind == "spark" else "arrow")
    found = exchanges(verger.featurize(images, model=model))
    assert set(found) == {"BroadcastExchange"}


def test_the_job_that_commits_has_one_stage(
    spark: SparkSession, packed: Path, model: Model, tmp_path: Path
) -> None:
    """A shuffle would be a second stage; the tasks are the row groups."""
    listing = list_photos(str(packed))
    n_groups = len(listing.photos.select(["file", "row_group"]).to_pandas().drop_duplicates())
    start = {"source": "", "contract_hash": model.contract.hash, "contract": {}, "fresh": True}
    attempt = start_attempt(Output.at(tmp_path / "out"), start, [])
    context, tracker = spark.sparkContext, spark.sparkContext.statusTracker()
    context.setJobGroup("one stage", "")
    commit_features(read_images(spark, listing), attempt, Extraction(model=model, commit_every=7))
    context.setLocalProperty("spark.jobGroup.id", None)
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup("one stage")]
    assert [len(job.stageIds) for job in jobs] == [1] * len(jobs)
    tasks = [tracker.getStageInfo(job.stageIds[0]).numTasks for job in jobs]
    assert n_groups in tasks
    assert sum(batch.n_photos for batch in attempt.batches()) == 30


def test_files_and_row_groups_are_balanced(spark: SparkSession, tmp_path: Path) -> None:
    """Photos of skewed sizes, sorted by size, fill files and row groups evenly."""
    source = tmp_path / "photos"
    source.mkdir()
    sizes = np.sort(np.random.default_rng(5).lognormal(8, 1, 600)).astype(int)
    for i, size in enumerate(sizes):
        (source / f"{i:04}.jpg").write_bytes(bytes(size))
    pack_photos(str(source), tmp_path / "pack", Config(partitions=2))
    rows, bytes_ = [], []
    for path in (tmp_path / "pack" / "photos").iterdir():
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                found = file.read_row_group(group, columns=["length"])["length"].to_numpy()
                rows.append(len(found))
                bytes_.append(found.sum())
    assert max(rows) - min(rows) <= 1
    assert max(bytes_) - min(bytes_) <= sizes.max()
