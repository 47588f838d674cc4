"""SeaweedFS on loopback: a bucket whose server is no Python."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "eu-west-3"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    for _ in range(300):
        if process is not None and process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


@contextmanager
def seaweed(weed: Path, work: Path) -> Iterator[int]:
    """Run SeaweedFS with its S3 gateway on loopback; yields the gateway's port."""
    folder = work / "weed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    s3, master, volume, filer = (free_port() for _ in range(4))
    who = {
        "name": KEYS["AWS_ACCESS_KEY_ID"],
        "actions": ["Admin"],
        "credentials": [
            {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        ],
    }
    identities = work / "weed.json"
    identities.write_text(json.dumps({"identities": [who]}))
    command = [
        weed,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={identities}",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        *(f"-{part}.port.grpc={free_port()}" for part in ("s3", "master", "volume", "filer")),
        "-master.volumeSizeLimitMB=1024",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    with (work / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(s3, process)
            yield s3
        finally:
            process.kill()  # asked politely it takes a minute, and its data go with it anyway
            process.wait()


def bucket_of(port: int, name: str) -> fs.S3FileSystem:
    """Make a bucket, and return a filesystem that sees it."""
    filesystem = fs.S3FileSystem(
        access_key=KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region=KEYS["AWS_REGION"],
        endpoint_override=f"http://127.0.0.1:{port}",
        allow_bucket_creation=True,
    )
    for attempt in range(30):  # the server listens a little before it can write
        try:
            filesystem.create_dir(name)
            break
        except OSError:
            if attempt == 29:
                raise
            time.sleep(1)
    return filesystem
