"""What EMR Serverless is asked: held to AWS' own service model, and to what was promised."""

from __future__ import annotations

import fnmatch
import json
import random
import shlex
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cloud import JOB
from support.standin import MODEL, problems, settings_of
from verger.emr.jobs import (
    COUNTS,
    application_request,
    capacity,
    job_name,
    job_request,
    pythons_of,
    session_policy,
    spark_settings,
)
from verger.emr.price import DRIVER, EXECUTOR, Limit, Usage, Worker, check_worker
from verger.emr.runs import pauses
from verger.errors import ConfigError


def shape_of(operation: str) -> Any:
    return MODEL.operation_model(operation).input_shape


# Held to AWS' own model


def test_a_run_is_asked_for_as_aws_wants_it() -> None:
    assert problems(job_request(JOB), shape_of("StartJobRun")) == []


@pytest.mark.parametrize("release", ["emr-7.10.0", "emr-spark-8.0.0"])
@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
def test_an_application_is_asked_for_as_aws_wants_it(release: str, architecture: str) -> None:
    request = application_request("verger-x", release, architecture, Limit(3, 60), "s3://b/logs")
    assert problems(request | {"clientToken": "botocore-s"}, shape_of("CreateApplication")) == []
    assert request["autoStopConfiguration"] == {"enabled": True, "idleTimeoutMinutes": 5}
    assert request["maximumCapacity"] == {"cpu": "14 vCPU", "memory": "44 GB", "disk": "80 GB"}


def test_the_check_would_find_something() -> None:
    """A wrong type, a missing key, a text that is no ARN and one that is too long are found."""
    request = job_request(JOB)
    for name, value in [
        ("executionTimeoutMinutes", "90"),
        ("executionRoleArn", "arn:aws:iam::1:user/me-myself-i"),
        ("name", "x" * 257),
        ("clientToken", "two words"),
    ]:
        assert problems(request | {name: value}, shape_of("StartJobRun")), name
    del request["executionRoleArn"]
    assert problems(request, shape_of("StartJobRun"))


# What is promised of every run


def test_every_run_has_an_end_a_width_and_logs() -> None:
    request = job_request(JOB)
    settings = spark_settings(JOB)
    assert request["executionTimeoutMinutes"] == 90
    assert settings["spark.dynamicAllocation.maxExecutors"] == "5"
    assert settings["spark.default.parallelism"] == "20"
    monitoring = request["configurationOverrides"]["monitoringConfiguration"]
    assert monitoring["s3MonitoringConfiguration"] == {"logUri": "s3://orchard/logs/"}


@pytest.mark.parametrize("executors", [1, 2, 5])
def test_a_run_never_begins_with_more_executors_than_it_may_have(executors: int) -> None:
    """Spark on EMR Serverless begins with 3 unless told otherwise, and refuses a lower maximum."""
    settings = spark_settings(replace(JOB, limit=Limit(executors, 90)))
    most = int(settings["spark.dynamicAllocation.maxExecutors"])
    first = ("instances", "initialExecutors", "minExecutors")
    names = ["spark.executor.instances", *(f"spark.dynamicAllocation.{name}" for name in first[1:])]
    assert most == executors
    assert all(int(settings[name]) <= most for name in names)


@pytest.mark.parametrize("value", ["6", "many", "-1"])
@pytest.mark.parametrize("name", COUNTS)
def test_settings_of_one_s_own_never_ask_for_more_executors_than_are_paid_for(
    name: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=rf"conf {name}={value} must be a number up to max_exec"):
        spark_settings(replace(JOB, conf={name: value}))
    assert spark_settings(replace(JOB, conf={name: "5"}))[name] == "5"


def test_driver_and_executors_use_the_interpreter_of_the_archive() -> None:
    settings = spark_settings(JOB)
    archive = "s3://orchard/env/v1/environment-0123456789ab.tar.gz#environment"
    assert settings["spark.archives"] == archive
    assert {key for key, value in settings.items() if value == "./environment/bin/python"} == {
        "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON",
        "spark.emr-serverless.driverEnv.PYSPARK_PYTHON",
        "spark.executorEnv.PYSPARK_PYTHON",
    }


