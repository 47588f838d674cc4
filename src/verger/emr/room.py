"""Find how many executors there is room for: an application's capacity, the account's quota.

A run that asks for more is no slower run: EMR Serverless repeats that it cannot have it, and may
end the run as failed, with all of its photos computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from verger.emr.applications import can_be_widened, capacity_of, own_application, read_application
from verger.emr.aws import Cloud, aws_errors
from verger.emr.jobs import PLAIN, Setup, capacity
from verger.emr.package import Package
from verger.emr.price import DRIVER, EXECUTOR, Limit, Worker
from verger.errors import CloudError, ConfigError

#: "Max concurrent vCPUs per account", and what AWS grants a new account in a region; EMR Serverless
#: User Guide, "Endpoints and quotas". Some new accounts have less.
QUOTA, QUOTA_VCPU = "L-D05C8A75", 16


@dataclass(frozen=True)
class Room:
    """How many executors something holds beside a driver.

    Attributes
    ----------
    executors : int
        Below 1 where not even one fits.
    holder : str
        What holds them, with its size.
    wider : str
        What makes it wider.
    executor : Worker
        The size of each.
    """

    executors: int
    holder: str
    wider: str
    executor: Worker

    def check(self) -> str:
        """Say how many executors it holds.

        Raises
        ------
        ConfigError
            If it holds none.
        """
        if self.executors < 1:
            raise ConfigError(
                f"{self.holder}: holds no driver of {DRIVER.vcpu} vCPU and {DRIVER.memory_gb} GB "
                f"with an executor of {self.executor.vcpu} vCPU and {self.executor.memory_gb} GB; "
                f"{self.wider}"
            )
        return f"{self.holder}, holds a driver and {self.executors} executors"


def narrow(
    cloud: Cloud, package: Package, application: str | None, limit: Limit, setup: Setup = PLAIN
) -> tuple[Limit, list[str]]:
    """Return a limit of executors that there is room for, and what was to be told about it.

    Parameters
    ----------
    cloud : Cloud
    package : Package
    application : str or None
        Where the run goes; None for Verger's own, which bounds nothing while it can be widened.
    limit : Limit
        What is wanted.
    setup : Setup
        By which Verger's own is known.

    Raises
    ------
    ConfigError
        If there is no room for one executor.
    CloudError
        If there is no such application.
    """
    rooms, notes = [], []
    application = application or own_application(cloud, package, setup)
    if (
        application is not None
        and (room := application_room(cloud, application, limit.executor)) is not None
    ):
        rooms.append(room)
    try:
        rooms.append(quota_room(cloud, limit.executor))
    except CloudError as err:
        if limit.executors > _executors_in("cpu", QUOTA_VCPU, limit.executor):
            notes.append(f"{limit.executors} executors may be too many: {err}")
    for room in rooms:
        room.check()
        if room.executors < limit.executors:
            notes.append(
                f"{room.executors} executors of {limit.executors}: {room.holder}; {room.wider}"
            )
            limit = replace(limit, executors=room.executors)
    return limit, notes


def application_room(cloud: Cloud, application: str, executor: Worker = EXECUTOR) -> Room | None:
    """Return the room of an application; None if it has no bound, or ``submit`` can raise it."""
    details = read_application(cloud, application)
    size = capacity_of(details)
    if not size or can_be_widened(details):
        return None
    words = ", ".join(details["maximumCapacity"].values())
    wanted = capacity(Limit(8, 1, executor))
    return Room(
        min(_executors_in(name, number, executor) for name, number in size.items()),
        f"application {application}, at most {words}",
        "deploy the stack with a larger MaximumVcpu and MaximumMemoryGb, or while it is stopped: "
        f"aws emr-serverless update-application --application-id {application} "
        f'--maximum-capacity cpu="{wanted["cpu"]}",memory="{wanted["memory"]}" (8 executors)',
        executor,
    )


def quota_room(cloud: Cloud, executor: Worker = EXECUTOR) -> Room:
    """Return the room of the account's quota of virtual cores in the region.

    Raises
    ------
    CloudError
        If AWS does not say.
    """
    try:
        with aws_errors(f"read the quota {QUOTA}"):
            quota = cloud.client("service-quotas").get_service_quota(
                ServiceCode="emr-serverless", QuotaCode=QUOTA
            )["Quota"]["Value"]
    except CloudError as err:
        raise CloudError(
            f"{err}; an account begins with {QUOTA_VCPU} vCPU, which hold "
            f"{_executors_in('cpu', QUOTA_VCPU, executor)} executors"
        ) from err
    return Room(
        _executors_in("cpu", quota, executor),
        f"quota {QUOTA} of this account in {cloud.region}, {quota:g} vCPU",
        f"ask for more: aws service-quotas request-service-quota-increase --region {cloud.region} "
        f"--service-code emr-serverless --quota-code {QUOTA} --desired-value 64",
        executor,
    )


def _executors_in(name: str, size: float, executor: Worker) -> int:
    """Return how many executors fit beside a driver into cores, or GB of memory or disk."""
    one, each = {
        "cpu": (DRIVER.vcpu, executor.vcpu),
        "memory": (DRIVER.memory_gb, executor.memory_gb),
        "disk": (DRIVER.disk_gb, executor.disk_gb),
    }[name]
    return math.floor((size - one) / each)
