"""Progress on a terminal, fed by Spark's own status; nothing where there is no terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from verger.features.model.weights import OnProgress
    from verger.job.context import Watch

POLL_S = 0.25

_TITLES = {
    "doctor": "Looking around",
    "fetch weights": "Looking for weights",
    "render": "Rendering photos",
    "list": "Listing photos",
    "load model": "Loading the model",
    "calibrate": "Calibrating to int8",
    "start Spark": "Starting Spark",
    "lock": "Looking who has OUT",
    "featurize": "Computing features",
    "write": "Writing tables",
    "validate": "Checking every count",
    "reduce": "Fitting the PCA",
    "report": "Writing the report",
    "export": "Exporting and checking",
}


class _SpeedColumn(ProgressColumn):
    """Photos a second since the stage began."""

    def render(self, task: Task) -> Text:
        if not task.elapsed or not task.completed or task.total is None:
            return Text("")
        return Text(f"{task.completed / task.elapsed:,.0f} images/s")


def terminal_watch(console: Console) -> Watch:
    """Return a watch that draws a line for every stage, or nothing off a terminal."""

    def watch(
        name: str, total: int | None, spark: SparkSession | None
    ) -> AbstractContextManager[Any]:
        if not console.is_terminal:
            return nullcontext()
        return _draw(console, name, total, spark)

    return watch


@contextmanager
def _draw(
    console: Console, name: str, total: int | None, spark: SparkSession | None
) -> Iterator[OnProgress]:
    """Draw one stage; what it yields may be told of bytes that are fetched on the way."""
    title = _TITLES.get(name, name)
    columns: tuple[ProgressColumn, ...] = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<22}"),
    )
    if total is not None:
        columns += (
            BarColumn(None),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
    else:
        columns += (TimeElapsedColumn(),)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total or 1)

        def on_progress(done: int, size: int) -> None:
            text = f"{title}: fetched {done / 1e6:.1f} of {size / 1e6:.1f} MB"
            progress.update(task, description=text)

        with _polled(progress, task, total, spark):
            yield on_progress
        progress.update(task, completed=total or 1)


@contextmanager
def _polled(
    progress: Progress, task: TaskID, total: int | None, spark: SparkSession | None
) -> Iterator[None]:
    if total is None or spark is None:
        yield
        return
    done = threading.Event()
    poller = threading.Thread(target=_poll, args=(progress, task, total, spark, done), daemon=True)
    poller.start()
    try:
        yield
    finally:
        done.set()
        poller.join()


def _poll(
    progress: Progress, task: TaskID, total: int, spark: SparkSession, done: threading.Event
) -> None:
    """Move the bar by the share of finished tasks of the largest stage that runs."""
    tracker = spark.sparkContext.statusTracker()
    while not done.wait(POLL_S):
        stages = [tracker.getStageInfo(i) for i in tracker.getActiveStageIds()]
        largest = max((s for s in stages if s), key=lambda s: s.numTasks, default=None)
        if largest is not None and largest.numTasks:
            share = largest.numCompletedTasks / largest.numTasks
            progress.update(task, completed=int(share * total))


@contextmanager
def download_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar of bytes once a download begins; nothing off a terminal."""
    columns = (
        TextColumn("Fetching weights"),
        BarColumn(None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: list[TaskID] = []

        def on_progress(done: int, total: int) -> None:
            if not tasks:
                tasks.append(progress.add_task("", total=total))
            progress.update(tasks[0], completed=done)

        yield on_progress
