"""List the runs that Verger has started, on EMR Serverless and on clusters, the youngest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from verger.emr.aws import Cloud, aws_errors
from verger.emr.ec2 import read_cluster
from verger.emr.runs import JobRun, list_runs, out_of, read_run

#: How the names of all runs begin; see :func:`verger.emr.jobs.job_name`.
_OURS = "verger-"


@dataclass(frozen=True)
class PastRun:
    """A run, under way or ended.

    Attributes
    ----------
    id : str
    application : str
        Where it is; empty for a cluster.
    state : str
    started : datetime
        When it was asked for.
    out : str or None
        Address of its result; None of a probe.
    """

    id: str
    application: str
    state: str
    started: datetime
    out: str | None


def list_past(cloud: Cloud, application: str | None, most: int) -> list[PastRun]:
    """Return the youngest runs of an application, or of all applications of the region.

    Raises
    ------
    CloudError
    """
    applications = [application] if application else list(_applications(cloud))
    runs = [
        PastRun(
            entry["id"],
            number,
            entry["state"],
            entry["createdAt"],
            out_of(read_run(cloud, JobRun(number, entry["id"]))),
        )
        for number in applications
        for entry in islice(_own_runs(cloud, number), most)
    ]
    return sorted(runs, key=lambda run: run.started, reverse=True)[:most]


def _applications(cloud: Cloud) -> Iterator[str]:
    pages = cloud.emr.get_paginator("list_applications").paginate()
    with aws_errors("list the applications; --stack or --application names one"):
        for page in pages:
            yield from (str(entry["id"]) for entry in page["applications"])


def _own_runs(cloud: Cloud, application: str) -> Iterator[dict[str, Any]]:
    runs = list_runs(cloud, application)
    return (entry for entry in runs if str(entry.get("name", "")).startswith(_OURS))


def list_past_clusters(cloud: Cloud, most: int) -> list[PastRun]:
    """Return the youngest clusters that Verger has started, gone ones too.

    Raises
    ------
    CloudError
    """
    pages = cloud.clusters.get_paginator("list_clusters").paginate()
    with aws_errors("list the clusters"):
        named = [
            entry for page in pages for entry in page["Clusters"] if entry["Name"].startswith(_OURS)
        ]
    named.sort(key=lambda entry: entry["Status"]["Timeline"]["CreationDateTime"], reverse=True)
    return [
        PastRun(
            entry["Id"], "", run.words, entry["Status"]["Timeline"]["CreationDateTime"], run.out
        )
        for entry in named[:most]
        for run in [read_cluster(cloud, entry["Id"])]
    ]
