"""Runs on the stand-in: what is started, followed, told and left, in good weather and bad."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.cloud import BUCKET, CONFIG, REGION, ROLE, Bucket, Notes, put
from support.standin import Standin, settings_of
from verger.cli import app
from verger.config import Config
from verger.emr import runs
from verger.emr.applications import find_application
from verger.emr.aws import Cloud, connect
from verger.emr.package import Package
from verger.emr.price import Limit
from verger.emr.room import narrow
from verger.emr.runs import DriverLog, JobRun, cancel_run, follow, read_run, start_run
from verger.emr.submit import JobPlan, Place, describe_bill, plan_run, with_application
from verger.errors import CloudError, ConfigError, JobError, SourceNotFoundError

LIMIT = Limit(4, 60)

pytestmark = pytest.mark.usefixtures("standin")


@pytest.fixture
def plan(cloud: Cloud, bucket: Bucket, place: Place, photos: Path) -> JobPlan:
    """Return a run of three photos."""
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:3]):
        put(cloud, bucket.address(f"photos/a/{number}.jpg"), photo.read_bytes())
    return plan_run(
        cloud,
        bucket.address("photos"),
        bucket.address("results"),
        CONFIG,
        place,
        limit=LIMIT,
        speed=10.0,
    )


def started(cloud: Cloud, plan: JobPlan) -> JobRun:
    job, _ = with_application(cloud, plan)
    return start_run(cloud, job)[0]


def end_of(cloud: Cloud, plan: JobPlan, notes: Notes | None = None) -> dict[str, Any]:
    watcher = (notes or Notes()).watcher
    return follow(cloud, started(cloud, plan), plan.job.writes[0], watcher)


# Before anything is started


def test_what_is_planned_is_bounded_and_priced(plan: JobPlan, bucket: Bucket) -> None:
    """Three photos are work for one executor; the most is that of an hour of it."""
    assert plan.estimate.n_photos == 3
    assert plan.job.limit == Limit(1, 60)
    hour = plan.rates.vcpu_hour * 6 + plan.rates.memory_gb_hour * 20
    assert plan.most == pytest.approx(hour + plan.estimate.requests_cost)
    assert plan.job.arguments[:3] == ("run", bucket.address("photos"), bucket.address("results"))
    assert "--components" in plan.job.arguments


def test_planning_starts_nothing(plan: JobPlan, standin: Standin) -> None:
    assert set(standin.counts) <= {"ListApplications", "GetApplication"}
    assert (standin.applications, standin.runs) == ({}, {})


@pytest.mark.parametrize(
    ("quota", "size", "wanted", "got", "says"),
    [
        (
            16,
            None,
            8,
            3,
            [r"3 executors of 8: quota L-D05C8A75 .*eu-west-3, 16 vCPU; ask for more"],
        ),
        (64, None, 8, 8, []),
        (
            64,
            "32 vCPU",
            8,
            7,
            [r"7 executors of 8: application \w+, at most 32 vCPU, 128 GB; depl"],
        ),
        (64, "400 vCPU", 20, 10, [r"10 executors of 20: application .* 400 vCPU, 128 GB"]),
        (None, None, 3, 3, []),
        (
            None,
            None,
            4,
            4,
            [r"4 executors may be too many: cannot read the quota .*16 vCPU.* 3 ex"],
        ),
        (4, None, 1, 0, [r"quota .* 4 vCPU: holds no driver of 2 vCPU and 8 GB with an executor"]),
    ],
)
def test_a_run_has_the_executors_that_there_is_room_for(
    quota: float | None,
    size: str | None,
    wanted: int,
    got: int,
    says: list[str],
    cloud: Cloud,
    package: Package,
    standin: Standin,
) -> None:
    """What application and quota hold beside the driver is named where it is less."""
    application = None
    if size is not None:
        application = "00stack"
        capacity = {"cpu": size, "memory": "128 GB"}
        standin.applications[application] = {
            "applicationId": application,
            "state": "STARTED",
            "maximumCapacity": capacity,
        }
    standin.quota_vcpu = quota
    if not got:
        with pytest.raises(ConfigError, match=says[0]):
            narrow(cloud, package, application, Limit(wanted, 60))
        return
    limit, notes = narrow(cloud, package, application, Limit(wanted, 60))
    assert limit == Limit(got, 60)
    assert all(re.search(word, note) for word, note in zip(says, notes, strict=True))


@pytest.mark.parametrize(
    ("source", "out", "how", "error", "says"),
    [
        ("photos", "s3://{b}/r", {}, ConfigError, r"SRC=photos: must be s3://bucket/prefix"),
        ("s3://{b}/p", "out", {}, ConfigError, r"OUT=out: must be s3://bucket/prefix"),
        (
            "s3://{b}-elsewhere/p",
            "s3://{b}/r",
            {},
            ConfigError,
            r"bucket is in eu-west-1, and the run in eu-west-3; .*--region eu-west-1",
        ),
        ("s3://{b}/p", "s3://{b}-elsewhere/r", {}, ConfigError, "bucket is in eu-west-1"),
        ("s3://none-of-ours/p", "s3://{b}/r", {}, CloudError, "look at the bucket none-of-ours"),
        ("s3://{b}/no-photos", "s3://{b}/r", {}, SourceNotFoundError, "no-photos"),
        ("s3://{b}/p", "s3://{b}/r", {"limit": Limit(1, 0)}, ConfigError, "minutes=0 must be"),
        (
            "s3://{b}/p",
            "s3://{b}/r",
            {"config": Config()},
            ConfigError,
            r"model=mobilenet_v2: the package .* has efficientnet_lite0; --model efficient",
        ),
        ("s3://{b}/p", "s3://{b}/r", {"max_cost": 0.001}, ConfigError, "max_cost=0.001 must be"),
    ],
)
def test_a_mistake_is_found_before_anything_is_started(
    source: str,
    out: str,
    how: dict[str, Any],
    error: type[Exception],
    says: str,
    cloud: Cloud,
    place: Place,
    standin: Standin,
    photos: Path,
) -> None:
    for name in "abc":
        put(cloud, f"s3://{BUCKET}/p/x/{name}.jpg", next(photos.rglob("*.jpg")).read_bytes())
    arguments = {"config": CONFIG, "limit": LIMIT, "speed": 10.0} | how
    with pytest.raises(error, match=says):
        plan_run(cloud, source.format(b=BUCKET), out.format(b=BUCKET), place=place, **arguments)
    assert (standin.applications, standin.runs) == ({}, {})


# The application


def test_an_application_is_created_once_and_used_again(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    first, created = with_application(cloud, plan)
    again, created_again = with_application(cloud, plan)
    assert (created, created_again) == (True, False)
    assert first.application == again.application
    (made,) = standin.applications.values()
    assert (made["releaseLabel"], made["architecture"]) == ("emr-7.10.0", "X86_64")
    assert made["name"] == "verger-emr-7.10.0-x86-64"


def test_an_application_grows_for_a_wider_run_and_never_shrinks(
    cloud: Cloud, package: Package, standin: Standin
) -> None:
    """AWS lets it be changed while it is idle; a run beside another has the room that there is."""
    for executors, state, cpu in (
        (1, "CREATED", "6 vCPU"),
        (3, "STARTED", "6 vCPU"),
        (3, "STOPPED", "14 vCPU"),
        (2, "STOPPED", "14 vCPU"),
    ):
        for application in standin.applications.values():
            application["state"] = state
        number, _ = find_application(cloud, package, Limit(executors, 60), "s3://x/logs")
        assert standin.applications[number]["maximumCapacity"]["cpu"] == cpu


def test_after_a_teardown_an_application_is_created_again(
    cloud: Cloud, package: Package, standin: Standin
) -> None:
    """With the token of the deleted one AWS would return that one."""
    first, _ = find_application(cloud, package, LIMIT, "s3://x/logs")
    standin.applications[first]["state"] = "TERMINATED"
    again, created = find_application(cloud, package, LIMIT, "s3://x/logs")
    assert created
    assert standin.applications[again]["state"] == "CREATED"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"releaseLabel": "emr-7.9.0"}, r"is emr-7\.9\.0 on X86_64, and the package .* emr-7\.10"),
        ({"architecture": "ARM64"}, r"is emr-7\.10\.0 on ARM64, and the package"),
        ({"autoStopConfiguration": {"enabled": False}}, "does not stop when idle"),
        ({"state": "TERMINATED"}, "was deleted"),
    ],
)
def test_an_application_that_does_not_fit_is_refused(
    change: dict[str, Any],
    says: str,
    cloud: Cloud,
    plan: JobPlan,
    package: Package,
    standin: Standin,
) -> None:
    job, _ = with_application(cloud, plan)
    standin.applications[job.application] |= change
    with pytest.raises((ConfigError, CloudError), match=says):
        find_application(cloud, package, LIMIT, job.logs, job.application)


def test_an_application_that_is_not_there_is_told(cloud: Cloud, package: Package) -> None:
    with pytest.raises(CloudError, match=r"look at the application 00nope in eu-west-3"):
        find_application(cloud, package, LIMIT, "s3://x/logs", "00nope")


# A run


def test_a_run_is_followed_through_its_states_to_its_end(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    notes = Notes()
    standin.logs = {"stdout": b"photos 3\n", "stderr": b"a warning\n"}
    found = end_of(cloud, plan, notes)
    assert notes.states == ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "SUCCESS"]
    assert notes.lines == ["photos 3", "a warning"]
    assert found["state"] == "SUCCESS"


def test_a_run_that_is_sent_twice_is_one(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    """While it is under way it is found; after its end the same request is another run."""
    job, _ = with_application(cloud, plan)
    first, was_started = start_run(cloud, job)
    second, was_started_again = start_run(cloud, job)
    assert (was_started, was_started_again) == (True, False)
    assert first == second
    standin.runs[first.id]["state"] = "FAILED"
    third, _ = start_run(cloud, job)
    assert third != first
    assert len(standin.runs) == 2


def test_an_answer_that_got_lost_does_not_start_a_second_run(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    """The token says that it is the same request, though the list did not show the run yet."""
    job, _ = with_application(cloud, plan)
    standin.faults["StartJobRun"] = [(500, "InternalServerException")]
    first, _ = start_run(cloud, job)
    hidden = dict(standin.runs)
    standin.runs.clear()  # the list lags behind
    request = next(r for name, r in reversed(standin.requests) if name == "StartJobRun")
    standin.runs |= hidden
    assert cloud.emr.start_job_run(**request)["jobRunId"] == first.id
    assert len(standin.runs) == 1


def test_throttling_is_waited_out(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    standin.faults["GetJobRun"] = [(429, "ThrottlingException"), (500, "InternalServerException")]
    assert end_of(cloud, plan)["state"] == "SUCCESS"
    assert standin.faults["GetJobRun"] == []


def test_looking_is_never_endless(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    """A run that never ends is given up long after its time; the looks are few."""
    standin.states = ("SUBMITTED", "RUNNING")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 10_000 * seconds

    run = started(cloud, plan)
    with pytest.raises(JobError, match=r"is RUNNING long after its time; verger emr cancel"):
        follow(cloud, run, plan.job.writes[0], Notes().watcher, sleep=sleep, clock=lambda: now[0])
    assert now[0] > 60 * 60 + runs.GRACE_S
    assert standin.counts["GetJobRun"] < 100


@pytest.mark.parametrize(
    ("state", "details", "says"),
    [
        ("FAILED", "Job failed. ExitCode: 2", r"FAILED, exit code 2: Job failed"),
        ("FAILED", "no capacity", r"FAILED: no capacity"),
        (
            "FAILED",
            "Not authorized to perform sts:AssumeRole on the execution role",
            r"trust policy of the role must let emr-serverless\.amazonaws\.com .*aws:SourceAcc",
        ),
        ("CANCELLED", "by somebody", r"CANCELLED: by somebody"),
        ("CANCELLED", "Job timeout exceeded", r"its limit of 60 minutes was reached .*; what is"),
    ],
)
def test_a_run_that_does_not_end_well_says_why(
    state: str, details: str, says: str, cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    """The state, the exit code, the last lines of the driver, and that nothing is lost.

    The frames of Java's errors, of which Spark's end is full, would leave no room for the lines.
    """
    standin.states, standin.details = ("SUBMITTED", "RUNNING", state), details
    frame = b"\n\tat org.apache.spark.Dispatcher.post(Dispatcher.scala:181)\n\t... 12 more"
    standin.logs = {"stderr": b"\n".join(b"line %d" % n + frame for n in range(100))}
    with pytest.raises(JobError, match=says) as raised:
        end_of(cloud, plan)
    text = str(raised.value)
    assert "what is committed is kept" in text
    assert text.count("line ") == runs.LAST_LINES
    assert text.endswith("line 99")


def test_a_run_without_logs_still_says_why(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    standin.states = ("SUBMITTED", "FAILED")
    with pytest.raises(JobError, match=r"FAILED: -; what is committed is kept, and the same comm"):
        end_of(cloud, plan)


def test_a_log_that_is_still_being_written_is_read_as_far_as_it_goes(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    """Cut off anywhere, its whole lines come once each, and none comes twice."""
    run = started(cloud, plan)
    log = DriverLog(cloud, run, plan.job.logs)
    lines = [f"line {n} {n * 7919}" for n in range(2000)]
    whole = gzip.compress("\n".join([*lines, ""]).encode())
    address = f"{plan.job.logs}/applications/{run.application}/jobs/{run.id}/SPARK_DRIVER/stdout.gz"
    assert log.new_lines() == []
    seen: list[str] = []
    for share in (0.3, 0.6, 1.0):
        put(cloud, address, whole[: int(len(whole) * share)])
        seen += log.new_lines()
    assert seen == lines


def test_a_run_is_cancelled_once(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    run = started(cloud, plan)
    assert cancel_run(cloud, run) is True
    assert read_run(cloud, run)["state"] == "CANCELLED"
    assert cancel_run(cloud, run) is False
    (asked,) = (request for name, request in standin.requests if name == "CancelJobRun")
    assert int(asked["shutdownGracePeriodInSeconds"]) == runs.SHUTDOWN_S  # to end as on Ctrl-C


def test_a_request_that_aws_would_not_take_is_refused_by_the_stand_in(
    cloud: Cloud, plan: JobPlan
) -> None:
    """The stand-in checks what botocore lets pass: the pattern of an ARN."""
    job, _ = with_application(cloud, plan)
    from dataclasses import replace

    with pytest.raises(CloudError, match=r"StartJobRun: .*executionRoleArn='arn:aws:iam::123:us"):
        start_run(cloud, replace(job, role="arn:aws:iam::123:user/not-a-role"))


# What it has cost


def test_what_was_billed_is_priced(cloud: Cloud, plan: JobPlan) -> None:
    found = end_of(cloud, plan)
    bill = describe_bill(found, plan.rates, 3000)
    assert bill is not None
    cost = 0.5 * plan.rates.vcpu_hour + 1.5 * plan.rates.memory_gb_hour
    assert bill["cost"] == pytest.approx(cost)
    assert bill["cost_per_1000_photos"] == pytest.approx(cost / 3)
    assert describe_bill({}, plan.rates, 1) is None


# The commands


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["emr", *words, "--region", REGION])


def test_the_commands_show_log_and_cancel_a_run(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    standin.logs = {"stderr": b"what went wrong\n"}
    run = started(cloud, plan)
    one = (run.id, "--application", run.application)
    assert "SUBMITTED" in call("status", *one).stdout
    assert "nothing yet" in call("logs", *one).stderr
    assert "is being cancelled" in call("cancel", *one).stdout
    assert "has ended already" in call("cancel", *one).stdout
    assert call("logs", *one).stdout == "what went wrong\n"
    shown = json.loads(call("status", *one, "--json").stdout)
    assert shown["state"] == "CANCELLED"
    assert shown["billed"]["vcpu_hours"] == 0.5


def test_runs_are_listed_the_youngest_first(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    """Those of an application or of the region; what others have started there is left out."""
    first = started(cloud, plan)
    standin.runs[first.id]["state"] = "FAILED"
    second = started(cloud, plan)
    standin.runs[second.id]["createdAt"] += 60
    theirs = standin.runs[first.id] | {"name": "nightly", "jobRunId": "00theirs"}
    standin.runs["00theirs"] = theirs
    lines = call("list").stdout.splitlines()
    assert [line.split()[3] for line in lines] == [second.id, first.id]
    assert [line.split()[2] for line in lines] == ["SUBMITTED", "FAILED"]
    assert all(line.endswith(plan.job.writes[0]) for line in lines)
    (shown,) = json.loads(
        call("list", "--application", first.application, "--last", "1", "--json").stdout
    )
    assert (shown["id"], shown["out"]) == (second.id, plan.job.writes[0])
    assert "no run of Verger's" in call("list", "--application", "00none").stdout


def test_spark_s_pages_of_a_run_are_told(cloud: Cloud, plan: JobPlan, standin: Standin) -> None:
    """The driver has them on, and ends when it is done: with ``--ui`` it would wait for Ctrl-C."""
    run = started(cloud, plan)
    done = call("ui", run.id, "--application", run.application)
    assert done.stdout.startswith(f"https://p-{run.id}.emrappui-prod.eu-west-3.amazonaws.com")
    assert "spark.ui.enabled=true" in plan.job.arguments
    assert "--ui" not in plan.job.arguments


def test_an_executor_s_log_is_read_where_aws_puts_it(
    cloud: Cloud, plan: JobPlan, standin: Standin
) -> None:
    run = started(cloud, plan)
    below = f"{plan.job.logs}/applications/{run.application}/jobs/{run.id}/SPARK_EXECUTOR"
    put(cloud, f"{below}/2/stderr.gz", gzip.compress(b"out of memory\n"))
    one = (run.id, "--application", run.application)
    assert call("logs", *one, "--executor", "2").stdout == "out of memory\n"
    assert "nothing yet" in call("logs", *one, "--executor", "1").stderr


def test_submit_without_waiting_says_how_to_look(plan: JobPlan, standin: Standin) -> None:
    """Estimate, limit and rates come first, on stderr; the bound reaches AWS."""
    source, out = plan.job.reads[0], plan.job.writes[0]
    role = f"arn:aws:iam::123456789012:role/{ROLE}"
    done = call(
        "submit",
        source,
        out,
        "--package",
        plan.package.root,
        "--role",
        role,
        "--no-wait",
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        "--max-cost",
        "0.2",
        "--tag",
        "project=fruits=2026",
    )
    assert done.exit_code == 0, done.output
    (run,) = standin.runs
    assert f"verger emr status {run} --application" in done.stdout
    for word in ("estimate  3 photos, 1 executors", "at most", "check them", "created"):
        assert word in done.stderr
    (request,) = (r for name, r in standin.requests if name == "StartJobRun")
    assert request["tags"] == {"project": "fruits=2026"}
    hour = 6 * plan.rates.vcpu_hour + 20 * plan.rates.memory_gb_hour
    assert request["executionTimeoutMinutes"] == int(60 * 0.2 / hour)


def test_a_saved_configuration_leaves_nothing_to_type(
    plan: JobPlan, standin: Standin, tmp_path: Path
) -> None:
    """The table emr has what submit needs, the others are options of the run; flags win."""
    file = tmp_path / "run.toml"
    file.write_text(
        'model = "efficientnet_lite0"\ncomponents = 2\n[emr]\n'
        f'region = "{REGION}"\npackage = "{plan.package.root}"\nmax_minutes = 77\n'
        f'role = "arn:aws:iam::123456789012:role/{ROLE}"\ntag = ["project=fruits"]\n'
    )
    words = ["emr", "submit", plan.job.reads[0], plan.job.writes[0], "--config", str(file)]
    file.write_text(file.read_text() + 'executor_size = "8x32"\ndisk = 30\nflex = true\n')
    file.write_text('views = "five"\nlang = "fr"\n' + file.read_text())
    for more, minutes in ([], 77), (["--max-minutes", "33"], 33):
        done = CliRunner().invoke(app, [*words, "--no-wait", *more])
        assert done.exit_code == 0, done.output
        request = [r for name, r in standin.requests if name == "StartJobRun"][-1]
        assert request["executionTimeoutMinutes"] == minutes
        assert request["tags"] == {"project": "fruits"}
        assert request["flexExecution"] == {"enabled": True}
        arguments = request["jobDriver"]["sparkSubmit"]["entryPointArguments"]
        assert arguments[arguments.index("--views") + 1] == "five"
        assert arguments[arguments.index("--lang") + 1] == "fr"
        settings = settings_of(request)
        assert settings["spark.executor.cores"] == "8"
        assert settings["spark.emr-serverless.executor.disk"] == "30g"
        standin.runs.clear()
    listed = CliRunner().invoke(app, ["emr", "list", "--config", str(file)])
    assert "no run of Verger's" in listed.stdout


def test_an_image_a_network_and_a_key_of_one_s_own(
    plan: JobPlan, standin: Standin, tmp_path: Path
) -> None:
    """They make an application of their own; a run in an image takes no archive."""
    image = "123456789012.dkr.ecr.eu-west-3.amazonaws.com/verger:1"
    key = "arn:aws:kms:eu-west-3:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    file = tmp_path / "run.toml"
    file.write_text(
        f'model = "efficientnet_lite0"\ncomponents = 2\n[emr]\nregion = "{REGION}"\n'
        f'package = "{plan.package.root}"\nrole = "arn:aws:iam::123456789012:role/{ROLE}"\n'
        f'image = "{image}"\nkms_key = "{key}"\n'
        'subnet = ["subnet-1", "subnet-2"]\nsecurity_group = ["sg-1"]\n'
    )
    source, out = plan.job.reads[0], plan.job.writes[0]
    words = ["emr", "submit", source, out, "--config", str(file), "--no-wait"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    ((number, made),) = standin.applications.items()
    assert made["imageConfiguration"] == {"imageUri": image}
    network = {"subnetIds": ["subnet-1", "subnet-2"], "securityGroupIds": ["sg-1"]}
    assert made["networkConfiguration"] == network
    (request,) = (r for name, r in standin.requests if name == "StartJobRun")
    for asked in (made, request["configurationOverrides"]):
        logs = asked["monitoringConfiguration"]["s3MonitoringConfiguration"]
        disks = asked["diskEncryptionConfiguration"]
        assert logs["encryptionKeyArn"] == disks["encryptionKeyArn"] == key
    assert f'["{key}"]' in request["executionIamPolicy"]["policy"]
    settings = settings_of(request)
    assert "spark.archives" not in settings
    assert settings["spark.executorEnv.PYSPARK_PYTHON"] == "/opt/verger/bin/python"
    # The order of subnets says nothing, neither to find the application nor to check it.
    file.write_text(file.read_text().replace('"subnet-1", "subnet-2"', '"subnet-2", "subnet-1"'))
    made["networkConfiguration"]["subnetIds"].reverse()
    for more in [], ["--application", number]:
        again = CliRunner().invoke(app, [*words, *more])
        assert again.exit_code == 0, again.output
        assert (len(standin.applications), len(standin.runs)) == (1, 1)
    made["imageConfiguration"] = {"imageUri": image + "2"}
    refused = CliRunner().invoke(app, [*words, "--application", number])
    assert isinstance(refused.exception, ConfigError)
    assert "an application is made with it" in str(refused.exception)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("emr = 3", r"run\.toml: emr=3 must be a table: \[emr\]"),
        ("[emr]\nmax_costs = 1", r"unknown key 'max-costs' in \[emr\]; known keys: region"),
    ],
)
def test_a_saved_configuration_that_cannot_be_meant_is_refused(
    text: str, says: str, tmp_path: Path
) -> None:
    (file := tmp_path / "run.toml").write_text(text)
    done = CliRunner().invoke(app, ["emr", "submit", "s3://b/p", "s3://b/r", "--config", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert re.search(says, str(done.exception))


def test_a_region_outside_the_union_is_refused_before_aws_is_asked(standin: Standin) -> None:
    done = CliRunner().invoke(
        app, ["emr", "cancel", "r", "--application", "a", "--region", "us-east-1"]
    )
    assert isinstance(done.exception, ConfigError)
    assert "--allow-region" in str(done.exception)
    assert standin.requests == []


def test_without_credentials_it_is_told_how_to_get_some(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(CloudError, match=r"cannot look at the run r: no usable AWS credentials"):
        read_run(connect(REGION), JobRun("a", "r"))


def test_teardown_removes_what_verger_has_made_and_nothing_else(
    cloud: Cloud, plan: JobPlan, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applications of a stack or of others stay, and so does what else lies beside the package."""
    monkeypatch.setattr("verger.emr.teardown.STOP_PAUSE_S", 0.0)
    run = started(cloud, plan)
    package = plan.package.root
    busy = call("teardown", "--yes")
    assert isinstance(busy.exception, CloudError)
    assert f"run {run.id} is under way" in str(busy.exception)
    cancel_run(cloud, run)
    standin.applications["00other"] = {
        **standin.applications[run.application],
        "applicationId": "00other",
        "tags": {},
    }
    put(cloud, f"{package}/notes.txt", b"mine")
    asked = CliRunner().invoke(
        app, ["emr", "teardown", "--package", package, "--region", REGION], input="n\n"
    )
    assert asked.exit_code != 0
    assert standin.applications[run.application]["state"] != "TERMINATED"
    done = call("teardown", "--package", package, "--yes")
    assert done.exit_code == 0, done.output
    assert "stays     photos, results and logs" in done.stdout
    assert standin.applications[run.application]["state"] == "TERMINATED"
    assert standin.applications["00other"]["state"] != "TERMINATED"
    prefix = package.removeprefix(f"s3://{BUCKET}/")
    left = cloud.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix + "/")["Contents"]
    assert [entry["Key"] for entry in left] == [f"{prefix}/notes.txt"]
    assert "nothing of Verger's to remove" in call("teardown", "--yes").stdout
