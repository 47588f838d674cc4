"""AWS for the tests: moto's S3, IAM and STS, a stand-in for EMR Serverless; or the real thing.

``VERGER_LIVE=1`` runs what can be run on real AWS there, in the stack of ``verger emr init`` that
``VERGER_LIVE_STACK`` names, in ``AWS_REGION``. It costs money, and takes minutes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import boto3
import pytest
from botocore.loaders import JSONFileLoader

from support.cloud import BUCKET, LIVE, REGION, ROLE, STACK, Bucket, environment_of, fill, put
from support.environments import elf, environment
from support.standin import Standin
from support.submitted import wrapper
from verger.emr import runs
from verger.emr.aws import Cloud, connect
from verger.emr.package import Package, build_here, upload_package
from verger.emr.submit import Place, find_place, read_stack


@pytest.fixture(scope="session", autouse=True)
def models_read_once() -> Iterator[None]:
    """Let botocore parse a service model once, and not once a client: half of a test's time."""
    load = cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JSONFileLoader, "load_file", lambda self, path: load(path))
        yield


@pytest.fixture(scope="session")
def moto(request: pytest.FixtureRequest) -> str | None:
    """Give a local AWS a bucket, a bucket elsewhere and a role; return its address."""
    if LIVE:
        return None
    address: str = request.getfixturevalue("aws_server")
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "endpoint_url": address}
    for name, region in ((BUCKET, REGION), (f"{BUCKET}-elsewhere", "eu-west-1")):
        boto3.client("s3", region_name=region, **keys).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
        )
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "emr-serverless.amazonaws.com"},
            }
        ],
    }
    boto3.client("iam", region_name=REGION, **keys).create_role(
        RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust)
    )
    return address


@pytest.fixture
def aws(moto: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin | None]:
    """Let all clients of this test speak to a stand-in, which is returned, or to the real AWS."""
    if moto is None:
        yield None
        return
    service = Standin()
    for name, value in environment_of(moto, service).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runs, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(runs, "LONGEST_PAUSE_S", 0.05)

    def store(address: str, content: bytes) -> None:
        put(connect(REGION), address, content)

    service.store = store
    yield service
    service.close()


@pytest.fixture
def standin(aws: Standin | None) -> Standin:
    """Return the stand-in, for tests of what real AWS does not do on demand."""
    if aws is None:
        pytest.skip("VERGER_LIVE=1: real AWS has no faults on demand")
    return aws


@pytest.fixture
def cloud(aws: Standin | None) -> Cloud:
    """Return the clients."""
    return connect(REGION)


@pytest.fixture
def bucket(aws: Standin | None) -> Bucket:
    """Return prefixes that no other test uses."""
    name = read_stack(connect(REGION), STACK)["BucketName"] if aws is None else BUCKET
    return Bucket(name, uuid.uuid4().hex[:12])


@pytest.fixture
def package(cloud: Cloud, bucket: Bucket, tmp_path: Path) -> Package:
    """Return a package whose environment is a few bytes."""
    return upload_package(
        cloud,
        environment(tmp_path),
        bucket.address("env"),
        release="emr-7.10.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )


@pytest.fixture
def place(cloud: Cloud, bucket: Bucket, package: Package) -> Place:
    """Return where the runs of this test go."""
    return find_place(
        cloud,
        package=package.root,
        out=bucket.address("results"),
        role=f"arn:aws:iam::123456789012:role/{ROLE}",
        logs=bucket.address("logs"),
    )


@pytest.fixture
def orchard(
    aws: Standin | None, cloud: Cloud, bucket: Bucket, photos: Path, tmp_path: Path
) -> list[str]:
    """Put photos and a package into the bucket; return the words that name all that is needed."""
    fill(cloud, bucket, photos, 12)
    release = "emr-spark-8.0.0" if aws else "emr-7.10.0"
    made = upload_package(
        cloud,
        _archive(aws, tmp_path, release),
        bucket.address("env"),
        release=release,
        architecture="X86_64",
        model="efficientnet_lite0",
    )
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
