"""How a command ends: what it says on stderr, its exit code, and what signals do.

0 done, 1 failed, 2 used wrongly, 130 ended by Ctrl-C, 143 ended by SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import click

from verger.cli.terminal import clean, tell
from verger.engine.causes import cause_of
from verger.errors import KEPT, UsageError, VergerError


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; everything that Ctrl-C ends, it ends too."""


def catch_sigterm() -> None:
    """Have SIGTERM end the command as Ctrl-C does: with its clean-up, and one line."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the clean-up
    raise Terminated


def end(err: BaseException) -> int:
    """Say on stderr why a command has ended, and return its exit code."""
    if isinstance(err, click.ClickException):
        vars(err)["message"] = clean(err.message)  # it names what was typed, or a glob found
        err.show()
        return err.exit_code
    if isinstance(err, click.Abort | KeyboardInterrupt):
        if _is_caused_by(err, Terminated):
            return _tell(f"terminated{_kept(err)}", 143)
        return _tell(f"interrupted{_kept(err)}", 130)
    if isinstance(err, VergerError):
        return _tell(str(err), 2 if isinstance(err, UsageError) else 1)
    if _java_is_gone(err):
        return _tell(f"Spark's Java has ended: killed, or out of memory{_kept(err)}", 1)
    if type(err).__module__.startswith(("pyspark", "py4j")):
        return _tell(_spark_message(err), 1)
    _tell_traceback(err)  # a bug of ours
    return 1


def _tell_traceback(err: BaseException) -> None:
    """Print what Python prints; the exception's own text, which may hold data, on one line."""
    for part in traceback.format_exception(err):
        is_source = part.startswith(("  File ", "\n"))
        for line in part.splitlines() if is_source else [part.rstrip("\n")]:
            tell(line)


def _tell(message: str, code: int) -> int:
    tell(f"verger: {' '.join(line.strip() for line in message.splitlines())}")
    return code


def _is_caused_by(err: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(err))


def _kept(err: BaseException) -> str:
    """Return what a run has noted on the error that ended it, as a clause."""
    is_kept = any(KEPT in getattr(cause, "__notes__", ()) for cause in _causes(err))
    return f"; {KEPT}" if is_kept else ""


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _java_is_gone(err: BaseException | None) -> bool:
    """Whether an error comes from a connection to Spark's JVM, which has ended."""
    while err is not None:
        frames = traceback.extract_tb(err.__traceback__)
        is_lost = isinstance(err, ConnectionError) or type(err).__name__ == "Py4JNetworkError"
        if is_lost and any("py4j" in frame.filename for frame in frames):
            return True
        err = err.__context__  # pyspark turns some into errors of other kinds
    return False


def hush_a_dead_java() -> None:
    """Let only the error that ends the command say that Java is gone.

    Threads and finalisers, pyspark's and ours, fail for the same reason, and Python would print
    their tracebacks. py4j logs tracebacks by the root logger, for Ctrl-C and SIGTERM too. The
    server of pyspark's accumulators, the only one of its kind in a command, prints its own.
    """
    socketserver.BaseServer.handle_error = _say_nothing  # type: ignore[assignment, method-assign]
    logging.getLogger().addFilter(_is_not_of_py4j)
    threading.excepthook = partial(_call_unless_java_is_gone, threading.excepthook)
    sys.unraisablehook = partial(_call_unless_java_is_gone, sys.unraisablehook)


def _say_nothing(*_: Any) -> None:
    pass


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return f"{os.sep}py4j{os.sep}" not in record.pathname


def _call_unless_java_is_gone(hook: Callable[[Any], Any], args: Any) -> None:
    if not _java_is_gone(args.exc_value):
        hook(args)


def _spark_message(err: BaseException) -> str:
    """Return what a failed Spark job is about: our own error's text where one is inside."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("verger.errors.")]
    if ours:
        return ours[-1].split(": ", 1)[-1]
    return f"Spark failed: {cause_of(err)}; VERGER_SPARK_LOG=warn shows its log"
