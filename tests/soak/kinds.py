"""The kinds of rounds: what befalls the runs of a round, and what is put right afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import disks
import psutil
from pyarrow import fs
from runs import Disturbance, Moment, Place

from support import processes
from support.cluster import Cluster
from support.processes import Match
from support.store import BUCKET, FAULTS, Store, Weather

LOCAL = "local[2]"
#: Room for every result of a soak.
ROOMY_BYTES = 256 * 2**20
#: Bytes that one photo takes in a table.
ROW_BYTES = 3_100


@dataclass(frozen=True)
class Arena:
    """What rounds share: the servers, the cluster, and a folder for results.

    Attributes
    ----------
    folder : Path
    photos : Path
        The source on disk.
    n_photos, n_batches : int
        In the source; about as many as a whole run commits.
    store : Store
    cluster : Cluster
    """

    folder: Path
    photos: Path
    n_photos: int
    n_batches: int
    store: Store
    cluster: Cluster

    def out(self, name: str) -> Place:
        """Return a folder for the result of a round."""
        path = str(self.folder / name / "out")
        return Place(path, fs.LocalFileSystem(), path)

    def bucket(self, name: str) -> Place:
        """Return a place in the bucket for the result of a round."""
        root = f"{BUCKET}/results/{name}"
        return Place(f"s3://{root}", self.store.filesystem(), root)


@dataclass
class Plan:
    """One round before it is played.

    Attributes
    ----------
    out : Place
    blows : list of Disturbance
        One for each of the first runs.
    on_cluster : bool
        Else in ``local[2]``.
    verb : str
        ``run`` or ``featurize``.
    from_bucket : bool
        Whether the photos are read from there.
    setting : context manager
        What the round takes place in: a disk, a server's bad weather.
    calm : callable
        Puts right what was broken, before the first run that must come through.
    befell : callable
        Tells what a server has done.
    """

    out: Place
    blows: list[Disturbance]
    on_cluster: bool = False
    verb: str = "featurize"
    from_bucket: bool = False
    setting: AbstractContextManager[object] = field(default_factory=nullcontext)
    calm: Callable[[], object] = lambda: None
    befell: Callable[[], str] = lambda: ""


# When


def while_featurizing(rng: random.Random, arena: Arena, low: float, high: float) -> Moment:
    """Once some share of the batches is committed, and a little later."""
    n, pause_s = round(rng.uniform(low, high) * arena.n_batches), round(rng.uniform(0, 0.3), 2)
    return Moment(f"{n} batches + {pause_s} s", lambda _, j: j.n_batches() >= n, pause_s)


def any_time(rng: random.Random, arena: Arena) -> Moment:
    """Mostly while photos are featurized, at times before."""
    if rng.random() < 0.2:
        delay_s = round(rng.uniform(0.5, 15), 1)
        return Moment(f"{delay_s} s after the start", lambda s, _: s >= delay_s)
    return while_featurizing(rng, arena, 0.02, 0.85)


def while_publishing(rng: random.Random) -> Moment:
    """While the finished result is moved into place; it is soon over, and may be missed."""
    pause_s = rng.choice([0.0, round(rng.uniform(0, 0.03), 3)])
    words = f"publishing + {pause_s} s"
    return Moment(words, lambda _, j: j.is_publishing() or j.is_published(), pause_s)


def after_publishing(rng: random.Random) -> Moment:
    """While the PCA is fitted and the report is written."""
    pause_s = round(rng.uniform(0, 10), 1)
    return Moment(f"published + {pause_s} s", lambda _, j: j.is_published(), pause_s)


def standing(words: str, hit: str, strike: Callable[[], object] = lambda: None) -> Disturbance:
    """Something that is there from the start."""

    def befall(_session: int) -> str:
        strike()
        return hit

    return Disturbance(Moment(words, lambda *_: True), befall)


# What

Strike = Callable[[int], str]


def one_process(
    rng: random.Random, where: Callable[[int], list[psutil.Process]], *which: Match
) -> Strike:
    """Kill one process: of the first of ``which`` that any process there is."""

    def strike(session: int) -> str:
        running = where(session)
        for is_it in which:
            found = [process for process in running if is_it(process)]
            if found:
                return _NAMES[is_it] if processes.kill([rng.choice(found)]) else ""
        return ""

    return strike


_NAMES: dict[Match, str] = {
    processes.is_python_worker: "Python worker",
    processes.is_python_daemon: "Python daemon",
    processes.is_executor: "executor",
}


def python_of_spark(rng: random.Random, where: Callable[[int], list[psutil.Process]]) -> Strike:
    """Kill a Python worker, at times the process that forks them."""
    both = (processes.is_python_worker, processes.is_python_daemon)
    return one_process(rng, where, *(both if rng.random() < 0.75 else both[::-1]))


#: What of a driver is killed; publishing is Python's work alone.
PARTS = ("Python", "Python", "Java", "Python and Java")
PUBLISHING_PARTS = ("Python", "Python and Java")


def driver(rng: random.Random, parts: tuple[str, ...] = PARTS) -> Strike:
    """Kill the driver's Python, its Java, or both at once."""
    part = rng.choice(parts)

    def strike(session: int) -> str:
        running = processes.of_session(session)
        java = [p for p in running if processes.is_java(p)] if "Java" in part else []
        python = [p for p in running if p.pid == session] if "Python" in part else []
        if "Java" in part and not java:
            return ""
        return f"driver: {part}" if processes.kill(python + java) else ""

    return strike


