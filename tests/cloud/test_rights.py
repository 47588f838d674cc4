"""A run with the rights that it is given, and not one more, on an S3 that refuses all else.

moto lets a role do what the policies of the role say, and knows neither those of a session nor
conditions. So the role's own policy is here the very one that the run is submitted with; that only
its own prefixes are listed is what the tests of the policy itself look at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.cloud import BUCKET, REGION, ROLE, Bucket, environment_of
from support.processes import wait_until
from support.seaweed import free_port
from support.standin import Standin
from support.submitted import APART, TOGETHER, Submitted, submit, variables
from verger.cli import app
from verger.emr import runs
from verger.emr.aws import connect
from verger.engine.java import find_java
from verger.errors import JobError
from verger.files.folder import Folder

pytestmark = pytest.mark.timeout(600)

OPTIONS = ("--model", "efficientnet_lite0", "--components", "5", "--json")
ROLE_ARN = f"arn:aws:iam::123456789012:role/{ROLE}"
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "emr-serverless.amazonaws.com", "AWS": "*"},
        }
    ],
}


@pytest.fixture
def strict(
    java: None, aws: Standin | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str | None]:
    """Start an AWS that refuses what no policy allows, and sign in as one who may do anything."""
    if aws is None:
        yield None
        return
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_until(lambda: answers(f"{address}/moto-api/data.json"), 60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        connect(REGION).s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        iam = connect(REGION).client("iam")
        iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.create_user(UserName="me")
        iam.put_user_policy(UserName="me", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
        key = iam.create_access_key(UserName="me")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        refuse_all_else(address)
        yield address
    finally:
        server.terminate()
        server.wait()


def answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address):
        return True
    return False


def refuse_all_else(address: str) -> None:
    """Let moto look at policies from the next request on."""
    urllib.request.urlopen(
        urllib.request.Request(
            f"{address}/moto-api/reset-auth",
            data=b"0",
            headers={"Content-Type": "application/octet-stream"},
        )
    ).close()


def take_role(policy: str) -> dict[str, str]:
    """Give the role this policy and no other, and return the variables of one who has taken it."""
    connect(REGION).client("iam").put_role_policy(
        RoleName=ROLE, PolicyName="session", PolicyDocument=policy
    )
    found = (
        connect(REGION)
        .client("sts")
        .assume_role(RoleArn=ROLE_ARN, RoleSessionName="a-run")["Credentials"]
    )
    return {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SESSION_TOKEN": found["SessionToken"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
    }


def without(policy: str, action: str) -> str:
    """Return a policy that lacks one right.

    Of a request that removes many objects, AWS looks at each of them; moto looks at the bucket.
    """
    values = json.loads(policy)
    values["Statement"].append(
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"arn:aws:s3:::{BUCKET}"]}
    )
    for statement in values["Statement"]:
        statement["Action"] = [name for name in statement["Action"] if name != action]
    values["Statement"] = [s for s in values["Statement"] if s["Action"]]
    return json.dumps(values)


def test_a_run_is_probed_submitted_followed_and_paid_for_with_its_rights_and_no_other(
    strict: str | None,
    orchard: list[str],
    aws: Standin | None,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Doctor, then the run: the result is in the bucket, the report here, the bill beside both.

    Then the next run may not write, and says so. Real AWS sees to the rights by itself.
    """
    # Looking twenty times a second would take a core from what is looked at.
    monkeypatch.setattr(runs, "LONGEST_PAUSE_S", 0.5)
    lacking = {"right": ""}

    def start(run: Mapping[str, Any]) -> Submitted:
        policy = without(run["executionIamPolicy"]["policy"], lacking["right"])
        local = environment_of(str(strict), aws) | {"JAVA_HOME": str(find_java().spark_home())}
        environ = variables(local | take_role(policy))
        folder = tmp_path / run["jobRunId"]
        return submit(run, folder, REGION, environ, master=TOGETHER if lacking["right"] else APART)

    if aws is not None:
        aws.runner = start
    doctor = call(["emr", "doctor", *orchard])
    assert doctor.exit_code == 0, doctor.output + said(tmp_path)
    for word in ("12 photos", "the driver's features", "written, read and removed", "pyspark "):
        assert word in doctor.stdout
    report = tmp_path / "report.html"
    words = ["emr", "submit", *orchard, *OPTIONS, "--report", str(report)]
    done = call(words)
    assert done.exit_code == 0, done.output + said(tmp_path)
    found = json.loads(done.stdout)
    assert found["counts"]["featurized"] == found["counts"]["computed"] == 12
    assert found["billed"]["cost"] > 0
    assert found["estimate"]["n_photos"] == 12
    assert b"<html" in report.read_bytes()
    for word in ("SUBMITTED", "RUNNING", "SUCCESS", "12 listed"):
        assert word in done.stderr
    names = {
        file.name.split("/")[0] for file in Folder(bucket.address("results")).files(recursive=True)
    }
    assert {"features", "pca", "models", "run.json", "report.html"} <= names
    assert ".verger-probe" not in names
    if aws is None:
        return
    lacking["right"] = "s3:PutObject"
    words[words.index(bucket.address("results"))] += "/again"
    refused = call(words)
    assert isinstance(refused.exception, JobError)
    assert "ACCESS_DENIED" in str(refused.exception) + refused.stderr


def call(words: list[str]) -> Result:
    return CliRunner().invoke(app, words)


def said(folder: Path) -> str:
    """Return what all drivers have printed: the last lines alone rarely tell why one failed."""
    return "".join(path.read_text() for path in sorted(folder.glob("*/std???")))
