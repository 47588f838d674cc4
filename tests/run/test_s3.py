"""Photos in a bucket: the same rows as from a folder."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path, PurePosixPath

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.feature import PCAModel

from support.engines import ON_SPARK
from support.runs import CONFIG, fill_bucket, new_bucket, rows
from support.store import Store, Weather
from verger.errors import BusyError, ConfigError, ValidationError
from verger.files.folder import Folder
from verger.job import pipeline
from verger.result.journal import latest_attempt
from verger.result.lock import locked
from verger.result.output import JOURNAL, Output


def test_a_bucket_gives_the_features_of_the_folder(
    s3: str, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """s3a://bucket/prefix is listed, read in the workers, labelled and reported like a folder."""
    bucket, names = fill_bucket(s3, photos)
    record = pipeline.run(f"s3a://{bucket}/raw/", tmp_path / "out", CONFIG)
    assert record.source == f"s3://{bucket}/raw"
    assert record.counts.featurized == 30
    local = {
        row["path"]: row["features"] for row in pq.read_table(finished / "features").to_pylist()
    }
    for row in pq.read_table(tmp_path / "out" / "features").to_pylist():
        name = row["path"].removeprefix(f"s3://{bucket}/raw/")
        assert row["label"] == name.split("/")[0]
        np.testing.assert_allclose(row["features"], local[str(names[name])], rtol=0, atol=1e-5)
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()


def _read(folder: Folder, table: str) -> dict[str, dict[str, object]]:
    """Read a table out of a bucket by the plain files that are there."""
    found: dict[str, dict[str, object]] = {}
    for entry in folder.files(table):
        with folder.open(entry.name) as file:
            rows = pq.read_table(file).to_pylist()
        assert not found.keys() & {row["path"] for row in rows}
        found |= {row["path"]: row for row in rows}
    return found


