"""The commands of ``verger emr``; see :mod:`verger.cli` for how they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verger.cli.options import (
    FEATURES,
    FIELDS,
    PHOTOS,
    REDUCE,
    config_options,
    json_option,
    resolve_config,
)
from verger.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from verger.config import Config
    from verger.emr.aws import Cloud
    from verger.emr.ec2 import ClusterPlan
    from verger.emr.node_price import NodeRates
    from verger.emr.price import Estimate, Limit
    from verger.emr.runs import Run, Watcher
    from verger.emr.submit import Place, Plan
    from verger.job.validate import Check

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_RUN_OPTIONS = (
    *PHOTOS,
    "model",
    "weights_sha256",
    "input_size",
    "precision",
    "micro_batch",
    *FEATURES,
    *REDUCE,
    "partitions",
    "overwrite",
    "conf",
    "app_name",
)


def _add(*options: Any) -> _Decorator:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_region = _add(
    click.option("--region", help="AWS region, such as eu-west-3. Default: AWS_REGION, a profile."),
    click.option("--allow-region", is_flag=True, help="Accept a region outside the EU."),
)
_rates = click.option(
    "--rates",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of rates instead of Verger's own.",
)
_package = click.option(
    "--package",
    required=True,
    metavar="s3://BUCKET/env/NAME",
    help="What verger emr package has made.",
)
_architecture = click.option(
    "--architecture",
    default="X86_64",
    show_default=True,
    type=click.Choice(["X86_64", "ARM64"]),
    help="Processor of the workers; ARM64 is cheaper.",
)
_executors = click.option(
    "--max-executors",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most executors, of 4 virtual cores each.",
)
_speed = click.option(
    "--speed", type=float, help="Photos a second and virtual core; verger emr estimate times it."
)
_place = _add(
    _package,
    click.option(
        "--stack",
        metavar="NAME",
        help="Stack of verger emr init: its bucket, its role, its application.",
    ),
    click.option("--role", metavar="ARN", help="Role of the run, if there is no stack."),
    click.option(
        "--application",
        metavar="ID",
        help="Default: the stack's, else Verger's own, made where there is none.",
    ),
    click.option("--logs", metavar="s3://BUCKET/PREFIX", help="Default: logs/ of the bucket."),
)
_run_id = click.argument("run_id", metavar="RUN")
_application = click.option(
    "--application", metavar="ID", help="Where the run is; submit has said it."
)
_on = click.option(
    "--on",
    type=click.Choice(["serverless", "ec2"]),
    default="serverless",
    show_default=True,
    help="EMR Serverless, or a cluster of its own.",
)
_types = click.option(
    "--instance-type",
    "instance_types",
    multiple=True,
    metavar="TYPE",
    help="On EC2: a type of nodes, such as m5.xlarge; once for each.",
)
_hosts = _add(
    click.option(
        "--service-role", metavar="NAME", help="On EC2: the role of EMR. Default: the stack's."
    ),
    click.option(
        "--instance-profile",
        metavar="NAME",
        help="On EC2: profile of the machines. Default: the stack's.",
    ),
    _types,
    click.option("--subnet", metavar="ID", help="On EC2: where the nodes are."),
)


@click.group()
def emr() -> None:
    """AWS EMR, Serverless or on EC2: the infrastructure for jobs, and the jobs."""


@emr.command("init")
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
    click.echo(f"{path} holds a bucket, roles, an application that stops when idle, an alarm.")
    if region in WITHOUT_ALARM:
        click.echo(f"No alarm can be made in {region}: make one for the account in AWS Budgets.")
    click.echo(f"Create them with\n\n  {command}\n")


@emr.command("package")
@click.argument("target", metavar="s3://BUCKET/env/NAME")
@click.option(
    "--release",
    default="emr-7.10.0",
    show_default=True,
    help="emr-7.x.y (Spark 3.5), or emr-spark-8.x.y (Spark 4).",
)
@_architecture
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
@_region
@json_option()
def emr_package(
    target: str,
    release: str,
    architecture: str,
    model: str,
    weights: Path | None,
    environment: Path | None,
    dockerfile: Path | None,
    region: str | None,
    allow_region: bool,
    as_json: bool,
) -> None:
    """Bring the environment, the entry point and the weights into a bucket."""
    from verger.emr import package as packages
    from verger.emr.aws import check_bucket, connect

    if dockerfile is not None:
        packages.write_dockerfile(dockerfile, release, architecture)
        click.echo(f"{dockerfile} says in its first lines how it is used")
        return
    cloud = connect(region, allow_region=allow_region)
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
        click.echo(f"{file['bytes'] / 1e6:>9,.1f} MB  {name}")
    click.echo(
        f"{made.n_bytes / 1e6:>9,.1f} MB  {made.root}, {made.unpacked_bytes / 1e6:,.0f} MB unpacked"
        f"; {made.release} on {made.architecture}, Python {made.python}"
    )


@emr.command("estimate")
@click.argument("source", metavar="SRC")
@click.option("--region", required=True, help="AWS region, such as eu-west-3.")
@click.option("--allow-region", is_flag=True, help="Accept a region outside the EU.")
@_on
@_types
@_architecture
@_executors
@_speed
@click.option("--sample", default=64, show_default=True, help="Photos that are timed here.")
@_rates
@config_options("glob", "recursive", "model", "weights", "input_size")
def emr_estimate(
    source: str,
    region: str,
    allow_region: bool,
    on: str,
    instance_types: tuple[str, ...],
    architecture: str,
    max_executors: int,
    speed: float | None,
    sample: int,
    rates: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Time a sample of the photos here, and say what minutes and money all of them would take."""
    from verger.emr.clusters import INSTANCE_TYPES
    from verger.emr.estimate import time_sample
    from verger.emr.node_price import load_node_rates
    from verger.emr.price import Pricing, estimate_run, load_rates
    from verger.emr.region import check_region
    from verger.features.model import load_model
    from verger.source.listing import list_photos

    config = resolve_config()
    check_region(region, allow=allow_region)
    prices: Pricing
    if on == "ec2":
        prices = load_node_rates(region, instance_types or INSTANCE_TYPES[architecture], rates)
    else:
        _refuse(on, instance_types=instance_types)
        prices = load_rates(region, architecture, rates)
    listing = list_photos(source, glob=config.glob, recursive=config.recursive)
    if timed := speed is None:
        model = load_model(config.model, weights=config.weights, input_size=config.input_size)
        speed = time_sample(listing, model, n=sample)
    found = estimate_run(len(listing.photos), speed, prices, max_executors=max_executors)
    if as_json:
        print_json(found.as_dict() | {"timed_here": timed})
        return
    click.echo(_estimate_line(found))
    origin = "timed on one core here: a virtual core there may differ" if timed else "as given"
    click.echo(f"speed     {speed:,.1f} photos a second and core, {origin}")
    click.echo(f"rates     {prices.words}")