@pytest.mark.parametrize(("kind", "worker"), [("driver", DRIVER), ("executor", EXECUTOR)])
def test_the_memory_that_is_asked_for_is_the_worker_that_is_reckoned_with(
    kind: str, worker: Any
) -> None:
    """Memory and overhead make the container of the price list: 2 or 4 cores, 4 to 30 GB."""
    settings = spark_settings(JOB)
    memory = [settings[f"spark.{kind}.{name}"] for name in ("memory", "memoryOverhead")]
    assert sum(int(text.removesuffix("g")) for text in memory) == worker.memory_gb
    assert int(settings[f"spark.{kind}.cores"]) == worker.vcpu
    assert 2 * worker.vcpu <= worker.memory_gb <= 7.5 * worker.vcpu
    assert capacity(Limit(1, 60))["cpu"] == "6 vCPU"


@pytest.mark.parametrize(("vcpu", "memory"), [(2, 4), (4, 8), (4, 30), (8, 60), (16, 120)])
def test_an_executor_of_another_size_is_asked_for_and_paid_for(vcpu: int, memory: int) -> None:
    """JVM and Python share its memory; capacity, partitions and disk are those of its size."""
    executor = check_worker(Worker(vcpu, memory, 40))
    job = replace(JOB, limit=Limit(5, 90, executor), flex=True)
    request = job_request(job)
    assert problems(request, shape_of("StartJobRun")) == []
    assert request["flexExecution"] == {"enabled": True}
    settings = spark_settings(job)
    parts = [settings[f"spark.executor.{name}"] for name in ("memory", "memoryOverhead")]
    heap, rest = (int(text.removesuffix("g")) for text in parts)
    assert heap + rest == memory
    assert rest >= 1.5 * vcpu or memory < 3 * vcpu  # a Python worker a core
    assert heap >= 1
    assert int(settings["spark.executor.cores"]) == vcpu
    assert settings["spark.emr-serverless.executor.disk"] == "40g"
    assert settings["spark.default.parallelism"] == str(5 * vcpu)
    assert capacity(job.limit) == {
        "cpu": f"{2 + 5 * vcpu} vCPU",
        "memory": f"{8 + 5 * memory} GB",
        "disk": f"{20 + 5 * 40} GB",
    }
    assert Usage.of(3600, 5, executor) == Usage(2 + 5 * vcpu, 8 + 5 * memory, 5 * 20)
    assert not [key for key in spark_settings(JOB) if key.endswith(".disk")]
    assert "flexExecution" not in job_request(JOB)


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        (Worker(3, 12), "vcpu=3 must be one of 2, 4, 8, 16"),
        (Worker(4, 31), "memory_gb=31 must be between 8 and 30 for 4 vCPU, in steps of 1"),
        (Worker(8, 18), "memory_gb=18 must be between 16 and 60 for 8 vCPU, in steps of 4"),
        (Worker(4, 12, 10), "disk_gb=10 must be between 20 and 200"),
    ],
)
def test_a_size_that_aws_does_not_have_is_refused(worker: Worker, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_worker(worker)


def test_settings_of_one_s_own_win_and_arrive_whole() -> None:
    """Nobody has written down whether AWS knows quotes: what would need them travels as JSON."""
    conf = {
        "spark.executor.memory": "8g",
        "spark.x": 'a "b" c',
        "spark.y": "it's $HOME",
        "spark.driver.extraJavaOptions": "-Da=1 -Db=2",
    }
    request = job_request(replace(JOB, conf=conf))
    assert problems(request, shape_of("StartJobRun")) == []
    text = request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    assert text.split() == shlex.split(text)
    assert not set("'\"\\$`") & set(text)
    found = settings_of(request)
    assert {key: found[key] for key in conf} == conf
    archive = "s3://orchard/env/v1/environment-0123456789ab.tar.gz#environment"
    assert f"--conf spark.archives={archive} " in text
    assert "applicationConfiguration" not in job_request(JOB)["configurationOverrides"]


# The token


def test_the_same_request_has_the_same_token() -> None:
    """Sent twice it is one run; after one that has ended it is another; others are others."""
    token = job_request(JOB)["clientToken"]
    assert job_request(replace(JOB))["clientToken"] == token
    others = [
        job_request(JOB, earlier=1),
        job_request(replace(JOB, limit=Limit(6, 90))),
        job_request(replace(JOB, arguments=(*JOB.arguments, "--center"))),
    ]
    assert len({token, *(other["clientToken"] for other in others)}) == 4


def test_runs_of_the_same_job_have_the_same_name_whatever_they_may_cost() -> None:
    assert job_name(replace(JOB, limit=Limit(1, 10))) == job_name(JOB)
    assert job_name(replace(JOB, writes=(), arguments=("run", "a", "b"))) != job_name(JOB)


# Its rights


def may(policy: dict[str, Any], action: str, resource: str, prefix: str | None = None) -> bool:
    """Whether a policy lets an action pass, as IAM decides it for these simple policies."""
    for statement in policy["Statement"]:
        condition = statement.get("Condition", {}).get("StringLikeIfExists", {})
        listed = condition.get("s3:prefix") if prefix is not None else None
        if (
            action in statement["Action"]
            and any(fnmatch.fnmatchcase(resource, r) for r in statement["Resource"])
            and (listed is None or any(fnmatch.fnmatchcase(prefix, p) for p in listed))
        ):
            return True
    return False


def test_a_run_reaches_its_own_prefixes_and_nothing_beside_them() -> None:
    policy = json.loads(session_policy(JOB))
    bucket = "arn:aws:s3:::orchard"
    for key in ("photos/a/1.jpg", "env/v1/main.py", "results/a/run.json"):
        assert may(policy, "s3:GetObject", f"{bucket}/{key}"), key
    for key in ("photo.jpg", "photos2/1.jpg", "results/b/run.json", "env/v2/main.py"):
        assert not may(policy, "s3:GetObject", f"{bucket}/{key}"), key
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert may(policy, action, f"{bucket}/results/a/features/1.parquet")
        assert not may(policy, action, f"{bucket}/photos/a/1.jpg")
        assert not may(policy, action, f"{bucket}/env/v1/main.py")
    assert may(policy, "s3:PutObject", f"{bucket}/logs/applications/x")
    assert not may(policy, "s3:DeleteObject", f"{bucket}/logs/applications/x")
    assert may(policy, "s3:ListBucket", bucket, "results/a/.journal/")
    assert not may(policy, "s3:ListBucket", bucket, "results/b/")
    assert not may(policy, "s3:ListBucket", bucket, "")
    assert not may(policy, "s3:ListBucket", "arn:aws:s3:::another", "photos/")


def test_a_run_may_learn_that_an_object_is_missing() -> None:
    """S3 says so only to those who may list; a request for one object has no prefix."""
    policy = json.loads(session_policy(JOB))
    assert may(policy, "s3:ListBucket", "arn:aws:s3:::orchard")
    for key in ("photos", "photos/pack.json", "results/a", "results/a/run.json"):
        assert may(policy, "s3:GetObject", f"arn:aws:s3:::orchard/{key}"), key


def test_the_rights_are_no_wider_than_their_names() -> None:
    for statement in json.loads(session_policy(JOB))["Statement"]:
        assert all("*" not in action for action in statement["Action"])
        assert all(r not in ("*", "arn:aws:s3:::*") for r in statement["Resource"])


def test_a_star_in_an_address_is_no_pattern_in_the_policy() -> None:
    policy = session_policy(replace(JOB, reads=("s3://orchard/ph*tos",)))
    assert "arn:aws:s3:::orchard/ph${*}tos/*" in policy


def test_photos_of_another_bucket_and_part_of_aws_are_reached_there() -> None:
    job = replace(JOB, reads=("s3://elsewhere",), role="arn:aws-cn:iam::123456789012:role/x-y-z")
    policy = json.loads(session_policy(job))
    assert may(policy, "s3:GetObject", "arn:aws-cn:s3:::elsewhere/any/1.jpg")
    assert may(policy, "s3:ListBucket", "arn:aws-cn:s3:::elsewhere", "any/")
    assert not may(policy, "s3:PutObject", "arn:aws-cn:s3:::elsewhere/any/1.jpg")


def test_rights_that_aws_would_not_take_are_refused_before() -> None:
    long = "s3://orchard/" + "x" * 900
    with pytest.raises(ConfigError, match=r"too long: .* AWS takes 2048"):
        session_policy(replace(JOB, reads=(long,)))


# Releases, pauses


@pytest.mark.parametrize("release", ["emr-6.15.0", "7.10.0", "emr-7.10", "emr-spark-9.0.0", ""])
def test_a_release_that_verger_does_not_run_on_is_refused(release: str) -> None:
    with pytest.raises(ConfigError, match=r"must be emr-7\.x\.y"):
        pythons_of(release)


def test_each_release_takes_the_pythons_of_its_spark() -> None:
    assert pythons_of("emr-7.10.0") == ("3.11",)
    assert "3.13" in pythons_of("emr-spark-8.0.0")


@given(st.integers())
def test_waiting_grows_and_is_bounded(seed: int) -> None:
    """From one or two seconds to thirty at most, never none, and never all alike."""
    found = list(islice(pauses(random.Random(seed)), 30))
    assert 1.0 <= found[0] <= 2.0
    assert all(1.0 <= pause <= 30.0 for pause in found)
    assert all(pause >= 15.0 for pause in found[10:])
    assert len(set(found)) > 20
