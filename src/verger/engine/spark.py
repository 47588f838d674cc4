"""The Spark engine: the same tasks as jobs of a SparkSession."""

from __future__ import annotations

import math
import pickle
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from verger import errors
from verger.engine.causes import cause_of
from verger.engine.tasks import LOG_WAIT, PATIENCE_S, OnProgress, OnWait, Task
from verger.errors import TasksLostError, VergerError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

C = TypeVar("C")
R = TypeVar("R")

_POLL_S = 0.25

#: What Spark says of tasks whose Python worker or executor has died.
_DEATHS = (
    "Python worker exited unexpectedly",
    "Python worker failed to connect back",
    "ExecutorLostFailure",
    "Connection reset",
    "EOFException",
    "worker is no longer alive",
)


class SparkEngine:
    """Runs tasks as jobs of Spark's; see :class:`verger.engine.tasks.Engine`.

    Parameters
    ----------
    session : SparkSession
        It stays active when the engine is stopped.
    on_wait : callable
        Told if a job has waited for its first executor for half a minute.
    """

    name = "spark"

    def __init__(self, session: SparkSession, on_wait: OnWait = LOG_WAIT) -> None:
        self.session = session
        self._on_wait = on_wait

    @property
    def n_cores(self) -> int:
        """Tasks that all executors run at once: their cores, by those that a task takes."""
        return n_slots(self.session)

    @property
    def master(self) -> str:
        """Spark's master."""
        return str(self.session.sparkContext.master)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Java and of Spark; a managed Spark's pyspark is no installed package."""
        java = self.session.sparkContext._jvm.java.lang.System  # type: ignore[union-attr]
        return {"java": str(java.getProperty("java.version")), "pyspark": self.session.version}

    def run(
        self,
        function: Callable[[Task, C], R],
        n_tasks: int,
        carry: C,
        *,
        on_progress: OnProgress | None = None,
    ) -> list[R]:
        """Call a function once for every task; see :meth:`verger.engine.tasks.Engine.run`."""
        shared = self.session.sparkContext.broadcast((function, carry))
        numbers = self.session.range(0, n_tasks, 1, n_tasks)
        answers = numbers.mapInArrow(partial(_run_tasks, shared), RESULT)
        try:
            with self.watched(on_progress):
                results = dict(unpack(row.result) for row in answers.collect())
        finally:
            with suppress(Exception):  # the context may have ended, and the broadcast with it
                shared.destroy()
        return [results[number] for number in range(n_tasks)]

    def collect(self, results: DataFrame) -> list[Any]:
        """Bring what tasks have packed to the driver; their errors are raised as ours."""
        try:
            return [unpack(row.result) for row in results.collect()]
        except Exception as err:
            raise self._translate(err) from err

    def stop(self) -> None:
        """Leave the session to whoever uses it next."""

    @contextmanager
    def watched(self, on_progress: OnProgress | None) -> Iterator[None]:
        """Report the progress of the job of the block, and raise its error as ours.

        What ``on_progress`` raises cancels the job.

        Raises
        ------
        TasksLostError
            If Spark gave up because workers or executors died.
        VergerError
            What a task has raised.
        """
        context, group = self.session.sparkContext, f"verger-{uuid.uuid4().hex}"
        context.setJobGroup(group, "tasks of Verger", interruptOnCancel=False)
        watcher = _Watcher(context, group, on_progress, self._on_wait)
        watcher.start()
        try:
            yield
        except Exception as err:
            watcher.stop()
            raise watcher.cause or self._translate(err) from err
        finally:
            watcher.stop()
            context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]

    def _translate(self, err: Exception) -> Exception:
        """Return the error of ours that Spark has wrapped, or the error as it is."""
        raised = re.findall(r"^\s*verger\.errors\.(\w+): (.*)$", str(err), re.MULTILINE)
        if raised:
            name, text = raised[-1]
            kind = getattr(errors, name, VergerError)
            ours: Exception = kind(text)
            return ours
        if is_connect(self.session):
            return err
        java = self.session.sparkContext._jsc
        stopped = java is None or java.sc().isStopped()
        if not stopped and any(words in str(err) for words in _DEATHS):
            return TasksLostError(f"Spark gave up a task: {cause_of(err)}")
        return err


