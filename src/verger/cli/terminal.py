"""What every command does with a terminal: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from verger.errors import VergerError
from verger.files.records import to_plain
from verger.redaction import redact, redact_json

if TYPE_CHECKING:
    from rich.console import Console

    from verger.config import Config
    from verger.files.reading import Unread
    from verger.job.context import Watch


# What a terminal, or a reader of the line, would take for something else than text: control
# characters (newlines and the C1 set too), bidirectional overrides, characters without width or
# ink, line separators, and the half characters that stand for bytes of names that are not UTF-8.
# Joiners are part of emoji and of some scripts; beside ASCII they can only mislead.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e"
    "\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\u2800\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\ud800-\\udfff\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e0fff]"
    "|(?<![^\\x00-\\x7f])[\\u200c\\u200d]|[\\u200c\\u200d](?![^\\x00-\\x7f])"
)


def clean(text: str) -> str:
    r"""Return one line that is safe to print: no secrets, and control characters as ``\x1b``.

    All that Verger prints goes through here, since labels, paths and messages come from files.
    """
    return _UNSAFE.sub(_escape, redact(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def say(text: str = "") -> None:
    """Print one line of a result on stdout."""
    click.echo(clean(text))


def tell(text: str) -> None:
    """Print one line on stderr."""
    click.echo(clean(text), err=True)


class TellingHandler(logging.Handler):
    """Prints what the library warns of, as all lines are printed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line on stderr, above the bars if there are any; click prints into them."""
        sys.stderr.write(f"{clean(record.getMessage())}\n")


def tell_source(out: str) -> None:
    """Tell from where photos of a result are read again: whoever made it has chosen the place."""
    from verger.result.output import Output

    with suppress(VergerError):  # the command that follows raises it
        tell(f"Photos are read again from {Output.at(out).read_run().source}, as run.json says.")


def say_lines(text: str) -> None:
    """Print a text of several lines, such as a log, on stdout."""
    for line in text.splitlines():
        say(line)


def print_json(value: Any) -> None:
    """Print a value or a record as JSON; what JSON has no form for as text."""
    text = json.dumps(redact_json(to_plain(value)), indent=2, ensure_ascii=False, default=str)
    lines = (_UNSAFE.sub(_escape_json, line) for line in text.split("\n"))
    click.echo("\n".join(lines))


def _escape_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def print_rows(rows: Iterable[tuple[str, str]], *, names: int = 9) -> None:
    """Print named lines below one another; ``names`` columns are for the names."""
    for name, text in rows:
        say(f"{name:<{names}} {text}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts in columns, with a line of headings above them."""
    lines = [header, *([clean(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        say("  ".join(padded).rstrip())


def watch_for(config: Config | None = None) -> Watch:
    """Return what shows progress and, with ``--ui``, tells the address once Spark has started."""
    from verger.cli.progress import terminal_watch

    draw = terminal_watch(_stderr())
    return draw if config is None or not config.ui else partial(_watch_with_page, draw)


@contextmanager
def _watch_with_page(draw: Watch, name: str, total: int | None) -> Iterator[Any]:
    with draw(name, total) as progress:
        yield progress
    if name == "start Spark":
        tell(f"Spark's page: {_spark_page()}")


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


def read_named(name: str) -> bytes | Unread:
    """Read a photo that a command names; ``-`` is standard input."""
    from verger.classify.predict import STDIN
    from verger.files.reading import read_photo

    return sys.stdin.buffer.read() if name == STDIN else read_photo(name)
