"""Runs on clusters of moto's EMR: what is started, followed, told and left, in good and bad.

moto starts no machine and never ends a step; the tests move its states on, one at each look.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.stub import Stubber
from click.testing import CliRunner, Result

from support.cloud import CONFIG, REGION, Bucket, Notes, clusters, put
from support.environments import environment
from support.results import run_record
from verger.cli import app
from verger.emr import ec2
from verger.emr.aws import Cloud
from verger.emr.clusters import EMR_MARK, INSTANCE_TYPES, Hosts
from verger.emr.ec2 import (
    cancel_cluster,
    find_cluster_place,
    find_hosts,
    follow_cluster,
    plan_cluster,
    read_cluster,
    read_driver_log,
    start_cluster,
)
from verger.emr.jobs import Job, job_name
from verger.emr.node_price import NodeUsage, load_node_rates
from verger.emr.package import Package, upload_package
from verger.emr.price import Limit, most_cost
from verger.errors import CloudError, ConfigError, JobError
from verger.files.records import as_json, to_plain
from verger.result.record import Counts

pytestmark = pytest.mark.usefixtures("standin")

ROLES = ("--service-role", "verger-ServiceRole", "--instance-profile", "verger-Machines")
HOSTS = Hosts(
    release="emr-7.10.0",
    service_role="verger-ServiceRole",
    instance_profile="verger-Machines",
    instance_types=INSTANCE_TYPES["X86_64"],
)
RECORD = run_record(counts=Counts(listed=3, featurized=3, rejected=0, computed=3))
GOOD = (("STARTING", "PENDING"), ("RUNNING", "RUNNING"), ("TERMINATING", "COMPLETED"))
BAD = (("RUNNING", "RUNNING"), ("TERMINATING", "FAILED"), ("TERMINATED_WITH_ERRORS", "FAILED"))


def under_way() -> list[str]:
    return [name for name, found in clusters().items() if found.state in ec2.UNDER_WAY]


@pytest.fixture
def photos_there(cloud: Cloud, bucket: Bucket, photos: Path) -> None:
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:3]):
        put(cloud, bucket.address(f"photos/a/{number}.jpg"), photo.read_bytes())


@pytest.fixture
def job(cloud: Cloud, bucket: Bucket, package: Package, photos_there: None) -> Job:
    """Return a run of three photos."""
    place = find_cluster_place(
        cloud, package=package.root, out=bucket.address("results"), logs=bucket.address("logs")
    )
    return plan_cluster(
        cloud,
        bucket.address("photos"),
        bucket.address("results"),
        CONFIG,
        place,
        HOSTS,
        limit=Limit(4, 60),
        speed=10.0,
    ).job


@pytest.fixture(autouse=True)
def no_cluster_left(standin: Any) -> Iterator[None]:
    yield
    for cluster in clusters().values():
        cluster.state = "TERMINATED"


def walk(
    monkeypatch: pytest.MonkeyPatch,
    states: tuple[tuple[str, str], ...],
    at_end: Callable[[str], None] = lambda cluster: None,
) -> None:
    """Let every look find the next states; before the last ones, do what the run would do."""
    look, left = ec2.read_cluster, list(states)

    def moved(cloud: Cloud, cluster: str) -> ec2.ClusterRun:
        if len(left) == 1:
            at_end(cluster)
        found = clusters()[cluster]
        found.state, found.steps[0].state = left.pop(0) if len(left) > 1 else left[0]
        return look(cloud, cluster)

    monkeypatch.setattr(ec2, "read_cluster", moved)


def call(*words: str, **how: Any) -> Result:
    return CliRunner().invoke(app, ["emr", *words, "--region", REGION], **how)


# Before anything is started


def test_what_is_planned_is_bounded(job: Job, bucket: Bucket) -> None:
    """Three photos are work for one executor; nothing is started."""
    assert job.limit == Limit(1, 60)
    assert job.arguments[:3] == ("run", bucket.address("photos"), bucket.address("results"))
    assert all(cluster.name != job_name(job) for cluster in clusters().values())


def test_roles_come_from_the_options_or_from_a_stack(cloud: Cloud, package: Package) -> None:
    with pytest.raises(ConfigError, match=r"no roles for the cluster: --stack NAME .*Clusters=yes"):
        find_hosts(cloud, package, service_role="only-one")
    outputs = {
        "JobRoleArn": "arn:job",
        "BucketName": "b",
        "ServiceRoleArn": "arn:service",
        "InstanceProfileArn": "arn:profile",
    }
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    cloud.client("cloudformation").create_stack(
        StackName="with-clusters", TemplateBody=json.dumps(template)
    )
    found = find_hosts(cloud, package, stack="with-clusters", service_role="mine")
    assert (found.service_role, found.instance_profile) == ("mine", "arn:profile")
    assert found.instance_types == INSTANCE_TYPES["X86_64"]
    place = find_cluster_place(
        cloud, package=package.root, out="s3://c/results", stack="with-clusters"
    )
    assert place.logs == "s3://b/logs"


def test_types_of_nodes_that_the_region_lacks_are_left_out_or_refused(
    cloud: Cloud, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """m5a and m6i are not in Aragon: a fleet with them in it would be refused as a whole."""
    roles = {"service_role": "s", "instance_profile": "p"}
    supported = ["m5.xlarge", "m5d.xlarge", "r5.xlarge", "c5.xlarge"]
    assert find_hosts(cloud, package, **roles).instance_types == INSTANCE_TYPES["X86_64"]
    monkeypatch.setattr(ec2, "supported_types", lambda cloud, release: iter(supported))
    found = find_hosts(cloud, package, **roles).instance_types
    assert found == ("m5.xlarge", "m5d.xlarge", "r5.xlarge")
    with pytest.raises(ConfigError, match=r"instance_type=m5a\.xlarge: eu-west-3 has none for emr"):
        find_hosts(cloud, package, **roles, instance_types=("m5.xlarge", "m5a.xlarge"))
    supported.clear()
    with pytest.raises(ConfigError, match=r"instance_type=m5\.xlarge, m5a.* --instance-type names"):
        find_hosts(cloud, package, **roles)


def test_all_pages_of_the_types_of_nodes_are_read(cloud: Cloud) -> None:
    """The answers are checked against AWS' own model of the service."""
    with Stubber(cloud.clusters) as stub:
        for asked, kind, marker in (({}, "m5.xlarge", {"Marker": "x"}), ({"Marker": "x"}, "a", {})):
            stub.add_response(
                "list_supported_instance_types",
                {"SupportedInstanceTypes": [{"Type": kind}], **marker},
                {"ReleaseLabel": "emr-7.10.0", **asked},
            )
        assert list(ec2.supported_types(cloud, "emr-7.10.0")) == ["m5.xlarge", "a"]
        stub.assert_no_pending_responses()


