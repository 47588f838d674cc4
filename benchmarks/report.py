"""results.json to RESULTS.md and results.png: tables, targets, and how it was measured.

Ways of one round are compared with each other, and the median of those ratios is told with the
least and the greatest: what slows a machine down for a while slows all ways of a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

from pca import NUMPY, SPARK, SPARK_50, VERGER, table_of
from ways import ENGINES, WAYS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

STEADY_SHARE = 0.92
NOTEBOOK_TIMES = {300: 8.0, 3000: 6.0}
LEAST_SIZE_OF_ENGINES = 3000
PCA_TIMES_SPARK = 15.0
PCA_TIMES_NUMPY = 1.5
FLAT = 1.1


@dataclass(frozen=True)
class Runs:
    """All runs, to be asked for.

    Attributes
    ----------
    by_key : dict of (str, int) to dict of int to dict
        Way and photos to round to run.
    """

    by_key: dict[tuple[str, int], dict[int, dict[str, Any]]]

    @classmethod
    def of(cls, runs: Iterable[dict[str, Any]]) -> Runs:
        by_key: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for run in runs:
            by_key.setdefault((run["way"], run["n"]), {})[run["round"]] = run
        return cls(by_key)

    def sizes(self, key: str) -> list[int]:
        return sorted(n for way, n in self.by_key if way == key)

    def ways(self, n: int) -> list[str]:
        return [key for key in WAYS if (key, n) in self.by_key]

    def all_sizes(self) -> list[int]:
        """Return the sizes that more than Verger was measured at."""
        return sorted({n for way, n in self.by_key if way != "verger"})

    def values(self, key: str, n: int, name: str = "seconds") -> dict[int, float]:
        runs = self.by_key.get((key, n), {})
        return {number: run[name] for number, run in runs.items() if run[name] is not None}

    def steady(self, key: str, n: int, more: int) -> dict[int, float]:
        """Return images/s between two sizes by round; of the limit, those of its own clock.

        Nothing where more photos took less time in any round: dropping such rounds alone would
        flatter.
        """
        inner = self.values(key, more, "inner_seconds")
        if inner:
            return {number: more / seconds for number, seconds in inner.items()}
        short, long = self.values(key, n), self.values(key, more)
        longer = {number: long[number] - short[number] for number in short.keys() & long.keys()}
        if min(longer.values(), default=0) <= 0:
            return {}
        return {number: (more - n) / seconds for number, seconds in longer.items()}


def ratios(above: dict[int, float], below: dict[int, float]) -> list[float]:
    """Divide round by round."""
    return [above[number] / below[number] for number in sorted(above.keys() & below.keys())]


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return the median, and the least and the greatest where there are several."""
    found = list(values)
    if not found:
        return "-"
    median = f"{statistics.median(found):,.{digits}f}"
    if len(found) == 1:
        return median
    return f"{median} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"


# Targets


@dataclass(frozen=True)
class Target:
    """What was promised, what was measured, and whether a median keeps the promise."""

    what: str
    bound: float
    measured: list[float]
    at_most: bool = False

    def row(self) -> str:
        sign = "at most" if self.at_most else "at least"
        if not self.measured:
            return f"| {self.what} | {sign} {self.bound:g} | not measured | - |"
        median = statistics.median(self.measured)
        met = median <= self.bound if self.at_most else median >= self.bound
        found = spread(self.measured, 2)
        return f"| {self.what} | {sign} {self.bound:g} | {found} | {'yes' if met else 'NO'} |"


def targets(runs: Runs, results: dict[str, Any]) -> list[Target]:
    found = []
    for n, more in pairs(runs.all_sizes())[-1:]:
        share = ratios(runs.steady("verger", n, more), runs.steady("limit", n, more))
        what = f"Steady state, {n:,} to {more:,} photos: share of the limit, decoding counted"
        found.append(Target(what, STEADY_SHARE, share))
    for n, bound in sorted(NOTEBOOK_TIMES.items(), reverse=True):
        times = ratios(runs.values("notebook", n), runs.values("verger_run", n))
        what = f"`verger run`, {n:,} photos, whole process: speed as a multiple of the notebook's"
        found.append(Target(what, bound, times))
    for n in (size for size in runs.all_sizes() if size >= LEAST_SIZE_OF_ENGINES):
        for key in ENGINES:
            times = ratios(runs.values(key, n), runs.values("verger", n))
            what = f"`verger featurize`, {n:,} photos, whole process: speed as a multiple of"
            found.append(Target(f"{what} {WAYS[key].title}", 1.0, times))
    return found + pca_targets(results.get("pca")) + flat_targets(runs, results.get("flat", []))


