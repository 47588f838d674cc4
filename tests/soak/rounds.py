"""One round: a disturbed run, the runs after it, and all that must hold at the end."""

from __future__ import annotations

import io
import os
import random
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from kinds import KINDS, LOCAL, Arena, Plan
from runs import Command, Place, Ran, carry_out
from tables import Tables, compare, read_tables

from support import processes
from support.store import SOURCE
from verger.cli import app
from verger.errors import VergerError
from verger.result.output import OWN_NAMES

MODEL = "efficientnet_lite0"
#: Photos in a batch: few, so that a run has many.
COMMIT_EVERY = 8
#: Runs after a disturbance that may fail before the round has failed.
RERUNS = 4
_ON_LOOPBACK = ("spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1")
_JOURNAL = ".journal"


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run has made.

    Attributes
    ----------
    tables : Tables
    counts : dict
        Of its ``run.json``.
    seconds : float
    """

    tables: Tables
    counts: dict
    seconds: float


@dataclass
class Played:
    """A round that was played.

    Attributes
    ----------
    number : int
    kind, verb, where : str
    when : list of str
        The moments of the disturbances.
    runs : list of Ran
        All of them, the disturbed ones first.
    befell : str
        What a server did.
    problems : list of str
        What did not hold; none if the round was passed.
    seconds : float
    """

    number: int
    kind: str
    verb: str
    where: str
    when: list[str]
    runs: list[Ran] = field(default_factory=list)
    befell: str = ""
    computed: int | None = None
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def hits(self) -> list[str]:
        return [run.hit or "missed" for run in self.runs[: len(self.when)]]

    def line(self) -> str:
        """Say in a line how it went."""
        codes = " ".join(str(run.code) for run in self.runs)
        committed = " ".join(str(run.committed) for run in self.runs[: len(self.when)])
        result = "; ".join(self.problems) or "ok"
        return (
            f"{self.number:>3}  {self.kind} ({self.verb}, {self.where}): {', '.join(self.when)}; "
            f"hit {', '.join(self.hits)} {self.befell}; exit {codes}; committed {committed}; "
            f"computed {self.computed}; {self.seconds:.0f} s: {result}"
        )


def make_reference(arena: Arena) -> Reference:
    """Run undisturbed, in ``local[2]``, from the folder to a folder."""
    plan = Plan(arena.out("reference"), [])
    ran = carry_out(command_of(arena, plan, arena.folder / "reference" / "log"))
    if ran.code:
        raise RuntimeError(f"the undisturbed run has failed: {ran.words[-3:]}")
    record = plan.out.read("run.json")
    tables = read_tables(plan.out.filesystem, plan.out.root, str(arena.photos))
    return Reference(tables, record["counts"], ran.seconds)


def command_of(arena: Arena, plan: Plan, logs: Path) -> Command:
    """Return the command of a round; it is the same for all of its runs."""
    master = arena.cluster.master if plan.on_cluster else LOCAL
    settings = [word for setting in _ON_LOOPBACK for word in ("--conf", setting)]
    options = ("--model", MODEL, "--commit-every", str(COMMIT_EVERY), "--master", master)
    return Command(
        plan.verb,
        SOURCE if plan.from_bucket else str(arena.photos),
        plan.out,
        (*options, *(settings if plan.on_cluster else ())),
        os.environ,
        logs,
    )


def play(arena: Arena, reference: Reference, number: int, kind: str, rng: random.Random) -> Played:
    """Play a round; what goes wrong in it is written down, not raised."""
    started = time.monotonic()
    name = f"{number:03}"
    plan = KINDS[kind](arena, rng, name)
    where = "cluster" if plan.on_cluster else LOCAL
    played = Played(number, kind, plan.verb, where, [blow.moment.words for blow in plan.blows])
    arena.cluster.check()
    with plan.setting:
        try:
            command = command_of(arena, plan, arena.folder / "logs" / name)
            _run_all(command, plan, played)
            played.befell = plan.befell()
            played.problems += check_messages(played.runs)
            played.problems += check_processes(arena, played.runs)
            if not played.runs[-1].code:
                played.problems += check_result(arena, plan, reference, played)
        except (RuntimeError, OSError, VergerError) as err:
            played.problems.append(f"{type(err).__name__}: {err}")
    played.seconds = round(time.monotonic() - started, 1)
    return played


def _run_all(command: Command, plan: Plan, played: Played) -> None:
    """Run disturbed, then undisturbed until a run comes through; one more run always follows."""
    for blow in plan.blows:
        played.runs.append(carry_out(command, blow, number=len(played.runs) + 1))
    plan.calm()
    for _ in range(RERUNS):
        played.runs.append(carry_out(command, number=len(played.runs) + 1))
        if played.runs[-1].code == 0:
            return
    played.problems.append(f"no run came through: {played.runs[-1].last_word}")


# What must hold


def check_messages(runs: list[Ran]) -> list[str]:
    """A run that ends by itself without success must say why, in one line."""
    problems = []
    for number, run in enumerate(runs, start=1):
        one_line = len(run.words) == 1 and run.last_word.startswith("verger: ")
        if run.code > 0 and not one_line:
            problems.append(f"run {number} said {len(run.words)} lines: {run.words[-2:]}")
    return problems


def check_result(arena: Arena, plan: Plan, reference: Reference, played: Played) -> list[str]:
    """Return all that does not hold of the result of a round."""
    record = plan.out.read("run.json")
    played.computed = record["counts"]["computed"]
    problems = check_leftovers(plan.out, record)
    if plan.out.in_bucket:
        prefix = plan.out.root.partition("/")[2]
        uploads = arena.store.unfinished_uploads(prefix)
        problems += [f"unfinished upload: {key}" for key in uploads]
    problems += check_counts(record["counts"], reference.counts)
    problems += check_work(played, reference.counts["listed"])
    return problems + check_tables(arena, plan, reference.tables) + check_validate(plan.out)


def check_validate(out: Place) -> list[str]:
    """``verger validate`` must find nothing; all rounds share the session that it starts."""
    with redirect_stdout(io.StringIO()):
        try:
            app(["validate", out.address, "--master", LOCAL], standalone_mode=False)
        except (VergerError, OSError) as err:
            return [f"verger validate: {err}"]
    return []


def check_tables(arena: Arena, plan: Plan, expected: Tables) -> list[str]:
    """The rows must be those of the undisturbed run, bit for bit."""
    source = SOURCE if plan.from_bucket else str(arena.photos)
    found = read_tables(plan.out.filesystem, plan.out.root, source)
    if plan.from_bucket:  # a bucket has times of its own
        expected, found = (t.without("modification_time") for t in (expected, found))
    return compare(expected, found)


def check_leftovers(out: Place, record: dict) -> list[str]:
    """OUT must hold nothing but what ``run.json`` knows."""
    names = out.files()
    problems = [f"left over: {name}" for name in names if name.startswith(_JOURNAL)]
    strange = {name.split("/")[0] for name in names} - set(OWN_NAMES)
    problems += [f"strange: {name}" for name in sorted(strange)]
    for table in ("features", "rejected"):
        known = {part["name"] for part in record["files"][table]}
        lying = {name for name in names if name.startswith(f"{table}/")}
        problems += [f"{table}: run.json knows {known}, and there are {lying}"] * (known != lying)
    return problems + (["left over: the folder .journal"] if out.is_there(_JOURNAL) else [])


def check_counts(found: dict, expected: dict) -> list[str]:
    """The counts must be those of the undisturbed run."""
    names = ("listed", "featurized", "rejected", "reasons")
    return [
        f"counts: {name} = {found[name]} should be {expected[name]}"
        for name in names
        if found[name] != expected[name]
    ]


def check_work(played: Played, n_listed: int) -> list[str]:
    """The last run must not have computed what was committed before it."""
    before = played.runs[-2].committed if len(played.runs) > 1 else 0
    most = n_listed - before
    if played.computed is None or played.computed <= most:
        return []
    return [f"computed {played.computed} photos again where {most} were not committed"]


def check_processes(arena: Arena, runs: list[Ran]) -> list[str]:
    """Nothing that a run has started may live on."""

    def there() -> list[psutil.Process]:
        ours = [process for run in runs for process in processes.of_session(run.session)]
        return ours + arena.cluster.guests()

    return [f"lives on: {name}" for name in processes.wait_for_orphans(there)]
