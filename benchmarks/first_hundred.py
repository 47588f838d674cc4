"""A hundred own photos beside thousands on white ground: the figures of docs/first-hundred.md.

    python benchmarks/first_hundred.py GROCERY WHITE [--weights FILE] [--draws 3] [--work FOLDER]

GROCERY is GroceryStoreDataset with its folders ``train`` and ``val`` and its ``classes.csv``, and
WHITE is Fruits-360, or tars of them. The fruits are the coarse names of both data sets that have at
least five photos in ``val``. A draw takes five photos of each from ``train``. The second visit is
all photos of these fruits in ``val``, and its packages, which no classifier knows. Runs the
commands of the page and prints its table: the mean of the draws, the lowest and the highest.
Results in FOLDER are taken as they are.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from photos import make_folder, source_folder
from real_photos import CARTON, HERE, PER_WHITE_CLASS, WHITE_CLASSES, WHITE_NAMES, read_names

PER_FRUIT = 5
HALF, KEYS = 0.5, ("coverage", "error", "others")

Labels = dict[Path, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grocery", type=Path)
    parser.add_argument("white", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "first-hundred")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    grocery = source_folder(arguments.grocery, work)
    white = make_folder(PER_WHITE_CLASS * WHITE_CLASSES, arguments.white, work)
    coarse = {path.name: path.name.split()[0] for path in white.iterdir()}
    coarse = {label: WHITE_NAMES.get(word, word) for label, word in coarse.items()}
    lines = (f"{json.dumps(label)} = {json.dumps(name)}\n" for label, name in coarse.items())
    (work / "coarse.toml").write_text("".join(lines))
    own, visited = label_photos(grocery, "train"), label_photos(grocery, "val")
    counts = Counter(visited.values())
    fruits = sorted(name for name in set(coarse.values()) if counts[name] >= PER_FRUIT)
    asked = {path: name for path, name in visited.items() if name in {*fruits, CARTON}}
    print(f"{len(fruits)} fruits: {', '.join(fruits)}; {Counter(asked.values())}")
    write_list(work / "second.csv", grocery, asked)
    for draw in range(arguments.draws):
        write_list(work / f"first-{draw}.csv", grocery, draw_photos(own, fruits, draw))
    for views in ("whole", "five"):
        options = ["--views", views, *(["--weights", arguments.weights] * bool(arguments.weights))]
        ask_all(work, white, options, [f"first-{draw}" for draw in range(arguments.draws)])


def label_photos(grocery: Path, part: str) -> Labels:
    """Return the coarse label of every photo of a part."""
    shop = read_names(grocery)
    names = shop.coarse | shop.cartons
    photos = sorted((grocery / part).rglob("*.jpg"))
    return {
        path: CARTON if "Packages" in path.parts else names[path.parent.name] for path in photos
    }


def draw_photos(own: Labels, fruits: Sequence[str], seed: int) -> Labels:
    """Draw five photos of each fruit."""
    rng, drawn = random.Random(seed), {}
    for fruit in fruits:
        of_fruit = [path for path, name in own.items() if name == fruit]
        drawn |= dict.fromkeys(rng.sample(of_fruit, PER_FRUIT), fruit)
    return drawn


def write_list(path: Path, grocery: Path, labels: Labels) -> None:
    """Write a list beside a link to the photos that it names."""
    link = path.parent / "photos"
    if not link.exists():
        link.symlink_to(grocery.resolve())
    with path.open("w", newline="") as file:
        rows = ((link.name / photo.relative_to(grocery), name) for photo, name in labels.items())
        csv.writer(file).writerows([("path", "label"), *rows])


def ask_all(work: Path, white: Path, options: Sequence[str], firsts: Sequence[str]) -> None:
    """Train on white ground, on each draw and on both, ask about the second visit, print rows."""
    views, coarse = options[1], ["--label-map", str(work / "coarse.toml")]
    sources = {"white": white} | {name: work / f"{name}.csv" for name in ("second", *firsts)}
    outs = {name: str(work / f"{name}-{views}") for name in sources}
    for name, source in sources.items():
        verger("run", str(source), outs[name], *options)
    tried = {"white": [["white"]], "own": [], "both": []}
    tried["own"], tried["both"] = [[name] for name in firsts], [[name, "white"] for name in firsts]
    for learnt, trainings in tried.items():
        found = []
        for names in trainings:
            where = [outs[name] for name in names]
            kept = Path(where[0], "classifier", learnt, "evaluation.json")
            if not kept.exists():
                verger("classify", "train", *where, "--name", learnt, *coarse)
                asked = ["--against", outs["second"], "--name", learnt, *coarse]
                verger("classify", "evaluate", where[0], *asked)
            found.append(json.loads(kept.read_text())["evaluation"])
        print(f"| {learnt} | {views} | {' | '.join(cells(found))} |", flush=True)


def cells(found: Sequence[Any]) -> list[str]:
    """Return shares over the draws: right; named, wrong of these and cartons named, by threshold."""
    right = [one["scores"]["accuracy"] for one in found]
    at_half = [next(at for at in one["curve"] if at["threshold"] == HALF) for one in found]
    own = [one["threshold"] for one in found]
    shares = [[at[key] or 0.0 for at in ats] for ats in (own, at_half) for key in KEYS]
    return [f"{mean(v):.1%} ({min(v):.1%} to {max(v):.1%})" for v in (right, *shares)]


def verger(*words: str) -> None:
    print("verger", *words, f"(load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "verger", *words], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
