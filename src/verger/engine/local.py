"""The local engine: a pool of worker processes on this machine, without Spark and Java.

The pools of ``concurrent.futures`` and ``loky`` break as a whole when one process dies, and do
not say whose task it was; here a dead worker costs one attempt of one task.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from typing import Any, TypeVar

from verger.engine.forkserver import ForkServer
from verger.engine.limits import default_workers
from verger.engine.tasks import TASK_ATTEMPTS, OnProgress, Task
from verger.engine.worker import DONE, TASK, WORK
from verger.errors import EnvironmentNotReadyError, TasksLostError
from verger.redaction import redact

_LOG = logging.getLogger("verger")

C = TypeVar("C")
R = TypeVar("R")

#: What a worker's environment has besides the driver's. One thread, because there is a worker for
#: every core; and memory in pages of 2 MB where glibc and Linux have them, by which the model is a
#: tenth faster.
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
}

#: Longest that ``run`` waits before it calls ``on_progress`` again, in seconds.
_POLL_S = 0.25


class _Worker:
    """A worker process, its connection, and the task that it has."""

    def __init__(self, server: ForkServer) -> None:
        self.connection, theirs = Pipe()
        try:
            with theirs:
                self._pid = server.fork(theirs.fileno())
        except BaseException:
            self.connection.close()  # ends a worker that nobody knows of
            raise
        self._server = server
        self.task: Task | None = None

    def send(self, kind: bytes, content: bytes) -> None:
        with suppress(OSError):  # it has died: reading its answer says so
            self.connection.send_bytes(kind + content)

    def end(self) -> str:
        """End the process; say how it died, if it is the one that has closed the connection."""
        self.connection.close()
        try:
            os.kill(self._pid, signal.SIGKILL)
            code = self._server.wait(self._pid)
        except OSError:  # the server has died too
            return "an unknown cause"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class LocalEngine:
    """Runs tasks in a pool of processes on this machine; see :class:`verger.engine.tasks.Engine`.

    Parameters
    ----------
    n_workers : int, optional
        By default one for every core that this process may use, as far as its memory goes.
    """

    name = "local"
    master = None
    versions: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_cores = n_workers or default_workers()
        self._server: ForkServer | None = None
        self._workers: list[_Worker] = []

    def start(self, module: str) -> ForkServer:
        """Start what workers are forked from, ahead of the first task.

        Parameters
        ----------
        module : str
            What it imports meanwhile.
        """
        if self._server is None:
            self._server = ForkServer(module, os.environ | WORKER_ENVIRONMENT)
        return self._server

    def _start_worker(self, module: str) -> _Worker:
        """Fork a worker, from another server if the one that there was has died."""
        cause = "the process that they are forked from dies"
        for _ in range(2):
            try:
                return _Worker(self.start(module))
            except ConnectionError:
                self._stop_server()
            except OSError as err:
                cause = err.strerror or str(err)
                break
        raise EnvironmentNotReadyError(f"worker processes cannot be started: {cause}")

    def run(
        self,
        function: Callable[[Task, C], R],
        n_tasks: int,
        carry: C,
        *,
        on_progress: OnProgress | None = None,
    ) -> list[R]:
        """Call a function once for every task; see :meth:`verger.engine.tasks.Engine.run`."""
        job = _Job(pickle.dumps((function, carry), protocol=5), n_tasks, module=function.__module__)
        try:
            while len(self._workers) < min(n_tasks, self.n_cores):
                self._workers.append(self._start_worker(job.module))
            for worker in self._workers:
                worker.send(WORK, job.work)
            while job.n_done < n_tasks:
                self._hand_out(job)
                self._collect(job)
                if on_progress is not None:
                    on_progress(job.n_done, n_tasks)
        except BaseException:
            self.stop()
            raise
        return job.results

    def stop(self) -> None:
        """Kill all workers; the next ``run`` starts new ones."""
        while self._workers:
            self._workers.pop().end()
        self._stop_server()

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _hand_out(self, job: _Job) -> None:
        for worker in self._workers:
            if worker.task is None and job.waiting:
                worker.task = job.waiting.popleft()
                worker.send(TASK, pickle.dumps(worker.task))

    def _collect(self, job: _Job) -> None:
        """Wait for answers of workers, and replace those that have died."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for ready in wait(list(by_connection), _POLL_S):
            worker = by_connection[ready]  # type: ignore[index]
            task, worker.task = worker.task, None
            try:
                answer = worker.connection.recv_bytes()
            except (EOFError, OSError):
                self._workers.remove(worker)
                job.lost(task, worker.end())
                self._workers.append(self._start_worker(job.module))
                self._workers[-1].send(WORK, job.work)
                continue
            if task is not None:
                job.answered(task, answer)


class _Job:
    """The tasks of one call of ``run``: what is still to be done, and the results."""

    def __init__(self, work: bytes, n_tasks: int, *, module: str) -> None:
        self.work = work
        self.module = module
        self.waiting = deque(Task(number, 0) for number in range(n_tasks))
        self.results: list[Any] = [None] * n_tasks
        self.n_done = 0

    def answered(self, task: Task, answer: bytes) -> None:
        """Keep a result; try a task again that has raised, as Spark does: a bucket may recover."""
        content = pickle.loads(memoryview(answer)[1:])  # noqa: S301 - from our own worker
        if answer[:1] == DONE:
            self.results[task.number] = content
            self.n_done += 1
            return
        err, text = content
        if task.attempt + 1 >= TASK_ATTEMPTS:
            err.add_note(f"in task {task.number} of a worker process:\n{text}")
            raise err
        words = redact(str(err).partition("\n")[0])
        self._try_again(task, f"raised {type(err).__name__}: {words}")

    def lost(self, task: Task | None, how: str) -> None:
        """Have a task tried again whose worker has died."""
        if task is None:
            return
        if task.attempt + 1 >= TASK_ATTEMPTS:
            raise TasksLostError(
                f"task {task.number}: its worker process died {TASK_ATTEMPTS} times, the last "
                f"time by {how}"
            )
        self._try_again(task, f"lost its worker process by {how}")

    def _try_again(self, task: Task, why: str) -> None:
        _LOG.warning("task %d is tried again: it %s", task.number, why)
        self.waiting.appendleft(Task(task.number, task.attempt + 1))
