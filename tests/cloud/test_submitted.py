"""A run that is really run: submitted by the command, started by spark-submit from the bucket."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from support.cloud import REGION, Bucket, clusters, environment_of, fill
from support.cluster import Cluster, bare_environment, run_cluster
from support.engines import local_engine
from support.environments import elf, environment
from support.processes import is_executor, kill, of_session, wait_until
from support.runs import CONFIG
from support.standin import Standin
from support.submitted import submit, submit_step, variables, wrapper
from verger.cli import app
from verger.emr import runs
from verger.emr.aws import Cloud
from verger.emr.package import upload_package
from verger.emr.runs import CommitCounter
from verger.engine.java import find_java
from verger.errors import JobError
from verger.files.tables import read_part
from verger.job import pipeline
from verger.result.output import Output

#: Photos of a run that is ended in its midst.
N_LIMITED = 200

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def environ(java: None, moto: str | None, aws: Standin | None) -> dict[str, str]:
    """Return the environment of drivers."""
    local = environment_of(moto, aws) if moto is not None and aws is not None else {}
    return variables(local | {"JAVA_HOME": str(find_java().spark_home())})


@pytest.fixture
def really_run(
    aws: Standin | None, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the stand-in run what is submitted; real AWS does so anyway."""
    # Looking twenty times a second would take a core from what is looked at.
    monkeypatch.setattr(runs, "LONGEST_PAUSE_S", 0.5)
    if aws is not None:
        aws.runner = lambda run: submit(run, tmp_path / run["jobRunId"], REGION, environ)


def run_here(source: str, out: Path) -> Path:
    """Do a run on this machine, as on a laptop."""
    with local_engine():
        pipeline.run(source, out, CONFIG)
    return out


def features(out: str | Path) -> dict[str, dict[str, Any]]:
    """Return the features of a result by the paths of the photos; no photo is there twice."""
    output = Output.at(out)
    tables = [read_part(output.folder, name) for name in output.part_names("features")]
    rows = [row for table in tables for row in table.to_pylist()]
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def committed(progress: CommitCounter) -> int:
    """Return how many photos of an unfinished run need not be computed again."""
    return (progress.read() or (0, None))[0]


def test_a_run_that_meets_its_limit_is_told_and_goes_on_where_it_stopped(
    really_run: None,
    standin: Standin,
    orchard: list[str],
    cloud: Cloud,
    bucket: Bucket,
    photos: Path,
    tmp_path: Path,
) -> None:
    """The clock of this test: a photo that is committed has taken a minute.

    So the first run is ended in its midst, whatever this machine has to do besides.
    """
    fill(cloud, bucket, photos, N_LIMITED)
    out, start = bucket.address("results"), time.time()
    progress = CommitCounter(out)
    standin.clock = lambda: start + 60 * committed(progress)
    words = [
        "emr",
        "submit",
        *orchard,
        "--model",
        "efficientnet_lite0",
        "--components",
        "5",
        "--commit-every",
        "4",
        "--report",
        str(tmp_path / "report.html"),
    ]
    stopped = CliRunner().invoke(app, [*words, "--max-cost", "0.15"])
    assert isinstance(stopped.exception, JobError)
    (asked,) = (request for name, request in standin.requests if name == "StartJobRun")
    limit = asked["executionTimeoutMinutes"]
    assert f"its limit of {limit} minutes was reached" in str(stopped.exception)
    assert "the same command goes on" in str(stopped.exception)
    for word in ("CANCELLING", "CANCELLED", "of at most 0.1"):
        assert word in stopped.stderr
    done = committed(progress)
    assert limit <= done < N_LIMITED
    assert f"billed    {6 * limit / 60:.3f} vCPU-hours" in stopped.stderr  # of 6 cores
    standin.clock = time.time
    finished = CliRunner().invoke(app, [*words, "--max-cost", "1", "--json"])
    assert finished.exit_code == 0, finished.output
    assert f"done      {done:,} photos are committed" in finished.stderr
    counts = json.loads(finished.stdout)["counts"]
    assert counts["featurized"] == N_LIMITED
    assert counts["computed"] == N_LIMITED - done
    assert features(out) == features(run_here(orchard[0], tmp_path / "here"))


# On EC2: the step of the request, on a standalone cluster of two workers


def test_a_run_on_ec2_outlives_a_spot_node(
    standin: Standin,
    cloud: Cloud,
    bucket: Bucket,
    photos: Path,
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    """What AWS is asked to run is run; what dies is a machine, with all that is on it."""
    fill(cloud, bucket, photos, N_LIMITED)
    out, words = bucket.address("results"), on_ec2(cloud, bucket, tmp_path)
    progress = CommitCounter(out)
    with run_cluster(tmp_path / "machines", bare_environment()) as machines:
        run = submit_step(step_of(words), machines.master, tmp_path / "run", REGION, environ)
        wait_until(
            lambda: (
                run.poll() is not None or (committed(progress) and len(executors(machines)) == 2)
            ),
            300,
        )
        assert run.poll() is None, run.logs()["stderr"].decode()[-2000:]
        kill(of_session(machines.daemons[1].pid))
        assert run.process.wait(300) == 0, run.logs()["stderr"].decode()[-2000:]
    assert b"Lost executor" in run.logs()["stderr"]
    counts = Output.at(out).read_run().counts
    assert (counts.featurized, counts.computed) == (N_LIMITED, N_LIMITED)
    assert features(out) == features(run_here(bucket.address("photos"), tmp_path / "here"))


def executors(machines: Cluster) -> list[psutil.Process]:
    return [process for process in machines.processes() if is_executor(process)]


def on_ec2(cloud: Cloud, bucket: Bucket, folder: Path) -> list[str]:
    """Bring a package for clusters, and return the command that submits a run."""
    made = upload_package(
        cloud,
        environment(folder, binary=wrapper(), binaries=(elf(),)),
        bucket.address("env"),
        release="emr-7.10.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )
    return [
        "emr",
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        made.root,
        "--service-role",
        "verger-ServiceRole",
        "--instance-profile",
        "verger-Machines",
        "--logs",
        bucket.address("logs"),
        "--region",
        REGION,
        "--no-wait",
        "--model",
        "efficientnet_lite0",
        "--components",
        "5",
        "--commit-every",
        "4",
        "--partitions",
        "8",
        "--json",
    ]


def step_of(words: list[str]) -> list[str]:
    """Submit a run, and return the words that AWS is asked to run; the cluster is gone then."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "started" in done.stderr
    found = clusters()[json.loads(done.stdout)["cluster"]]
    found.state = "TERMINATED_WITH_ERRORS"
    return list(found.steps[0].args)