@ON_SPARK
def test_a_result_in_a_bucket_is_the_result_on_a_disk(
    s3: str, finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT may be s3://: killed before it is published, resumed, added to, and read by anybody."""
    bucket = new_bucket(s3)
    out = Output.at(f"s3a://{bucket}/results/fruit")

    def killed(*_: object, **__: object) -> None:
        raise ValidationError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr("verger.job.compute.compose", killed)
        with pytest.raises(ValidationError, match="killed here"):
            pipeline.run(str(photos), f"s3://{bucket}/results/fruit", CONFIG)
    attempt = latest_attempt(out)
    assert attempt is not None
    assert sum(batch.n_photos for batch in attempt.batches()) == 30
    record = pipeline.run(str(photos), f"s3://{bucket}/results/fruit/", CONFIG)
    assert record.counts.computed == 0
    assert all(check.holds for check in record.checks)
    names = {entry.name.split("/")[0] for entry in out.folder.files(recursive=True)}
    assert names == {path.name for path in finished.iterdir()}
    local = {row["path"]: row for row in pq.read_table(finished / "features").to_pylist()}
    assert _read(out.folder, "features") == local
    model = tmp_path / "model"
    for entry in out.folder.files("models/pca", recursive=True):
        place = model / entry.name.removeprefix("models/pca/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(out.folder.read(entry.name))
    assert PCAModel.load(model.as_uri()).pc.numCols == 5
    again = pipeline.run(str(photos), f"s3://{bucket}/results/fruit", CONFIG)
    assert again.counts.computed == 0
    assert not out.folder.files(JOURNAL, recursive=True)


def test_one_run_at_a_time_writes_to_a_bucket(s3: str, photos: Path) -> None:
    """The lock holds in a bucket too."""
    bucket = new_bucket(s3)
    with locked(Output.at(f"s3://{bucket}/out")), pytest.raises(BusyError, match="another run is"):
        pipeline.run_featurize(str(photos), f"s3://{bucket}/out", CONFIG)


class Throttling(Weather):
    """Befalls the first try of every fourth request of a kind, and of the first of each kind.

    Attributes
    ----------
    asked : Counter
        Tries of every request, by method and path.
    struck : dict
        The fault of those whose first try failed.
    """

    def __init__(self, *kinds: str) -> None:
        super().__init__(kinds)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.struck: dict[tuple[str, str], str] = {}
        self._of_kind: Counter[tuple[str, str]] = Counter()

    def strike(self, method: str, path: str) -> str | None:
        with self._lock:
            request = (method, path)
            self.asked[request] += 1
            if self.asked[request] > 1:
                return None
            kind = (method, kind_of(path))
            number = self._of_kind[kind]
            self._of_kind[kind] += 1
            if number % 4:
                return None
            self.struck[request] = self.kinds[number // 4 % len(self.kinds)]
            return self.struck[request]


def kind_of(path: str) -> str:
    return "list" if "list-type=2" in path else PurePosixPath(path.partition("?")[0]).suffix


def test_a_throttled_bucket_and_lost_connections_cost_a_retry_each_and_no_row(
    finished: Path, photos: Path
) -> None:
    """Of all that a run lists, reads, writes and removes some fails first: 503 or a reset."""
    with closing(Store()) as store:
        client, bucket = store.client(), "mill"
        client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
        )
        for photo in photos.rglob("*.jpg"):
            name = photo.relative_to(photos).as_posix()
            client.put_object(Bucket=bucket, Key=f"raw/{name}", Body=photo.read_bytes())
        weather = Throttling("503", "reset")
        with store.under(weather):
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "verger",
                    "run",
                    f"s3://{bucket}/raw",
                    f"s3://{bucket}/out",
                    "--model",
                    "efficientnet_lite0",
                    "--components",
                    "5",
                    "--commit-every",
                    "4",
                    "--json",
                ],
                env={**os.environ, **store.environment},
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr
        stored = pq.read_table(f"{bucket}/out/features", filesystem=store.filesystem())
    assert json.loads(done.stdout)["counts"]["featurized"] == 30
    local = {
        row["path"].removeprefix(f"{photos}/"): row["features"]
        for row in pq.read_table(finished / "features").to_pylist()
    }
    rows = stored.to_pylist()
    assert len(rows) == 30
    assert {
        row["path"].removeprefix(f"s3://{bucket}/raw/"): row["features"] for row in rows
    } == local
    slowed = {
        (method, kind_of(path))
        for (method, path), fault in weather.struck.items()
        if fault == "503"
    }
    assert {("GET", "list"), ("GET", ".jpg"), ("PUT", ".parquet"), ("PUT", ".json")} <= slowed
    assert "reset" in weather.struck.values()
    assert all(weather.asked[request] > 1 for request in weather.struck)
    # The listing has told the size of a photo: nobody asks again.
    assert not any(method == "HEAD" and path.endswith(".jpg") for method, path in weather.asked)
    # A part of a table has a name of its own, and is written once, or once more.
    parts = {
        request: n
        for request, n in weather.asked.items()
        if request[0] == "PUT" and ".parquet" in request[1]
    }
    assert parts == {request: 1 + (request in weather.struck) for request in parts}


def test_keys_that_are_read_as_others_are_rejected_once(
    s3: str, photos: Path, tmp_path: Path
) -> None:
    """Each has its row and its reason; no other object is read in its place; none is tried again.

    ``up/../plain/1.jpg`` and ``plain/1.jpg`` have the same size, so that only the key tells them.
    """
    client, bucket = boto3.client("s3", endpoint_url=s3), new_bucket(s3)
    first, *others = sorted(photos.rglob("*.jpg"))
    good = [f"raw/plain/{i}.jpg" for i in range(9)]
    good += ["raw/a//1.jpg", "raw//2.jpg"]
    odd = ["raw/up/../plain/1.jpg", "raw/./3.jpg", "raw/end/."]
    for key, photo in zip([*good, *odd], [first, first, *others], strict=False):
        client.put_object(Bucket=bucket, Key=key, Body=photo.read_bytes())
    client.put_object(Bucket=bucket, Key=odd[0], Body=first.read_bytes())
    for marker in ("raw/", "raw/plain/", "raw/empty/", "raw/4.jpg/"):
        client.put_object(Bucket=bucket, Key=marker, Body=b"")
    config = dataclasses.replace(CONFIG, max_error_rate=1.0)
    found = pipeline.run(f"s3://{bucket}/raw", tmp_path / "out", config)
    assert found.counts.reasons == {"unreadable key": 2}
    assert found.counts.ignored == {"with a key that ends in /": 2, "no suffix": 1}
    assert set(rows(tmp_path / "out")) == {f"s3://{bucket}/{key}" for key in good}
    assert set(rows(tmp_path / "out", "rejected")) == {f"s3://{bucket}/{key}" for key in odd[:2]}
    assert pipeline.run(f"s3://{bucket}/raw", tmp_path / "out", config).counts.computed == 0


def test_a_source_with_two_slashes_says_what_is_wrong_with_it(s3: str, tmp_path: Path) -> None:
    """Not that a file is damaged which does not exist."""
    with pytest.raises(ConfigError, match=r"must have no part that is empty"):
        pipeline.run("s3://thicket//lead", tmp_path / "out", CONFIG)
