"""What every command does with a terminal: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from verger.config import Config
    from verger.job.context import Watch


def print_json(value: Any) -> None:
    """Print a value as JSON; what JSON has no form for as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(rows: Iterable[tuple[str, str]], *, names: int = 9) -> None:
    """Print named lines below one another; ``names`` columns are for the names."""
    for name, text in rows:
        click.echo(f"{name:<{names}} {text}")


def tell(text: str) -> None:
    """Print on stderr."""
    click.echo(text, err=True)


def watch_for(config: Config | None = None) -> Watch:
    """Return what shows progress and, with ``--ui``, tells the address once Spark has started."""
    from verger.cli.progress import terminal_watch

    draw = terminal_watch(_stderr())
    if config is None or not config.ui:
        return draw

    @contextmanager
    def watch(name: str, total: int | None, spark: Any) -> Iterator[Any]:
        with draw(name, total, spark) as on_progress:
            yield on_progress
        if name == "start Spark":
            tell(f"Spark's page: {_spark_page()}")

    return watch


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """Show how far a download of weights is."""
    from verger.cli import progress

    with progress.download_bar(_stderr()) as on_progress:
        yield on_progress


def keep_page_up(config: Config) -> None:
    """With ``--ui``, keep Spark's page up until Ctrl-C."""
    if config.ui:
        tell(f"Spark's page stays up at {_spark_page()}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _spark_page() -> str:
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    return str(session.sparkContext.uiWebUrl) if session else "none"
