"""Find, create, widen and check applications of EMR Serverless."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from verger.emr.aws import Cloud, aws_errors
from verger.emr.jobs import PLAIN, Setup, application_request, capacity, digest
from verger.emr.package import Package
from verger.emr.price import Limit
from verger.errors import CloudError, ConfigError

#: States in which AWS lets the maximum capacity of an application be changed.
IDLE = ("CREATED", "STOPPED")


def find_application(
    cloud: Cloud,
    package: Package,
    limit: Limit,
    logs: str,
    application: str | None = None,
    setup: Setup = PLAIN,
) -> tuple[str, bool]:
    """Return an application that a package fits, and whether it had to be created.

    Parameters
    ----------
    cloud : Cloud
    package : Package
    limit : Limit
        Bounds an application that is created.
    logs : str
        Address of its logs.
    application : str, optional
        Identifier of one to use; else Verger's own of this release, processor and setup.
    setup : Setup

    Raises
    ------
    CloudError
        If it is not there, or has been deleted.
    ConfigError
        If it is of another release, processor, image or network than is wanted.
    """
    if application is not None:
        check_application(cloud, package, application, setup)
        return application, False
    own = own_application(cloud, package, setup)
    if own is not None:
        widen_application(cloud, own, limit)
        return own, False
    request = application_request(
        application_name(package, setup), package.release, package.architecture, limit, logs, setup
    )
    with aws_errors(f"create the application {request['name']}"):
        return str(cloud.emr.create_application(**request)["applicationId"]), True


def application_name(package: Package, setup: Setup = PLAIN) -> str:
    """Return the name of Verger's own application for a release, a processor and a setup."""
    name = f"verger-{package.release}-{package.architecture.lower().replace('_', '-')}"
    return name if setup == PLAIN else f"{name}-{digest(asdict(setup))[:6]}"


def list_applications(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """Yield what AWS says of each application of the region that was not deleted.

    Raises
    ------
    CloudError
    """
    pages = cloud.emr.get_paginator("list_applications").paginate()
    with aws_errors("list the applications"):
        for page in pages:
            yield from (entry for entry in page["applications"] if entry["state"] != "TERMINATED")


def own_application(cloud: Cloud, package: Package, setup: Setup = PLAIN) -> str | None:
    """Return the identifier of Verger's own application for a package; None if there is none."""
    name = application_name(package, setup)
    named = (entry for entry in list_applications(cloud) if entry.get("name") == name)
    return next((str(entry["id"]) for entry in named), None)


def read_application(cloud: Cloud, application: str) -> dict[str, Any]:
    """Return what AWS says of an application.

    Raises
    ------
    CloudError
    """
    with aws_errors(f"look at the application {application} in {cloud.region}"):
        answer = cloud.emr.get_application(applicationId=application)
    details: dict[str, Any] = answer["application"]
    if details["state"] == "TERMINATED":
        raise CloudError(f"the application {application} was deleted; leave --application out")
    return details


def capacity_of(details: Mapping[str, Any]) -> dict[str, float]:
    """Return the maximum capacity of an application, ``cpu``, ``memory`` and ``disk`` in GB."""
    return {name: _number(text) for name, text in details.get("maximumCapacity", {}).items()}


def can_be_widened(details: Mapping[str, Any]) -> bool:
    """Whether ``submit`` may raise the maximum capacity of an application: its own, while idle."""
    is_ours = details.get("tags", {}).get("made-by") == "verger"
    return is_ours and details["state"] in IDLE


def widen_application(cloud: Cloud, application: str, limit: Limit) -> None:
    """Raise the maximum capacity of Verger's own application, which AWS allows while it is idle.

    Raises
    ------
    CloudError
    """
    details, wanted = read_application(cloud, application), capacity(limit)
    room = capacity_of(details)
    if not can_be_widened(details) or all(_number(wanted[name]) <= room[name] for name in room):
        return
    with aws_errors(f"widen the application {application}"):
        cloud.emr.update_application(applicationId=application, maximumCapacity=wanted)


def _number(text: str) -> float:
    """Return the number of ``14 vCPU`` or ``44 GB``."""
    return float(re.sub(r"[^0-9.]", "", text))


def check_application(cloud: Cloud, package: Package, application: str, setup: Setup) -> None:
    """Refuse an application that could not run a package, or that never stops by itself."""
    details = read_application(cloud, application)
    kind = (details["releaseLabel"], details.get("architecture", "X86_64"))
    if kind != (package.release, package.architecture):
        raise ConfigError(
            f"application {application} is {kind[0]} on {kind[1]}, and the package "
            f"{package.root} is for {package.release} on {package.architecture}"
        )
    wanted = setup.request()
    for part, inner in (("image", "imageConfiguration"), ("network", "networkConfiguration")):
        there = details.get(inner, {})
        asked = wanted.get(inner, {})
        if any(_in_order(value) != _in_order(there.get(key)) for key, value in asked.items()):
            raise ConfigError(
                f"application {application} has {there or f'no {part} of its own'}, not "
                f"{wanted[inner]}: an application is made with it; leave --application and "
                "--stack out for one of Verger's own, or update the stack"
            )
    if not details.get("autoStopConfiguration", {}).get("enabled", True):
        raise ConfigError(
            f"application {application} does not stop when idle; aws emr-serverless "
            f"update-application --application-id {application} "
            "--auto-stop-configuration enabled=true,idleTimeoutMinutes=5"
        )


def _in_order(value: Any) -> Any:
    """Return a list of subnets or groups without the order in which they were named."""
    return sorted(value) if isinstance(value, list) else value