def is_connect(session: SparkSession) -> bool:
    """Whether a session is one of Spark Connect: its Java is a server's, out of reach."""
    return type(session).__module__.startswith("pyspark.sql.connect")


@dataclass(frozen=True)
class Carried:
    """What stands for a broadcast over Spark Connect: it travels in the function that uses it."""

    value: Any = field(repr=False)


def share(session: SparkSession, value: object) -> Broadcast[Any] | Carried:
    """Return what gives tasks a value by its attribute ``value``, sent once where that can be."""
    return Carried(value) if is_connect(session) else session.sparkContext.broadcast(value)


#: More rows than any cluster has cores.
_MANY = 1_000_000


def n_slots(session: SparkSession) -> int:
    """Return how many tasks a session runs at once, as Spark counts cores."""
    if is_connect(session):  # a range has a partition for each core, and a server tells no more
        from pyspark.sql import functions as F

        parts = session.range(_MANY).select(F.spark_partition_id().alias("part"))
        cores = int(parts.agg(F.max("part")).collect()[0][0]) + 1
        cpus = session.conf.get("spark.task.cpus", "1")
    else:
        cores = session.sparkContext.defaultParallelism
        cpus = session.sparkContext.getConf().get("spark.task.cpus", "1")
    return max(1, cores // int(cpus or 1))


def _run_tasks(
    shared: Broadcast[tuple[Callable[[Task, Any], Any], Any]], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    function, carry = shared.value
    for batch in batches:
        for number in batch.column(0).to_pylist():
            task = Task(number, current_task().attempt)
            yield pack((number, function(task, carry)))


#: The column of what tasks send to the driver.
RESULT = "result binary"


def pack(result: object) -> pa.RecordBatch:
    """Return a row of :data:`RESULT` from inside a task: any value that can be pickled."""
    import pyarrow as pa

    return pa.RecordBatch.from_pydict({"result": [pickle.dumps(result, protocol=5)]})


def unpack(result: bytes) -> Any:
    """Return what a task has packed."""
    return pickle.loads(result)  # noqa: S301 - our own task's


def current_task() -> Task:
    """Return the task of Spark's that this process works on."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return Task(context.partitionId(), context.attemptNumber()) if context else Task(0, 0)


class _Watcher(threading.Thread):
    """Tells how many tasks of a job group are done, and cancels it when it is told to.

    It also tells once if there was no executor for any of them for :data:`PATIENCE_S`.
    """

    def __init__(
        self, context: Any, group: str, on_progress: OnProgress | None, on_wait: OnWait
    ) -> None:
        super().__init__(daemon=True, name="watch-spark")
        self._context, self._group = context, group
        self._on_progress, self._ended = on_progress, threading.Event()
        self._on_wait, self._waits_since = on_wait, time.monotonic()
        #: What ``on_progress`` has raised.
        self.cause: BaseException | None = None

    def run(self) -> None:
        """Poll Spark's status until the job ends."""
        tracker = self._context.statusTracker()
        while not self._ended.wait(_POLL_S):
            try:
                jobs = map(tracker.getJobInfo, tracker.getJobIdsForGroup(self._group))
                ids = [number for job in jobs if job for number in job.stageIds]
                stages = [stage for stage in map(tracker.getStageInfo, ids) if stage]
            except Exception:  # noqa: BLE001 - the context has ended: the job's own error says why
                return
            self._tell_if_idle(any(s.numActiveTasks + s.numCompletedTasks for s in stages))
            if self._on_progress is None:
                continue
            done = sum(stage.numCompletedTasks for stage in stages)
            try:
                self._on_progress(done, sum(stage.numTasks for stage in stages))
            except BaseException as err:  # noqa: BLE001 - raised again in the driver's thread
                self.cause = err
                self._context.cancelJobGroup(self._group)
                return

    def _tell_if_idle(self, has_begun: bool) -> None:
        if has_begun:
            self._waits_since = math.inf
        elif time.monotonic() - self._waits_since >= PATIENCE_S:
            self._waits_since = math.inf
            self._on_wait(
                f"the cluster has no room yet for an executor of {self._context.applicationId}; "
                "the tasks begin when it has"
            )

    def stop(self) -> None:
        """End the polling."""
        self._ended.set()
        if self.is_alive():
            self.join()
