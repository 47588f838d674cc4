"""What EMR on EC2 is asked: held to AWS' own service model, and to what was promised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from support.cloud import JOB
from verger.emr.clusters import (
    INSTANCE_TYPES,
    Hosts,
    check_hosts,
    cluster_request,
    cluster_settings,
    step_arguments,
)
from verger.emr.jobs import job_name
from verger.emr.price import EXECUTOR, Limit
from verger.errors import ConfigError

MODEL = botocore.session.get_session().get_service_model("emr")
HOSTS = Hosts(
    release="emr-7.10.0",
    service_role="verger-ServiceRole",
    instance_profile="verger-Machines",
    instance_types=INSTANCE_TYPES["X86_64"],
)


def problems(request: dict[str, Any]) -> str:
    shape = MODEL.operation_model("RunJobFlow").input_shape
    return ParamValidator().validate(request, shape).generate_report()


def fleets_of(request: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {fleet["InstanceFleetType"]: fleet for fleet in request["Instances"]["InstanceFleets"]}


# Held to AWS' own model


@pytest.mark.parametrize("subnet", [None, "subnet-0abc"])
@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
def test_a_cluster_is_asked_for_as_aws_wants_it(subnet: str | None, architecture: str) -> None:
    hosts = replace(HOSTS, subnet=subnet, instance_types=INSTANCE_TYPES[architecture])
    request = cluster_request(JOB, hosts)
    assert problems(request) == ""
    assert request["Instances"].get("Ec2SubnetIds") == ([subnet] if subnet else None)


def test_words_that_aws_lets_one_choose_from_are_its_own() -> None:
    """botocore checks types and keys, and no enumeration."""
    shape = MODEL.operation_model("RunJobFlow").input_shape
    found: list[str] = []

    def walk(value: Any, shape: Any) -> None:
        if shape.type_name == "structure":
            for name, item in value.items():
                walk(item, shape.members[name])
        elif shape.type_name == "list":
            for item in value:
                walk(item, shape.member)
        elif getattr(shape, "enum", None):
            assert value in shape.enum
            found.append(value)

    walk(cluster_request(JOB, HOSTS), shape)
    assert {
        "SWITCH_TO_ON_DEMAND",
        "price-capacity-optimized",
        "TERMINATE_CLUSTER",
        "InstanceFleetUnits",
        "MASTER",
        "CORE",
        "TASK",
    } <= set(found)


def test_the_check_would_find_something() -> None:
    request = cluster_request(JOB, HOSTS)
    assert "StepConcurrencyLevel" in problems(request | {"StepConcurrencyLevel": "1"})
    assert "Unknown parameter" in problems(request | {"KeepAlive": False})


# What is promised of every cluster


def test_a_cluster_goes_by_itself_whatever_becomes_of_its_step() -> None:
    request = cluster_request(JOB, HOSTS)
    (step,) = request["Steps"]
    assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert request["Instances"]["TerminationProtected"] is False
    assert step["ActionOnFailure"] == "TERMINATE_CLUSTER"
    assert 60 <= request["AutoTerminationPolicy"]["IdleTimeout"] <= 3600
    assert request["LogUri"] == "s3://orchard/logs/"
    assert "Ec2KeyName" not in request["Instances"]


def test_the_step_is_bounded_on_the_cluster_itself() -> None:
    """90 minutes are 5,400 seconds, whether the laptop is open or closed."""
    words = step_arguments(JOB)
    assert words[:4] == ["timeout", "--kill-after=60", "5400", "spark-submit"]


def test_the_driver_is_on_demand_and_the_executors_are_spot_nodes_with_a_fall_back() -> None:
    request = cluster_request(JOB, HOSTS)
    fleets = fleets_of(request)
    for kind in ("MASTER", "CORE"):
        assert fleets[kind]["TargetOnDemandCapacity"] == 1
        assert "TargetSpotCapacity" not in fleets[kind]
    task = fleets["TASK"]
    assert task["TargetSpotCapacity"] == 5
    assert "TargetOnDemandCapacity" not in task
    assert len(task["InstanceTypeConfigs"]) >= 3
    assert {node["WeightedCapacity"] for node in task["InstanceTypeConfigs"]} == {1}
    spot = task["LaunchSpecifications"]["SpotSpecification"]
    assert spot["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    assert spot["AllocationStrategy"] == "price-capacity-optimized"
    (yarn,) = request["Configurations"]
    label = yarn["Properties"]["yarn.node-labels.am.default-node-label-expression"]
    assert (label, yarn["Properties"]["yarn.node-labels.enabled"]) == ("ON_DEMAND", "true")
    assert cluster_settings(JOB)["spark.yarn.am.nodeLabelExpression"] == "ON_DEMAND"


def test_scaling_never_passes_the_executors_that_were_allowed() -> None:
    limits = cluster_request(JOB, HOSTS)["ManagedScalingPolicy"]["ComputeLimits"]
    assert limits["MaximumCapacityUnits"] == 6  # the driver's node and five
    assert limits["MaximumCoreCapacityUnits"] == 1
    assert limits["MaximumOnDemandCapacityUnits"] == 1  # the others are bought on the spot market
    settings = cluster_settings(JOB)
    assert settings["spark.dynamicAllocation.maxExecutors"] == "5"
    assert settings["spark.dynamicAllocation.initialExecutors"] == "5"
    assert settings["spark.executor.instances"] == "5"


def test_a_node_holds_one_executor_and_no_part_of_another() -> None:
    (yarn,) = cluster_request(JOB, HOSTS)["Configurations"]
    memory = [
        int(cluster_settings(JOB)[f"spark.executor.{name}"].removesuffix("g"))
        for name in ("memory", "memoryOverhead")
    ]
    assert int(yarn["Properties"]["yarn.nodemanager.resource.memory-mb"]) == 1024 * sum(memory)
    assert sum(memory) == EXECUTOR.memory_gb
    settings = cluster_settings(JOB)
    assert settings["spark.yarn.heterogeneousExecutors.enabled"] == "false"


def test_driver_and_executors_use_the_interpreter_of_the_archive() -> None:
    words = step_arguments(JOB)
    archive = words[words.index("--archives") + 1]
    assert archive == "s3://orchard/env/v1/environment-0123456789ab.tar.gz#environment"
    assert words[words.index("--deploy-mode") + 1] == "cluster"
    assert words[words.index("s3://orchard/env/v1/main.py") + 1 :] == list(JOB.arguments)
    settings = cluster_settings(JOB)
    for key in ("spark.yarn.appMasterEnv.PYSPARK_PYTHON", "spark.executorEnv.PYSPARK_PYTHON"):
        assert settings[key] == "./environment/bin/python"
    assert not [key for key in settings if "serverless" in key]


def test_settings_of_one_s_own_win_and_arrive_whole() -> None:
    job = replace(JOB, conf={"spark.executor.memory": "8g", "spark.x": 'a "b" c'})
    words = step_arguments(job)
    assert "spark.executor.memory=8g" in words
    assert 'spark.x=a "b" c' in words


def test_tags_say_whose_it_is_and_what_was_asked() -> None:
    def tags(request: dict[str, Any]) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in request["Tags"]}

    found = tags(cluster_request(JOB, HOSTS))
    assert (found["made-by"], found["verger-minutes"]) == ("verger", "90")
    assert found["for-use-with-amazon-emr-managed-policies"] == "true"
    assert tags(cluster_request(replace(JOB), HOSTS)) == found
    others = [
        cluster_request(replace(JOB, limit=Limit(6, 90)), HOSTS),
        cluster_request(JOB, replace(HOSTS, subnet="subnet-1")),
    ]
    assert len({found["verger-request"], *(tags(o)["verger-request"] for o in others)}) == 3
    assert {other["Name"] for other in others} == {job_name(JOB)}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"release": "emr-7.1.0"}, r"release=emr-7\.1\.0: a cluster must be emr-7\.2\.0 or"),
        ({"release": "emr-6.15.0"}, r"a cluster must be emr-7.* or emr-spark-8\.x\.y"),
        ({"instance_types": ()}, "there are 0; 1 to 30 are taken"),
        ({"instance_types": ("m5 xlarge",)}, "must be such as m5.xlarge"),
    ],
)
def test_what_could_be_no_cluster_is_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_hosts(replace(HOSTS, **how))
    check_hosts(HOSTS)
    check_hosts(replace(HOSTS, release="emr-spark-8.0.0"))