# The kinds


def worker_local(arena: Arena, rng: random.Random, name: str) -> Plan:
    """A Python worker of ``local[2]`` is killed."""
    strike = python_of_spark(rng, processes.of_session)
    return Plan(arena.out(name), [Disturbance(any_time(rng, arena), strike)])


def worker_cluster(arena: Arena, rng: random.Random, name: str) -> Plan:
    """A Python worker of an executor is killed."""
    strike = python_of_spark(rng, lambda _: arena.cluster.processes())
    return Plan(arena.out(name), [Disturbance(any_time(rng, arena), strike)], on_cluster=True)


def executor(arena: Arena, rng: random.Random, name: str) -> Plan:
    """An executor of the cluster is killed."""
    strike = one_process(rng, lambda _: arena.cluster.processes(), processes.is_executor)
    return Plan(arena.out(name), [Disturbance(any_time(rng, arena), strike)], on_cluster=True)


def driver_local(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The driver of ``local[2]`` is killed."""
    return Plan(arena.out(name), [Disturbance(any_time(rng, arena), driver(rng))])


def driver_cluster(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The driver of a run on the cluster is killed; its executors may go on for a while."""
    blow = Disturbance(any_time(rng, arena), driver(rng))
    return Plan(arena.out(name), [blow], on_cluster=True)


def three_kills(arena: Arena, rng: random.Random, name: str) -> Plan:
    """Three runs in a row are killed, each a little further on."""
    thirds = ((0.02, 0.25), (0.3, 0.55), (0.6, 0.85))
    moments = [while_featurizing(rng, arena, *third) for third in thirds]
    blows = [Disturbance(moment, driver(rng)) for moment in moments]
    return Plan(arena.out(name), blows, on_cluster=rng.random() < 0.5)


def publishing(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The driver is killed while the result is moved into place, or just before."""
    just_before = while_featurizing(rng, arena, 0.97, 0.99)
    moment = while_publishing(rng) if rng.random() < 0.7 else just_before
    return Plan(arena.out(name), [Disturbance(moment, driver(rng, PUBLISHING_PARTS))])


def reducing(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The driver of a whole run is killed once the features are published."""
    return Plan(arena.out(name), [Disturbance(after_publishing(rng), driver(rng))], verb="run")


def disk_full(arena: Arena, rng: random.Random, name: str) -> Plan:
    """OUT lies on a disk that is too small; then there is room."""
    disk = arena.folder / name
    size_bytes = round(rng.uniform(0.05, 2.2) * ROW_BYTES * arena.n_photos / 4096) * 4096
    return Plan(
        arena.out(name),
        [standing(f"disk of {size_bytes // 1024} KiB", "disk")],
        verb=rng.choice(["run", "featurize"]),
        setting=disks.small_disk(disk, size_bytes),
        calm=lambda: disks.resize(disk, ROOMY_BYTES),
    )


def read_only(arena: Arena, rng: random.Random, name: str) -> Plan:
    """OUT cannot be written, from the start or from some moment on; then it can."""
    disk = arena.folder / name
    refuse = standing("from the start", "read-only", lambda: disks.make_read_only(disk))
    if rng.random() < 0.7:
        refuse = Disturbance(any_time(rng, arena), refuse.strike)
    return Plan(
        arena.out(name),
        [refuse],
        on_cluster=rng.random() < 0.5,
        setting=disks.small_disk(disk, ROOMY_BYTES),
        calm=lambda: disks.make_writable(disk),
    )


def bad_server(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The source's server fails now and then: 500, 503, silence, connections cut."""
    kinds = tuple(rng.sample(FAULTS, k=rng.randint(1, len(FAULTS))))
    weather = Weather(kinds, rng.choice([0.02, 0.1, 0.2]), seed=rng.randrange(2**32))
    return _under(weather, arena, rng, arena.out(name), from_bucket=True)


def lost_photos(arena: Arena, rng: random.Random, name: str) -> Plan:
    """The source's server never hands out some of the photos, until it is mended."""
    kinds = tuple(rng.sample(("500", "503", "cut", "reset"), k=rng.randint(1, 3)))
    lost = rng.choice([0.02, 0.1])
    weather = Weather(kinds, 0.01, lost=lost, seed=rng.randrange(2**32))
    return _under(weather, arena, rng, arena.out(name), from_bucket=True)


def bucket_driver(arena: Arena, rng: random.Random, name: str) -> Plan:
    """OUT lies in a bucket, and the driver is killed."""
    moment, parts = any_time(rng, arena), PARTS
    if rng.random() < 0.5:
        moment, parts = while_publishing(rng), PUBLISHING_PARTS
    blow = Disturbance(moment, driver(rng, parts))
    return Plan(arena.bucket(name), [blow], on_cluster=rng.random() < 0.5)


def bucket_faults(arena: Arena, rng: random.Random, name: str) -> Plan:
    """OUT lies in a bucket whose server fails often; then it is mended."""
    kinds = tuple(rng.sample(("500", "503", "cut", "reset"), k=rng.randint(1, 3)))
    weather = Weather(
        kinds,
        rng.choice([0.05, 0.3]),
        methods=("GET", "HEAD", "PUT", "POST", "DELETE"),
        seed=rng.randrange(2**32),
    )
    return _under(weather, arena, rng, arena.bucket(name), from_bucket=False)


def _under(
    weather: Weather, arena: Arena, rng: random.Random, out: Place, *, from_bucket: bool
) -> Plan:
    """Play under some weather, until it is fair again."""
    return Plan(
        out,
        [standing(weather.words, "server")],
        on_cluster=rng.random() < 0.5,
        from_bucket=from_bucket,
        setting=arena.store.under(weather),
        calm=arena.store.clear_up,
        befell=lambda: ", ".join(f"{n} x {kind}" for kind, n in sorted(weather.befell.items())),
    )


KINDS: dict[str, Callable[[Arena, random.Random, str], Plan]] = {
    "Python worker, local": worker_local,
    "Python worker, cluster": worker_cluster,
    "executor": executor,
    "driver, local": driver_local,
    "driver, cluster": driver_cluster,
    "three kills in a row": three_kills,
    "publishing": publishing,
    "reducing": reducing,
    "disk full": disk_full,
    "read-only": read_only,
    "bad server": bad_server,
    "lost photos": lost_photos,
    "bucket, driver": bucket_driver,
    "bucket, bad server": bucket_faults,
}
#: Kinds that need mounts of their own.
MOUNTING = ("disk full", "read-only")
