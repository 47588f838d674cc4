"""A bucket on SeaweedFS, which shares no line with moto: the same table, after a kill too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import processes
from support.seaweed import KEYS, bucket_of, seaweed
from verger.files.paths import normalize_source

OPTIONS = ("--model", "efficientnet_lite0", "--components", "5", "--commit-every", "2", "--json")


@pytest.fixture(scope="module")
def port(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a server that holds the photos, and return its port."""
    weed = Path(sys.executable).with_name("weed")
    with seaweed(weed, tmp_path_factory.mktemp("seaweed")) as port:
        bucket = bucket_of(port, "meadow")
        for photo in photos.rglob("*.jpg"):
            with bucket.open_output_stream(f"meadow/{photo.parent.name}/{photo.name}") as stream:
                stream.write(photo.read_bytes())
        yield port


def start(port: int, out: str, **variables: str) -> subprocess.Popen[str]:
    """Start a run from the bucket into the bucket."""
    environment = {
        **os.environ,
        **KEYS,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "verger", "run", "s3a://meadow", out, *OPTIONS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_run_is_finished_and_gives_the_table_of_a_folder(
    port: int, finished: Path, photos: Path
) -> None:
    bucket = bucket_of(port, "meadow")
    out = "s3://meadow-results/fruit"
    bucket.create_dir("meadow-results")
    run = start(port, out)
    committed = processes.wait_until(
        lambda: run.poll() is not None or _batches(bucket, "meadow-results/fruit"), 120
    )
    assert committed
    assert run.poll() is None
    processes.kill(processes.of_session(run.pid))
    run.communicate(timeout=60)
    again = start(port, out)
    told, error = again.communicate(timeout=200)
    assert again.returncode == 0, error
    counts = json.loads(told)["counts"]
    assert counts["featurized"] == 30
    assert 0 < counts["computed"] < 30
    local = pq.read_table(finished / "features").to_pylist()
    stored = pq.read_table("meadow-results/fruit/features", filesystem=bucket).to_pylist()
    expected = {row["path"].removeprefix(normalize_source(str(photos))): row for row in local}
    found = {row["path"].removeprefix("s3://meadow"): row for row in stored}
    assert len(stored) == len(found) == 30
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert row["features"] == expected[name]["features"]
        assert row["label"] == expected[name]["label"]


def _batches(bucket: object, out: str) -> bool:
    from pyarrow import fs

    selector = fs.FileSelector(f"{out}/.journal", recursive=True, allow_not_found=True)
    names = [info.base_name for info in bucket.get_file_info(selector)]  # type: ignore[attr-defined]
    return any(n.endswith(".json") and n not in ("start.json", "lock.json") for n in names)


def test_wrong_keys_are_told_in_one_line(port: int) -> None:
    """A real server's refusal ends in one line that says which of the two keys is wrong."""
    for variable, advice in (
        ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID, or the profile's, is unknown there"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY is not the key's"),
    ):
        run = start(port, "s3://meadow-results/none", **{variable: "wrong"})
        _, error = run.communicate(timeout=100)
        assert run.returncode == 1
        assert advice in error
        assert "Traceback" not in error
