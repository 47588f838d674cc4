"""What every stage of a run is given: where it writes, what it was asked, and who watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verger.config import Config
from verger.result.lock import locked
from verger.result.output import Output

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from verger.features.model.weights import OnProgress
    from verger.result.lock import Lock


#: Shows that a stage runs: (name, number of photos or None, session whose tasks tell how far
#: it is or None) to a context that lasts as long as the stage.
Watch = Callable[[str, "int | None", "SparkSession | None"], AbstractContextManager[Any]]


def no_watch(*_: Any) -> AbstractContextManager[Any]:
    """Show nothing."""
    return nullcontext()


@dataclass
class Run:
    """One run under way: where it writes, what it was asked, and its clock.

    Attributes
    ----------
    output : Output
    config : Config
    watch : Watch
    notices : tuple of str
    seconds : dict of str to float
        Wall time by stage, in the order of the stages.
    lock : Lock or None
    """

    output: Output
    config: Config
    watch: Watch = no_watch
    notices: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    lock: Lock | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of OUT."""
        with locked(self.output, lambda: self.watch("lock", None, None)) as self.lock:
            yield

    def check_lock(self) -> None:
        """Refuse to replace anything once another run has taken OUT over.

        Raises
        ------
        BusyError
        """
        if self.lock is not None:
            self.lock.check()

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, spark: SparkSession | None = None
    ) -> Iterator[OnProgress | None]:
        """Time a stage and show that it runs; yields what may be told of fetched bytes."""
        start = time.perf_counter()
        with self.watch(name, total, spark) as on_progress:
            yield on_progress
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)
