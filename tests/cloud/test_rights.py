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

from support.cloud import REGION, ROLE, Bucket, environment_of, put
from support.environments import elf, environment
from support.processes import wait_until
from support.seaweed import free_port
from support.standin import Standin
from support.submitted import Submitted, submit, variables, wrapper
from verger.cli import app
from verger.emr.aws import connect
from verger.emr.package import upload_package
from verger.engine.java import find_java
from verger.errors import JobError

pytestmark = pytest.mark.timeout(600)

BUCKET = Bucket("strict-orchard", "first")
ROLE_ARN = f"arn:aws:iam::123456789012:role/{ROLE}"
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


@pytest.fixture
def strict(java: None, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start an AWS that refuses what no policy allows, and sign in as one who may do anything."""
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
            Bucket=BUCKET.name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        iam = connect(REGION).client("iam")
        iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(EVERYTHING))
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
        {
            "Effect": "Allow",
            "Action": ["s3:DeleteObject"],
            "Resource": [f"arn:aws:s3:::{BUCKET.name}"],
        }
    )
    for statement in values["Statement"]:
        statement["Action"] = [name for name in statement["Action"] if name != action]
    values["Statement"] = [s for s in values["Statement"] if s["Action"]]
    return json.dumps(values)


def test_the_rights_of_a_run_are_enough_and_without_one_it_fails(
    strict: str, standin: Standin, photos: Path, tmp_path: Path
) -> None:
    """From the archive to the report; without the right to write it fails, and says so."""
    lacking = ["s3:PutObject", ""]

    def start(run: Mapping[str, Any]) -> Submitted:
        policy = without(run["executionIamPolicy"]["policy"], lacking.pop(0))
        local = environment_of(strict, standin) | {"JAVA_HOME": str(find_java().spark_home())}
        environ = variables(local | take_role(policy))
        return submit(run, tmp_path / run["jobRunId"], REGION, environ)

    standin.runner = start
    words = words_of(photos, tmp_path)
    refused = call(words)
    assert isinstance(refused.exception, JobError)
    assert "ACCESS_DENIED" in str(refused.exception) + refused.stderr
    done = call(words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"]["featurized"] == 8
    assert lacking == []


def call(words: list[str]) -> Result:
    return CliRunner().invoke(app, words)


def words_of(photos: Path, folder: Path) -> list[str]:
    """Bring photos and a package, and return the command that submits a run."""
    cloud = connect(REGION)
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:8]):
        put(cloud, BUCKET.address(f"photos/a/{number}.jpg"), photo.read_bytes())
    made = upload_package(
        cloud,
        environment(folder, binary=wrapper(), binaries=(elf(),)),
        BUCKET.address("env"),
        release="emr-spark-8.0.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )
    return [
        "emr",
        "submit",
        BUCKET.address("photos"),
        BUCKET.address("results"),
        "--package",
        made.root,
        "--role",
        ROLE_ARN,
        "--logs",
        BUCKET.address("logs"),
        "--region",
        REGION,
        "--model",
        "efficientnet_lite0",
        "--components",
        "3",
        "--json",
        "--report",
        str(folder / "report.html"),
    ]
