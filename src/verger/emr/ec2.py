"""Plan, start, read, follow and cancel runs on EMR on EC2. A run is a cluster with one step."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from verger.config import Config
from verger.emr.aws import Cloud, aws_errors, is_forbidden, read_object, split_address
from verger.emr.clusters import INSTANCE_TYPES, Hosts, check_hosts, cluster_request
from verger.emr.jobs import Job, job_name
from verger.emr.node_price import NodeRates, NodeUsage
from verger.emr.package import Package
from verger.emr.price import Estimate, Limit, bound_run, executors_for
from verger.emr.runs import GRACE_S, CommitCounter, Watcher, last_words, pauses, unzip_log
from verger.emr.submit import Place, check_run, count_done, make_job, read_stack
from verger.errors import CloudError, ConfigError, JobError
from verger.files.paths import normalize_source

UNDER_WAY = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
GONE = ("TERMINATED", "TERMINATED_WITH_ERRORS")
#: Seconds that machines may take to come, spot nodes to be waited for among them.
STARTUP_S = 2400.0
#: What ``timeout`` exits with when the time was over.
_RAN_OUT = "124"


@dataclass(frozen=True)
class ClusterRun:
    """What AWS says of a cluster and its step.

    Attributes
    ----------
    id : str
        Of the cluster, ``j-...``.
    state : str
        Of the cluster.
    step : str
        Identifier of the step; empty until there is one.
    step_state : str
    details : str
        What AWS says of the state.
    arguments : tuple of str
        Of the step.
    minutes : int
        Its time limit.
    logs : str
        Address below which logs go; empty where they go nowhere.
    """

    id: str
    state: str
    step: str
    step_state: str
    details: str
    arguments: tuple[str, ...]
    minutes: int
    logs: str

    @property
    def out(self) -> str | None:
        """Address of the result; None where it is no run of Verger's."""
        after = self.arguments[self.arguments.index("run") :] if "run" in self.arguments else ()
        return after[2] if len(after) > 2 else None

    @property
    def is_over(self) -> bool:
        """Whether the run is done, or its cluster has ended."""
        return self.step_state == "COMPLETED" or self.state in GONE

    @property
    def words(self) -> str:
        """The states of both."""
        return f"{self.state}, step {self.step_state}" if self.step else self.state


# Before


def find_hosts(
    cloud: Cloud,
    package: Package,
    *,
    stack: str | None = None,
    service_role: str | None = None,
    instance_profile: str | None = None,
    instance_types: tuple[str, ...] = (),
    subnet: str | None = None,
) -> Hosts:
    """Complete the named roles and machines by the outputs of a stack of ``verger emr init``.

    Raises
    ------
    ConfigError
        If a role is missing, or the package is for no cluster.
    CloudError
        If there is no such stack.
    """
    outputs = read_stack(cloud, stack) if stack else {}
    service_role = service_role or outputs.get("ServiceRoleArn")
    instance_profile = instance_profile or outputs.get("InstanceProfileArn")
    if service_role is None or instance_profile is None:
        raise ConfigError(
            "no roles for the cluster: --stack NAME of a stack with Clusters=yes, or "
            "--service-role and --instance-profile"
        )
    hosts = Hosts(
        release=package.release,
        service_role=service_role,
        instance_profile=instance_profile,
        instance_types=instance_types or INSTANCE_TYPES[package.architecture],
        subnet=subnet,
    )
    check_hosts(hosts)
    return replace(hosts, instance_types=_types_there(cloud, hosts, chosen=bool(instance_types)))


def _types_there(cloud: Cloud, hosts: Hosts, *, chosen: bool) -> tuple[str, ...]:
    """Return the types of nodes that the region has; all of them if that may not be asked.

    Raises
    ------
    ConfigError
        If the user has chosen one that it lacks, or it lacks all.
    """
    try:
        supported = set(supported_types(cloud, hosts.release))
    except CloudError as err:
        if not is_forbidden(err.__cause__):
            raise
        return hosts.instance_types
    lacking = [kind for kind in hosts.instance_types if kind not in supported]
    if lacking and (chosen or len(lacking) == len(hosts.instance_types)):
        raise ConfigError(
            f"instance_type={', '.join(lacking)}: {cloud.region} has none for {hosts.release}; "
            "--instance-type names others, of 4 vCPU and 16 GB or more; aws emr "
            f"list-supported-instance-types --release-label {hosts.release} lists them"
        )
    return tuple(kind for kind in hosts.instance_types if kind in supported)


def supported_types(cloud: Cloud, release: str) -> Iterator[str]:
    """Yield the types of nodes that a region has for a release.

    Raises
    ------
    CloudError
    """
    marker: dict[str, str] = {}
    while True:
        with aws_errors(f"list the types of nodes of {release} in {cloud.region}"):
            page = cloud.clusters.list_supported_instance_types(ReleaseLabel=release, **marker)
        yield from (entry["Type"] for entry in page["SupportedInstanceTypes"])
        if not page.get("Marker"):
            return
        marker = {"Marker": page["Marker"]}


