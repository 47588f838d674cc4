"""What a run of 1, 10 and 100 million photos would take, from two finished runs.

    python benchmarks/extrapolate.py SMALL_OUT LARGE_OUT

Each is the OUT of a ``verger run`` on the same machine, of the same kind of photos. A stage's
seconds are taken to be a + b n: b is the slope between the two runs, a what is left of the small
one. The slope of what the tasks do is divided by the cores; what the driver does by itself is
not. Prints tables for docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PHOTOS = (1_000_000, 10_000_000, 100_000_000)
CORES = (2, 16, 128)
#: Stages whose work is done in the tasks; all others are the driver's.
IN_TASKS = ("featurize", "write", "reduce", "validate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("small", type=Path)
    parser.add_argument("large", type=Path)
    arguments = parser.parse_args()
    small, large = (read(folder) for folder in (arguments.small, arguments.large))
    cores = large["machine"]["cpu_count"]
    n, more = (run["counts"]["computed"] for run in (small, large))
    if more <= n or small["machine"]["cpu_count"] != cores:
        raise SystemExit("two runs of one machine are needed, the second of more photos")
    slopes = {
        stage: max(large["seconds"][stage] - small["seconds"].get(stage, 0), 0) / (more - n)
        for stage in large["seconds"]
    }
    fixed = {s: max(small["seconds"].get(s, 0) - slopes[s] * n, 0) for s in slopes}
    print(f"Measured on {cores} cores, {n:,} and {more:,} photos:\n")
    print(f"| stage | {n:,}, s | {more:,}, s | start, s | ms a photo | done by |")
    print("|---|---|---|---|---|---|")
    for stage, slope in slopes.items():
        who = "tasks" if stage in IN_TASKS else "driver"
        print(
            f"| {stage} | {small['seconds'].get(stage, 0):.1f} | {large['seconds'][stage]:.1f} "
            f"| {fixed[stage]:.1f} | {1e3 * slope:.3f} | {who} |"
        )
    print(f"\n| photos | {' | '.join(f'{c} cores' for c in CORES)} | driver alone |")
    print("|---|" + "---|" * (len(CORES) + 1))
    tasks = sum(slopes[stage] for stage in slopes if stage in IN_TASKS)
    driver = sum(slopes[stage] for stage in slopes if stage not in IN_TASKS)
    for photos in PHOTOS:
        hours = [
            (sum(fixed.values()) + photos * (tasks * cores / c + driver)) / 3600 for c in CORES
        ]
        cells = [f"{photos:,}", *(f"{h:,.1f} h" for h in hours), f"{photos * driver / 60:,.1f} min"]
        print(f"| {' | '.join(cells)} |")


def read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


if __name__ == "__main__":
    main()
