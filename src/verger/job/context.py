"""What every stage of a run is given: where it writes, what it was asked, and who watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from verger.config import Config
from verger.engine.choose import has_active_session, start_engine, wants_spark
from verger.engine.local import LocalEngine
from verger.engine.tasks import LOG_WAIT, Engine, OnProgress, OnWait
from verger.result.lock import locked
from verger.result.output import Output
from verger.result.record import RunRecord

if TYPE_CHECKING:
    from verger.features.model.weights import OnProgress as OnBytes
    from verger.result.lock import Lock


def _ignore(*_: Any) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Progress:
    """Takes how far a stage is.

    Attributes
    ----------
    on_bytes : callable
        Called with the bytes that have been fetched, and the bytes in all.
    on_tasks : callable
        Called with the tasks that are done, and the tasks in all.
    on_fits : callable
        Called with the models that have been fitted, and those in all.
    on_wait : callable
        Called with a line about what is waited for; also after the stage. The log by default.
    """

    on_bytes: OnBytes = _ignore
    on_tasks: OnProgress = _ignore
    on_fits: Callable[[int, int], None] = _ignore
    on_wait: OnWait = LOG_WAIT


#: Shows that a stage runs: (name, number of photos or None) to a context that lasts as long as
#: the stage, and gives its :class:`Progress`.
Watch = Callable[[str, "int | None"], AbstractContextManager[Progress]]


def no_watch(*_: Any) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(Progress())


@dataclass
class Run:
    """One run under way: where it writes, what it was asked, its engine and its clock.

    As a context, it stops the engine at the end.

    Attributes
    ----------
    output : Output
    config : Config
    watch : Watch
    notices : tuple of str
    seconds : dict of str to float
        Wall time by stage, in the order of the stages.
    lock : Lock or None
    saved : bool
        Whether this run has written ``run.json``.
    """

    output: Output
    config: Config
    watch: Watch = no_watch
    notices: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    lock: Lock | None = None
    saved: bool = False
    _engine: Engine | None = field(default=None, init=False)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.stop()
            self._engine = None

    @property
    def engine(self) -> Engine:
        """What runs the tasks of all stages; started when it is first needed.

        Raises
        ------
        EnvironmentNotReadyError
            If Spark is wanted and does not start.
        """
        if self._engine is None:
            starts_spark = wants_spark(self.config) and not has_active_session()
            stage = self.stage("start Spark") if starts_spark else nullcontext(Progress())
            with stage as progress:
                self._engine = start_engine(self.config, progress.on_wait)
        return self._engine

    def load_ahead(self, module: str) -> None:
        """Let a process of this machine load what tasks there need, while this one goes on."""
        if not wants_spark(self.config) and isinstance(self.engine, LocalEngine):
            self.engine.start(module)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of OUT."""
        with locked(self.output, lambda: self.watch("lock", None)) as self.lock:
            yield

    def check_lock(self) -> None:
        """Refuse to replace anything once another run has taken OUT over.

        Raises
        ------
        BusyError
        """
        if self.lock is not None:
            self.lock.check()

    def timed(self, record: RunRecord) -> RunRecord:
        """Return a record with the seconds of the stages that have ended."""
        return replace(record, seconds=dict(record.seconds) | self.seconds)

    def save(self, record: RunRecord) -> None:
        """Write ``run.json``, with the seconds of the stages so far.

        Raises
        ------
        BusyError
            If another run has taken OUT over.
        """
        self.check_lock()
        self.output.write_run(self.timed(record))
        self.saved = True

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Progress]:
        """Time a stage and show that it runs; yields what takes its progress."""
        start = time.perf_counter()
        with self.watch(name, total) as progress:
            yield progress
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)