def find_cluster_place(
    cloud: Cloud, *, package: str, out: str, logs: str | None = None, stack: str | None = None
) -> Place:
    """Return where the package is and where logs go; the role is that of the machines."""
    bucket = read_stack(cloud, stack)["BucketName"] if stack else split_address(out)[0]
    logs = normalize_source(logs or f"s3://{bucket}/logs")
    return Place(normalize_source(package), "", None, logs)


@dataclass(frozen=True)
class ClusterPlan:
    """A run that could be started on a cluster of its own.

    Attributes
    ----------
    job : Job
    hosts : Hosts
    n_photos : int
        Photos that are listed; 0 where only Spark can list them.
    done : int
        Those that earlier runs have committed.
    estimate : Estimate or None
        Of the others; None where there are no rates for these nodes.
    """

    job: Job
    hosts: Hosts
    n_photos: int
    done: int
    estimate: Estimate | None


def plan_cluster(
    cloud: Cloud,
    source: str,
    out: str,
    config: Config,
    place: Place,
    hosts: Hosts,
    *,
    limit: Limit,
    speed: float,
    max_cost: float | None = None,
    rates: NodeRates | None = None,
) -> ClusterPlan:
    """Check a run before it starts, and plan its cluster; nothing is started or written.

    Parameters
    ----------
    cloud : Cloud
    source, out : str
        ``s3://`` both.
    config : Config
    place : Place
    hosts : Hosts
    limit : Limit
        Most executors, most minutes.
    speed : float
        Photos a second and virtual core.
    max_cost : float, optional
        Makes the limit narrower; see :func:`verger.emr.price.limit_cost`.
    rates : NodeRates, optional
        Of the types of the hosts.
    """
    package, n_photos = check_run(cloud, source, out, config, place, limit.minutes)
    done, left = count_done(out, n_photos)
    if n_photos:
        limit = replace(limit, executors=executors_for(left, speed, limit.executors))
    estimate = None
    if rates is not None:
        money: Any = {"max_cost": max_cost, "commit_every": config.commit_every}
        limit, estimate = bound_run(left, speed, rates, limit, **money)
    job = make_job(cloud, source, out, config, place, package, limit=limit)
    return ClusterPlan(job, hosts, n_photos, done, estimate)


# Clusters


def start_cluster(cloud: Cloud, job: Job, hosts: Hosts) -> tuple[str, bool]:
    """Start a cluster for a run, or return the cluster that is already doing the same run.

    Returns
    -------
    str
        Its identifier.
    bool
        Whether it was started now.

    Raises
    ------
    CloudError
        If AWS refuses.
    """
    for cluster in _clusters_named(cloud, job_name(job)):
        if _tags(_describe(cloud, cluster)).get("made-by") == "verger":
            return cluster, False
    with aws_errors("start the cluster"):
        started = cloud.clusters.run_job_flow(**cluster_request(job, hosts))
    return str(started["JobFlowId"]), True


def _clusters_named(cloud: Cloud, name: str) -> Iterator[str]:
    pages = cloud.clusters.get_paginator("list_clusters").paginate(ClusterStates=list(UNDER_WAY))
    with aws_errors("list the clusters"):
        for page in pages:
            yield from (entry["Id"] for entry in page["Clusters"] if entry["Name"] == name)


def _describe(cloud: Cloud, cluster: str) -> dict[str, Any]:
    with aws_errors(f"look at the cluster {cluster} in {cloud.region}"):
        described: dict[str, Any] = cloud.clusters.describe_cluster(ClusterId=cluster)["Cluster"]
        return described


def _tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}


def read_cluster(cloud: Cloud, cluster: str) -> ClusterRun:
    """Return what AWS says of a cluster and its step.

    Raises
    ------
    CloudError
        If there is no such cluster, or it is none of Verger's.
    """
    described = _describe(cloud, cluster)
    tags = _tags(described)
    if tags.get("made-by") != "verger":
        raise CloudError(f"cluster {cluster}: is none that verger emr submit has started")
    with aws_errors(f"list the steps of {cluster}"):
        steps = cloud.clusters.list_steps(ClusterId=cluster)["Steps"]
    step: dict[str, Any] = steps[0] if steps else {}
    status = step.get("Status", {})
    said = [
        status.get("FailureDetails", {}).get("Reason"),
        status.get("FailureDetails", {}).get("Message"),
        described["Status"].get("StateChangeReason", {}).get("Message"),
    ]
    return ClusterRun(
        cluster,
        described["Status"]["State"],
        step.get("Id", ""),
        status.get("State", ""),
        "; ".join(text for text in said if text),
        tuple(step.get("Config", {}).get("Args", ())),
        int(tags.get("verger-minutes", 0)),
        described.get("LogUri", "").replace("s3n://", "s3://").rstrip("/"),
    )


