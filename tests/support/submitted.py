"""Run what was submitted as EMR does: from the bucket, by spark-submit, on executors."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyspark

from support import processes
from support.java import JAVA_OPTIONS
from support.standin import settings_of
from verger.emr.aws import split_address

#: What this machine has no room for, or has no service for.
_SIZES = (
    "spark.driver.",
    "spark.executor.",
    "spark.dynamicAllocation.",
    "spark.emr-serverless.",
    "spark.yarn.",
)
#: An executor of two cores, in a process of its own that unpacks the archive by itself.
APART = "local-cluster[1,2,1024]"
#: One in the driver's process: half of the Java, where the executor does not matter.
TOGETHER = "local[2]"
#: A machine that runs several tests may stop for a while, and nothing here is about time.
_PATIENCE = {
    "spark.network.timeout": "600s",
    "spark.worker.timeout": "600",
    "spark.executor.heartbeatInterval": "60s",
    "spark.python.authenticate.socketTimeout": "120s",
}
#: How variables of the driver are named, on Serverless and on YARN.
_DRIVER_ENV = ("spark.emr-serverless.driverEnv.", "spark.yarn.appMasterEnv.")


@dataclass
class Submitted:
    """A driver that runs.

    Attributes
    ----------
    process : subprocess.Popen
    folder : Path
        Where it works, and where what it prints is kept.
    """

    process: subprocess.Popen[bytes]
    folder: Path

    def poll(self) -> int | None:
        return self.process.poll()

    def terminate(self) -> None:
        """End the driver and its executors, whatever they are doing."""
        processes.kill(processes.of_session(self.process.pid))
        self.process.wait(60)

    def logs(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in ("stdout", "stderr")}


def submit(
    run: Mapping[str, Any],
    folder: Path,
    region: str,
    environment: Mapping[str, str],
    *,
    master: str = TOGETHER,
) -> Submitted:
    """Start the driver of a run on EMR Serverless."""
    asked = run["jobDriver"]["sparkSubmit"]
    conf = settings_of(dict(run))
    program = [asked["entryPoint"], *asked["entryPointArguments"]]
    archives = conf.pop("spark.archives")
    return _start([], archives, conf, program, folder, region, environment, master)


def submit_step(
    words: Sequence[str], master: str, folder: Path, region: str, environment: Mapping[str, str]
) -> Submitted:
    """Start what a step on EMR on EC2 is told to run, under its own ``timeout``.

    The cluster is a standalone one in the place of YARN, which takes no Python driver: it runs
    here, where on YARN it runs on the core node.
    """
    start = words.index("spark-submit")
    archives, program = words.index("--archives"), words.index(_entry_of(words))
    conf = _settings(words[archives + 2 : program])
    return _start(
        words[:start],
        words[archives + 1],
        conf,
        words[program:],
        folder,
        region,
        environment,
        master,
    )


def _entry_of(words: Sequence[str]) -> str:
    """Return the first word that is no option of ``spark-submit``, and no option's value."""
    start = words.index("spark-submit") + 1
    return next(name for name in words[start::2] if not name.startswith("--"))


def _settings(words: Sequence[str]) -> dict[str, str]:
    """Return what ``--conf key=value --conf ...`` says."""
    assert set(words[::2]) == {"--conf"}
    return dict(word.split("=", 1) for word in words[1::2])


def _start(
    before: Sequence[str],
    archives: str,
    conf: dict[str, str],
    program: Sequence[str],
    folder: Path,
    region: str,
    environment: Mapping[str, str],
    master: str,
) -> Submitted:
    """Start a driver by ``spark-submit``.

    The entry point and the archive come out of the bucket; the driver's archive is unpacked where
    it works, the executors fetch theirs by Spark. Sizes are left out: this machine is small.
    """
    folder.mkdir()
    address, _, name = archives.partition("#")
    entry, archive = (_fetch(place, folder, region, environment) for place in (program[0], address))
    with tarfile.open(archive) as tar:
        tar.extractall(folder / name, filter="data")
    driver = {
        key.removeprefix(prefix): value
        for prefix in _DRIVER_ENV
        for key, value in conf.items()
        if key.startswith(prefix)
    }
    conf = {key: value for key, value in conf.items() if not key.startswith(_SIZES)}
    conf |= _PATIENCE | {
        "spark.archives": f"{archive}#{name}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executor.memory": "1g",
        "spark.ui.enabled": "false",
    }
    options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    spark = _spark_home(folder)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [
                *before,
                str(spark / "bin" / "spark-submit"),
                "--master",
                master,
                *options,
                str(entry),
                *program[1:],
            ],
            cwd=folder,
            env={
                **environment,
                "SPARK_HOME": str(spark),
                "SPARK_LOCAL_IP": "127.0.0.1",
                **driver,
                "VERGER_HOME": str(folder / "cache"),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    return Submitted(process, folder)


def _spark_home(folder: Path) -> Path:
    """Return a Spark whose executors work in a folder of the test, not in that of the package."""
    installed, home = Path(pyspark.__file__).parent, folder / "spark"
    home.mkdir()
    for name in ("bin", "jars", "python"):
        (home / name).symlink_to(installed / name)
    return home


def _fetch(address: str, folder: Path, region: str, environment: Mapping[str, str]) -> Path:
    """Fetch an object with the rights of the driver, as AWS does."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    session = boto3.Session(**{name.lower(): environment.get(name) for name in names})
    client = session.client("s3", region_name=region, endpoint_url=environment["AWS_ENDPOINT_URL"])
    bucket, key = split_address(address)
    path = folder / Path(key).name
    path.write_bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    return path


def wrapper() -> bytes:
    """Return a script that stands for the interpreter of an environment: that of these tests."""
    source = Path(__file__).parents[2] / "src"
    return f'#!/bin/sh\nPYTHONPATH={source}:$PYTHONPATH exec {sys.executable} "$@"\n'.encode()


def variables(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of drivers."""
    kept = ("PATH", "HOME", "JAVA_HOME", JAVA_OPTIONS, "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | dict(more)
