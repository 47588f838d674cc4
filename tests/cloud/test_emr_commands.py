"""The commands around a run: package, doctor, estimate, and what is told where something lacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.cloud import BUCKET, REGION, ROLE, Bucket, put
from support.environments import elf, environment
from support.standin import Standin
from verger.cli import app
from verger.config import Config
from verger.emr import probe, runs
from verger.emr.aws import Cloud, aws_errors, check_bucket, read_object, split_address
from verger.emr.package import read_package, upload_package
from verger.emr.price import Limit
from verger.emr.submit import Place, find_place, plan_run
from verger.engine.tasks import Task
from verger.errors import (
    CloudError,
    ConfigError,
    OutputError,
    OutputExistsError,
    WeightsNotFoundError,
)
from verger.features.model import load_model
from verger.source.listing import list_photos

ROLE_ARN = f"arn:aws:iam::123456789012:role/{ROLE}"


def call(*words: str, **how: Any) -> Result:
    return CliRunner().invoke(app, ["emr", *words], **how)


def test_without_boto3_it_is_told_what_to_install(tmp_path: Path) -> None:
    """The base install has none; the command says so in one line, and exits 1."""
    (tmp_path / "boto3.py").write_text("raise ImportError('not on this machine')\n")
    command = [sys.executable, "-m", "verger", "emr", "cancel", "r", "--application", "a"]
    path = [str(tmp_path), str(Path(probe.__file__).parents[2])]
    done = subprocess.run(
        [*command, "--region", REGION],
        env={"PYTHONPATH": ":".join(path)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    says = r"verger: boto3 is not installed, which verger emr needs: pip install .*\[aws\]'\n"
    assert re.fullmatch(says, done.stderr)


def test_without_a_region_it_is_told_to_name_one(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    done = call("cancel", "r", "--application", "a")
    assert "no region: name one with --region" in str(done.exception)


# package


def test_a_package_is_whole_and_is_not_brought_twice(
    cloud: Cloud, standin: Standin, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entry points, archive and manifest come with their sizes; what is there is left alone."""
    archive = environment(tmp_path, binaries=(elf(),))
    words = (
        "package",
        bucket.address("env"),
        "--environment",
        str(archive),
        "--region",
        REGION,
        "--model",
        "efficientnet_lite0",
    )
    done = call(*words)
    assert done.exit_code == 0, done.output
    made = read_package(cloud, bucket.address("env"))
    assert set(made.files) == {made.archive, "main.py", "probe.py"}
    assert all(name in done.stdout for name in made.files)
    assert made.n_bytes == sum(file["bytes"] for file in made.files.values())
    for name, file in made.files.items():
        content = read_object(cloud, f"{made.root}/{name}")
        assert content is not None
        assert len(content) == file["bytes"]
    assert b"verger.cli import main" in (read_object(cloud, f"{made.root}/main.py") or b"")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("brought again")

    monkeypatch.setattr(type(cloud.s3), "upload_file", refuse, raising=False)
    again = call(*words, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["files"] == dict(made.files)


def test_weights_go_along_where_no_package_carries_them(
    cloud: Cloud, standin: Standin, bucket: Bucket, tmp_path: Path
) -> None:
    """They are named to the run by their address and their sum."""
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    root = bucket.address("env")
    made = upload_package(
        cloud,
        environment(tmp_path),
        root,
        release="emr-7.10.0",
        architecture="X86_64",
        model="mobilenet_v2",
        weights=weights,
    )
    assert read_object(cloud, f"{root}/weights/w.h5") == b"weights"
    for name in "abc":
        put(cloud, bucket.address(f"photos/x/{name}.jpg"), b"jpeg")
    place = Place(root, ROLE_ARN, None, bucket.address("logs"))
    plan = plan_run(
        cloud,
        bucket.address("photos"),
        bucket.address("results"),
        Config(components=1),
        place,
        limit=Limit(1, 60),
        speed=1.0,
    )
    arguments = plan.job.arguments
    assert arguments[arguments.index("--weights") + 1] == f"{root}/weights/w.h5"
    digest = made.files["weights/w.h5"]["sha256"]
    assert arguments[arguments.index("--weights-sha256") + 1] == digest


def test_what_is_no_package_is_told(cloud: Cloud, standin: Standin, bucket: Bucket) -> None:
    root = bucket.address("env")
    with pytest.raises(CloudError, match=r"holds no package; make it with verger emr package s3:"):
        read_package(cloud, root)
    for content, says in ((b"{", "is damaged"), (b'{"a": 1}', "not of this version of Verger")):
        put(cloud, f"{root}/package.json", content)
        with pytest.raises(CloudError, match=says):
            read_package(cloud, root)


def test_a_dockerfile_is_written_without_aws(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    done = call("package", "s3://b/env", "--dockerfile", str(file), "--architecture", "ARM64")
    assert done.exit_code == 0, done.output
    assert "--platform linux/arm64" in file.read_text()
    assert call("package", "s3://b/env", "--dockerfile", str(file)).exit_code == 0
    assert "--platform linux/amd64" in file.read_text()
    file.write_text("FROM mine\n")
    refused = call("package", "s3://b/env", "--dockerfile", str(file))
    assert isinstance(refused.exception, OutputExistsError)
    assert file.read_text() == "FROM mine\n"


# doctor


def test_doctor_tells_what_is_wrong_and_starts_nothing_then(
    cloud: Cloud, standin: Standin, bucket: Bucket, tmp_path: Path
) -> None:
    """A bucket elsewhere and a missing package are two findings; nothing costs money."""
    done = call(
        "doctor",
        f"s3://{BUCKET}-elsewhere/photos",
        bucket.address("results"),
        "--package",
        bucket.address("env"),
        "--role",
        ROLE_ARN,
        "--region",
        REGION,
        "--json",
    )
    assert done.exit_code == 1
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert {name for name, check in found.items() if not check["holds"]} == {
        "The bucket of SRC is in eu-west-3",
        "The package is whole",
    }
    assert standin.counts["StartJobRun"] == 0


def test_an_environment_that_does_not_start_is_a_finding(
    cloud: Cloud, standin: Standin, bucket: Bucket, tmp_path: Path
) -> None:
    upload_package(
        cloud,
        environment(tmp_path),
        bucket.address("env"),
        release="emr-7.10.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )
    standin.states, standin.details = ("SUBMITTED", "FAILED"), "ExitCode: 127"
    standin.logs = {"stderr": b"./environment/bin/python: not found\n"}
    done = call(
        "doctor",
        bucket.address("photos.csv"),
        bucket.address("results"),
        "--package",
        bucket.address("env"),
        "--role",
        ROLE_ARN,
        "--region",
        REGION,
        "--logs",
        bucket.address("logs"),
    )
    assert done.exit_code == 1
    assert "FAILED  The environment starts: run " in done.stdout
    assert "exit code 127" in done.stdout
    assert "python: not found" in done.stdout
    (request,) = (r for name, r in standin.requests if name == "StartJobRun")
    arguments = request["jobDriver"]["sparkSubmit"]["entryPointArguments"]
    assert arguments[0] == bucket.address("photos.csv")  # the list itself, not its folder


def test_a_probe_tells_what_fails_and_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Spark, a model, photos or a place to write, each is a finding of its own."""
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(probe, "get_session", lambda config: 1 / 0)
    monkeypatch.setattr(probe, "SparkEngine", lambda session: 1 / 0)
    driver, model, listed, written, worker = probe.probe(
        str(tmp_path / "none"), str(file / "out"), "no-such-model"
    )
    assert not any(check.holds for check in (driver, model, listed, written, worker))
    assert driver.detail == "ZeroDivisionError: division by zero"
    assert "no-such-model" in model.detail
    assert "does not exist" in listed.detail
    *_, listed, written, _ = probe.probe(str(photos), str(tmp_path / "out"), "no-such-model")
    assert listed.holds
    assert listed.detail.startswith("30 photos")
    assert written.holds
    assert written.detail.endswith("removed 13 bytes")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_worker_reads_a_photo_and_writes_an_object(photos: Path, tmp_path: Path) -> None:
    """It is done in a task, where the photos of a run are read; nothing is left."""
    photo = list_photos(str(photos)).photos.slice(0, 1)
    read, written = probe.do_errand(Task(0, 0), probe.Errand(photo, str(tmp_path / "out")))
    assert (read.holds, written.holds) == (True, True)
    assert photo["path"][0].as_py() in read.detail
    assert list((tmp_path / "out").iterdir()) == []


def test_a_worker_says_what_keeps_it_from_the_bucket(
    cloud: Cloud, standin: Standin, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right, or the way there, with the region and the endpoint that the worker has."""
    put(cloud, bucket.address("photos/a/1.jpg"), b"jpeg")
    photo = list_photos(bucket.address("photos")).photos
    errand = probe.Errand(photo, bucket.address("results"))
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    for check in probe.do_errand(Task(0, 0), errand):
        assert not check.holds
        assert "no way to S3's endpoint" in check.detail
        assert f"AWS_REGION is {REGION}, the endpoint http://127.0.0.1:9" in check.detail


def test_findings_are_read_back_from_the_log() -> None:
    """One line of a driver's log has them; a driver that did not come so far has none."""
    found = [{"name": "ok", "holds": True, "detail": "fine"}]
    assert probe.read_probe(f"noise\n{probe.MARK}{json.dumps(found)}\nnoise") == found
    assert probe.read_probe("noise") is None


# estimate


def test_an_estimate_times_photos_here_and_asks_nothing_of_aws(photos: Path) -> None:
    """The speed is this machine's, the photos are all that are listed, the rates are named."""
    done = call(
        "estimate",
        str(photos),
        "--region",
        REGION,
        "--model",
        "efficientnet_lite0",
        "--sample",
        "3",
        "--json",
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["n_photos"] == 30
    assert found["timed_here"] is True
    assert 0.5 < found["speed"] < 5000
    per_hour = 6 * found["rates"]["vcpu_hour"] + 20 * found["rates"]["memory_gb_hour"]
    assert found["cost"] == pytest.approx(per_hour * found["minutes"] / 60)


def test_an_estimate_says_the_rates_and_that_they_are_to_be_checked(photos: Path) -> None:
    done = call(
        "estimate", str(photos), "--region", REGION, "--speed", "20", "--architecture", "ARM64"
    )
    assert done.exit_code == 0, done.output
    assert "30 photos, 1 executors: 4 minutes with the start" in done.stdout
    assert "20.0 photos a second and core, as given" in done.stdout
    assert "ARM64" in done.stdout
    assert "check them" in done.stdout


def test_a_region_outside_the_union_has_no_estimate(photos: Path) -> None:
    done = call("estimate", str(photos), "--region", "us-east-1", "--speed", "20")
    assert isinstance(done.exception, ConfigError)
    assert "not in the European Union" in str(done.exception)


# Where runs go


def test_a_stack_says_role_bucket_and_application(cloud: Cloud, standin: Standin) -> None:
    """What was named wins over what the stack says."""
    outputs = {"BucketName": "b", "ApplicationId": "00stack", "JobRoleArn": ROLE_ARN}
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    client = cloud.client("cloudformation")
    client.create_stack(StackName="orchard", TemplateBody=json.dumps(template))
    how = {"package": "s3://b/env/v1/", "out": "s3://b/results"}
    found = find_place(cloud, stack="orchard", **how)
    assert found == Place("s3://b/env/v1", ROLE_ARN, "00stack", "s3://b/logs")
    named = find_place(cloud, stack="orchard", application="00mine", logs="s3://c/l", **how)
    assert (named.application, named.logs) == ("00mine", "s3://c/l")
    with pytest.raises(CloudError, match="look at the stack nope in eu-west-3"):
        find_place(cloud, stack="nope", **how)
    with pytest.raises(ConfigError, match="no role for the run: --stack NAME"):
        find_place(cloud, **how)


def test_a_bucket_elsewhere_is_told_with_its_region(cloud: Cloud, standin: Standin) -> None:
    check_bucket(cloud, f"s3://{BUCKET}/any")
    with pytest.raises(ConfigError, match=r"is in eu-west-1, and the run in eu-west-3"):
        check_bucket(cloud, f"s3://{BUCKET}-elsewhere/any")


@pytest.mark.parametrize("address", ["", "photos", "s3://", "gs://bucket/x", "/s3://b"])
def test_what_is_no_address_in_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"must be s3://bucket/prefix"):
        split_address(address)


def test_what_one_may_not_do_is_told_with_the_doctor(cloud: Cloud, standin: Standin) -> None:
    standin.faults["GetJobRun"] = [(403, "AccessDeniedException")]
    with (
        pytest.raises(
            CloudError, match=r"cannot look: GetJobRun is not allowed .*; verger emr doc"
        ),
        aws_errors("look"),
    ):
        cloud.emr.get_job_run(applicationId="a", jobRunId="r")


# Weights out of a bucket


def test_weights_in_a_bucket_are_those_of_the_disk(
    cloud: Cloud, standin: Standin, bucket: Bucket
) -> None:
    """The same file gives the same contract; one that is not there is told by its address."""
    local = load_model("efficientnet_lite0")
    address = bucket.address("env/weights/lite0.pth")
    put(cloud, address, Path(local.weights_path).read_bytes())
    assert load_model("efficientnet_lite0", weights=address).contract == local.contract
    with pytest.raises(WeightsNotFoundError, match=r"weights s3://.*/none\.pth"):
        load_model("efficientnet_lite0", weights=bucket.address("env/none.pth"))


# Ctrl-C


def test_ctrl_c_leaves_the_run_and_says_how_to_cancel_it(
    cloud: Cloud,
    standin: Standin,
    bucket: Bucket,
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nobody can be asked, the run goes on: stopping is what costs work."""
    upload_package(
        cloud,
        environment(tmp_path),
        bucket.address("env"),
        release="emr-7.10.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:3]):
        put(cloud, bucket.address(f"photos/a/{number}.jpg"), photo.read_bytes())

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "follow", interrupted)
    words = (
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--package",
        bucket.address("env"),
        "--role",
        ROLE_ARN,
        "--region",
        REGION,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
    )
    done = call(*words)
    assert done.exit_code != 0
    (run,) = standin.runs
    assert f"run {run} goes on; verger emr cancel {run} --application" in done.stderr
    assert standin.counts["CancelJobRun"] == 0
    monkeypatch.setattr("verger.cli.emr.submit.can_ask", lambda: True)
    done = call(*words, input="y\n")
    assert "under way already" in done.stderr
    assert "cancelled; what is committed is kept" in done.stderr
    assert standin.counts["CancelJobRun"] == 1


def test_a_report_that_cannot_be_had_or_kept_is_told(
    cloud: Cloud, standin: Standin, bucket: Bucket, tmp_path: Path
) -> None:
    """Where it cannot be written here, it is told where it is."""
    out = bucket.address("results")
    with pytest.raises(OutputError, match=r"results/.*/report\.html: is not there"):
        runs.fetch_report(out, tmp_path / "r.html")
    put(cloud, f"{out}/report.html", b"<html>")
    with pytest.raises(OutputError, match=rf"cannot be written: No such .*; it is in {out}/rep"):
        runs.fetch_report(out, tmp_path / "none" / "r.html")
    runs.fetch_report(out, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == b"<html>"
