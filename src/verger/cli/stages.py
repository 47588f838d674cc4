"""The commands of a job's stages: ``run``, ``featurize``, ``reduce``, ``validate``, ``report``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from verger.cli.options import (
    FEATURES,
    MODEL,
    PHOTOS,
    REDUCE,
    REPORT,
    SPARK,
    GroupedCommand,
    config_options,
    dry_run_option,
    resolve_config,
)
from verger.cli.summary import print_summary
from verger.cli.table import print_labels
from verger.cli.terminal import keep_page_up, print_json, say, tell, tell_source, watch_for


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, *REDUCE, "partitions", "overwrite", *REPORT, *SPARK)
@dry_run_option
def run(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Featurize, reduce, validate and report: the whole job.

    SRC is a folder of photos, in one subfolder a class if they have labels, or s3://bucket/prefix.
    OUT is a new folder or s3://bucket/prefix, or an earlier result of the same SRC: then only new
    and changed photos are computed.

    \b
    Examples:
      verger run photos/ result/
      verger run photos/ result/ --label-from none --components 50
      verger run s3://bucket/photos s3://bucket/result --master yarn
    """  # noqa: D301 - \b is the character by which click keeps these lines
    config = resolve_config()
    from verger.job import pipeline, plan

    if dry_run:
        _print_plan(plan.describe_plan(source, out, config), as_json)
        return
    print_summary(pipeline.run(source, out, config, watch=watch_for(config)), out, as_json)
    keep_page_up(config)


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, "partitions", "overwrite", *SPARK)
@dry_run_option
def featurize(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Write features/ and rejected/; SRC and OUT are those of ``verger run``."""
    config = resolve_config()
    from verger.job import pipeline, plan

    if dry_run:
        _print_plan(plan.describe_plan(source, out, config, reduce=False), as_json)
        return
    print_summary(
        pipeline.run_featurize(source, out, config, watch=watch_for(config)), out, as_json
    )
    keep_page_up(config)


@click.command()
@click.argument("out", metavar="OUT")
@config_options(*REDUCE, "overwrite", *SPARK)
@dry_run_option
def reduce(out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Write pca/, models/pca/, explained_variance.csv and scree.png."""
    config = resolve_config()
    from verger.job import pipeline
    from verger.job.losses import describe_reduce

    plan = describe_reduce(out, config)
    if dry_run:
        _print_plan(plan, as_json)
        return
    for loss in plan["losses"]:
        tell(f"once the new PCA is whole: {loss}")
    print_summary(pipeline.run_reduce(out, config, watch=watch_for(config)), out, as_json)
    keep_page_up(config)


@click.command()
@click.argument("out", metavar="OUT")
@config_options(*SPARK)
def validate(out: str, as_json: bool, **_: Any) -> None:
    """Re-derive every count of a result; exit 1 and a reason when something does not hold."""
    config = resolve_config()
    from verger.job import pipeline

    found = pipeline.run_validate(out, config, watch=watch_for(config))
    if as_json:
        labels = {"null" if k is None else k: n for k, n in found.labels.items()}
        print_json({"holds": found.holds, "checks": found.checks, "labels": labels})
    else:
        for check in found.checks:
            say(f"{'ok    ' if check.holds else 'FAILED'}  {check.name}: {check.detail}")
        print_labels(found.labels)
    keep_page_up(config)
    found.raise_if_broken()


@click.command()
@click.argument("out", metavar="OUT")
@config_options(*REPORT, *SPARK)
def report(out: str, as_json: bool, **_: Any) -> None:
    """Write report.html and report.json."""
    config = resolve_config()
    from verger.job import pipeline

    tell_source(out)
    print_summary(pipeline.run_report(out, config, watch=watch_for(config)), out, as_json)
    keep_page_up(config)


def _print_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    say("Configuration:")
    for name, value in plan["config"].items():
        say(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
    say("Would:")
    for step in plan["steps"]:
        say(f"  {step}")
    for note in plan.get("notes", ()):
        tell(f"note: {note}")
