"""The command ``verger emr submit``: start a run on EMR, and follow it to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verger.cli.emr.follow import nodes_of
from verger.cli.emr.options import (
    RUN_OPTIONS,
    BudgetOptions,
    HostOptions,
    PlaceOptions,
    SavedCommand,
    budget_options,
    connect_as_given,
    given,
    host_options,
    on_option,
    parse_tags,
    place_options,
    refuse,
    refuse_elsewhere,
    region_options,
    setup_options,
)
from verger.cli.emr.printing import bill_line, estimate_line, nodes_line, tell_progress
from verger.cli.endings import Terminated
from verger.cli.options import config_options, resolve_config
from verger.cli.terminal import print_json, say, tell

if TYPE_CHECKING:
    from verger.config import Config
    from verger.emr.aws import Cloud
    from verger.emr.ec2 import ClusterPlan
    from verger.emr.node_price import NodeRates
    from verger.emr.runs import JobRun
    from verger.emr.submit import JobPlan
    from verger.result.record import Counts


@dataclass(frozen=True)
class Order:
    """A run as it was asked for, and what is to be told of it."""

    source: str
    out: str
    config: Config
    place: PlaceOptions
    hosts: HostOptions
    budget: BudgetOptions
    wait: bool
    report: Path | None
    as_json: bool
    tags: dict[str, str]
    flex: bool


@click.command("submit", cls=SavedCommand)
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@on_option
@place_options
@host_options
@setup_options
@budget_options
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the report goes. Default: report-RUN.html",
)
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Of the run, for Cost Explorer."
)
@click.option(
    "--flex", is_flag=True, help="Executors on spare capacity of EMR Serverless: cheaper, later."
)
@region_options
@config_options(*RUN_OPTIONS)
def emr_submit(
    source: str,
    out: str,
    on: str,
    wait: bool,
    report: Path | None,
    as_json: bool,
    *,
    tags: tuple[str, ...],
    flex: bool,
    **_: Any,
) -> None:
    """Do what verger run does, on EMR Serverless or on a cluster of its own."""
    place, hosts = given(PlaceOptions), given(HostOptions)
    order = Order(
        source=source,
        out=out,
        config=resolve_config(),
        place=place,
        hosts=hosts,
        budget=given(BudgetOptions),
        wait=wait,
        report=report,
        as_json=as_json,
        tags=parse_tags(tags),
        flex=flex,
    )
    if on == "ec2":
        budget = order.budget
        refuse(on, executor_size=budget.executor_size, disk=budget.disk, flex=flex or None)
    refuse_elsewhere(on, place, hosts)
    submit = _submit_to_cluster if on == "ec2" else _submit_serverless
    submit(connect_as_given(), order)


# EMR Serverless


def _submit_serverless(cloud: Cloud, order: Order) -> None:
    from verger.emr.runs import start_run
    from verger.emr.submit import find_place, plan_run, with_application

    budget = order.budget
    plan = plan_run(
        cloud,
        order.source,
        order.out,
        order.config,
        find_place(cloud, **order.place.for_serverless(order.out)),
        limit=budget.limit,
        speed=budget.speed_of(order.config),
        max_cost=budget.max_cost,
        rates=budget.rates,
    )
    _tell_plan(plan, assumed=budget.speed is None)
    job, created = with_application(cloud, plan)
    job = replace(job, tags=order.tags, flex=order.flex)
    tell(f"application {job.application}, {'created' if created else 'that is there'}")
    run, started = start_run(cloud, job)
    tell(f"run {run.id}, {'started' if started else 'which was under way already'}")
    if order.wait:
        _wait_for_run(cloud, run, plan, order)
    elif order.as_json:
        print_json({"application": run.application, "run": run.id})
    else:
        say(f"verger emr status {run.id} --application {run.application} --region {cloud.region}")


def _tell_plan(plan: JobPlan, *, assumed: bool) -> None:
    limit = plan.job.limit
    if plan.done:
        tell(f"done      {plan.done:,} photos are committed; the estimate is of the others")
    for note in plan.notes:
        tell(f"room      {note}")
    tell(estimate_line(plan.estimate) + (" (a speed was assumed)" if assumed else ""))
    tell(
        f"at most   {plan.most:,.2f} {plan.rates.currency}: {limit.executors} executors, "
        f"{limit.minutes} minutes"
    )
    if plan.estimate.seconds > 60 * limit.minutes:
        tell(
            "          too little for all of it: what is committed by then is kept, and the same "
            "command goes on"
        )
    tell(f"rates     {plan.rates.words}")


def _wait_for_run(cloud: Cloud, run: JobRun, plan: JobPlan, order: Order) -> None:
    """Follow a run to its end, fetch its report, and say what it has cost."""
    from verger.emr.runs import cancel_run, follow
    from verger.emr.submit import describe_bill

    ended = _follow_to_the_end(
        run.id,
        f"--application {run.application} --region {cloud.region}",
        follow=partial(follow, cloud, run, order.out, tell_progress()),
        cancel=partial(cancel_run, cloud, run),
        on_failure=partial(_tell_bill, cloud, run, plan),
    )
    path, counts = _fetch_report(order, run.id)
    bill = describe_bill(ended, plan.rates, counts.computed)
    if order.as_json:
        print_json(
            {
                "run": run.id,
                "report": str(path),
                "counts": counts,
                "estimate": plan.estimate.as_dict(),
                "billed": bill,
            }
        )
        return
    say(bill_line(bill, estimated=plan.estimate.cost))
    say(f"report    {path}")


def _tell_bill(cloud: Cloud, run: JobRun, plan: JobPlan) -> None:
    from verger.emr.runs import read_run
    from verger.emr.submit import describe_bill

    bill = describe_bill(read_run(cloud, run), plan.rates, 0)
    tell(f"{bill_line(bill)}, of at most {plan.most:,.2f}")


# A cluster of its own


def _submit_to_cluster(cloud: Cloud, order: Order) -> None:
    """Start a cluster for the run, or find the one that is under way, and follow it."""
    from verger.emr.ec2 import find_cluster_place, find_hosts, plan_cluster, start_cluster
    from verger.emr.package import read_package

    place = find_cluster_place(cloud, **order.place.for_cluster(order.out))
    machines = find_hosts(
        cloud, read_package(cloud, place.package), stack=order.place.stack, **order.hosts.as_dict()
    )
    budget = order.budget
    plan = plan_cluster(
        cloud,
        order.source,
        order.out,
        order.config,
        place,
        machines,
        limit=budget.limit,
        max_cost=budget.max_cost,
        rates=_node_rates(cloud.region, machines.instance_types, budget),
        speed=budget.speed_of(order.config),
    )
    _tell_cluster_plan(plan, assumed=budget.speed is None)
    cluster, started = start_cluster(cloud, replace(plan.job, tags=order.tags), machines)
    tell(f"cluster {cluster}, {'started' if started else 'which was under way already'}")
    if order.wait:
        _wait_for_cluster(cloud, cluster, plan, order)
    elif order.as_json:
        print_json({"cluster": cluster})
    else:
        say(f"verger emr status {cluster} --on ec2 --region {cloud.region}")


def _node_rates(region: str, types: Iterable[str], budget: BudgetOptions) -> NodeRates | None:
    """Return the rates of nodes; None, which is told, where there are none and none are needed."""
    from verger.emr.node_price import load_node_rates
    from verger.errors import ConfigError

    try:
        return load_node_rates(region, tuple(types), budget.rates)
    except ConfigError as err:
        if budget.max_cost is not None or budget.rates is not None:
            raise
        tell(f"estimate  none: {err}")
        return None


def _tell_cluster_plan(plan: ClusterPlan, *, assumed: bool) -> None:
    if plan.n_photos:
        tell(f"photos    {plan.n_photos:,}, of which {plan.done:,} are committed")
    limit, most = plan.job.limit, ""
    if plan.estimate:
        rates = plan.estimate.rates
        tell(estimate_line(plan.estimate) + (" (a speed was assumed)" if assumed else ""))
        tell(f"rates     {rates.words}")
        most = (
            f"{plan.estimate.most(limit):,.2f} {rates.currency}, all nodes on demand and "
            f"{rates.unbounded_s / 60:.0f} minutes to come and to go: "
        )
    tell(
        f"at most   {most}{limit.executors} task nodes beside 2 on demand, {limit.minutes} "
        "minutes from the start of the step"
    )


def _wait_for_cluster(cloud: Cloud, cluster: str, plan: ClusterPlan, order: Order) -> None:
    """Follow a run on a cluster to its end, fetch its report, and say what its nodes cost."""
    from verger.emr.ec2 import cancel_cluster, follow_cluster

    rates, estimate = order.budget.rates, plan.estimate
    _follow_to_the_end(
        cluster,
        f"--on ec2 --region {cloud.region}",
        follow=partial(follow_cluster, cloud, cluster, order.out, tell_progress()),
        cancel=partial(cancel_cluster, cloud, cluster),
        on_failure=partial(_tell_nodes, cloud, cluster, rates),
    )
    path, counts = _fetch_report(order, cluster)
    nodes = nodes_of(cloud, cluster, rates, counts.computed)
    if order.as_json:
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
    say(nodes_line(nodes, estimated=estimate.cost if estimate else None))
    say(f"report    {path}")


def _tell_nodes(cloud: Cloud, cluster: str, rates: Path | None) -> None:
    tell(nodes_line(nodes_of(cloud, cluster, rates)))


# Both


def _follow_to_the_end(
    run_id: str,
    where: str,
    *,
    follow: Callable[[], Any],
    cancel: Callable[[], object],
    on_failure: Callable[[], None],
) -> Any:
    """Follow a run; Ctrl-C asks whether to cancel it, and otherwise leaves it."""
    from verger.errors import JobError

    try:
        return follow()
    except JobError:
        on_failure()
        raise
    except KeyboardInterrupt as err:
        may_ask = can_ask() and not isinstance(err, Terminated)
        if may_ask and click.confirm("\nCancel the run too?", default=False, err=True):
            cancel()
            tell("cancelled; what is committed is kept")
        else:
            tell(f"run {run_id} goes on; verger emr cancel {run_id} {where}")
        raise click.Abort from err


def can_ask() -> bool:
    """Whether there is somebody who could answer."""
    return sys.stdin.isatty()


def _fetch_report(order: Order, run_id: str) -> tuple[Path, Counts]:
    """Fetch the report of a run that has ended well; return its path here, and the counts."""
    from verger.emr.runs import fetch_report
    from verger.result.output import Output

    path = order.report or Path(f"report-{run_id}.html")
    fetch_report(order.out, path)
    return path, Output.at(order.out).read_run().counts
