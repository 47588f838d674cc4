"""Start, read, follow and cancel runs on EMR Serverless.

Every wait is bounded and grows: from two seconds to thirty, with jitter, until the run has ended or
its time is over.
"""

from __future__ import annotations

import math
import random
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verger.emr.aws import Cloud, aws_errors, read_object
from verger.emr.jobs import ENDED, Job, job_name, job_request
from verger.emr.trust import ADVICE, says_not_assumed
from verger.errors import JobError, OutputError, VergerError
from verger.result.journal import latest_attempt
from verger.result.output import REPORT, Output

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 30.0
#: How much longer than its limit a run is waited for: AWS takes a while to cancel it.
GRACE_S = 900.0
#: Seconds that the driver of a cancelled run is given to end as on Ctrl-C, and give OUT back.
SHUTDOWN_S = 60
#: Lines of a log that are shown of a run that has failed.
LAST_LINES = 20
_FRAME = re.compile(r"\s+(at \S+\(.*\)|\.\.\. \d+ more)$")
#: Most of a log that is unpacked.
MAX_LOG_BYTES = 256_000_000


@dataclass(frozen=True)
class JobRun:
    """A run that AWS knows of."""

    application: str
    id: str


def pauses(rng: random.Random | None = None) -> Iterator[float]:
    """Yield seconds to wait, longer and longer, each between a half and the whole of its length."""
    rng = rng or random.Random()  # noqa: S311 - no secret
    longest = FIRST_PAUSE_S
    while True:
        yield longest * rng.uniform(0.5, 1.0)
        longest = min(LONGEST_PAUSE_S, longest * 1.5)


# Runs


def start_run(cloud: Cloud, job: Job) -> tuple[JobRun, bool]:
    """Start a run, or return the one that is already doing the same.

    Returns
    -------
    JobRun
    bool
        Whether it was started now.

    Raises
    ------
    CloudError
        If AWS refuses.
    """
    same = [run for run in list_runs(cloud, job.application) if run.get("name") == job_name(job)]
    under_way = [run for run in same if run["state"] not in ENDED]
    if under_way:
        return JobRun(job.application, str(under_way[0]["id"])), False
    request = job_request(job, earlier=len(same))
    with aws_errors("start the run"):
        started = cloud.emr.start_job_run(**request)
    return JobRun(job.application, str(started["jobRunId"])), True


def list_runs(cloud: Cloud, application: str) -> Iterator[dict[str, Any]]:
    """Yield what AWS says of the runs of an application, the youngest first."""
    pages = cloud.emr.get_paginator("list_job_runs").paginate(applicationId=application)
    with aws_errors(f"list the runs of {application}"):
        for page in pages:
            yield from page["jobRuns"]


def read_run(cloud: Cloud, run: JobRun) -> dict[str, Any]:
    """Return what AWS says of a run.

    Raises
    ------
    CloudError
        If there is no such run.
    """
    with aws_errors(f"look at the run {run.id}"):
        job_run: dict[str, Any] = cloud.emr.get_job_run(
            applicationId=run.application, jobRunId=run.id
        )["jobRun"]
        return job_run


def dashboard_of(cloud: Cloud, run: JobRun) -> str:
    """Return the address of Spark's pages about a run, which holds for an hour.

    Raises
    ------
    CloudError
    """
    with aws_errors(f"ask for Spark's pages about the run {run.id}"):
        answer = cloud.emr.get_dashboard_for_job_run(applicationId=run.application, jobRunId=run.id)
    return str(answer["url"])


def cancel_run(cloud: Cloud, run: JobRun) -> bool:
    """Ask AWS to cancel a run; return whether there was anything to cancel."""
    if read_run(cloud, run)["state"] in ENDED:
        return False
    with aws_errors(f"cancel the run {run.id}"):
        cloud.emr.cancel_job_run(
            applicationId=run.application, jobRunId=run.id, shutdownGracePeriodInSeconds=SHUTDOWN_S
        )
    return True