@emr.command("submit")
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@_on
@_place
@_hosts
@click.option(
    "--max-cost",
    type=float,
    help="Most that the run may cost, in the rates' currency; "
    "becomes a limit of executors and minutes.",
)
@click.option("--max-minutes", default=720, show_default=True, help="Most that it may take.")
@_executors
@_speed
@_rates
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the report goes. Default: report-RUN.html",
)
@_region
@config_options(*_RUN_OPTIONS)
def emr_submit(
    source: str,
    out: str,
    on: str,
    package: str,
    stack: str | None,
    role: str | None,
    application: str | None,
    logs: str | None,
    service_role: str | None,
    instance_profile: str | None,
    instance_types: tuple[str, ...],
    subnet: str | None,
    max_cost: float | None,
    max_minutes: int,
    max_executors: int,
    speed: float | None,
    rates: Path | None,
    wait: bool,
    report: Path | None,
    region: str | None,
    allow_region: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Do what verger run does, on EMR Serverless or on a cluster of its own."""
    from verger.emr.aws import connect
    from verger.emr.price import ASSUMED_SPEED, Limit
    from verger.emr.runs import start_run
    from verger.emr.submit import find_place, plan_run, with_application

    config = resolve_config()
    hosts = {
        "service_role": service_role,
        "instance_profile": instance_profile,
        "instance_types": instance_types,
        "subnet": subnet,
    }
    _refuse(on, **({"role": role, "application": application} if on == "ec2" else hosts))
    cloud = connect(region, allow_region=allow_region)
    if on == "ec2":
        _submit_to_cluster(
            cloud,
            source,
            out,
            config,
            package=package,
            logs=logs,
            stack=stack,
            hosts=hosts,
            limit=Limit(max_executors, max_minutes),
            wait=wait,
            report=report,
            as_json=as_json,
            speed=speed,
            max_cost=max_cost,
            rates=rates,
        )
        return
    place = find_place(
        cloud, package=package, out=out, role=role, application=application, logs=logs, stack=stack
    )
    plan = plan_run(
        cloud,
        source,
        out,
        config,
        place,
        limit=Limit(max_executors, max_minutes),
        speed=ASSUMED_SPEED if speed is None else speed,
        max_cost=max_cost,
        rates=rates,
    )
    if plan.done:
        tell(f"done      {plan.done:,} photos are committed; the estimate is of the others")
    tell(_estimate_line(plan.estimate) + ("" if speed is not None else " (a speed was assumed)"))
    tell(
        f"at most   {plan.most:,.2f} {plan.rates.currency}: {plan.job.limit.executors} "
        f"executors, {plan.job.limit.minutes} minutes"
    )
    if plan.estimate.seconds > 60 * plan.job.limit.minutes:
        tell(
            "          too little for all of it: what is committed by then is kept, and the same "
            "command goes on"
        )
    tell(f"rates     {plan.rates.words}")
    job, created = with_application(cloud, plan)
    tell(f"application {job.application}, {'created' if created else 'that is there'}")
    run, started = start_run(cloud, job)
    tell(f"run {run.id}, {'started' if started else 'which was under way already'}")
    if not wait:
        print_json({"application": run.application, "run": run.id}) if as_json else click.echo(
            f"verger emr status {run.id} --application {run.application} --region {cloud.region}"
        )
        return
    _wait(cloud, run, plan, out, report, as_json=as_json)


def _wait(
    cloud: Cloud, run: Run, plan: Plan, out: str, report: Path | None, *, as_json: bool
) -> None:
    """Follow a run to its end, fetch its report, and say what it has cost."""
    from verger.emr.runs import cancel_run, fetch_report, follow, read_run
    from verger.emr.submit import describe_bill
    from verger.errors import JobError
    from verger.result.output import Output

    try:
        found = follow(cloud, run, out, _watcher())
    except JobError:
        bill = describe_bill(read_run(cloud, run), plan.rates, 0)
        tell(f"{_bill_line(bill)}, of at most {plan.most:,.2f}")
        raise
    except KeyboardInterrupt:
        where = f"--application {run.application} --region {cloud.region}"
        _ask_to_cancel(run.id, where, lambda: cancel_run(cloud, run))
        raise click.Abort from None
    path = report or Path(f"report-{run.id}.html")
    fetch_report(out, path)
    record = Output.at(out).read_run()
    bill = describe_bill(found, plan.rates, record["counts"]["computed"])
    if as_json:
        print_json(
            {
                "run": run.id,
                "report": str(path),
                "counts": record["counts"],
                "estimate": plan.estimate.as_dict(),
                "billed": bill,
            }
        )
        return
    click.echo(_bill_line(bill, estimated=plan.estimate.cost))
    click.echo(f"report    {path}")


def _submit_to_cluster(
    cloud: Cloud,
    source: str,
    out: str,
    config: Config,
    *,
    package: str,
    logs: str | None,
    stack: str | None,
    hosts: Mapping[str, Any],
    limit: Limit,
    speed: float | None,
    max_cost: float | None,
    rates: Path | None,
    wait: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Start a cluster for the run, or find the one that is under way, and follow it."""
    from verger.emr.ec2 import find_cluster_place, find_hosts, plan_cluster, start_cluster
    from verger.emr.package import read_package
    from verger.emr.price import ASSUMED_SPEED

    place = find_cluster_place(cloud, package=package, out=out, logs=logs, stack=stack)
    machines = find_hosts(cloud, read_package(cloud, place.package), stack=stack, **hosts)
    prices = _node_rates(cloud.region, machines.instance_types, rates, needed=max_cost is not None)
    plan = plan_cluster(
        cloud,
        source,
        out,
        config,
        place,
        machines,
        limit=limit,
        max_cost=max_cost,
        rates=prices,
        speed=ASSUMED_SPEED if speed is None else speed,
    )
    _tell_cluster_plan(plan, assumed=speed is None)
    cluster, started = start_cluster(cloud, plan.job, machines)
    tell(f"cluster {cluster}, {'started' if started else 'which was under way already'}")
    if wait:
        _wait_for_cluster(cloud, cluster, plan, out, report, rates, as_json=as_json)
    elif as_json:
        print_json({"cluster": cluster})
    else:
        click.echo(f"verger emr status {cluster} --on ec2 --region {cloud.region}")


def _node_rates(
    region: str, types: Iterable[str], file: Path | None, *, needed: bool
) -> NodeRates | None:
    """Return the rates of nodes; None, which is told, where there are none and none are needed."""
    from verger.emr.node_price import load_node_rates
    from verger.errors import ConfigError

    try:
        return load_node_rates(region, tuple(types), file)
    except ConfigError as err:
        if needed or file is not None:
            raise
        tell(f"estimate  none: {err}")
        return None


def _tell_cluster_plan(plan: ClusterPlan, *, assumed: bool) -> None:
    from verger.emr.price import most_cost

    if plan.n_photos:
        tell(f"photos    {plan.n_photos:,}, of which {plan.done:,} are committed")
    limit, most = plan.job.limit, ""
    if plan.estimate:
        rates = plan.estimate.rates
        tell(_estimate_line(plan.estimate) + (" (a speed was assumed)" if assumed else ""))
        tell(f"rates     {rates.words}")
        most = (
            f"{most_cost(rates, limit):,.2f} {rates.currency}, all nodes on demand and "
            f"{rates.unbounded_s / 60:.0f} minutes to come and to go: "
        )
    tell(
        f"at most   {most}{limit.executors} task nodes beside 2 on demand, {limit.minutes} "
        "minutes from the start of the step"
    )


def _wait_for_cluster(
    cloud: Cloud,
    cluster: str,
    plan: ClusterPlan,
    out: str,
    report: Path | None,
    rates: Path | None,
    *,
    as_json: bool,
) -> None:
    """Follow a run on a cluster to its end, fetch its report, and say what its nodes cost."""
    from verger.emr.ec2 import cancel_cluster, follow_cluster
    from verger.emr.runs import fetch_report
    from verger.errors import JobError
    from verger.result.output import Output

    try:
        follow_cluster(cloud, cluster, out, _watcher())
    except JobError:
        tell(_nodes_line(_nodes_of(cloud, cluster, rates)))
        raise
    except KeyboardInterrupt:
        _ask_to_cancel(
            cluster, f"--on ec2 --region {cloud.region}", lambda: cancel_cluster(cloud, cluster)
        )
        raise click.Abort from None
    path = report or Path(f"report-{cluster}.html")
    fetch_report(out, path)
    counts = Output.at(out).read_run()["counts"]
    nodes = _nodes_of(cloud, cluster, rates, counts["computed"])
    estimate = plan.estimate
    if as_json:
        print_json(
            {
                "cluster": cluster,
                "report": str(path),
                "counts": counts,
                "nodes": nodes,
                "estimate": estimate.as_dict() if estimate else None,
            }
        )
        return
    click.echo(_nodes_line(nodes, estimated=estimate.cost if estimate else None))
    click.echo(f"report    {path}")


def _nodes_of(
    cloud: Cloud, cluster: str, rates: Path | None, n_photos: int = 0
) -> dict[str, Any] | None:
    """Return what a cluster's nodes cost so far; None, which is told, if it cannot be said."""
    from verger.emr.ec2 import read_nodes
    from verger.emr.node_price import describe_nodes, load_node_rates
    from verger.errors import CloudError, ConfigError

    try:
        used = read_nodes(cloud, cluster)
        return describe_nodes(used, load_node_rates(cloud.region, used.types, rates), n_photos)
    except (CloudError, ConfigError) as err:
        tell(f"nodes     {err}")
        return None


def _refuse(on: str, **given: Any) -> None:
    """Refuse options that mean nothing where the run goes."""
    names = [
        name.replace("_types", "_type") for name, value in given.items() if value not in (None, ())
    ]
    named = [f"--{name.replace('_', '-')}" for name in names]
    if named:
        raise click.UsageError(f"{', '.join(named)}: not with --on {on}")


def _check_application(on: str, application: str | None) -> str:
    """Return the application of a run, which one on EC2 has not."""
    if on == "ec2":
        _refuse(on, application=application)
    elif application is None:
        raise click.UsageError("Missing option '--application'; or --on ec2")
    return application or ""


def can_ask() -> bool:
    """Whether there is somebody who could answer."""
    return sys.stdin.isatty()


def _ask_to_cancel(run_id: str, where: str, cancel: Callable[[], object]) -> None:
    if can_ask() and click.confirm("\nCancel the run too?", default=False, err=True):
        cancel()
        tell("cancelled; what is committed is kept")
        return
    tell(f"run {run_id} goes on; verger emr cancel {run_id} {where}")


@emr.command("status")
@_run_id
@_on
@_application
@_rates
@_region
@json_option()
def emr_status(
    run_id: str,
    on: str,
    application: str | None,
    rates: Path | None,
    region: str | None,
    allow_region: bool,
    as_json: bool,
) -> None:
    """Say how far a run is, and what AWS has billed for it."""
    from verger.emr.aws import connect
    from verger.emr.price import load_rates
    from verger.emr.runs import Progress, Run, read_application, read_run
    from verger.emr.submit import describe_bill

    application = _check_application(on, application)
    cloud = connect(region, allow_region=allow_region)
    if on == "ec2":
        _show_cluster(cloud, run_id, rates, as_json=as_json)
        return
    found = read_run(cloud, Run(application, run_id))
    arguments = found["jobDriver"].get("sparkSubmit", {}).get("entryPointArguments", [])
    done = Progress(arguments[2]).read() if arguments[:1] == ["run"] else None
    architecture = read_application(cloud, application).get("architecture", "X86_64")
    bill = describe_bill(found, load_rates(cloud.region, architecture, rates), 0)
    if as_json:
        print_json(
            {
                "state": found["state"],
                "details": found.get("stateDetails"),
                "photos": done[0] if done else None,
                "of": done[1] if done else None,
                "billed": bill,
            }
        )
        return
    click.echo(f"state     {found['state']}  {found.get('stateDetails', '')}".rstrip())
    if done:
        click.echo(f"photos    {_photos(*done)}")
    click.echo(_bill_line(bill))


def _show_cluster(cloud: Cloud, cluster: str, rates: Path | None, *, as_json: bool) -> None:
    from verger.emr.ec2 import read_cluster
    from verger.emr.runs import Progress

    found = read_cluster(cloud, cluster)
    done = Progress(found.out).read() if found.out else None
    nodes = _nodes_of(cloud, cluster, rates)
    if as_json:
        photos, of = done or (None, None)
        print_json(
            {
                "state": found.state,
                "step": found.step_state,
                "details": found.details,
                "photos": photos,
                "of": of,
                "nodes": nodes,
            }
        )
        return
    click.echo(f"state     {found.words}  {found.details}".rstrip())
    if done:
        click.echo(f"photos    {_photos(*done)}")
    click.echo(_nodes_line(nodes))


@emr.command("logs")
@_run_id
@_on
@_application
@click.option(
    "--stream",
    type=click.Choice(["stdout", "stderr"]),
    default="stderr",
    show_default=True,
    help="What the driver has printed.",
)
@_region
def emr_logs(
    run_id: str,
    on: str,
    application: str | None,
    stream: str,
    region: str | None,
    allow_region: bool,
) -> None:
    """Print the log of a run's driver, as far as AWS has brought it to the bucket."""
    from verger.emr.aws import connect
    from verger.emr.ec2 import read_cluster, read_driver_log
    from verger.emr.runs import DriverLog, Run, logs_of, read_run

    run = Run(_check_application(on, application), run_id)
    cloud = connect(region, allow_region=allow_region)
    if on == "ec2":
        text = read_driver_log(cloud, read_cluster(cloud, run_id), stream)
    else:
        text = DriverLog(cloud, run, logs_of(read_run(cloud, run))).read(stream)
    click.echo(text, nl=False)
    if not text:
        tell("nothing yet: AWS brings logs minutes after they were written")


@emr.command("cancel")
@_run_id
@_on
@_application
@_region
def emr_cancel(
    run_id: str, on: str, application: str | None, region: str | None, allow_region: bool
) -> None:
    """Cancel a run; what it has committed is kept."""
    from verger.emr.aws import connect
    from verger.emr.ec2 import cancel_cluster
    from verger.emr.runs import Run, cancel_run

    run = Run(_check_application(on, application), run_id)
    cloud = connect(region, allow_region=allow_region)
    done = cancel_cluster(cloud, run_id) if on == "ec2" else cancel_run(cloud, run)
    click.echo(f"run {run_id} {'is being cancelled' if done else 'has ended already'}")


@emr.command("doctor")
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@_on
@_place
@_hosts
@click.option("--from-here", is_flag=True, help="Start nothing: look at what can be seen.")
@click.option("--max-minutes", default=15, show_default=True, help="Most that the start may take.")
@_region
@json_option()
def emr_doctor(
    source: str,
    out: str,
    on: str,
    package: str,
    stack: str | None,
    role: str | None,
    application: str | None,
    logs: str | None,
    service_role: str | None,
    instance_profile: str | None,
    instance_types: tuple[str, ...],
    subnet: str | None,
    from_here: bool,
    max_minutes: int,
    region: str | None,
    allow_region: bool,
    as_json: bool,
) -> None:
    """Look at rights, regions and the package, and start its environment on one worker.

    On EC2 nothing is started: a cluster that only looks would cost as much as a short run.
    """
    from verger.emr.aws import connect
    from verger.emr.doctor import look_at_hosts, look_from_here, look_from_there
    from verger.emr.ec2 import find_cluster_place
    from verger.emr.submit import find_place

    hosts = {
        "service_role": service_role,
        "instance_profile": instance_profile,
        "instance_types": instance_types,
        "subnet": subnet,
    }
    _refuse(on, **({"role": role, "application": application} if on == "ec2" else hosts))
    cloud = connect(region, allow_region=allow_region)
    if on == "ec2":
        place = find_cluster_place(cloud, package=package, out=out, logs=logs, stack=stack)
    else:
        place = find_place(
            cloud,
            package=package,
            out=out,
            role=role,
            application=application,
            logs=logs,
            stack=stack,
        )
    addresses = {"SRC": source, "OUT": out, "the logs": place.logs}
    looks = look_from_here(cloud, addresses, place.package, place.application)
    found = _show(looks, as_json)
    if on == "ec2":
        found += _show(look_at_hosts(cloud, place.package, stack=stack, **hosts), as_json)
    elif all(check.holds for check in found) and not from_here:
        job = _probe(cloud, source, out, place, max_minutes)
        found += _show(look_from_there(cloud, job, _watcher()), as_json)
    if as_json:
        print_json([check.as_dict() for check in found])
    click.get_current_context().exit(0 if all(check.holds for check in found) else 1)


def _probe(cloud: Cloud, source: str, out: str, place: Place, minutes: int) -> Any:
    from dataclasses import replace

    from verger.emr.package import read_package
    from verger.emr.runs import find_application
    from verger.emr.submit import probe_job

    package = read_package(cloud, place.package)
    job = probe_job(cloud, source, out, place, package, minutes)
    application, _ = find_application(cloud, package, job.limit, job.logs, place.application)
    return replace(job, application=application)


@emr.command("teardown")
@click.option("--package", metavar="s3://BUCKET/env/NAME", help="A package that goes too.")
@click.option("--stack", default="verger", show_default=True, help="Name of the stack.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_region
def emr_teardown(
    package: str | None, stack: str, yes: bool, region: str | None, allow_region: bool
) -> None:
    """Remove applications and packages that Verger has made; say what stays."""
    from verger.emr.aws import connect
    from verger.emr.teardown import plan_teardown, tear_down

    cloud = connect(region, allow_region=allow_region)
    plan = plan_teardown(cloud, package, stack)
    for application in plan.applications:
        click.echo(f"goes      application {application}")
    if plan.keys:
        click.echo(f"goes      {len(plan.keys)} objects of {plan.package}")
    for what in plan.stays:
        click.echo(f"stays     {what}")
    if plan.is_empty:
        click.echo("nothing of Verger's to remove")
        return
    if not yes:
        click.confirm("Remove it?", abort=True, err=True)
    tear_down(cloud, plan, time.sleep)
    click.echo("removed")


# Printing


def _show(checks: Iterable[Check], as_json: bool) -> list[Check]:
    """Print checks as they come; with ``--json`` they are printed at the end."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            click.echo(f"{'ok    ' if check.holds else 'FAILED'}  {check.name}: {check.detail}")
    return found


def _watcher() -> Watcher:
    """Return what tells on stderr how a run goes: one line for each change."""
    from verger.emr.runs import Watcher

    start, last = time.monotonic(), [""]

    def on_progress(done: int, total: int | None) -> None:
        text = _photos(done, total)
        if text != last[0]:
            tell(f"{time.monotonic() - start:7.0f} s  {text}")
            last[0] = text

    return Watcher(
        on_state=lambda state, details: tell(
            f"{time.monotonic() - start:7.0f} s  {state}  {details}".rstrip()
        ),
        on_progress=on_progress,
        on_log=lambda line: tell(f"  | {line}"),
    )


def _photos(done: int, total: int | None) -> str:
    return f"{done:,} photos" + (f" of {total:,} ({done / total:.0%})" if total else "")


def _estimate_line(found: Estimate) -> str:
    from verger.emr.price import per_thousand

    each = per_thousand(found.cost, found.n_photos)
    return (
        f"estimate  {found.n_photos:,} photos, {found.executors} executors: "
        f"{found.seconds / 60:,.0f} minutes with the start, {found.cost:,.2f} "
        f"{found.rates.currency}" + (f", {each:.4f} for 1,000 photos" if each else "")
    )


def _bill_line(bill: Mapping[str, Any] | None, *, estimated: float | None = None) -> str:
    if bill is None:
        return "billed    AWS has not said yet; verger emr status asks again"
    hours = f"{bill['vcpu_hours']:.3f} vCPU-hours, {bill['memory_gb_hours']:.3f} GB-hours"
    return f"billed    {hours}: {_cost(bill, estimated)}"


def _nodes_line(nodes: Mapping[str, Any] | None, *, estimated: float | None = None) -> str:
    if nodes is None:
        return (
            "nodes     Cost Explorer knows what they cost, by the tag made-by=verger, a day later"
        )
    hours = [sum(nodes[f"{market}_hours"].values()) for market in ("on_demand", "spot")]
    text = f"nodes     {hours[0]:.2f} hours on demand, {hours[1]:.2f} hours of spot nodes: "
    text += _cost(nodes, estimated)
    if nodes["nodes_going"]:
        text += f"; {nodes['nodes_going']} still there, so that it grows"
    return text


def _cost(bill: Mapping[str, Any], estimated: float | None) -> str:
    text = f"{bill['cost']:,.2f} {bill['currency']}"
    if estimated is not None:
        text += f", estimated {estimated:,.2f}"
    each = bill["cost_per_1000_photos"]
    return text + (f", {each:.4f} for 1,000 photos" if each else "")
