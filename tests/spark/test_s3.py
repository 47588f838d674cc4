"""Photos in a bucket: the same rows as from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import SparkSession

from spark.conftest import CONFIG
from verger import pipeline


def test_a_bucket_gives_the_features_of_the_folder(
    spark: SparkSession, s3: str, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """s3a://bucket/prefix is listed, read in the workers, labelled and reported like a folder."""
    bucket = fs.S3FileSystem(endpoint_override=s3, region="eu-west-3", allow_bucket_creation=True)
    # Not the bucket of the unit tests: moto keeps one memory for all servers of a process.
    bucket.create_dir("grove")
    names = {f"{p.parent.name} é+#%/{p.name}": p for p in photos.rglob("*.jpg")}
    for name, photo in names.items():
        with bucket.open_output_stream(f"grove/raw/{name}") as stream:
            stream.write(photo.read_bytes())
    record = pipeline.run("s3a://grove/raw/", tmp_path / "out", CONFIG)
    assert record["source"] == "s3://grove/raw"
    assert record["counts"]["featurized"] == 30
    local = {row["path"]: row["features"] for row in
             pq.read_table(finished / "features").to_pylist()}  # fmt: skip
    for row in pq.read_table(tmp_path / "out" / "features").to_pylist():
        name = row["path"].removeprefix("s3://grove/raw/")
        assert row["label"] == name.split("/")[0]
        np.testing.assert_allclose(row["features"], local[str(names[name])], rtol=0, atol=1e-5)
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()
