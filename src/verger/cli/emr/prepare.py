"""Around runs: ``init``, ``package``, ``estimate``, ``doctor`` and ``teardown``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verger.cli.emr.options import (
    HostOptions,
    PlaceOptions,
    SavedCommand,
    architecture_option,
    connect_as_given,
    given,
    host_options,
    on_option,
    place_options,
    rates_option,
    refuse,
    refuse_elsewhere,
    region_options,
    saved_option,
    setup_options,
    speed_options,
    types_option,
)
from verger.cli.emr.printing import estimate_line, print_checks, tell_progress
from verger.cli.options import FIELDS, config_options, json_option, resolve_config
from verger.cli.terminal import print_json, say

if TYPE_CHECKING:
    from verger.emr.aws import Cloud
    from verger.emr.jobs import Job
    from verger.emr.package import Package
    from verger.emr.price import Pricing
    from verger.emr.submit import Place
    from verger.result.record import Check


@click.command("init")
@click.argument(
    "path",
    metavar="[FILE]",
    default="verger-stack.yaml",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option("--region", required=True, help="AWS region, such as eu-west-3.")
@click.option("--alarm-email", required=True, help="Who is told when the bill nears its limit.")
@click.option("--name", default="verger", show_default=True, help="Name of the stack.")
@click.option("--allow-region", is_flag=True, help="Accept a region outside the EU.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def emr_init(
    path: Path, region: str, alarm_email: str, name: str, allow_region: bool, overwrite: bool
) -> None:
    """Write the infrastructure as a CloudFormation template, and print the line that creates it."""
    from verger.emr.region import WITHOUT_ALARM
    from verger.emr.stack import deploy_command, write_stack

    command = deploy_command(
        path, name=name, region=region, alarm_email=alarm_email, allow_region=allow_region
    )
    write_stack(path, overwrite=overwrite)
    say(f"{path} holds a bucket, roles, an application that stops when idle, an alarm.")
    if region in WITHOUT_ALARM:
        say(f"No alarm can be made in {region}: make one for the account in AWS Budgets.")
    say("Create them with")
    say()
    say(f"  {command}")
    say()


@click.command("package")
@click.argument("target", metavar="s3://BUCKET/env/NAME")
@click.option(
    "--release",
    default="emr-7.10.0",
    show_default=True,
    help="emr-7.x.y (Spark 3.5), or emr-spark-8.x.y (Spark 4).",
)
@architecture_option
@click.option(
    "--model",
    default=FIELDS["model"].default,
    show_default=True,
    help="Model whose weights go along.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File of its weights. Default: those of this machine.",
)
@click.option(
    "--environment",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="An archive that was made elsewhere, by --dockerfile.",
)
@click.option(
    "--dockerfile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a Dockerfile that makes the archive, or an image, and stop.",
)
@region_options
@json_option()
def emr_package(
    target: str,
    release: str,
    architecture: str,
    environment: Path | None,
    dockerfile: Path | None,
    as_json: bool,
    *,
    model: str,
    weights: Path | None,
    **_: Any,
) -> None:
    """Bring the environment, the entry point and the weights into a bucket."""
    from verger.emr import package as packages
    from verger.emr.aws import check_bucket

    if dockerfile is not None:
        packages.write_dockerfile(dockerfile, release, architecture)
        say(f"{dockerfile} says in its first lines how it is used")
        return
    cloud = connect_as_given()
    check_bucket(cloud, target)
    made = packages.upload_package(
        cloud,
        environment or packages.build_here(release, architecture),
        target,
        release=release,
        architecture=architecture,
        model=model,
        weights=weights,
    )
    _print_package(made, as_json)


def _print_package(made: Package, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "root": made.root,
                "release": made.release,
                "files": made.files,
                "architecture": made.architecture,
                "python": made.python,
            }
        )
        return
    for name, file in made.files.items():
        say(f"{file['bytes'] / 1e6:>9,.1f} MB  {name}")
    say(
        f"{made.n_bytes / 1e6:>9,.1f} MB  {made.root}, {made.unpacked_bytes / 1e6:,.0f} MB unpacked"
        f"; {made.release} on {made.architecture}, Python {made.python}"
    )


@click.command("estimate")
@click.argument("source", metavar="SRC")
@click.option("--region", required=True, help="AWS region, such as eu-west-3.")
@click.option("--allow-region", is_flag=True, help="Accept a region outside the EU.")
@on_option
@types_option
@architecture_option
@speed_options
@click.option("--sample", default=64, show_default=True, help="Photos that are timed here.")
@rates_option
@config_options("glob", "exclude", "recursive", "model", "weights", "input_size", "views")
def emr_estimate(
    source: str,
    region: str,
    allow_region: bool,
    max_executors: int,
    speed: float | None,
    sample: int,
    *,
    as_json: bool,
    **_: Any,
) -> None:
    """Time a sample of the photos here, and say what minutes and money all of them would take."""
    from verger.emr.estimate import time_sample
    from verger.emr.price import estimate_run
    from verger.emr.region import check_region
    from verger.features.model import load_model
    from verger.source.listing import list_photos

    config = resolve_config()
    check_region(region, allow=allow_region)
    prices = _load_prices(region)
    listing = list_photos(
        source, glob=config.glob, exclude=config.exclude, recursive=config.recursive
    )
    if timed := speed is None:
        model = load_model(
            config.model, weights=config.weights, input_size=config.input_size, views=config.views
        )
        speed = time_sample(listing, model, n=sample)
    expected = estimate_run(len(listing.photos), speed, prices, max_executors=max_executors)
    if as_json:
        print_json(expected.as_dict() | {"timed_here": timed})
        return
    say(estimate_line(expected))
    origin = "timed on one core here: a virtual core there may differ" if timed else "as given"
    say(f"speed     {speed:,.1f} photos a second and core, {origin}")
    say(f"rates     {prices.words}")


def _load_prices(region: str) -> Pricing:
    """Read the rates of where the run would go, as the options say."""
    from verger.emr.clusters import INSTANCE_TYPES
    from verger.emr.node_price import load_node_rates
    from verger.emr.price import load_rates

    values = click.get_current_context().params
    architecture, types, file = (
        values[name] for name in ("architecture", "instance_types", "rates")
    )
    if values["on"] == "ec2":
        return load_node_rates(region, types or INSTANCE_TYPES[architecture], file)
    refuse(values["on"], instance_types=types)
    return load_rates(region, architecture, file)


@click.command("doctor", cls=SavedCommand)
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@on_option
@place_options
@host_options
@setup_options
@click.option("--from-here", is_flag=True, help="Start nothing: look at what can be seen.")
@click.option(
    "--start-minutes", default=15, show_default=True, help="Most that the start may take."
)
@saved_option
@region_options
@json_option()
def emr_doctor(
    source: str, out: str, on: str, from_here: bool, start_minutes: int, as_json: bool, **_: Any
) -> None:
    """Look at rights, regions and the package, and start its environment on one worker.

    On EC2 nothing is started: a cluster that only looks would cost as much as a short run.
    """
    options, hosts = given(PlaceOptions), given(HostOptions)
    refuse_elsewhere(on, options, hosts)
    cloud = connect_as_given()
    place = _find_place(cloud, on, options, out)
    checks = _look_from_here(cloud, place, source, out, as_json)
    if on == "ec2":
        from verger.emr.doctor import look_at_hosts

        looks = look_at_hosts(cloud, place.package, stack=options.stack, **hosts.as_dict())
        checks += print_checks(looks, as_json)
    elif all(check.holds for check in checks) and not from_here:
        from verger.emr.doctor import look_from_there

        job = _probe(cloud, source, out, place, start_minutes)
        checks += print_checks(look_from_there(cloud, job, tell_progress()), as_json)
    if as_json:
        print_json(checks)
    click.get_current_context().exit(0 if all(check.holds for check in checks) else 1)


def _find_place(cloud: Cloud, on: str, options: PlaceOptions, out: str) -> Place:
    from verger.emr.ec2 import find_cluster_place
    from verger.emr.submit import find_place

    if on == "ec2":
        return find_cluster_place(cloud, **options.for_cluster(out))
    return find_place(cloud, **options.for_serverless(out))


def _look_from_here(
    cloud: Cloud, place: Place, source: str, out: str, as_json: bool
) -> list[Check]:
    from verger.emr.doctor import look_from_here

    addresses = {"SRC": source, "OUT": out, "the logs": place.logs}
    how: Any = {"setup": place.setup, "role": place.role or None}
    looks = look_from_here(cloud, addresses, place.package, place.application, **how)
    return print_checks(looks, as_json)


def _probe(cloud: Cloud, source: str, out: str, place: Place, minutes: int) -> Job:
    from dataclasses import replace

    from verger.emr.applications import find_application
    from verger.emr.package import read_package
    from verger.emr.submit import probe_job

    package = read_package(cloud, place.package)
    job = probe_job(cloud, source, out, place, package, minutes)
    application, _ = find_application(
        cloud, package, job.limit, job.logs, place.application, place.setup
    )
    return replace(job, application=application)


@click.command("teardown")
@click.option("--package", metavar="s3://BUCKET/env/NAME", help="A package that goes too.")
@click.option("--stack", default="verger", show_default=True, help="Name of the stack.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@region_options
def emr_teardown(package: str | None, stack: str, yes: bool, **_: Any) -> None:
    """Remove applications and packages that Verger has made; say what stays."""
    from verger.emr.teardown import plan_teardown, tear_down

    cloud = connect_as_given()
    plan = plan_teardown(cloud, package, stack)
    for application in plan.applications:
        say(f"goes      application {application}")
    if plan.keys:
        say(f"goes      {len(plan.keys)} objects of {plan.package}")
    for what in plan.stays:
        say(f"stays     {what}")
    if plan.is_empty:
        say("nothing of Verger's to remove")
        return
    if not yes:
        click.confirm("Remove it?", abort=True, err=True)
    tear_down(cloud, plan, time.sleep)
    say("removed")
