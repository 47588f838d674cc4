"""Plan a run on EMR Serverless: what it needs, and what it may cost."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verger.config import Config
from verger.emr.applications import find_application
from verger.emr.aws import Cloud, aws_errors, check_bucket, split_address
from verger.emr.jobs import MAX_MINUTES, PLAIN, Job, Setup
from verger.emr.package import Package, read_package
from verger.emr.price import (
    Estimate,
    Limit,
    Rates,
    Usage,
    bound_run,
    check_worker,
    executors_for,
    load_rates,
    per_thousand,
)
from verger.emr.room import narrow
from verger.emr.runs import CommitCounter
from verger.errors import CloudError, ConfigError
from verger.files.paths import normalize_source
from verger.job.context import Run
from verger.job.plan import check_and_list
from verger.job.record import command_line
from verger.result.output import Output
from verger.source.lists import is_list


@dataclass(frozen=True)
class Place:
    """Where runs go.

    Attributes
    ----------
    package : str
        Address of the package.
    role : str
        ARN of the role that a run takes.
    application : str or None
        Identifier; None for Verger's own, which is created where there is none.
    logs : str
        Address below which logs go.
    setup : Setup
        What the application is made with.
    """

    package: str
    role: str
    application: str | None
    logs: str
    setup: Setup = PLAIN


def find_place(
    cloud: Cloud,
    *,
    package: str,
    out: str,
    role: str | None = None,
    application: str | None = None,
    logs: str | None = None,
    stack: str | None = None,
    setup: Setup = PLAIN,
) -> Place:
    """Complete the named place by the outputs of a stack of ``verger emr init``.

    Raises
    ------
    ConfigError
        If there is neither a role nor a stack.
    CloudError
        If there is no such stack.
    """
    outputs = read_stack(cloud, stack) if stack else {}
    role = role or outputs.get("JobRoleArn")
    if role is None:
        raise ConfigError("no role for the run: --stack NAME of verger emr init, or --role ARN")
    bucket = outputs.get("BucketName") or split_address(out)[0]
    return Place(
        normalize_source(package),
        role,
        application or outputs.get("ApplicationId"),
        normalize_source(logs or f"s3://{bucket}/logs"),
        replace(setup, kms_key=setup.kms_key or outputs.get("KmsKeyArn")),
    )


def read_stack(cloud: Cloud, name: str) -> dict[str, str]:
    """Return the outputs of a stack.

    Raises
    ------
    CloudError
    """
    with aws_errors(f"look at the stack {name} in {cloud.region}"):
        (stack,) = cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in stack.get("Outputs", ())}
    if "JobRoleArn" not in outputs:
        raise CloudError(f"stack {name}: is none of verger emr init, or not ready yet")
    return outputs


@dataclass(frozen=True)
class JobPlan:
    """A run that could be started.

    Attributes
    ----------
    job : Job
        Without its application.
    place : Place
    package : Package
    estimate : Estimate
        Of the photos that are still to be done.
    most : float
        What it can cost at the very most.
    rates : Rates
        Those of its sums.
    done : int
        Photos that earlier runs have committed.
    notes : tuple of str
        What made the limit of executors narrower.
    """

    job: Job
    place: Place
    package: Package
    estimate: Estimate
    most: float
    rates: Rates
    done: int
    notes: tuple[str, ...] = ()


def plan_run(
    cloud: Cloud,
    source: str,
    out: str,
    config: Config,
    place: Place,
    *,
    limit: Limit,
    speed: float,
    max_cost: float | None = None,
    rates: Path | None = None,
) -> JobPlan:
    """Check a run before it starts, and estimate its cost.

    Nothing is started and nothing is written.

    Parameters
    ----------
    cloud : Cloud
    source, out : str
        ``s3://`` both.
    config : Config
        Options of the run; ``conf`` goes to ``spark-submit``.
    place : Place
    limit : Limit
        Most executors, most minutes.
    speed : float
        Photos a second and virtual core.
    max_cost : float, optional
        Makes the limit narrower; see :func:`verger.emr.price.limit_cost`.
    rates : Path, optional
        A file instead of Verger's own.
    """
    package, n_photos = check_run(cloud, source, out, config, place, limit.minutes)
    executor = check_worker(limit.executor)
    prices = replace(load_rates(cloud.region, package.architecture, rates), executor=executor)
    done, left = count_done(out, n_photos)
    if n_photos:
        limit = replace(limit, executors=executors_for(left, speed, limit.executors, executor.vcpu))
    limit, notes = narrow(cloud, package, place.application, limit, place.setup)
    money: Any = {"max_cost": max_cost, "commit_every": config.commit_every}
    limit, estimate = bound_run(left, speed, prices, limit, **money)
    job = make_job(cloud, source, out, config, place, package, limit=limit)
    most = estimate.most(limit)
    return JobPlan(job, place, package, estimate, most, prices, done, tuple(notes))


def count_done(out: str, n_photos: int) -> tuple[int, int]:
    """Return how many photos an unfinished run has committed, and how many of all are left."""
    found = CommitCounter(normalize_source(out)).read()
    done = min(found[0], n_photos) if found else 0
    return done, n_photos - done


def check_run(
    cloud: Cloud, source: str, out: str, config: Config, place: Place, minutes: int
) -> tuple[Package, int]:
    """Check what every run needs, Serverless or on EC2.

    Returns
    -------
    Package
    int
        Photos that are listed; 0 where only Spark can list them.
    """
    if not 1 <= minutes <= MAX_MINUTES:
        raise ConfigError(f"minutes={minutes} must be between 1 and {MAX_MINUTES}")
    for name, address in (("SRC", source), ("OUT", out), ("package", place.package)):
        if not address.startswith(("s3://", "s3a://")):
            raise ConfigError(f"{name}={address}: must be s3://bucket/prefix; AWS sees no other")
        check_bucket(cloud, normalize_source(address))
    check_bucket(cloud, place.logs)
    package = read_package(cloud, place.package)
    listing = check_and_list(Run(Output.at(out), config), source, reduce=True)
    return package, len(listing.photos) if listing else 0


def make_job(
    cloud: Cloud,
    source: str,
    out: str,
    config: Config,
    place: Place,
    package: Package,
    *,
    limit: Limit,
) -> Job:
    """Return the run of a source; its application is not known yet."""
    source, output = normalize_source(source), Output.at(out)
    there = _config_there(config, package)
    labels = [normalize_source(config.labels)] if config.labels else []
    return Job(
        arguments=tuple(shlex.split(command_line(source, output, there.as_dict()))[1:]),
        reads=(source.rpartition("/")[0] if is_list(source) else source, *labels),
        writes=(output.root,),
        package=package.root,
        archive=package.archive,
        application="",
        role=place.role,
        logs=place.logs,
        region=cloud.region,
        limit=limit,
        conf=config.conf,
        setup=place.setup,
    )


def probe_job(
    cloud: Cloud, source: str, out: str, place: Place, package: Package, minutes: int
) -> Job:
    """Return the run that ``doctor`` starts: one executor, and no photo."""
    config, limit = Config(model=package.model), Limit(1, minutes)
    job = make_job(cloud, source, out, config, place, package, limit=limit)
    there = _model_there(config, package)
    weights = [there.weights] if there.weights else []
    arguments = (normalize_source(source), job.writes[0], there.model, *weights)
    return replace(job, entry="probe.py", arguments=arguments)


def _config_there(config: Config, package: Package) -> Config:
    """Return the options for the driver on EMR, which takes model and weights from the package.

    Raises
    ------
    ConfigError
        If the package does not have the model.
    """
    if config.model != package.model:
        raise ConfigError(
            f"model={config.model}: the package {package.root} has {package.model}; "
            f"--model {package.model}, or verger emr package --model {config.model}"
        )
    if config.labels is not None and not normalize_source(config.labels).startswith("s3://"):
        raise ConfigError(f"labels={config.labels}: must be s3://bucket/file; AWS sees no other")
    if config.weights is not None:
        raise ConfigError(
            f"weights={config.weights}: those of the package are used; verger emr package --weights"
        )
    return replace(
        _model_there(config, package),
        master=None,
        # Spark's pages, which AWS shows of a run that is under way; --ui would keep the run waiting
        # for Ctrl-C when it is done.
        conf={"spark.ui.enabled": "true"},
        ui=False,
    )


def _model_there(config: Config, package: Package) -> Config:
    """Return options that name the model's files where the package has them."""
    if not package.weights:
        return config
    address = f"{package.root}/{package.weights}"
    if not config.built_in_model:  # its card has the sums
        return replace(config, model=address)
    digest = package.files[package.weights]["sha256"]
    return replace(config, weights=address, weights_sha256=config.weights_sha256 or digest)


def with_application(cloud: Cloud, plan: JobPlan) -> tuple[Job, bool]:
    """Return the run with its application, and whether that had to be created."""
    job, place = plan.job, plan.place
    application, created = find_application(
        cloud, plan.package, job.limit, job.logs, place.application, place.setup
    )
    return replace(job, application=application), created


# What it did cost


def describe_bill(found: dict[str, Any], rates: Rates, n_photos: int) -> dict[str, Any] | None:
    """Return what a run was billed, by AWS' own reading and our rates; None until AWS says so.

    Parameters
    ----------
    found : dict
        What AWS says of the run.
    rates : Rates
    n_photos : int
        Photos that it computed.
    """
    usage = Usage.billed(found)
    if usage is None:
        return None
    cost = rates.cost(usage)
    return {
        "vcpu_hours": usage.vcpu_hours,
        "memory_gb_hours": usage.memory_gb_hours,
        "storage_gb_hours": usage.storage_gb_hours,
        "cost": cost,
        "currency": rates.currency,
        "cost_per_1000_photos": per_thousand(cost, n_photos),
    }
