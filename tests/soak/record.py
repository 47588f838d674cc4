"""The record of a soak, as a page."""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from kinds import KINDS, MOUNTING
from rounds import COMMIT_EVERY, MODEL, RERUNS, Played

_PACKAGES = ("verger", "pyspark", "pyarrow", "numpy", "onnxruntime", "pillow")


@dataclass(frozen=True)
class Header:
    """What was asked, and with what.

    Attributes
    ----------
    options : argparse.Namespace
    minutes : float
    can_mount : bool
        Whether the kinds that need a disk of their own could be played.
    """

    options: argparse.Namespace
    minutes: float
    can_mount: bool

    @property
    def command(self) -> str:
        options = self.options
        return (
            f"PYTHONPATH=tests python tests/soak/soak.py --rounds {options.rounds} "
            f"--seed {options.seed} --photos {options.photos}"
        )


def render(header: Header, played: list[Played]) -> str:
    """Return the page in Markdown."""
    n_failed = sum(bool(one.problems) for one in played)
    verdict = "all of them passed" if not n_failed else f"**{n_failed} of them failed**"
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        "# Soak: runs disturbed for real",
        "",
        f"`{header.command}`, {datetime.now(UTC):%Y-%m-%d}: {len(played)} rounds in "
        f"{header.minutes:.0f} minutes, {verdict}. Python {platform.python_version()}, {versions}; "
        f"{platform.system()}.",
        "",
        *_WHAT.splitlines(),
        "",
        *([] if header.can_mount else [f"No mounts, hence not played: {', '.join(MOUNTING)}.", ""]),
        "## By kind",
        "",
        *_table(_SUMMARY_COLUMNS, _summary(played)),
        "",
        "## Round by round",
        "",
        *_table(_COLUMNS, [_row(one) for one in played]),
    ]
    return "\n".join(lines) + "\n"


_WHAT = f"""\
Every round starts a run of rendered photos ({MODEL}, batches of {COMMIT_EVERY}), in `local[2]` or
on a standalone cluster of a master and two workers, and lets something befall it. Then what was
broken is put right, and the same command is started again until it exits 0, at most {RERUNS} times.
A round is passed if

- the tables `features` and `rejected` are those of the undisturbed run, row for row and bit for
  bit (of a source in a bucket: but for the bucket's own modification times), and so are the counts;
- `verger validate` holds;
- the last run computed no photo that was committed before it;
- every run that ended by itself without success said why, in one line;
- nothing is left over in OUT, and no process of a killed run lives on."""

_SUMMARY_COLUMNS = (
    "kind",
    "what befalls",
    "rounds",
    "hit",
    "passed",
    "first run came through",
    "runs at most",
)


def _summary(played: list[Played]) -> list[tuple[object, ...]]:
    kinds = Counter(one.kind for one in played)
    rows = []
    for kind, n in sorted(kinds.items(), key=lambda item: list(KINDS).index(item[0])):
        ours = [one for one in played if one.kind == kind]
        words = (KINDS[kind].__doc__ or "").strip().rstrip(".")
        hit = sum("missed" not in one.hits for one in ours)
        passed = sum(not one.problems for one in ours)
        absorbed = sum(one.runs[0].code == 0 for one in ours if one.runs)
        rows.append((kind, words, n, hit, passed, absorbed, max(len(one.runs) for one in ours)))
    return rows


_COLUMNS = (
    "round",
    "kind",
    "run",
    "when",
    "hit",
    "exit codes",
    "committed before",
    "computed last",
    "seconds",
    "result",
)


def _row(one: Played) -> tuple[object, ...]:
    n = len(one.when)
    hits = ", ".join(one.hits) + (f" ({one.befell})" if one.befell else "")
    return (
        one.number,
        one.kind,
        f"{one.verb}, {one.where}",
        ", ".join(one.when),
        hits,
        " ".join(str(run.code) for run in one.runs),
        " ".join(str(run.committed) for run in one.runs[:n]),
        "" if one.computed is None else one.computed,
        f"{one.seconds:.0f}",
        "**" + "; ".join(one.problems) + "**" if one.problems else "ok",
    )


def _table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(_cell(value) for value in line) + " |" for line in lines]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
