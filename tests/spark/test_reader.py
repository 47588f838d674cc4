"""What only Spark does in a run: its own reader, the old layout of lists, the model it loads."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.feature import PCAModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession

from support.runs import CONFIG, rows
from verger.errors import EmptySourceError
from verger.job import compute, pipeline
from verger.source.listing import list_photos
from verger.source.spark_reader import list_with_spark, read_images


def test_features_pca_is_what_sparks_stored_model_gives(
    spark: SparkSession, finished: Path
) -> None:
    """The table pca, Spark's PCAModel and pca.npz are the same projection."""
    scores = {path: row["features_pca"] for path, row in rows(finished, "pca").items()}
    model = PCAModel.load((finished / "models" / "pca").as_uri())
    features = spark.read.parquet((finished / "features").as_uri())
    vec = features.select("path", array_to_vector("features").alias(model.getInputCol()))
    for row in model.transform(vec).collect():
        np.testing.assert_allclose(row.features_pca.toArray(), scores[row.path], rtol=0, atol=1e-4)
    saved = np.load(finished / "models" / "pca.npz", allow_pickle=False)
    assert (
        str(saved["contract"]) == json.loads((finished / "run.json").read_text())["contract_hash"]
    )
    for path, row in rows(finished).items():
        by_hand = np.array(row["features"]) @ saved["components"].T
        np.testing.assert_allclose(by_hand, scores[path], rtol=0, atol=1e-4)


def test_sparks_reader_gives_the_same_result(
    spark: SparkSession, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """--reader spark ends in the same tables, row for row."""
    config = dataclasses.replace(CONFIG, reader="spark")
    record = pipeline.run(photos.as_uri(), tmp_path / "out", config)
    assert record.counts.listed == 30
    for name in ("features", "pca"):
        found, expected = rows(tmp_path / "out", name), rows(finished, name)
        assert found.keys() == expected.keys()
        for path, row in found.items():
            vector = "features" if name == "features" else "features_pca"
            np.testing.assert_allclose(row.pop(vector), expected[path].pop(vector), atol=1e-4)
            assert row == expected[path]


def test_sparks_reader_reads_photos_of_any_time(
    spark: SparkSession, photos: Path, any_time: Path, tmp_path: Path
) -> None:
    """A time that overflows Spark's microseconds or Java's milliseconds is the arrow reader's."""
    source = shutil.copytree(photos, any_time / "photos")
    times = (266_000_000_000, 9_300_000_000_000, 2**62, -(2**62), 0, -1)
    for photo, time in zip(sorted(source.rglob("*.jpg")), times, strict=False):
        os.utime(photo, ns=(0, 10**9 * time))
    config = dataclasses.replace(CONFIG, reader="spark")
    record = pipeline.run_featurize(str(source), tmp_path / "out", config)
    assert (record.counts.featurized, record.counts.clamped) == (30, 4)
    listed = list_photos(str(source)).photos.to_pylist()
    assert {row["path"]: row["modification_time"] for row in listed} == {
        path: row["modification_time"] for path, row in rows(tmp_path / "out").items()
    }
    assert pipeline.run_featurize(str(source), tmp_path / "out", CONFIG).counts.computed == 0


@pytest.mark.parametrize("ignore", [True, False])
def test_sparks_reader_lists_what_the_arrow_reader_lists(
    spark: SparkSession, tmp_path: Path, ignore: bool
) -> None:
    """Labels in one form of Unicode, and thumbnails and bins left out and counted, or taken."""
    names = [normalize(form, "Pêche") for form in ("NFC", "NFD")]
    for name in (*names, f"{names[0]}/@eaDir/1.jpg", "$RECYCLE.BIN", "lost+found"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    found = list_with_spark(spark, str(tmp_path), ignore=ignore)
    expected = list_photos(str(tmp_path), ignore=ignore)
    assert found.photos.to_pylist() == expected.photos.to_pylist()
    assert found.ignored == expected.ignored
    assert len(found.photos) == (2 if ignore else 5)
    images = read_images(spark, str(tmp_path), reader="spark", ignore=ignore)
    assert sorted(row.label for row in images.collect()) == sorted(
        found.photos["label"].to_pylist()
    )


def test_sparks_reader_finds_no_photo(spark: SparkSession, tmp_path: Path) -> None:
    """An empty folder is an error with Spark's reader too, and nothing is written."""
    (tmp_path / "empty").mkdir()
    config = dataclasses.replace(CONFIG, reader="spark")
    with pytest.raises(EmptySourceError, match="no photo in it"):
        pipeline.run(str(tmp_path / "empty"), tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_legacy_parquet_is_what_old_readers_expect(
    spark: SparkSession, photos: Path, tmp_path: Path
) -> None:
    """With --legacy-parquet a list is written as Spark 1.4 and Hive wrote it, and read by all."""
    config = dataclasses.replace(CONFIG, legacy_parquet=True)
    pipeline.run_featurize(str(photos), tmp_path / "out", config)
    (file,) = (tmp_path / "out" / "features").glob("*.parquet")
    assert "bag" in str(pq.ParquetFile(file).schema)
    assert len(rows(tmp_path / "out")) == 30


def test_a_photo_that_spark_does_not_find_any_more_is_rejected(
    spark: SparkSession, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --reader spark too: it has vanished since the listing, and is in the ledger."""
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    gone = min(source.rglob("*.jpg"))
    real = compute.read_images

    def read_images(*arguments: Any, **options: Any) -> Any:
        gone.unlink()
        return real(*arguments, **options)

    monkeypatch.setattr(compute, "read_images", read_images)
    config = dataclasses.replace(CONFIG, max_error_rate=1.0, components=0.9, reader="spark")
    found = pipeline.run_featurize(str(source), tmp_path / "out", config)
    assert found.counts.reasons == {"vanished before reading": 1}
    assert list(rows(tmp_path / "out", "rejected")) == [str(gone)]
