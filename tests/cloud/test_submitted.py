"""A run that is really run: submitted by the command, started by spark-submit from the bucket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloud.conftest import REGION, ROLE, STACK, Bucket, environment_of, put
from cloud.standin import Standin
from cloud.submitted import submit, variables, wrapper
from unit.test_emr_package import elf, environment
from verger.cli import app
from verger.emr.aws import Cloud
from verger.emr.package import build_here, upload_package
from verger.java import find_java
from verger.storage import Folder

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def really_run(moto: str | None, aws: Standin | None, tmp_path: Path) -> None:
    """Let the stand-in run what is submitted."""
    if aws is None or moto is None:
        return  # real AWS does so anyway
    environ = variables(environment_of(moto, aws) | {"JAVA_HOME": str(find_java().home)})
    aws.runner = lambda run: submit(run, tmp_path / run["jobRunId"], REGION, environ)


@pytest.fixture
def orchard(
    aws: Standin | None, cloud: Cloud, bucket: Bucket, photos: Path, tmp_path: Path
) -> list[str]:
    """Put photos and a package into the bucket; return the words that name all that is needed."""
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:12]):
        put(cloud, bucket.address(f"photos/{photo.parent.name}/{number}.jpg"), photo.read_bytes())
    release = "emr-spark-8.0.0" if aws else "emr-7.10.0"
    made = upload_package(
        cloud, _archive(aws, tmp_path, release), bucket.address("env"), release=release,
        architecture="X86_64", model="efficientnet_lite0",
    )  # fmt: skip
    words = [bucket.address("photos"), bucket.address("results"), "--package", made.root]
    if aws is None:
        return [*words, "--region", REGION, "--stack", STACK]
    role = f"arn:aws:iam::123456789012:role/{ROLE}"
    logs = bucket.address("logs")
    return [*words, "--region", REGION, "--role", role, "--logs", logs]


def _archive(aws: Standin | None, folder: Path, release: str) -> Path:
    """Return an environment: a real one for real AWS, else the interpreter of these tests."""
    if aws is None:
        return build_here(release, "X86_64")
    return environment(folder, binary=wrapper(), binaries=(elf(),))


def test_a_run_is_probed_submitted_followed_and_paid_for(
    really_run: None, orchard: list[str], bucket: Bucket, tmp_path: Path
) -> None:
    """Doctor, then the run: the result is in the bucket, the report here, the bill beside both."""
    doctor = CliRunner().invoke(app, ["emr", "doctor", *orchard])
    assert doctor.exit_code == 0, doctor.output
    for word in ("12 photos", "the driver's features", "written, read and removed", "pyspark 4"):
        assert word in doctor.stdout
    report = tmp_path / "report.html"
    words = ["emr", "submit", *orchard, "--model", "efficientnet_lite0", "--components", "5",
             "--report", str(report)]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["counts"]["featurized"] == found["counts"]["computed"] == 12
    assert found["billed"]["cost"] > 0
    assert found["estimate"]["n_photos"] == 12
    assert b"<html" in report.read_bytes()
    for word in ("SUBMITTED", "RUNNING", "SUCCESS", "12 listed"):
        assert word in done.stderr
    names = {file.name.split("/")[0] for file in Folder(bucket.address("results")).files(
        recursive=True)}  # fmt: skip
    assert {"features", "pca", "models", "run.json", "report.html"} <= names
    assert ".verger-probe" not in names