def test_without_the_right_to_list_types_of_nodes_all_are_asked_for(
    cloud: Cloud, package: Package
) -> None:
    with Stubber(cloud.clusters) as stub:
        stub.add_client_error("list_supported_instance_types", "AccessDeniedException")
        found = find_hosts(cloud, package, service_role="s", instance_profile="p")
    assert found.instance_types == INSTANCE_TYPES["X86_64"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("status", "j-1", "--on", "ec2", "--application", "00a"), "--application: not with"),
        (("status", "j-1"), "Missing option '--application'; or --on ec2"),
        (
            (
                *("submit", "s3://b/p", "s3://b/r", "--package", "s3://b/e", "--on", "ec2"),
                *("--disk", "40", "--executor-size", "4x24", "--flex"),
            ),
            "--executor-size, --disk, --flex: not with --on ec2",
        ),
        (
            (
                *("submit", "s3://b/p", "s3://b/r", "--package", "s3://b/e"),
                *("--executor-size", "large", "--role", "arn:x"),
            ),
            "large: must be VCPUxGB, such as 4x24",
        ),
        (("list", "--on", "ec2", "--stack", "s"), "--stack: not with --on ec2"),
        (("logs", "j-1", "--on", "ec2", "--executor", "1"), "--executor: not with --on ec2"),
        (
            ("submit", "s3://b/p", "s3://b/r", "--package", "s3://b/e", "--tag", "aws:x=1"),
            "--tag: aws:x=1: must be KEY=VALUE",
        ),
        (("cancel", "j-1"), "Missing option '--application'; or --on ec2"),
        (
            (
                "submit",
                "s3://b/p",
                "s3://b/r",
                "--package",
                "s3://b/e",
                "--on",
                "ec2",
                "--role",
                "arn:x",
            ),
            "--role: not with --on ec2",
        ),
        (
            ("doctor", "b", "r", "--on", "ec2", "--package", "s3://b/e", "--security-group", "s"),
            "--security-group: not with --on ec2",
        ),
        (
            ("estimate", "photos", "--instance-type", "m5.xlarge"),
            "--instance-type: not with --on serverless",
        ),
        (
            (
                "submit",
                "s3://b/p",
                "s3://b/r",
                "--package",
                "s3://b/e",
                "--instance-type",
                "m5.large",
                "--service-role",
                "s",
            ),
            "--service-role, --instance-type: not with --on serverless",
        ),
    ],
)
def test_an_option_that_means_nothing_there_is_refused(words: tuple[str, ...], says: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert says in done.stderr


# Start, look, cancel


def test_the_same_command_follows_the_cluster_that_is_under_way(cloud: Cloud, job: Job) -> None:
    """One that is gone, or is going, is not followed: the run goes on in another."""
    first, started = start_cluster(cloud, job, HOSTS)
    assert started
    assert start_cluster(cloud, job, HOSTS) == (first, False)
    clusters()[first].state = "TERMINATING"
    second, started = start_cluster(cloud, job, HOSTS)
    assert started
    assert second != first


def test_a_cluster_of_somebody_else_s_is_not_taken_for_ours(cloud: Cloud, job: Job) -> None:
    theirs = cloud.client("emr").run_job_flow(
        Name=job_name(job),
        ReleaseLabel="emr-7.10.0",
        Instances={"KeepJobFlowAliveWhenNoSteps": True},
    )["JobFlowId"]
    ours, started = start_cluster(cloud, job, HOSTS)
    assert started
    assert ours != theirs
    with pytest.raises(CloudError, match="is none that verger emr submit has started"):
        cancel_cluster(cloud, theirs)
    assert clusters()[theirs].state != "TERMINATED"


def test_aws_knows_the_run_as_it_was_asked_for(cloud: Cloud, job: Job, bucket: Bucket) -> None:
    found = read_cluster(cloud, start_cluster(cloud, job, HOSTS)[0])
    assert found.minutes == 60
    assert found.logs == bucket.address("logs")
    assert found.out == bucket.address("results")
    assert found.arguments[0] == "timeout"
    assert (found.step_state, found.is_over) == ("RUNNING", False)


def test_a_cluster_is_cancelled_once(cloud: Cloud, job: Job) -> None:
    cluster, _ = start_cluster(cloud, job, HOSTS)
    assert "is being cancelled" in call("cancel", cluster, "--on", "ec2").stdout
    assert clusters()[cluster].state == "TERMINATED"
    assert "has ended already" in call("cancel", cluster, "--on", "ec2").stdout


def test_clusters_are_listed_with_their_results(cloud: Cloud, job: Job) -> None:
    """Gone ones too; what others have started is left out."""
    cluster, _ = start_cluster(cloud, replace(job, tags={"project": "fruits"}), HOSTS)
    assert {"Key": "project", "Value": "fruits"} in cloud.clusters.describe_cluster(
        ClusterId=cluster
    )["Cluster"]["Tags"]
    cloud.client("emr").run_job_flow(Name="nightly", Instances={})
    cancel_cluster(cloud, cluster)
    line = call("list", "--on", "ec2", "--last", "1").stdout.strip()
    assert f"TERMINATED, step RUNNING  {cluster}" in line
    assert line.endswith(job.writes[0])


def test_a_cluster_that_does_not_exist_is_told(cloud: Cloud) -> None:
    with pytest.raises(CloudError, match="cannot look at the cluster j-NONE in eu-west-3"):
        read_cluster(cloud, "j-NONE")


# Follow


def test_a_run_is_followed_until_its_step_is_done(
    cloud: Cloud, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for machines to go: the result is there."""
    cluster, _ = start_cluster(cloud, job, HOSTS)
    walk(monkeypatch, GOOD)
    notes = Notes()
    found = follow_cluster(cloud, cluster, job.writes[0], notes.watcher)
    assert found.state == "TERMINATING"
    assert notes.states == [
        "STARTING, step PENDING",
        "RUNNING, step RUNNING",
        "TERMINATING, step COMPLETED",
    ]


def log_of(cloud: Cloud, bucket: Bucket, cluster: str, name: str, text: str) -> None:
    put(cloud, f"{bucket.address('logs')}/{cluster}/{name}.gz", gzip.compress(text.encode()))


def test_a_run_that_fails_is_told_with_exit_code_and_last_lines(
    cloud: Cloud, job: Job, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs come when the cluster goes; the driver's, of its last try, is what tells why."""
    cluster, _ = start_cluster(cloud, job, HOSTS)
    step = clusters()[cluster].steps[0].id

    def bring(cluster: str) -> None:
        log_of(cloud, bucket, cluster, f"steps/{step}/controller", "Step failed with exitCode 1\n")
        log_of(cloud, bucket, cluster, f"steps/{step}/stderr", "client: FAILED\n")
        where = "containers/application_1_0001/container_1_0001"
        log_of(cloud, bucket, cluster, f"{where}_01_000001/stderr", "the first try\n")
        log_of(cloud, bucket, cluster, f"{where}_02_000001/stderr", "early\n" * 30 + "no disk\n")
        log_of(cloud, bucket, cluster, f"{where}_02_000002/stderr", "an executor\n")

    walk(monkeypatch, BAD, bring)
    with pytest.raises(JobError, match=r"FAILED, exit code 1: .*the same command goes on") as told:
        follow_cluster(cloud, cluster, job.writes[0], Notes().watcher)
    lines = str(told.value).splitlines()
    assert lines[-1] == "  no disk"
    assert len(lines) == 21
    assert call("logs", cluster, "--on", "ec2").stdout.endswith("early\nno disk\n")


def test_a_run_whose_time_is_over_is_told_so(
    cloud: Cloud, job: Job, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``timeout`` exits with 124; without a driver's log, spark-submit's is shown."""
    cluster, _ = start_cluster(cloud, job, HOSTS)
    step = clusters()[cluster].steps[0].id

    def bring(cluster: str) -> None:
        log_of(cloud, bucket, cluster, f"steps/{step}/controller", "failed with exitCode 124\n")
        log_of(cloud, bucket, cluster, f"steps/{step}/stderr", "application_1: RUNNING\n")

    walk(monkeypatch, BAD, bring)
    with pytest.raises(JobError, match=r"its limit of 60 minutes was reached(.|\n)*_1: RUNNING"):
        follow_cluster(cloud, cluster, job.writes[0], Notes().watcher)


def test_a_cluster_that_never_came_is_told(
    cloud: Cloud, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No spot and no other node, or roles that EMR may not take: no log, but AWS' own words."""
    cluster, _ = start_cluster(cloud, job, HOSTS)
    walk(monkeypatch, (("STARTING", "PENDING"), ("TERMINATED_WITH_ERRORS", "CANCELLED")))
    with pytest.raises(JobError, match="TERMINATED_WITH_ERRORS, step CANCELLED"):
        follow_cluster(cloud, cluster, job.writes[0], Notes().watcher)
    assert read_driver_log(cloud, read_cluster(cloud, cluster), "stderr") == ""


def test_waiting_has_an_end(cloud: Cloud, job: Job) -> None:
    """After an hour of its time, 40 minutes for machines to come, and a quarter of an hour."""
    cluster, _ = start_cluster(cloud, job, HOSTS)
    now, slept = [0.0], []

    def sleep(pause: float) -> None:
        slept.append(pause)
        now[0] += 600.0

    with pytest.raises(JobError, match=r"long after its time; verger emr cancel j-\w+ --on ec2"):
        follow_cluster(
            cloud, cluster, job.writes[0], Notes().watcher, sleep=sleep, clock=lambda: now[0]
        )
    assert len(slept) == 12  # 7,200 s; eleven are 6,600, within 3,600 + 2,400 + 900


# What it costs


def machines(cluster: str, *hours: float | None, market: str = "SPOT") -> None:
    """Give a cluster of moto's nodes, which makes none for fleets; None is still there."""
    created, nodes = datetime.now(UTC) - timedelta(hours=10), clusters()[cluster].ec2_instances
    nodes[:] = [node for node in nodes if node.market != market]
    for number, lived in enumerate(hours):
        ended = created + timedelta(hours=lived) if lived is not None else None
        nodes.append(
            SimpleNamespace(
                id=f"ci-{market}-{number}",
                ec2_instance_id=f"i-{number}",
                market=market,
                instance_type="m5.xlarge",
                status={
                    "State": "RUNNING",
                    "Timeline": {"CreationDateTime": created, "EndDateTime": ended},
                },
            )
        )


def test_the_hours_of_all_nodes_are_read_back(cloud: Cloud, job: Job) -> None:
    cluster, _ = start_cluster(cloud, job, HOSTS)
    machines(cluster, 2.0, 0.5)
    machines(cluster, 4.0, None, market="ON_DEMAND")
    found = ec2.read_nodes(cloud, cluster)
    assert found.spot == pytest.approx({"m5.xlarge": 2.5})
    assert found.on_demand == pytest.approx({"m5.xlarge": 14.0}, abs=0.01)
    assert found.n_going == 1


def test_money_is_a_limit_of_nodes_and_of_the_step(
    package: Package, bucket: Bucket, photos_there: None
) -> None:
    """What AWS is asked is what the limit says; the sum counts the dearest nodes on demand."""
    done = call(
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        package.root,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        "--max-cost",
        "1",
        "--speed",
        "0.001",
        "--no-wait",
        *ROLES,
    )
    assert done.exit_code == 0, done.output
    (cluster,) = under_way()
    found = clusters()[cluster]
    rates = load_node_rates(REGION, INSTANCE_TYPES["X86_64"])
    asked = int(found.steps[0].args[2]) // 60
    assert asked == int(60 / rates.hour(2) - rates.unbounded_s / 60)  # three have not ten minutes
    assert 0.97 < most_cost(rates, Limit(2, asked)) <= 1
    for word in (
        "estimate  3 photos, 2 executors",
        "all nodes on demand and 25 minutes",
        f": 2 task nodes beside 2 on demand, {asked} minutes",
    ):
        assert word in done.stderr


def test_where_there_are_no_rates_a_run_goes_without_an_estimate(
    package: Package, bucket: Bucket, photos_there: None
) -> None:
    """But never without the limit that it was given in money."""
    words = (
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        package.root,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        "--no-wait",
        "--instance-type",
        "m7i.xlarge",
        *ROLES,
    )
    refused = call(*words, "--max-cost", "2")
    assert isinstance(refused.exception, ConfigError)
    assert "on_demand_hour=None for m7i.xlarge" in str(refused.exception)
    assert under_way() == []
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "estimate  none: rates rates.toml: on_demand_hour=None" in done.stderr
    assert "at most   1 task nodes beside 2 on demand" in done.stderr


def test_an_estimate_of_a_cluster_starts_none(photos: Path) -> None:
    done = call("estimate", str(photos), "--on", "ec2", "--speed", "20")
    assert done.exit_code == 0, done.output
    assert "30 photos, 1 executors: 9 minutes with the start" in done.stdout
    assert "m5.xlarge 0.224 + 0.048" in done.stdout
    assert "check them" in done.stdout
    one = call(
        "estimate",
        str(photos),
        "--on",
        "ec2",
        "--speed",
        "20",
        "--json",
        "--instance-type",
        "m5.xlarge",
    )
    found = json.loads(one.stdout)
    hour = 3 * (0.048 + 79 * 0.116 / 730) + 2 * 0.224 + 0.4 * 0.224
    assert found["cost"] == pytest.approx(hour * found["minutes"] / 60)


# The doctor


def test_the_doctor_looks_at_roles_and_network_and_starts_no_cluster(
    cloud: Cloud, package: Package, bucket: Bucket
) -> None:
    """What is missing is a finding of its own; a mark on the subnet is missed by nobody else."""
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    iam, network = cloud.client("iam"), cloud.client("ec2")
    iam.create_role(RoleName="verger-ServiceRole", AssumeRolePolicyDocument=trust)
    subnet = network.describe_subnets()["Subnets"][0]["SubnetId"]
    words = (
        "doctor",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        package.root,
        "--subnet",
        subnet,
        "--json",
        *ROLES,
    )
    done = call(*words)
    assert done.exit_code == 1
    assert wrong(done) == {"The profile of the machines exists", "The subnet is marked for EMR"}
    iam.create_instance_profile(InstanceProfileName="verger-Machines")
    network.create_tags(Resources=[subnet], Tags=[{"Key": EMR_MARK, "Value": "true"}])
    done = call(*words)
    assert (done.exit_code, wrong(done)) == (0, set())
    assert under_way() == []


def wrong(done: Result) -> set[str]:
    return {check["name"] for check in json.loads(done.stdout) if not check["holds"]}


def test_a_package_for_no_cluster_is_a_finding(
    cloud: Cloud, bucket: Bucket, tmp_path: Path
) -> None:
    upload_package(
        cloud,
        environment(tmp_path),
        bucket.address("env"),
        release="emr-7.1.0",
        architecture="X86_64",
        model="efficientnet_lite0",
    )
    done = call(
        "doctor",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        bucket.address("env"),
        *ROLES,
    )
    assert done.exit_code == 1
    assert "FAILED  A cluster can be asked for: release=emr-7.1.0" in done.stdout


# The command


def test_submit_starts_follows_and_fetches_the_report(
    cloud: Cloud,
    package: Package,
    bucket: Bucket,
    photos_there: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, report = bucket.address("results"), tmp_path / "report.html"

    def finish(cluster: str) -> None:
        machines(cluster, 2.5)
        machines(cluster, 2.5, None, market="ON_DEMAND")
        put(cloud, f"{out}/run.json", as_json(RECORD))
        put(cloud, f"{out}/report.html", b"<html>")

    walk(monkeypatch, GOOD, finish)
    done = call(
        "submit",
        bucket.address("photos"),
        out,
        "--on",
        "ec2",
        "--package",
        package.root,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        "--report",
        str(report),
        "--logs",
        bucket.address("logs"),
        *ROLES,
        "--json",
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["counts"] == to_plain(RECORD.counts)
    assert report.read_bytes() == b"<html>"
    rates, nodes = load_node_rates(REGION, ["m5.xlarge"]), found["nodes"]
    assert nodes["spot_hours"] == {"m5.xlarge": 2.5}
    assert nodes["cost"] == pytest.approx(
        rates.cost(NodeUsage({"m5.xlarge": 12.5}, {"m5.xlarge": 2.5})), rel=1e-3
    )
    assert nodes["cost_per_1000_photos"] == pytest.approx(nodes["cost"] / 0.003)
    assert found["estimate"]["n_photos"] == 3
    assert "photos    3, of which 0 are committed" in done.stderr
    assert ": 1 task nodes beside 2 on demand, 720 minutes" in done.stderr
    status = call("status", found["cluster"], "--on", "ec2", "--json")
    assert json.loads(status.stdout)["step"] == "COMPLETED"
    told = call("status", found["cluster"], "--on", "ec2").stdout
    assert "state     TERMINATING, step COMPLETED" in told
    assert "nodes     12.50 hours on demand, 2.50 hours of spot nodes" in told
    assert "1 still there, so that it grows" in told


def test_ctrl_c_leaves_the_cluster_or_ends_it_as_one_says(
    package: Package, bucket: Bucket, photos_there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ec2, "follow_cluster", interrupted)
    words = (
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        package.root,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        *ROLES,
    )
    done = call(*words)
    (cluster,) = under_way()
    assert f"run {cluster} goes on; verger emr cancel {cluster} --on ec2 --region" in done.stderr
    monkeypatch.setattr("verger.cli.emr.submit.can_ask", lambda: True)
    done = call(*words, input="y\n")
    assert f"cluster {cluster}, which was under way already" in done.stderr
    assert clusters()[cluster].state == "TERMINATED"


def test_no_wait_returns_with_the_line_that_asks_how_far_it_is(
    package: Package, bucket: Bucket, photos_there: None
) -> None:
    done = call(
        "submit",
        bucket.address("photos"),
        bucket.address("results"),
        "--on",
        "ec2",
        "--package",
        package.root,
        "--model",
        "efficientnet_lite0",
        "--components",
        "2",
        "--no-wait",
        *ROLES,
    )
    (cluster,) = under_way()
    assert done.stdout == f"verger emr status {cluster} --on ec2 --region {REGION}\n"
