"""Remove what Verger has made on AWS, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from verger.emr.applications import IDLE, list_applications
from verger.emr.aws import Cloud, aws_errors, is_missing, split_address
from verger.emr.jobs import ENDED
from verger.emr.package import list_package
from verger.emr.runs import list_runs
from verger.errors import CloudError

#: Times and seconds that an application is given to stop: AWS deletes none that runs.
STOP_TRIES, STOP_PAUSE_S = 30, 4.0


@dataclass(frozen=True)
class Teardown:
    """What is to be removed, and what stays.

    Attributes
    ----------
    applications : tuple of str
        Identifiers of those that ``submit`` has created.
    package : str
        Address of the package; empty for none.
    keys : tuple of str
        Its objects.
    stays : tuple of str
        In words.
    """

    applications: tuple[str, ...]
    package: str
    keys: tuple[str, ...]
    stays: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would go."""
        return not self.applications and not self.keys


def plan_teardown(cloud: Cloud, package: str | None, stack: str) -> Teardown:
    """Find what Verger has made in a region; changes nothing.

    Parameters
    ----------
    cloud : Cloud
    package : str or None
        Address of a package that is to go.
    stack : str
        Name of the stack, for the line that deletes it.

    Raises
    ------
    CloudError
        If a run is under way in an application that would go.
    """
    named = [
        str(entry["id"])
        for entry in list_applications(cloud)
        if entry.get("name", "").startswith("verger-")
    ]
    ours = tuple(application for application in named if _is_ours(cloud, application))
    for application in ours:
        busy = [run["id"] for run in list_runs(cloud, application) if run["state"] not in ENDED]
        if busy:
            raise CloudError(
                f"application {application}: run {busy[0]} is under way; wait for it, or verger "
                f"emr cancel {busy[0]} --application {application}"
            )
    keys = tuple(list_package(cloud, package)) if package else ()
    return Teardown(
        ours,
        package or "",
        keys,
        (
            "photos, results and logs in the bucket",
            "earlier versions of removed objects, for 30 days in a bucket of the stack",
            f"the stack, if there is one: aws cloudformation delete-stack --stack-name {stack} "
            f"--region {cloud.region}, which keeps its bucket",
        ),
    )


def _is_ours(cloud: Cloud, application: str) -> bool:
    """Whether ``submit`` has created it: one of a stack goes with its stack."""
    with aws_errors(f"look at the application {application}"):
        described = cloud.emr.get_application(applicationId=application)["application"]
    return bool(described.get("tags", {}).get("made-by") == "verger")


def tear_down(cloud: Cloud, plan: Teardown, sleep: Callable[[float], None]) -> None:
    """Remove what was planned; what is gone already is fine.

    Raises
    ------
    CloudError
    """
    for application in plan.applications:
        _delete_application(cloud, application, sleep)
    if plan.keys:
        bucket, _ = split_address(plan.package)
        for start in range(0, len(plan.keys), 1000):  # the most that one request takes
            objects = [{"Key": key} for key in plan.keys[start : start + 1000]]
            with aws_errors(f"remove the package {plan.package}"):
                done = cloud.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
            for error in done.get("Errors", ()):
                raise CloudError(f"s3://{bucket}/{error['Key']}: {error['Message']}")


def _delete_application(cloud: Cloud, application: str, sleep: Callable[[float], None]) -> None:
    try:
        with aws_errors(f"delete the application {application}"):
            for attempt in range(STOP_TRIES):
                described = cloud.emr.get_application(applicationId=application)["application"]
                if described["state"] in (*IDLE, "TERMINATED"):
                    break
                if attempt == 0:
                    cloud.emr.stop_application(applicationId=application)
                sleep(STOP_PAUSE_S)
            if described["state"] != "TERMINATED":
                cloud.emr.delete_application(applicationId=application)
    except CloudError as err:
        if not is_missing(err.__cause__):
            raise
