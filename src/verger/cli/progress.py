"""Progress: a bar for every stage on a terminal, plain lines in a log."""

from __future__ import annotations

import threading
import time
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

from verger.cli.terminal import clean
from verger.job.context import Progress as StageProgress

if TYPE_CHECKING:
    from verger.job.context import Watch

_TITLES = {
    "doctor": "Looking around",
    "fetch weights": "Looking for weights",
    "render": "Rendering photos",
    "list": "Listing photos",
    "load model": "Loading the model",
    "calibrate": "Preparing the int8 model",
    "start Spark": "Starting Spark",
    "lock": "Checking for another run",
    "featurize": "Computing features",
    "write": "Writing tables",
    "validate": "Checking every count",
    "reduce": "Fitting the PCA",
    "train": "Training",
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
    """Return a watch that draws a bar for every stage, or off a terminal prints plain lines."""
    return partial(_draw if console.is_terminal else _print, console)


#: Seconds until a stage is announced. One that ends before is named then, and one that fails before
#: is not: a mistake is one line.
_PATIENCE_S = 1.0


@contextmanager
def _print(console: Console, name: str, total: int | None) -> Iterator[StageProgress]:
    """Print the title of a stage, and how far it is at each tenth of its photos."""
    lines = _Lines(console, _TITLES.get(name, name), total)
    timer = threading.Timer(_PATIENCE_S, lines.begin)
    timer.daemon = True
    timer.start()
    try:
        yield StageProgress(
            on_tasks=lines.on_tasks, on_fits=lines.on_fits, on_wait=partial(_tell, console)
        )
        lines.begin()
    finally:
        timer.cancel()


class _Lines:
    """The lines of one stage in a log."""

    def __init__(self, console: Console, title: str, total: int | None) -> None:
        self._console = console
        self._title = title if total is None else f"{title}: {total:,} photos"
        self._total = total
        self._start = time.monotonic()
        self._tenths = 0
        self._lock = threading.Lock()
        self._has_begun = False

    def begin(self) -> None:
        """Print the title, once."""
        with self._lock:
            if not self._has_begun:
                self._console.print(self._title)
                self._has_begun = True

    def on_tasks(self, done: int, n_tasks: int) -> None:
        """Print a line if another tenth of the photos is done."""
        if self._total and self._is_another_tenth(done, n_tasks):
            photos = self._total * done // n_tasks
            rate = photos / max(time.monotonic() - self._start, 1e-9)
            percent = f"{10 * self._tenths} %"
            self._console.print(f"  {percent}: {photos:,} photos, {rate:,.0f} images/s")

    def on_fits(self, done: int, n_fits: int) -> None:
        """Print a line if another tenth of the models is fitted."""
        if self._is_another_tenth(done, n_fits):
            self._console.print(f"  fit {done} of {n_fits}")

    def _is_another_tenth(self, done: int, total: int) -> bool:
        tenths = 10 * done // total if total else 0
        if tenths <= self._tenths:
            return False
        self.begin()
        self._tenths = tenths
        return True


def _tell(console: Console, line: str) -> None:
    """Print a line, above the bars if there are any."""
    console.print(clean(line), markup=False, highlight=False, soft_wrap=True)


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
        on_wait = partial(_tell, console)
        yield StageProgress(bar.on_bytes, bar.on_tasks, bar.on_fits, on_wait)
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

    def on_fits(self, done: int, n_fits: int) -> None:
        """Say which fit has ended, and move the bar by its share."""
        self.progress.update(self.task, description=f"{self.title}: fit {done} of {n_fits}")
        self.on_tasks(done, n_fits)


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