def pca_targets(pca: dict[str, Any] | None) -> list[Target]:
    seconds = {
        name: dict(enumerate(values)) for name, values in (pca["seconds"] if pca else {}).items()
    }
    ours = seconds.get(VERGER, {})
    one, other = seconds.get(SPARK, {}), seconds.get(SPARK_50, {})
    both = {number: one[number] + other[number] for number in one}
    what = "PCA: speed as a multiple of Spark ML's"
    return [
        Target(f"{what}, one fit (k = 50)", PCA_TIMES_SPARK, ratios(other, ours)),
        Target(f"{what}, the notebook's two fits", PCA_TIMES_SPARK, ratios(both, ours)),
        Target(
            "PCA: seconds as a multiple of bare numpy's",
            PCA_TIMES_NUMPY,
            ratios(ours, seconds.get(NUMPY, {})),
            at_most=True,
        ),
    ]


def flat_targets(runs: Runs, sizes: list[int]) -> list[Target]:
    steps = pairs(sizes)
    if len(steps) < 2:
        return [Target("Cost of a further photo, 2,000 to 60,000 photos", FLAT, [], at_most=True)]
    (low, high), (n, more) = steps[0], steps[-1]
    speed, later = runs.steady("verger", low, high), runs.steady("verger", n, more)
    what = (
        f"Cost of a further photo, {n:,} to {more:,} photos, as a multiple of that from "
        f"{low:,} to {high:,}"
    )
    return [Target(what, FLAT, ratios(speed, later), at_most=True)]


def pairs(sizes: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(sizes))


# Tables


