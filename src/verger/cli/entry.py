"""The command ``verger``: all its commands, and the entry point."""

from __future__ import annotations

import logging
import sys

import click

from verger.cli.classify import classify, predict
from verger.cli.emr import emr
from verger.cli.endings import catch_sigterm, end, hush_a_dead_java
from verger.cli.export import export
from verger.cli.machine import doctor, models
from verger.cli.photos import demo, sample
from verger.cli.register import register
from verger.cli.serve import serve
from verger.cli.similar import inspect, similar
from verger.cli.stages import featurize, reduce, report, run, validate
from verger.cli.table import show
from verger.cli.terminal import TellingHandler


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="verger", prog_name="verger")
def app() -> None:
    """Turn folders and buckets of photos into feature tables that people can trust."""


for command in (
    demo,
    sample,
    run,
    featurize,
    reduce,
    validate,
    report,
    show,
    classify,
    predict,
    similar,
    inspect,
    export,
    register,
    serve,
    models,
    doctor,
    emr,
):
    app.add_command(command)


def main() -> None:
    """Run the command line; the entry point of ``verger``."""
    logging.getLogger("verger").addHandler(TellingHandler(logging.WARNING))
    hush_a_dead_java()
    catch_sigterm()
    try:
        code = app(standalone_mode=False)
    except (Exception, KeyboardInterrupt) as err:  # noqa: BLE001 - nothing leaves as a traceback
        code = end(err)
    sys.exit(code if isinstance(code, int) else 0)
