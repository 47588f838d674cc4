"""Compute what a run costs: hours of processors, memory and disk, times the rates of a region.

Arithmetic alone; nothing is asked of AWS. The rates are a file (``rates.toml``) with its date and
its source, and stand beside every sum that is made with them. Here are the rates of EMR Serverless,
and what is reckoned alike wherever a run goes; those of machines are in
:mod:`verger.emr.node_price`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from verger.config import Config
from verger.emr.rates import UNCHECKED, RatesFile
from verger.emr.requests import FREE, RequestPrice, Requests, count_requests
from verger.errors import ConfigError

#: Disk that comes with every worker, in GB.
FREE_DISK_GB = 20
#: Assumed, in seconds: from the submission until executors compute, with an environment of 200 MB
#: to fetch and unpack; and from the last photo to the report.
STARTUP_S = 150.0
FINISH_S = 60.0
#: AWS bills by the second, and a minute at least for each worker or node.
LEAST_BILLED_S = 60.0
#: Work that an executor should have, for its start to be worth what it costs, in seconds.
BUSY_S = 300.0
#: A run of fewer minutes would hardly get beyond its start.
LEAST_MINUTES = 10
#: Assumed where nothing was timed: photos of 100 x 100 pixels, a virtual core of x86.
ASSUMED_SPEED = 25.0


@dataclass(frozen=True)
class Worker:
    """The size of a driver or an executor, one of those that EMR Serverless has.

    Attributes
    ----------
    vcpu : int
    memory_gb : int
        Of the container: the JVM's, and beside it the Python workers'.
    disk_gb : int
    """

    vcpu: int
    memory_gb: int
    disk_gb: int = FREE_DISK_GB


#: Virtual cores of workers to the least and the most GB of memory, and their step (EMR Serverless
#: User Guide, "Worker configurations"; the last two and the most disk from memory).
WORKER_GB = {2: (4, 16, 1), 4: (8, 30, 1), 8: (16, 60, 4), 16: (32, 120, 8)}
MOST_DISK_GB = 200


def check_worker(worker: Worker) -> Worker:
    """Refuse an executor of a size that EMR Serverless does not have.

    Raises
    ------
    ConfigError
    """
    if worker.vcpu not in WORKER_GB:
        raise ConfigError(f"vcpu={worker.vcpu} must be one of {', '.join(map(str, WORKER_GB))}")
    least, most, step = WORKER_GB[worker.vcpu]
    if not least <= worker.memory_gb <= most or worker.memory_gb % step:
        raise ConfigError(
            f"memory_gb={worker.memory_gb} must be between {least} and {most} for "
            f"{worker.vcpu} vCPU, in steps of {step}"
        )
    if not FREE_DISK_GB <= worker.disk_gb <= MOST_DISK_GB:
        raise ConfigError(
            f"disk_gb={worker.disk_gb} must be between {FREE_DISK_GB} and {MOST_DISK_GB}"
        )
    return worker


#: The driver lists, plans and adds up sums.
DRIVER = Worker(2, 8)
#: Four Python workers of 1 to 2 GB each and a JVM that moves no photo.
EXECUTOR = Worker(4, 12)


@dataclass(frozen=True)
class Usage:
    """What is billed.

    Attributes
    ----------
    vcpu_hours, memory_gb_hours, storage_gb_hours : float
        Storage counts beyond :data:`FREE_DISK_GB` of each worker.
    """

    vcpu_hours: float
    memory_gb_hours: float
    storage_gb_hours: float = 0.0

    @classmethod
    def of(cls, seconds: float, executors: int, executor: Worker = EXECUTOR) -> Usage:
        """Return the use of a driver and its executors, all there from beginning to end."""
        hours = max(LEAST_BILLED_S, seconds) / 3600
        workers = [(DRIVER, 1), (executor, executors)]
        return cls(
            sum(n * worker.vcpu for worker, n in workers) * hours,
            sum(n * worker.memory_gb for worker, n in workers) * hours,
            sum(n * max(0, worker.disk_gb - FREE_DISK_GB) for worker, n in workers) * hours,
        )

    @classmethod
    def billed(cls, job_run: dict[str, Any]) -> Usage | None:
        """Read what AWS says to have billed for a job run; None until it says so."""
        usage = job_run.get("billedResourceUtilization")
        if not usage:
            return None
        return cls(
            usage.get("vCPUHour", 0.0),
            usage.get("memoryGBHour", 0.0),
            usage.get("storageGBHour", 0.0),
        )


class Pricing(Protocol):
    """Rates, of EMR Serverless or of machines."""

    @property
    def currency(self) -> str:
        """Such as ``USD``."""

    @property
    def executor(self) -> Worker:
        """The size of an executor."""

    @property
    def requests(self) -> RequestPrice:
        """Those of requests to S3."""

    @property
    def startup_s(self) -> float:
        """Assumed, from the submission until executors compute."""

    @property
    def unbounded_s(self) -> float:
        """What is paid for beside the minutes that a run is given."""

    @property
    def words(self) -> str:
        """What the rates are, and whether they can be relied on."""

    def usage(self, seconds: float, executors: int) -> Any:
        """Return the use of a driver and its executors."""

    def cost(self, usage: Any, /) -> float:
        """Return what a use costs."""

    def hour(self, executors: int) -> float:
        """Return the most that an hour can cost."""


@dataclass(frozen=True)
class Rates:
    """Prices in one region, for one kind of processor.

    Attributes
    ----------
    region, architecture : str
    vcpu_hour, memory_gb_hour, storage_gb_hour : float
        In ``currency``.
    currency, source, date : str
        Where they come from, and as of when.
    checked : bool
        Whether somebody has held them against the source on that date.
    executor : Worker
        The size of an executor, for sums.
    requests : RequestPrice
        Of S3.
    """

    region: str
    architecture: str
    vcpu_hour: float
    memory_gb_hour: float
    storage_gb_hour: float
    currency: str
    source: str
    date: str
    checked: bool
    executor: Worker = EXECUTOR
    requests: RequestPrice = FREE
    startup_s: ClassVar[float] = STARTUP_S
    unbounded_s: ClassVar[float] = 0.0

    def usage(self, seconds: float, executors: int) -> Usage:
        """Return the use of a driver and its executors."""
        return Usage.of(seconds, executors, self.executor)

    def hour(self, executors: int) -> float:
        """Return the most that an hour can cost."""
        return self.cost(Usage.of(3600, executors, self.executor))

    def cost(self, usage: Usage) -> float:
        """Return what a use costs."""
        return (
            usage.vcpu_hours * self.vcpu_hour
            + usage.memory_gb_hours * self.memory_gb_hour
            + usage.storage_gb_hours * self.storage_gb_hour
        )

    @property
    def words(self) -> str:
        """Say what the rates are, and whether they can be relied on."""
        return (
            f"{self.vcpu_hour:g} a vCPU-hour, {self.memory_gb_hour:g} a GB-hour of memory, "
            f"{self.storage_gb_hour:g} a GB-hour of disk beyond {FREE_DISK_GB} GB; "
            f"{self.requests.words} "
            f"({self.currency}, {self.region}, {self.architecture}, {self.date}, "
            f"{self.source}{'' if self.checked else UNCHECKED})"
        )


def load_rates(region: str, architecture: str, file: Path | None = None) -> Rates:
    """Read the rates of EMR Serverless in a region from a TOML file, by default Verger's own.

    Raises
    ------
    ConfigError
        If the file cannot be read, or has no whole rates for this region and processor.
    """
    values = RatesFile.read(file)
    row = values.table(region, architecture)
    keys, where = ("vcpu_hour", "memory_gb_hour", "storage_gb_hour"), f"{region}, {architecture}"
    vcpu, memory, storage = (values.number(row, key, where) for key in keys)
    about = values.about("source", "date", row)
    requests = values.requests(region)
    return Rates(region, architecture, vcpu, memory, storage, **about, requests=requests)


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take, start-up included.

    Attributes
    ----------
    n_photos : int
    speed : float
        Photos a second and virtual core.
    executors : int
    seconds : float
        From the submission to the report.
    usage : Usage or NodeUsage
    cost : float
        Of computing.
    rates : Pricing
    requests : Requests
        To S3.
    requests_cost : float
    """

    n_photos: int
    speed: float
    executors: int
    seconds: float
    usage: Any
    cost: float
    rates: Pricing
    requests: Requests
    requests_cost: float

    @property
    def total(self) -> float:
        """Computing and requests."""
        return self.cost + self.requests_cost

    def most(self, limit: Limit) -> float:
        """Return the most that the run can cost under a limit, requests among it."""
        return most_cost(self.rates, limit) + self.requests_cost

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as plain JSON values."""
        return asdict(self) | {
            "minutes": self.seconds / 60,
            "total": self.total,
            "cost_per_1000_photos": per_thousand(self.total, self.n_photos),
            "assumed": {"startup_s": self.rates.startup_s, "finish_s": FINISH_S},
        }


def estimate_run(
    n_photos: int,
    speed: float,
    rates: Pricing,
    *,
    max_executors: int,
    commit_every: int = Config.commit_every,
) -> Estimate:
    """Estimate time and money of a run.

    Parameters
    ----------
    n_photos : int
    speed : float
        Photos a second and virtual core.
    rates : Pricing
    max_executors : int
        Fewer are planned with where each would have less than :data:`BUSY_S` of work.
    commit_every : int
        Photos in a batch.
    """
    vcpu = rates.executor.vcpu
    executors = executors_for(n_photos, speed, max_executors, vcpu)
    seconds = rates.startup_s + n_photos / (speed * executors * vcpu) + FINISH_S
    usage = rates.usage(seconds, executors)
    requests = count_requests(n_photos, commit_every)
    price = rates.requests.cost(requests)
    cost = rates.cost(usage)
    return Estimate(n_photos, speed, executors, seconds, usage, cost, rates, requests, price)


def executors_for(n_photos: int, speed: float, most: int, vcpu: int = EXECUTOR.vcpu) -> int:
    """Return how many executors of so many virtual cores have enough to do."""
    if speed <= 0:
        raise ConfigError(f"speed={speed} must be above 0, in photos a second and virtual core")
    if most < 1:
        raise ConfigError(f"max_executors={most} must be at least 1")
    return max(1, min(most, math.ceil(n_photos / (speed * vcpu * BUSY_S))))


def per_thousand(cost: float, n_photos: int) -> float | None:
    """Return the cost of 1,000 photos; None of no photo."""
    return 1000 * cost / n_photos if n_photos else None


@dataclass(frozen=True)
class Limit:
    """The most executors at a time, the most minutes, and the size of the executors, of a run."""

    executors: int
    minutes: int
    executor: Worker = EXECUTOR


def limit_cost(
    rates: Pricing, limit: Limit, max_cost: float | None, requests_cost: float = 0.0
) -> Limit:
    """Return a limit under which a run cannot cost more than a sum.

    The dearest that it can do is to keep all its workers busy until its time is over.

    Parameters
    ----------
    rates : Pricing
    limit : Limit
        What is wanted; minutes are taken away first, and executors where too few would be left.
    max_cost : float or None
        In the currency of the rates.
    requests_cost : float
        What is paid for requests, out of the same sum.

    Raises
    ------
    ConfigError
        If not even one executor could do anything for that money.
    """
    if max_cost is None:
        return limit
    least = min(LEAST_MINUTES, limit.minutes)
    for executors in range(limit.executors, 0, -1):
        paid = 60 * (max_cost - requests_cost) / rates.hour(executors) - rates.unbounded_s / 60
        if (minutes := math.floor(paid + 1e-9)) >= least:
            return replace(limit, executors=executors, minutes=min(minutes, limit.minutes))
    cents = math.ceil(100 * (most_cost(rates, Limit(1, least)) + requests_cost) - 1e-9)
    raise ConfigError(
        f"max_cost={max_cost:g} must be at least {cents / 100:.2f} "
        f"{rates.currency}: a driver and one executor for {least} minutes"
        + (f", and {rates.unbounded_s / 60:.0f} to start and to end" if rates.unbounded_s else "")
        + (f", and {requests_cost:.2f} of requests" if requests_cost >= 0.01 else "")
    )


def most_cost(rates: Pricing, limit: Limit) -> float:
    """Return the most that a run can cost: all executors of its limit, for all its minutes."""
    return rates.hour(limit.executors) * (60 * limit.minutes + rates.unbounded_s) / 3600


def bound_run(
    n_photos: int,
    speed: float,
    rates: Pricing,
    limit: Limit,
    *,
    max_cost: float | None,
    commit_every: int,
) -> tuple[Limit, Estimate]:
    """Return the limit that a sum leaves of another, and what a run is expected to cost under it.

    Parameters
    ----------
    n_photos, speed, rates, commit_every
        See :func:`estimate_run`.
    limit, max_cost
        See :func:`limit_cost`.
    """
    requests = rates.requests.cost(count_requests(n_photos, commit_every))
    limit = limit_cost(rates, limit, max_cost, requests)
    options = {"max_executors": limit.executors, "commit_every": commit_every}
    return limit, estimate_run(n_photos, speed, rates, **options)