def whole_table(runs: Runs, n: int) -> list[str]:
    lines = [
        "| way | seconds | images/s | peak memory, MB | its seconds / Verger's |",
        "|---|---|---|---|---|",
    ]
    for key in (key for key in runs.ways(n) if not key.startswith("limit")):
        seconds = runs.values(key, n)
        ours = "verger_run" if key in ("notebook", "verger_run") else "verger"
        speed = [n / value for value in seconds.values()]
        memory = [value / 1e6 for value in runs.values(key, n, "peak_bytes").values()]
        cells = [
            WAYS[key].title,
            spread(seconds.values()),
            spread(speed, 0),
            spread(memory, 0),
            spread(ratios(seconds, runs.values(ours, n)), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def steady_table(runs: Runs) -> list[str]:
    steps = pairs(runs.all_sizes())
    if not steps:
        return ["Needs two sizes."]
    heads = [
        head
        for n, more in steps
        for head in (f"{n:,} to {more:,}: images/s", "share of the limit, decoding counted")
    ]
    lines = [f"| way | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for key in (key for key in WAYS if runs.sizes(key)):
        cells = []
        for n, more in steps:
            speed = runs.steady(key, n, more)
            share = ratios(speed, runs.steady("limit", n, more))
            cells += [spread(speed.values()), spread(share, 2)]
        lines.append(f"| {WAYS[key].title} | {' | '.join(cells)} |")
    return lines


def flat_table(runs: Runs, sizes: list[int]) -> list[str]:
    lines = [
        "| photos | seconds | ms for each photo more than in the line above | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for below, n in zip([None, *sizes], sizes, strict=False):
        speed = runs.steady("verger", below, n).values() if below else []
        memory = [value / 1e6 for value in runs.values("verger", n, "peak_bytes").values()]
        cells = [
            f"{n:,}",
            spread(runs.values("verger", n).values()),
            spread([1000 / value for value in speed], 2),
            spread(memory, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine_table(results: dict[str, Any]) -> list[str]:
    machine = results["machine"]
    memory = machine["memory_bytes"] / 2**30
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB, {machine['system']}.",
        "",
        "| environment | versions |",
        "|---|---|",
    ]
    for venv, versions in results["versions"].items():
        found = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"| `{venv}` | {found} |")
    return lines


# The page


def write_report(results: dict[str, Any], out: Path) -> None:
    """Write RESULTS.md and results.png."""
    runs = Runs.of(results["runs"])
    draw(runs, results, out / "results.png")
    (out / "RESULTS.md").write_text("\n".join(page(runs, results)) + "\n", "utf-8")


def page(runs: Runs, results: dict[str, Any]) -> list[str]:
    sizes, flat, pca = runs.all_sizes(), results.get("flat", []), results.get("pca")
    rounds = ", ".join(f"{n_rounds(runs, n)} of {n:,}" for n in sizes)
    lines = [
        "# Speed",
        "",
        f"{results['photos'].capitalize()} photos, {results['model']['name']}, all ways side by "
        f"side and in turns; rounds: {rounds or 'none'} photos. Medians, with the least and the "
        "greatest in brackets. A ratio is taken within each round, of the notebook to `verger run` "
        "and of all others to `verger featurize`. Only ratios carry over to another machine.",
        "",
        "![Bars of seconds, images/s and seconds of PCA](results.png)",
        "",
        "## Targets",
        "",
        "| target | bound | measured | met |",
        "|---|---|---|---|",
        *(target.row() for target in targets(runs, results)),
    ]
    for n in sizes:
        lines += ["", f"## Whole process, {n:,} photos", "", *whole_table(runs, n)]
    lines += ["", "## Steady state", "", *steady_table(runs), "", STEADY_NOTE]
    if flat:
        lines += ["", "## Cost of a photo, up to a large number of them", ""]
        lines += [
            *flat_table(runs, flat),
            "",
            "`verger featurize`; photos beyond those that there are come again under other names.",
        ]
    if pca:
        what = f"{pca['n']:,} x 1280 float32 ({pca['features']}) in Parquet"
        lines += ["", "## PCA", "", f"{what}, from the stored table to a fitted model."]
        lines += ["", *table_of(pca["seconds"])]
    used = [key for key in WAYS if runs.sizes(key)]
    return [
        *(lines if pca else [*lines, ""]),
        "## Set-ups",
        "",
        "| way | how it was set up |",
        "|---|---|",
        *(f"| {WAYS[key].title} | {WAYS[key].set_up} |" for key in used),
        "",
        HOW.format(difference=max((run["difference"] for run in results["runs"]), default=0)),
        "",
        "## Machine, versions, commands",
        "",
        *machine_table(results),
        "",
        "```",
        *results.get("commands", []),
        "```",
    ]


def n_rounds(runs: Runs, n: int) -> int:
    return max(len(runs.values(key, n)) for key in runs.ways(n))


STEADY_NOTE = (
    "Photos more, divided by seconds more, between two whole processes of one round: starting up "
    "cancels out, and no way measures itself. The limits have a clock of their own, which leaves "
    "out the start and the writing. Of the notebook and of `verger run` the PCA is in it. A dash: "
    "not measured, or more photos took less time in some round, and the machine was not quiet."
)

HOW = (
    "All ways but the notebook run the same ONNX graph, one process a core and one thread a "
    "process, one photo a call of the model. A run is a process of its own, from the start of "
    "Python to its end. Before the first round each way runs once, unmeasured, on a few photos, so that no "
    "way alone pays for files that nobody has read yet; in each round another way begins. Peak "
    "memory is the largest sum over a process and all below it, looked at twice a second; a page "
    "that several share counts once. Before a run counts, its rows are counted and its features "
    "compared with Verger's: here they differ by {difference:.1g} at most."
)


# The chart

_OURS, _LIMIT, _OTHER = "#2e7d32", "#9e9e9e", "#90a4ae"


def draw(runs: Runs, results: dict[str, Any], path: Path) -> None:
    """Draw seconds, images/s and seconds of PCA, one panel each."""
    sizes = runs.all_sizes()
    panels: dict[str, dict[str, list[float]]] = {}
    for n in sizes:
        keys = [key for key in runs.ways(n) if not key.startswith("limit")]
        panels[f"Whole process, {n:,} photos: seconds"] = {
            _plain(key): list(runs.values(key, n).values()) for key in keys
        }
    for n, more in pairs(sizes)[-1:]:
        speed = {_plain(key): list(runs.steady(key, n, more).values()) for key in WAYS}
        panels[f"Steady state, {n:,} to {more:,} photos: images/s"] = {
            name: values for name, values in speed.items() if values
        }
    if results.get("pca"):
        panels["PCA: seconds"] = results["pca"]["seconds"]
    heights = [len(bars) + 1 for bars in panels.values()]
    figure, grid = plt.subplots(
        len(panels),
        1,
        figsize=(9, 0.33 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes, (title, bars) in zip(grid[:, 0], panels.items(), strict=True):
        _bars(axes, bars, title)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _plain(key: str) -> str:
    return WAYS[key].title.replace("`", "")


def _bars(axes: Axes, values: dict[str, list[float]], title: str) -> None:
    medians = {name: statistics.median(numbers) for name, numbers in values.items()}
    below = [medians[name] - min(numbers) for name, numbers in values.items()]
    above = [max(numbers) - medians[name] for name, numbers in values.items()]
    colours = [
        _OURS if name.startswith("Verger") else _LIMIT if name.startswith("Limit") else _OTHER
        for name in values
    ]
    axes.barh(
        list(medians),
        list(medians.values()),
        xerr=[below, above],
        color=colours,
        error_kw={"lw": 1, "capsize": 2},
    )
    for row, (name, numbers) in enumerate(values.items()):
        digits = 0 if medians[name] >= 100 else 1
        axes.annotate(
            f"{medians[name]:,.{digits}f}",
            (max(numbers), row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
