"""Progress on a terminal; nothing off a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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

from verger.job.context import Progress as StageProgress
from verger.job.context import no_watch

if TYPE_CHECKING:
    from verger.job.context import Watch

_TITLES = {
    "doctor": "Looking around",
    "fetch weights": "Looking for weights",
    "render": "Rendering photos",
    "list": "Listing photos",
    "load model": "Loading the model",
    "calibrate": "Calibrating to int8",
    "start Spark": "Starting Spark",
    "lock": "Checking for another run",
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
    return partial(_draw, console) if console.is_terminal else no_watch


@contextmanager
def _draw(console: Console, name: str, total: int | None) -> Iterator[StageProgress]:
    """Draw one stage: a bar of its photos, or the time that it takes."""
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
        bar = _Bar(progress, task, title, total)
        yield StageProgress(on_bytes=bar.on_bytes, on_tasks=bar.on_tasks)
        progress.update(task, completed=total or 1)


@dataclass
class _Bar:
    """The line of one stage. It never goes back: several jobs may run in one stage."""

    progress: Progress
    task: TaskID
    title: str
    total: int | None
    share: float = 0.0

    def on_bytes(self, done: int, size: int) -> None:
        """Show how much has been fetched."""
        text = f"{self.title}: fetched {done / 1e6:.1f} of {size / 1e6:.1f} MB"
        self.progress.update(self.task, description=text)

    def on_tasks(self, done: int, n_tasks: int) -> None:
        """Move the bar by the share of finished tasks."""
        if self.total is None or not n_tasks:
            return
        self.share = max(self.share, done / n_tasks)
        self.progress.update(self.task, completed=int(self.share * self.total))


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
