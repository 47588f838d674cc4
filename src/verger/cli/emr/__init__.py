"""The commands of ``verger emr``; see :mod:`verger.cli` for how they end."""

from __future__ import annotations

import click

from verger.cli.emr.follow import emr_cancel, emr_list, emr_logs, emr_status, emr_ui
from verger.cli.emr.prepare import emr_doctor, emr_estimate, emr_init, emr_package, emr_teardown
from verger.cli.emr.rates import emr_rates
from verger.cli.emr.submit import emr_submit

__all__ = ["emr"]


@click.group()
def emr() -> None:
    """AWS EMR, Serverless or on EC2: the infrastructure for jobs, and the jobs."""


for command in (
    emr_init,
    emr_package,
    emr_estimate,
    emr_submit,
    emr_list,
    emr_status,
    emr_logs,
    emr_ui,
    emr_cancel,
    emr_doctor,
    emr_rates,
    emr_teardown,
):
    emr.add_command(command)
