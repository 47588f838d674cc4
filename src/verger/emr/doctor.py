"""Check before a run what it needs: rights, regions, the package, and its environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from verger.emr.applications import check_application
from verger.emr.aws import Cloud, aws_errors, check_bucket, code_of, is_forbidden
from verger.emr.clusters import EMR_MARK
from verger.emr.ec2 import UNDER_WAY, find_hosts
from verger.emr.jobs import PLAIN, Job, Setup
from verger.emr.package import read_package
from verger.emr.probe import read_probe
from verger.emr.room import application_room, quota_room
from verger.emr.runs import DriverLog, Watcher, follow, logs_of, read_run, start_run
from verger.emr.trust import check_trust
from verger.errors import CloudError, JobError, VergerError
from verger.result.record import Check


def look_from_here(
    cloud: Cloud,
    addresses: dict[str, str],
    package: str,
    application: str | None,
    *,
    setup: Setup = PLAIN,
    role: str | None = None,
) -> Iterator[Check]:
    """Yield what can be seen without starting anything.

    Parameters
    ----------
    cloud : Cloud
    addresses : dict of str to str
        Name (``SRC``, ``OUT``, ``logs``) to address; each must be in the region.
    package : str
        Address.
    application : str or None
    setup : Setup
        What the application must have been made with.
    role : str, optional
        ARN of the role that EMR Serverless must be able to take; none for a cluster.
    """
    yield _check("AWS knows the credentials", lambda: _identity(cloud))
    for name, address in {**addresses, "the package": package}.items():
        yield _check(f"The bucket of {name} is in {cloud.region}", partial(_bucket, cloud, address))
    yield _check("The package is whole", lambda: _package(cloud, package))
    if application is not None:
        fits = partial(_application, cloud, package, application, setup)
        yield _check("The application fits it", fits)
        yield _check("The application has room", lambda: _room(cloud, application))
    if role:
        yield _check("EMR may take the role", lambda: _trust(cloud, role, application or "*"))
        yield _check("The account's quota has room", lambda: _quota(cloud))


def look_from_there(cloud: Cloud, job: Job, watcher: Watcher) -> Iterator[Check]:
    """Start the real environment on a driver and one worker, and yield what it says of itself."""
    run, _ = start_run(cloud, job)
    failed = None
    try:
        follow(cloud, run, job.writes[0], watcher)
    except JobError as err:
        failed = err
    log = DriverLog(cloud, run, logs_of(read_run(cloud, run)))
    checks = read_probe(log.read("stdout"))
    if checks is None:
        yield Check("The environment starts", False, str(failed or "its log has not come"))
        return
    yield Check("The environment starts", True, f"run {run.id} of application {run.application}")
    for check in checks:
        yield Check(**check)


def look_at_hosts(cloud: Cloud, package: str, **hosts: Any) -> Iterator[Check]:
    """Yield what can be seen of a cluster's roles and network without a cluster.

    Parameters
    ----------
    cloud : Cloud
    package : str
        Address.
    **hosts
        As for :func:`verger.emr.ec2.find_hosts`.
    """
    try:
        chosen = find_hosts(cloud, read_package(cloud, package), **hosts)
    except VergerError as err:
        yield Check("A cluster can be asked for", False, str(err))
        return
    machines = f"{chosen.release}, {', '.join(chosen.instance_types)}"
    yield Check("A cluster can be asked for", True, machines)
    iam = cloud.client("iam")
    yield _check(
        "EMR's role exists",
        lambda: _named(chosen.service_role, lambda name: iam.get_role(RoleName=name)),
    )
    yield _check(
        "The profile of the machines exists",
        lambda: _named(
            chosen.instance_profile, lambda name: iam.get_instance_profile(InstanceProfileName=name)
        ),
    )
    yield _check("Clusters may be listed", lambda: _clusters(cloud))
    if chosen.subnet is not None:
        yield _check("The subnet is marked for EMR", partial(_subnet, cloud, chosen.subnet))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except VergerError as err:
        return Check(name, False, str(err))


def _identity(cloud: Cloud) -> str:
    with aws_errors("ask AWS who this is"):
        return str(cloud.client("sts").get_caller_identity()["Arn"])


def _bucket(cloud: Cloud, address: str) -> str:
    check_bucket(cloud, address)
    return address


def _package(cloud: Cloud, root: str) -> str:
    package = read_package(cloud, root)
    return (
        f"{package.release} on {package.architecture}, Python {package.python}, verger "
        f"{package.verger}, {package.n_bytes / 1e6:,.0f} MB"
    )


def _application(cloud: Cloud, root: str, application: str, setup: Setup) -> str:
    check_application(cloud, read_package(cloud, root), application, setup)
    return application


def _room(cloud: Cloud, application: str) -> str:
    room = application_room(cloud, application)
    return room.check() if room else f"{application}, of any size"


def _quota(cloud: Cloud) -> str:
    try:
        room = quota_room(cloud)
    except CloudError as err:
        return f"not known: {err}"  # the right to read it is no right that a run needs
    return room.check()


def _trust(cloud: Cloud, role: str, application: str) -> str:
    """Read the role's trust policy; who may submit may lack the right to read it."""
    _, partition, _, _, account, _ = role.split(":", 5)
    try:
        with aws_errors(f"look at {role}"):
            answer = cloud.client("iam").get_role(RoleName=role.rpartition("/")[2])
    except CloudError as err:
        if not is_forbidden(err.__cause__):
            raise
        return f"not known: {role}, which these credentials may not look at"
    of = f"arn:{partition}:emr-serverless:{cloud.region}:{account}:/applications/{application}"
    return check_trust(answer["Role"]["AssumeRolePolicyDocument"], role, of)


def _named(name: str, look: Callable[[str], object]) -> str:
    """Look for a role or a profile; a user who may submit may lack the right to read it."""
    try:
        with aws_errors(f"look at {name}"):
            look(name.rpartition("/")[2])
    except CloudError as err:
        if not is_forbidden(err.__cause__):
            raise
        return f"{name}, which these credentials may not look at"
    return name


def _clusters(cloud: Cloud) -> str:
    with aws_errors("list the clusters"):
        clusters = cloud.clusters.list_clusters(ClusterStates=list(UNDER_WAY))["Clusters"]
    return f"{len(clusters)} under way"


def _subnet(cloud: Cloud, subnet: str) -> str:
    try:
        with aws_errors(f"look at the subnet {subnet}"):
            (described,) = cloud.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"]
    except CloudError as err:
        if code_of(err.__cause__) != "UnauthorizedOperation":
            raise
        return f"{subnet}, which these credentials may not look at"
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
    if tags.get(EMR_MARK) != "true":
        raise CloudError(
            f"{subnet}: lacks the tag {EMR_MARK}=true, without which AmazonEMRServicePolicy_v2 "
            "lets no cluster in; aws ec2 create-tags, on its VPC too"
        )
    return subnet
