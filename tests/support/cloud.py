"""What tests of ``verger emr`` share: names, a bucket of one test's own, a job, moto's clusters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from support.standin import ACCOUNT, Standin
from verger.config import Config
from verger.emr.aws import Cloud, split_address
from verger.emr.jobs import Job
from verger.emr.price import Limit
from verger.emr.runs import Watcher

LIVE = os.environ.get("VERGER_LIVE") == "1"
REGION = os.environ.get("AWS_REGION", "eu-west-3") if LIVE else "eu-west-3"
STACK = os.environ.get("VERGER_LIVE_STACK", "verger")
BUCKET = "standin-orchard"
ROLE = "verger-JobRole"
CONFIG = Config(model="efficientnet_lite0", components=2)
JOB = Job(
    arguments=("run", "s3://orchard/photos", "s3://orchard/results/a", "--components", "50"),
    reads=("s3://orchard/photos",),
    writes=("s3://orchard/results/a",),
    package="s3://orchard/env/v1",
    archive="environment-0123456789ab.tar.gz",
    application="00abc",
    role="arn:aws:iam::123456789012:role/verger-JobRole",
    logs="s3://orchard/logs",
    region="eu-west-3",
    limit=Limit(5, 90),
)


def environment_of(moto: str, service: Standin) -> dict[str, str]:
    """Return what clients need to find the local AWS."""
    return {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ENDPOINT_URL_EMR_SERVERLESS": service.address,
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": service.address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@dataclass(frozen=True)
class Bucket:
    """Prefixes of one test's own, in the four folders that a stack of ours allows.

    Attributes
    ----------
    name : str
    test : str
        What no other test is called.
    """

    name: str
    test: str

    def address(self, name: str) -> str:
        """Return the address of ``photos/...``, ``env/...``, ``results/...`` or ``logs/...``."""
        folder, slash, rest = name.partition("/")
        return f"s3://{self.name}/{folder}/{self.test}{slash}{rest}"


def put(cloud: Cloud, address: str, content: bytes) -> None:
    """Write an object."""
    bucket, key = split_address(address)
    cloud.s3.put_object(Bucket=bucket, Key=key, Body=content)


def fill(cloud: Cloud, bucket: Bucket, photos: Path, n: int) -> None:
    """Put so many photos into the bucket, some of them twice."""
    files = sorted(photos.rglob("*.jpg"))
    for number, photo in zip(range(n), cycle(files), strict=False):
        put(cloud, bucket.address(f"photos/{photo.parent.name}/{number}.jpg"), photo.read_bytes())


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.lines: list[str] = []
        self.progress: list[tuple[int, int | None]] = []
        self.watcher = Watcher(
            on_state=lambda state, details: self.states.append(state),
            on_progress=lambda *now: self.progress.append(now),
            on_log=self.lines.append,
        )


def clusters() -> dict[str, Any]:
    """Return moto's clusters; its server runs in this process, and puts all into one region."""
    from moto.emr.models import emr_backends

    return {
        name: found
        for backend in emr_backends[ACCOUNT].values()
        for name, found in backend.clusters.items()
    }