@dataclass(frozen=True)
class Watcher:
    """Callbacks that are told of the progress of a run.

    Attributes
    ----------
    on_state : callable
        Takes the state, and what AWS says of it.
    on_progress : callable
        Takes photos done, and photos in all where that is known.
    on_log : callable
        Takes a line that the driver has printed.
    """

    on_state: Callable[[str, str], None]
    on_progress: Callable[[int, int | None], None]
    on_log: Callable[[str], None]


def follow(
    cloud: Cloud,
    run: JobRun,
    out: str,
    watcher: Watcher,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Wait until a run has ended, and report its progress meanwhile.

    Parameters
    ----------
    cloud : Cloud
    run : JobRun
    out : str
        Address of the result, whose journal says how far the run is.
    watcher : Watcher
    sleep, clock : callable

    Returns
    -------
    dict
        What AWS says of the run that has ended well.

    Raises
    ------
    JobError
        If it has ended otherwise, or has not ended long after its time.
    """
    job_run = read_run(cloud, run)
    until = clock() + 60 * int(job_run.get("executionTimeoutMinutes", 0)) + GRACE_S
    progress, log, state = CommitCounter(out), DriverLog(cloud, run, logs_of(job_run)), ""
    for pause in pauses():
        if job_run["state"] != state:
            state = job_run["state"]
            watcher.on_state(state, job_run.get("stateDetails", ""))
        if (now := progress.read()) is not None:
            watcher.on_progress(*now)
        for line in log.new_lines():
            watcher.on_log(line)
        if state in ENDED:
            break
        if clock() > until:
            raise JobError(f"run {run.id}: is {state} long after its time; verger emr cancel")
        sleep(pause)
        job_run = read_run(cloud, run)
    check_end(job_run, log)
    return job_run


def check_end(job_run: dict[str, Any], log: DriverLog) -> None:
    """Raise an error if a run has failed.

    Raises
    ------
    JobError
        With the exit code where AWS tells it, and the last lines of the driver's log.
    """
    state, details = job_run["state"], job_run.get("stateDetails", "")
    if state == "SUCCESS":
        return
    code = re.search(r"[Ee]xit ?[Cc]ode:? *(\d+)", details)
    if _ran_out(job_run):
        ended = (
            f"its limit of {job_run['executionTimeoutMinutes']} minutes was reached "
            "(--max-minutes, or what --max-cost pays for)"
        )
    else:
        ended = f"{state}{f', exit code {code[1]}' if code else ''}: {details}"
        if says_not_assumed(details):
            ended += f"; {ADVICE}; verger emr doctor reads it"
    lines = "".join(f"\n  {line}" for line in log.last_lines())
    raise JobError(
        f"run {job_run['jobRunId']} did not end well: {ended}; what is committed is kept, and the "
        f"same command goes on{'; the last lines of the driver:' if lines else ''}{lines}"
    )


def _ran_out(job_run: dict[str, Any]) -> bool:
    """Whether a run was ended because its time was over."""
    limit = job_run.get("executionTimeoutMinutes") or math.inf
    late = job_run.get("totalExecutionDurationSeconds", 0) >= 60 * limit
    return late or "timeout" in job_run.get("stateDetails", "").lower()


def out_of(job_run: dict[str, Any]) -> str | None:
    """Return the address of a run's result; None of a probe, which has none."""
    words = job_run["jobDriver"].get("sparkSubmit", {}).get("entryPointArguments", [])
    return str(words[2]) if words[:1] == ["run"] else None


def logs_of(job_run: dict[str, Any]) -> str | None:
    """Return the address below which the logs of a run go; None where they go nowhere."""
    monitoring = job_run.get("configurationOverrides", {}).get("monitoringConfiguration", {})
    address = monitoring.get("s3MonitoringConfiguration", {}).get("logUri")
    return str(address).rstrip("/") if address else None


class DriverLog:
    """The log of a run's driver, or of an executor; AWS copies it to the bucket with a delay.

    Parameters
    ----------
    cloud : Cloud
    run : JobRun
    logs : str or None
        Address below which logs go; None where they go nowhere.
    executor : int, optional
        Number of an executor, from 1.
    """

    def __init__(
        self, cloud: Cloud, run: JobRun, logs: str | None, executor: int | None = None
    ) -> None:
        whose = "SPARK_DRIVER" if executor is None else f"SPARK_EXECUTOR/{executor}"
        self._cloud = cloud
        self._root = f"{logs}/applications/{run.application}/jobs/{run.id}/{whose}"
        self._has_one = logs is not None
        self._told = {"stdout": 0, "stderr": 0}

    def read(self, stream: str) -> str:
        """Return the text of ``stdout`` or ``stderr``; empty while there is none."""
        content = read_object(self._cloud, f"{self._root}/{stream}.gz") if self._has_one else None
        return unzip_log(content or b"").decode("utf-8", "replace")

    def new_lines(self) -> list[str]:
        """Return the whole lines that have come since the last call."""
        fresh = []
        for stream, told in self._told.items():
            lines = self.read(stream).rpartition("\n")[0].splitlines()
            fresh += lines[told:]
            self._told[stream] = len(lines)
        return fresh

    def last_lines(self) -> list[str]:
        """Return the last lines of what was said of an error, or else of anything."""
        return last_words(self.read("stderr") or self.read("stdout"))


def last_words(log: str) -> list[str]:
    """Return the last lines of a log, without the frames of Java's errors.

    Spark ends with a few of those, whose frames alone would fill the lines that are shown.
    """
    lines = (line for line in log.splitlines() if not _FRAME.match(line))
    return list(deque(lines, LAST_LINES))


def unzip_log(content: bytes) -> bytes:
    """Unpack a gzip file that may still be incomplete, and no more than fits into memory."""
    text, rest = b"", content
    while rest and len(text) < MAX_LOG_BYTES:
        unzip = zlib.decompressobj(wbits=31)
        try:
            text += unzip.decompress(rest, MAX_LOG_BYTES - len(text))
        except zlib.error:
            break
        rest = unzip.unused_data
    return text


@dataclass
class CommitCounter:
    """Counts the photos that a run has committed, by its journal in OUT.

    Attributes
    ----------
    out : str
        ``s3://bucket/prefix``.
    """

    out: str
    _photos: dict[str, int] = field(default_factory=dict)
    _total: tuple[str, int] | None = None

    def read(self) -> tuple[int, int | None] | None:
        """Return photos done and in all; None where nobody computes, or it cannot be seen."""
        with suppress(VergerError, OSError):
            return self._read()
        return None

    def _read(self) -> tuple[int, int | None] | None:
        output = Output.at(self.out)
        attempt = latest_attempt(output)
        if attempt is None:
            return None
        markers = attempt.markers()
        new = [name for name in markers if name not in self._photos]
        self._photos |= {batch.name: batch.n_photos for batch in attempt.read(new)}
        if self._total is None or self._total[0] != attempt.name:
            to_do = _rows_below(output, attempt.shares)
            before = sum(self._photos.get(name, 0) for name in attempt.adopted)
            self._total = (attempt.name, to_do + before) if to_do else None
        done = sum(self._photos.get(name, 0) for name in markers)
        return done, self._total[1] if self._total else None


def _rows_below(output: Output, path: str) -> int:
    """Return the rows of all Parquet files of a folder, by their footers."""
    import pyarrow.parquet as pq

    total = 0
    for entry in output.folder.files(path):
        with output.folder.open(entry.name) as file:
            total += pq.read_metadata(file).num_rows
    return total


def fetch_report(out: str, path: Path) -> None:
    """Copy ``report.html`` of a result to this machine.

    Raises
    ------
    OutputError
        If there is none, or it cannot be written here.
    """
    try:
        content = Output.at(out).folder.read(REPORT)
    except FileNotFoundError as err:
        raise OutputError(f"{out}/{REPORT}: is not there") from err
    try:
        path.write_bytes(content)
    except OSError as err:
        raise OutputError(
            f"report {path}: cannot be written: {err.strerror}; it is in {out}/{REPORT}"
        ) from err