def cancel_cluster(cloud: Cloud, cluster: str) -> bool:
    """Ask AWS to end a cluster; return whether there was anything to end."""
    if read_cluster(cloud, cluster).state not in UNDER_WAY:
        return False
    with aws_errors(f"end the cluster {cluster}"):
        cloud.clusters.terminate_job_flows(JobFlowIds=[cluster])
    return True


def follow_cluster(
    cloud: Cloud,
    cluster: str,
    out: str,
    watcher: Watcher,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ClusterRun:
    """Wait until a run has ended, and report its progress meanwhile.

    A step that has failed is waited for until its cluster is gone: only then are all logs there.

    Raises
    ------
    JobError
        If it has ended otherwise, or has not ended long after its time.
    """
    run = read_cluster(cloud, cluster)
    until = clock() + 60 * run.minutes + STARTUP_S + GRACE_S
    progress, words = CommitCounter(out), ""
    for pause in pauses():
        if run.words != words:
            words = run.words
            watcher.on_state(words, run.details)
        if (now := progress.read()) is not None:
            watcher.on_progress(*now)
        if run.is_over:
            break
        if clock() > until:
            raise JobError(
                f"cluster {cluster}: is {words} long after its time; verger emr cancel {cluster} "
                "--on ec2"
            )
        sleep(pause)
        run = read_cluster(cloud, cluster)
    check_cluster_end(cloud, run)
    return run


def check_cluster_end(cloud: Cloud, run: ClusterRun) -> None:
    """Raise an error if a run has failed.

    Raises
    ------
    JobError
        With the exit code where a log tells it, and the last lines of the driver's log.
    """
    if run.step_state == "COMPLETED":
        return
    code = re.search(r"[Ee]xit ?[Cc]ode:? *(\d+)", read_step_log(cloud, run, "controller"))
    if code and code[1] == _RAN_OUT:
        ended = (
            f"its limit of {run.minutes} minutes was reached (--max-minutes, or what --max-cost "
            "pays for)"
        )
    else:
        ended = f"{run.words}{f', exit code {code[1]}' if code else ''}: {run.details}"
    log = read_driver_log(cloud, run, "stderr") or read_driver_log(cloud, run, "stdout")
    lines = "".join(f"\n  {line}" for line in last_words(log))
    raise JobError(
        f"cluster {run.id} did not end well: {ended}; what is committed is kept, and the same "
        f"command goes on{'; the last lines of the driver:' if lines else ''}{lines}"
    )


# What it costs


def read_nodes(cloud: Cloud, cluster: str) -> NodeUsage:
    """Add up the hours of all nodes of a cluster; nodes that still run count until now.

    Raises
    ------
    CloudError
    """
    pages = cloud.clusters.get_paginator("list_instances").paginate(ClusterId=cluster)
    with aws_errors(f"list the nodes of {cluster}"):
        nodes = [node for page in pages for node in page["Instances"]]
    return NodeUsage.billed(nodes, datetime.now(UTC))


# Logs


def read_step_log(cloud: Cloud, run: ClusterRun, stream: str) -> str:
    """Return ``controller``, ``stdout`` or ``stderr`` of the step; empty while there is none."""
    if not run.logs or not run.step:
        return ""
    return _read_log(cloud, f"{run.logs}/{run.id}/steps/{run.step}/{stream}.gz")


def read_driver_log(cloud: Cloud, run: ClusterRun, stream: str) -> str:
    """Return the driver's log, or that of ``spark-submit`` if the driver has none.

    YARN's first container of an application is the driver's; of several tries the last is read.
    """
    first = re.compile(rf"/container_[^/]+_000001/{stream}(\.gz)?$")
    drivers = [key for key in _keys(cloud, run) if first.search(key)]
    bucket = split_address(run.logs)[0] if drivers else ""
    text = _read_log(cloud, f"s3://{bucket}/{max(drivers)}") if drivers else ""
    return text or read_step_log(cloud, run, stream)


def _keys(cloud: Cloud, run: ClusterRun) -> Iterator[str]:
    if not run.logs:
        return
    bucket, prefix = split_address(f"{run.logs}/{run.id}/containers")
    pages = cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    with aws_errors(f"list {run.logs}"):
        for page in pages:
            yield from (entry["Key"] for entry in page.get("Contents", ()))


def _read_log(cloud: Cloud, address: str) -> str:
    content = read_object(cloud, address) or b""
    plain = content if not address.endswith(".gz") else unzip_log(content)
    return plain.decode("utf-8", "replace")
