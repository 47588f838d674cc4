"""What an engine runs: functions of numbered tasks, and the interface that both engines share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

C = TypeVar("C")
P = TypeVar("P")
R = TypeVar("R")

#: Times that a task is tried before its engine gives up, as Spark does on a cluster.
TASK_ATTEMPTS = 4

#: Pieces of light work that the driver does itself: starting tasks takes longer.
_PIECES_BY_DRIVER = 3


@dataclass(frozen=True)
class Task:
    """One of the tasks that a function is split into.

    Attributes
    ----------
    number : int
        From 0 to ``n_tasks - 1``.
    attempt : int
        How many attempts of this task have died or failed before.
    """

    number: int
    attempt: int


#: Called with the tasks that are done and the tasks in all, several times a second. What it
#: raises cancels the tasks that still run, and is raised by ``run``.
OnProgress = Callable[[int, int], None]

#: Told in a line what a run has been waiting for, for :data:`PATIENCE_S` seconds.
OnWait = Callable[[str], None]
PATIENCE_S = 30.0
#: Who is told if nobody asks to be.
LOG_WAIT: OnWait = logging.getLogger("verger").warning


class Engine(Protocol):
    """Runs tasks in several processes at once."""

    #: ``local`` or ``spark``.
    name: str

    @property
    def n_cores(self) -> int:
        """Tasks that run at the same time."""

    @property
    def master(self) -> str | None:
        """Spark's master; None for the local engine."""

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Spark and Java; empty for the local engine."""

    def run(
        self,
        function: Callable[[Task, C], R],
        n_tasks: int,
        carry: C,
        *,
        on_progress: OnProgress | None = None,
    ) -> list[R]:
        """Call a function once for every task, and return the results by task number.

        Parameters
        ----------
        function : callable
            Of a module, so that it can be pickled, as its result must be.
        n_tasks : int
        carry : any
            What every call gets besides its task; a worker process receives it once.
        on_progress : callable, optional
            See :data:`OnProgress`.

        Raises
        ------
        TasksLostError
            If the process of a task has died :data:`TASK_ATTEMPTS` times.
        VergerError
            What a task has raised.
        """

    def stop(self) -> None:
        """End the worker processes that this engine has started, if any."""


def run_pieces(
    engine: Engine,
    function: Callable[[Iterator[P], C], Iterable[R]],
    pieces: Sequence[P],
    carry: C,
    *,
    n_tasks: int | None = None,
    light: bool = False,
) -> list[R]:
    """Spread pieces of work over tasks, and return what they yield.

    Parameters
    ----------
    engine : Engine
    function : callable
        Takes a task's pieces and ``carry``; yields results. Of a module.
    pieces : sequence
        Small values.
    carry : any
        What every call gets besides its pieces.
    n_tasks : int, optional
        By default one for every piece.
    light : bool
        Let the driver do the work if there are at most three pieces.
    """
    if not pieces or (light and len(pieces) <= _PIECES_BY_DRIVER):
        return list(function(iter(pieces), carry)) if pieces else []
    n_tasks = max(1, min(len(pieces), n_tasks or len(pieces)))
    shares = [tuple(pieces[task::n_tasks]) for task in range(n_tasks)]
    found = engine.run(_run_share, n_tasks, (function, carry, shares))
    return [result for results in found for result in results]


def _run_share(task: Task, work: tuple[Any, Any, Sequence[Sequence[Any]]]) -> list[Any]:
    function, carry, shares = work
    return list(function(iter(shares[task.number]), carry))
