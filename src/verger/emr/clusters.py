"""Build the requests to EMR on EC2 as plain data: a cluster that does one run and then ends.

Nothing here talks to AWS. The primary node and the one core node, on which the driver runs, are
bought on demand; the executors are on task nodes of the spot market, which AWS may take back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verger.emr.jobs import DRIVER_HOME, Job, check_counts, digest, job_name, worker_settings
from verger.emr.price import EXECUTOR
from verger.engine.environment import PYTHON, UNPACKED
from verger.errors import ConfigError

#: Nodes of 4 virtual cores and 16 GB or more, which leave YARN the 12 GB of one executor.
#: The more types, the sooner a spot node is found, and the fewer go at a time.
INSTANCE_TYPES = {
    "X86_64": ("m5.xlarge", "m5a.xlarge", "m5d.xlarge", "m6i.xlarge", "r5.xlarge"),
    "ARM64": ("m6g.xlarge", "m6gd.xlarge", "r6g.xlarge"),
}
#: Most types of nodes that AWS takes in a fleet with an allocation strategy, asked by an API.
MAX_TYPES = 30
#: Minutes that spot nodes are waited for; then nodes on demand are taken.
SPOT_WAIT_MINUTES = 10
#: A cluster without work goes after so many seconds, whatever became of its step.
IDLE_S = 3600
#: A driver that has not ended so many seconds after it was told to is killed.
KILL_AFTER_S = 60
#: Tag of clusters and networks that AWS' own policy for the service role reaches.
EMR_MARK = "for-use-with-amazon-emr-managed-policies"
#: YARN's label of the nodes that are on demand.
DRIVER_LABEL = "ON_DEMAND"
#: First release 7 whose managed scaling knows labels of the market that a node is from.
LEAST_MINOR = 2


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """What the machines of a cluster are, and who they are to AWS.

    Attributes
    ----------
    release : str
        Such as ``emr-7.10.0``.
    service_role : str
        Name or ARN of the role with which EMR makes and removes machines.
    instance_profile : str
        Name or ARN of the instance profile, whose role is that of the driver and its executors.
    instance_types : tuple of str
        Of all nodes; the market decides.
    subnet : str or None
        Identifier; None for one of the account's default network.
    """

    release: str
    service_role: str
    instance_profile: str
    instance_types: tuple[str, ...]
    subnet: str | None = None


def check_hosts(hosts: Hosts) -> None:
    """Refuse hosts that EMR cannot make a cluster of.

    Raises
    ------
    ConfigError
        If Verger runs on no cluster of this release, or there are too many types of nodes.
    """
    seven = re.fullmatch(r"emr-7\.(\d+)\.\d+", hosts.release)
    if not hosts.release.startswith("emr-spark-8.") and (
        seven is None or int(seven[1]) < LEAST_MINOR
    ):
        raise ConfigError(
            f"release={hosts.release}: a cluster must be emr-7.{LEAST_MINOR}.0 or a later 7, or "
            "emr-spark-8.x.y; verger emr package --release emr-7.10.0"
        )
    if not 1 <= len(hosts.instance_types) <= MAX_TYPES:
        raise ConfigError(
            f"instance_types: there are {len(hosts.instance_types)}; 1 to {MAX_TYPES} are taken"
        )
    for name in hosts.instance_types:
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", name):
            raise ConfigError(f"instance_type={name!r} must be such as m5.xlarge")


def cluster_request(job: Job, hosts: Hosts) -> dict[str, Any]:
    """Return the request ``RunJobFlow``: one step, with limits of nodes and time.

    A tag holds the hash of all the rest.
    """
    instances: dict[str, Any] = {
        "InstanceFleets": fleets(job.limit.executors, hosts.instance_types),
        "KeepJobFlowAliveWhenNoSteps": False,
        "TerminationProtected": False,
    }
    if hosts.subnet:
        instances["Ec2SubnetIds"] = [hosts.subnet]
    request = {
        "Name": job_name(job),
        "ReleaseLabel": hosts.release,
        "Applications": [{"Name": "Spark"}],
        "LogUri": f"{job.logs}/",
        "Instances": instances,
        "Configurations": [yarn_settings()],
        "ManagedScalingPolicy": {"ComputeLimits": compute_limits(job.limit.executors)},
        "AutoTerminationPolicy": {"IdleTimeout": IDLE_S},
        "StepConcurrencyLevel": 1,
        "Steps": [step(job)],
        "ServiceRole": hosts.service_role,
        "JobFlowRole": hosts.instance_profile,
        "VisibleToAllUsers": True,
    }
    tags = {
        **job.tags,
        "made-by": "verger",
        "verger-request": digest(request)[:32],
        "verger-minutes": str(job.limit.minutes),
        EMR_MARK: "true",
    }
    return request | {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def fleets(executors: int, types: Sequence[str]) -> list[dict[str, Any]]:
    """Return the fleets: the primary and the core node on demand, the others spot nodes."""
    nodes = [{"InstanceType": name, "WeightedCapacity": 1} for name in types]
    primary = {
        "InstanceTypeConfigs": [{"InstanceType": name} for name in types],
        "TargetOnDemandCapacity": 1,
        "LaunchSpecifications": {"OnDemandSpecification": {"AllocationStrategy": "lowest-price"}},
    }
    spot = {
        "AllocationStrategy": "price-capacity-optimized",
        "TimeoutDurationMinutes": SPOT_WAIT_MINUTES,
        "TimeoutAction": "SWITCH_TO_ON_DEMAND",
    }
    return [
        {"Name": "primary", "InstanceFleetType": "MASTER", **primary},
        {"Name": "driver", "InstanceFleetType": "CORE", **primary, "InstanceTypeConfigs": nodes},
        {
            "Name": "executors",
            "InstanceFleetType": "TASK",
            "InstanceTypeConfigs": nodes,
            "TargetSpotCapacity": executors,
            "LaunchSpecifications": {
                "SpotSpecification": spot,
                "OnDemandSpecification": {"AllocationStrategy": "lowest-price"},
            },
        },
    ]


def compute_limits(executors: int) -> dict[str, Any]:
    """Return the bounds of managed scaling, in nodes without the primary one."""
    return {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": 1,
        "MaximumCapacityUnits": 1 + executors,
        # The driver's node; without it AWS scales by nodes on demand alone.
        "MaximumOnDemandCapacityUnits": 1,
        "MaximumCoreCapacityUnits": 1,
    }


def yarn_settings() -> dict[str, Any]:
    """Return what keeps the driver off spot nodes, and gives each node one executor.

    YARN on EMR counts memory alone: two executors would share the cores of a node with more of it.
    """
    memory_mb = str(1024 * EXECUTOR.memory_gb)
    return {
        "Classification": "yarn-site",
        "Properties": {
            "yarn.nodemanager.resource.memory-mb": memory_mb,
            "yarn.scheduler.maximum-allocation-mb": memory_mb,
            "yarn.node-labels.enabled": "true",
            "yarn.node-labels.am.default-node-label-expression": DRIVER_LABEL,
        },
    }


def step(job: Job) -> dict[str, Any]:
    """Return the one step; the cluster ends with it, whether it fails or not."""
    return {
        "Name": "verger",
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": step_arguments(job)},
    }


def step_arguments(job: Job) -> list[str]:
    """Return the command of the step.

    EMR knows no time limit of a step. ``timeout`` on the primary node is one: it fails the step,
    which ends the cluster, driver and all, whether anybody looks on or not.
    """
    pairs = (
        word
        for key, value in cluster_settings(job).items()
        for word in ("--conf", f"{key}={value}")
    )
    return [
        "timeout",
        f"--kill-after={KILL_AFTER_S}",
        str(60 * job.limit.minutes),
        "spark-submit",
        "--master",
        "yarn",
        "--deploy-mode",
        "cluster",
        "--archives",
        f"{job.package}/{job.archive}#{UNPACKED}",
        *pairs,
        f"{job.package}/{job.entry}",
        *job.arguments,
    ]


def cluster_settings(job: Job) -> dict[str, str]:
    """Return the settings of Spark that the run is submitted with; ``conf`` wins over ours.

    Raises
    ------
    ConfigError
        If ``conf`` asks for more executors than the limit has.
    """
    check_counts(job)
    return {
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
        "spark.yarn.appMasterEnv.AWS_REGION": job.region,
        "spark.yarn.appMasterEnv.VERGER_HOME": DRIVER_HOME,
        **worker_settings(job),
        # The nodes are there from the start: held from the start, or scaling takes them away.
        "spark.executor.instances": str(job.limit.executors),
        "spark.dynamicAllocation.initialExecutors": str(job.limit.executors),
        # By Apache's name, whatever EMR's own of yarn_settings() does.
        "spark.yarn.am.nodeLabelExpression": DRIVER_LABEL,
        # Else EMR resizes executors by the nodes that it finds, whatever was asked for.
        "spark.yarn.heterogeneousExecutors.enabled": "false",
        **job.conf,
    }
