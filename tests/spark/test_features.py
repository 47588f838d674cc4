"""The Arrow function on Spark: one row a photo, whatever happens to it."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

import verger
from verger.errors import SchemaError
from verger.features.model import Model
from verger.schema import CONTRACT_KEY, FEATURES, MEASURES, OUTCOMES, REJECTED, spark_schema

HARD_NAMES = [
    "with space.jpg",
    "é à ü.jpg",
    "100%.jpg",
    "a#b.jpg",
    "a+b.jpg",
    "a,b.jpg",
    "a%20b.jpg",
    "[x]{y}.jpg",
    "苹果.jpg",
    "تفاح.jpg",
    "🍏.jpg",
    "it's.jpg",
    'quo"te.jpg',
    "a=b&c.JPG",
]


def by_path(frame: DataFrame) -> dict[str, dict[str, object]]:
    return {row["path"]: row.asDict() for row in frame.collect()}


def test_features_equal_those_of_one_photo_without_spark(
    spark: SparkSession, photos: Path, model: Model
) -> None:
    """The same photo gives the same numbers through Spark and through Model.predict."""
    images = verger.read_images(spark, str(photos))
    found = by_path(verger.featurize(images, model=model))
    assert len(found) == 30
    for path in sorted(found)[::7]:
        expected = model.predict(path)
        np.testing.assert_allclose(found[path]["features"], expected, rtol=0, atol=1e-5)


def test_features_do_not_depend_on_partitions_or_micro_batches(
    spark: SparkSession, photos: Path, model: Model
) -> None:
    """Cutting the work otherwise changes no feature."""
    tables = []
    for partitions, micro_batch in ((1, 1), (7, 3)):
        images = verger.read_images(spark, str(photos), partitions=partitions)
        assert images.rdd.getNumPartitions() == partitions
        tables.append(by_path(verger.featurize(images, model=model, micro_batch=micro_batch)))
    assert tables[0].keys() == tables[1].keys()
    for path, row in tables[0].items():
        np.testing.assert_allclose(row["features"], tables[1][path]["features"], rtol=0, atol=1e-5)


def test_both_readers_give_the_same_table(
    spark: SparkSession, photos: Path, model: Model, tmp_path: Path
) -> None:
    """Listing by Arrow and reading by Spark's binaryFile end in equal rows, hard names included."""
    folder = tmp_path / "p h#t%o+s" / "Clé, d'or"
    folder.mkdir(parents=True)
    source = min(photos.rglob("*.jpg"))
    for name in HARD_NAMES:
        shutil.copy(source, folder / name)
    (folder / "notes.txt").write_text("not a photo")
    tables = []
    for reader in ("arrow", "spark"):
        images = verger.read_images(spark, str(folder.parent), reader=reader)
        tables.append(by_path(verger.featurize(images, model=model)))
    assert sorted(tables[0]) == sorted(str(folder / name) for name in HARD_NAMES)
    assert {row["label"] for row in tables[0].values()} == {"Clé, d'or"}
    assert tables[0] == tables[1]


@pytest.mark.parametrize("rule", ["none", r"/(\w+)[^/]*/[^/]*$"])
def test_both_readers_give_the_same_labels(spark: SparkSession, photos: Path, rule: str) -> None:
    """A rule for labels means the same to both readers."""
    found = [
        {
            (row["path"], row["label"])
            for row in verger.read_images(spark, str(photos), reader=reader, label_from=rule)
            .select("path", "label")
            .collect()
        }
        for reader in ("arrow", "spark")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 30


def test_every_photo_ends_in_features_or_in_rejected(
    spark: SparkSession, photos: Path, model: Model, tmp_path: Path
) -> None:
    """Bad photos become rows with a reason; the good ones beside them keep their features."""
    good = min(photos.rglob("*.jpg"))
    content = good.read_bytes()
    shutil.copy(good, tmp_path / "good.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("I am no photo")
    (tmp_path / "gone.jpg").write_bytes(content)
    images = verger.read_images(spark, verger.list_photos(str(tmp_path)))
    (tmp_path / "gone.jpg").unlink()
    features, rejected = verger.split_outcomes(verger.featurize(images, model=model))
    reasons = {Path(row["path"]).name: row["reason"] for row in rejected.collect()}
    assert reasons == {
        "empty.jpg": "empty",
        "cut.jpg": "truncated",
        "text.jpg": "not an image",
        "gone.jpg": "vanished before reading",
    }
    (row,) = features.collect()
    assert Path(row["path"]).name == "good.jpg"
    assert (row["width"], row["height"], row["length"]) == (100, 100, len(content))
    assert row["modification_time"].timestamp() == pytest.approx(
        (tmp_path / "good.jpg").stat().st_mtime, abs=0.002
    )


def test_tables_have_the_declared_columns_and_name_the_contract(
    spark: SparkSession, photos: Path, model: Model
) -> None:
    """What featurize returns is the schema module's table, and its vector carries the contract."""
    outcomes = verger.featurize(verger.read_images(spark, str(photos)), model=model)
    features, rejected = verger.split_outcomes(outcomes)
    for frame, columns in ((outcomes, OUTCOMES), (features, FEATURES), (rejected, REJECTED)):
        expected = [(f.name, f.dataType) for f in spark_schema(columns)]
        assert [(f.name, f.dataType) for f in frame.schema] == expected
    assert features.schema["features"].metadata == {CONTRACT_KEY: model.contract.hash}
    older, _ = verger.split_outcomes(outcomes.drop(*MEASURES))
    assert set(older.columns) == set(FEATURES)


def test_a_worker_that_computes_otherwise_stops_the_run(
    spark: SparkSession, photos: Path, model: Model
) -> None:
    """A golden vector that a worker cannot reproduce is an error before its first photo."""
    contract = dataclasses.replace(model.contract, decoder="another, so that no session is cached")
    other = dataclasses.replace(model, contract=contract, golden=model.golden + 1)
    images = verger.read_images(spark, str(photos))
    with pytest.raises(Exception, match="differ by 1"):
        verger.featurize(images, model=other).collect()


def test_nothing_but_the_listing_is_shuffled_or_sent(
    spark: SparkSession, photos: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan holds no exchange but the broadcast of the listing."""
    images = verger.read_images(spark, str(photos), partitions=5)
    verger.featurize(images, model=model).explain()
    plan = capsys.readouterr().out
    assert "MapInArrow" in plan
    assert "Exchange" not in plan.replace("BroadcastExchange", "")


def test_a_frame_without_the_columns_of_images_is_refused(spark: SparkSession) -> None:
    """The missing column is named."""
    with pytest.raises(SchemaError, match="column 'path' is missing"):
        verger.featurize(spark.range(3), model="efficientnet_lite0")


def test_times_do_not_depend_on_the_zone_of_the_session(
    spark: SparkSession, tmp_path: Path, photos: Path
) -> None:
    """modification_time is an instant, also in a session of another time zone."""
    file = tmp_path / "a.jpg"
    shutil.copy(min(photos.rglob("*.jpg")), file)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        for reader in ("arrow", "spark"):
            images = verger.read_images(spark, str(tmp_path), reader=reader)
            (row,) = images.selectExpr("unix_millis(modification_time) AS ms").collect()
            assert row["ms"] == 1_700_000_000_123
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)
