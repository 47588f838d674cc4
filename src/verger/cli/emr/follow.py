"""Runs that have been submitted: ``status``, ``logs``, ``cancel``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verger.cli.emr.options import (
    SavedCommand,
    application_option,
    check_application,
    connect_as_given,
    on_option,
    rates_option,
    refuse,
    region_options,
    run_argument,
    saved_option,
)
from verger.cli.emr.printing import bill_line, nodes_line, photos_line
from verger.cli.options import json_option
from verger.cli.terminal import print_json, say, say_lines, tell

if TYPE_CHECKING:
    from verger.emr.aws import Cloud


@click.command("status")
@run_argument
@on_option
@application_option
@rates_option
@region_options
@json_option()
def emr_status(
    run_id: str, on: str, application: str | None, rates: Path | None, as_json: bool, **_: Any
) -> None:
    """Say how far a run is, and what AWS has billed for it."""
    from verger.emr.applications import read_application
    from verger.emr.price import load_rates
    from verger.emr.runs import CommitCounter, JobRun, out_of, read_run
    from verger.emr.submit import describe_bill

    application = check_application(on, application)
    cloud = connect_as_given()
    if on == "ec2":
        _show_cluster(cloud, run_id, rates, as_json=as_json)
        return
    described = read_run(cloud, JobRun(application, run_id))
    out = out_of(described)
    done = CommitCounter(out).read() if out else None
    architecture = read_application(cloud, application).get("architecture", "X86_64")
    bill = describe_bill(described, load_rates(cloud.region, architecture, rates), 0)
    if as_json:
        print_json(
            {
                "state": described["state"],
                "details": described.get("stateDetails"),
                "photos": done[0] if done else None,
                "of": done[1] if done else None,
                "billed": bill,
            }
        )
        return
    say(f"state     {described['state']}  {described.get('stateDetails', '')}".rstrip())
    if done:
        say(f"photos    {photos_line(*done)}")
    say(bill_line(bill))


def _show_cluster(cloud: Cloud, cluster: str, rates: Path | None, *, as_json: bool) -> None:
    from verger.emr.ec2 import read_cluster
    from verger.emr.runs import CommitCounter

    run = read_cluster(cloud, cluster)
    done = CommitCounter(run.out).read() if run.out else None
    nodes = nodes_of(cloud, cluster, rates)
    if as_json:
        photos, of = done or (None, None)
        print_json(
            {
                "state": run.state,
                "step": run.step_state,
                "details": run.details,
                "photos": photos,
                "of": of,
                "nodes": nodes,
            }
        )
        return
    say(f"state     {run.words}  {run.details}".rstrip())
    if done:
        say(f"photos    {photos_line(*done)}")
    say(nodes_line(nodes))


def nodes_of(
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


@click.command("logs")
@run_argument
@on_option
@application_option
@click.option(
    "--stream",
    type=click.Choice(["stdout", "stderr"]),
    default="stderr",
    show_default=True,
    help="What the driver has printed.",
)
@click.option(
    "--executor", type=click.IntRange(min=1), metavar="N", help="Of this executor, not the driver."
)
@region_options
def emr_logs(
    run_id: str, on: str, application: str | None, stream: str, executor: int | None, **_: Any
) -> None:
    """Print the log of a run's driver, as far as AWS has brought it to the bucket."""
    from verger.emr.ec2 import read_cluster, read_driver_log
    from verger.emr.runs import DriverLog, JobRun, logs_of, read_run

    run = JobRun(check_application(on, application), run_id)
    if on == "ec2":
        refuse(on, executor=executor)
    cloud = connect_as_given()
    if on == "ec2":
        text = read_driver_log(cloud, read_cluster(cloud, run_id), stream)
    else:
        text = DriverLog(cloud, run, logs_of(read_run(cloud, run)), executor).read(stream)
    say_lines(text)
    if not text:
        tell("nothing yet: AWS brings logs minutes after they were written")


@click.command("list", cls=SavedCommand)
@on_option
@application_option
@click.option("--stack", metavar="NAME", help="Of the stack's application.")
@click.option("--last", default=10, show_default=True, type=click.IntRange(1, 100), help="Runs.")
@saved_option
@region_options
@json_option()
def emr_list(
    on: str, application: str | None, stack: str | None, last: int, as_json: bool, **_: Any
) -> None:
    """List runs, the youngest first: with their state, when they were started, and their OUT."""
    from verger.emr.history import list_past, list_past_clusters
    from verger.emr.submit import read_stack

    if on == "ec2":
        refuse(on, application=application, stack=stack)
    cloud = connect_as_given()
    if on == "ec2":
        runs = list_past_clusters(cloud, last)
    else:
        named = read_stack(cloud, stack).get("ApplicationId") if stack else None
        runs = list_past(cloud, application or named, last)
    if as_json:
        print_json(runs)
        return
    for run in runs:
        when = run.started.astimezone().strftime("%Y-%m-%d %H:%M")
        say(f"{when}  {run.state:<10}  {run.id}  {run.application}  {run.out or 'doctor'}")
    if not runs:
        say("no run of Verger's")


@click.command("ui")
@run_argument
@application_option
@region_options
def emr_ui(run_id: str, application: str | None, **_: Any) -> None:
    """Print the address of Spark's pages about a run, live or ended; it holds for an hour."""
    from verger.emr.runs import JobRun, dashboard_of

    run = JobRun(check_application("serverless", application), run_id)
    say(dashboard_of(connect_as_given(), run))


@click.command("cancel")
@run_argument
@on_option
@application_option
@region_options
def emr_cancel(run_id: str, on: str, application: str | None, **_: Any) -> None:
    """Cancel a run; what it has committed is kept."""
    from verger.emr.ec2 import cancel_cluster
    from verger.emr.runs import JobRun, cancel_run

    run = JobRun(check_application(on, application), run_id)
    cloud = connect_as_given()
    done = cancel_cluster(cloud, run_id) if on == "ec2" else cancel_run(cloud, run)
    say(f"run {run_id} {'is being cancelled' if done else 'has ended already'}")
