"""Photos from shops: what views, methods and a label for other things are worth.

    python benchmarks/real_photos.py GROCERY [--white PHOTOS] [--weights FILE] [--views ...] [--work FOLDER]

GROCERY is GroceryStoreDataset with its folders ``train`` and ``val`` and its ``classes.csv``, or a
tar of it. Classifiers are trained on ``train``, its packages as cartons that get no name, and asked
about ``val``: other photos, most from other shops. With --white (Fruits-360, or a tar of it) they
are trained on 25 photos a class on white ground as well, and asked about the same shops. Results in
FOLDER are taken as they are. Writes benchmarks/REAL_PHOTOS.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from photos import make_folder, source_folder
from verger.classify.classifier import Classifier
from verger.classify.evaluation import evaluate_split
from verger.classify.label_map import merge_labels
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.config import VIEWS, Config
from verger.features.contract import count_views
from verger.files.tables import read_part
from verger.files.vectors import vectors_of
from verger.job.pipeline import run_featurize
from verger.result.output import RUN, Output

HERE = Path(__file__).parent
CARTON = "carton"
PER_WHITE_CLASS, WHITE_CLASSES = 25, 120
#: First word of a class of Fruits-360, and the shop's name for it.
WHITE_NAMES = {
    "Beetroot": "Red-Beet",
    "Cantaloupe": "Melon",
    "Clementine": "Satsumas",
    "Eggplant": "Aubergine",
    "Granadilla": "Passion-Fruit",
    "Grapefruit": "Red-Grapefruit",
    "Limes": "Lime",
    "Mandarine": "Satsumas",
    "Maracuja": "Passion-Fruit",
    "Passion": "Passion-Fruit",
    "Pomelo": "Red-Grapefruit",
}

Names = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """Photos that classifiers are asked about: vectors (n, n_views, d), and their labels."""

    x: npt.NDArray[np.float32]
    labels: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Shop:
    """The coarse names of labels, and the map of packages to cartons."""

    coarse: dict[str, str]
    cartons: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grocery", type=Path)
    parser.add_argument("--white", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=VIEWS)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "real-photos")
    arguments = parser.parse_args()
    work = arguments.work
    grocery = source_folder(arguments.grocery, work)
    shop = read_names(grocery)
    lines, white, timed = [], [], ""
    for views in arguments.views:
        config = config_of(arguments.weights, views)
        train, val = (featurize(grocery / part, work, part, config) for part in ("train", "val"))
        for method in ("logistic", "knn", "centroid") if views == "five" else ("logistic",):
            recipe = Recipe(method=method, other=(CARTON,), label_map=shop.cartons)
            seconds = train_classifier(train.root, config, recipe)["seconds"]["train"]
            asks_itself = method == "logistic" and views != "center"
            promised = promise(train, config, recipe) if asks_itself else "-"
            lines.append(shop_line(method, seconds, promised, train, val, shop))
            print(lines[-1], flush=True)
            write_page(lines, white, timed)
        if views == "five":
            timed = against_sklearn(read_asked(train), shop.cartons)
            write_page(lines, white, timed)
    if arguments.white:
        photos = make_folder(PER_WHITE_CLASS * WHITE_CLASSES, arguments.white, work)
        for views in ("whole", "five"):
            config = config_of(arguments.weights, views)
            out = featurize(photos, work, "white", config)
            train_classifier(out.root, config, Recipe(split="random"))
            white.append(white_line(out, Output.at(work / f"val-{views}"), shop))
            print(white[-1], flush=True)
            write_page(lines, white, timed)


def config_of(weights: str | None, views: str) -> Config:
    model = "mobilenet_v2" if weights else "efficientnet_lite0"
    return Config(model=model, weights=weights, views=views)  # type: ignore[arg-type]


def featurize(photos: Path, work: Path, name: str, config: Config) -> Output:
    output = Output.at(work / f"{name}-{config.views}")
    if not output.folder.exists(RUN):
        run_featurize(str(photos), output.root, config)
    return output


def read_names(grocery: Path) -> Shop:
    with (grocery / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    coarse = {row["Class Name (str)"]: row["Coarse Class Name (str)"] for row in rows}
    packages = (path.parent.name for path in (grocery / "train" / "Packages").rglob("*.jpg"))
    return Shop(coarse, dict.fromkeys(packages, CARTON))


def read_asked(output: Output) -> Asked:
    n_views = count_views(output.read_run().contract)
    vectors, labels = [], []
    for part in output.parts("features"):
        table = read_part(output.folder, part.name).combine_chunks()
        columns = ["features", "views"] if n_views > 1 else ["features"]
        rows = np.concatenate([vectors_of(table[c].combine_chunks()) for c in columns], axis=1)
        vectors.append(rows.reshape(len(rows), n_views, -1))
        labels += table["label"].to_pylist()
    return Asked(np.concatenate(vectors), np.array(labels))


def share(hits: npt.NDArray[np.bool_]) -> str:
    """Return a share with its 95 % interval (Wilson 1927)."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = max(centre - half, 0), min(centre + half, 1)
    return f"{p:.1%} ({low:.0%} to {high:.0%})"


def promise(train: Output, config: Config, recipe: Recipe) -> str:
    """Return what splits of the training photos promise: by near copies, and at random."""
    kept = train.folder.address("classifier/evaluation.json")
    found = json.loads(Path(kept).read_text()) if Path(kept).exists() else None
    found = found or evaluate_split(train.root, config, recipe)
    asked, beside = (found[one]["scores"]["accuracy"] for one in ("evaluation", "beside"))
    return f"{asked:.1%}, at random {beside:.1%}"


def shop_line(
    method: str, seconds: float, promised: str, train: Output, val: Output, shop: Shop
) -> str:
    asked, coarse, cartons = read_asked(val), shop.coarse, shop.cartons
    found = Classifier.load(train)
    p = found.probabilities(asked.x)
    is_carton = np.isin(asked.labels, list(cartons))
    fruit, known = p[~is_carton], asked.labels[~is_carton]
    right = np.array(found.labels)[fruit.argmax(axis=1)] == known
    merged = merge_labels(found.labels, coarse)
    truth = np.array([coarse.get(label, label) for label in known])
    right_coarse = np.array(merged.names)[merged.sum(fruit).argmax(axis=1)] == truth
    named = fruit.max(axis=1) >= found.threshold
    cells = [
        str(val.read_run().option("views")),
        method,
        promised,
        share(right),
        share(right_coarse),
        f"{named.mean():.1%}",
        share(~right[named]) if named.any() else "-",
        share(p[is_carton].max(axis=1) >= 0.5),
        share(found.unlike(asked.x[~is_carton, 0])),
        share(found.unlike(asked.x[is_carton, 0])),
        f"{seconds:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def white_line(out: Output, val: Output, shop: Shop) -> str:
    asked, coarse, cartons = read_asked(val), shop.coarse, shop.cartons
    found = Classifier.load(out)
    words = {label: label.split()[0] for label in found.labels}
    shop_names = {label: WHITE_NAMES.get(word, word) for label, word in words.items()}
    merged = merge_labels(found.labels, shop_names)
    sums, names = merged.sum(found.probabilities(asked.x)), merged.names
    truth = np.array([coarse.get(label, label) for label in asked.labels])
    known, is_carton = np.isin(truth, names), np.isin(asked.labels, list(cartons))
    right = np.array(names)[sums.argmax(axis=1)] == truth
    cells = [
        str(val.read_run().option("views")),
        share(right[known]),
        share(sums[known].max(axis=1) >= 0.5),
        share(sums[is_carton].max(axis=1) >= 0.5),
        share(found.unlike(asked.x[known, 0])),
        share(found.unlike(asked.x[is_carton, 0])),
    ]
    return f"| {' | '.join(cells)} |"


def against_sklearn(asked: Asked, cartons: Names) -> str:
    """Time one fit of scikit-learn's to the same vectors."""
    x = asked.x.reshape(-1, asked.x.shape[-1])
    names = np.array([cartons.get(label, label) for label in asked.labels])
    z = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    begun = time.perf_counter()
    LogisticRegression(C=1 / (1e-4 * len(z)), max_iter=100).fit(z, names.repeat(asked.x.shape[1]))
    return f"{time.perf_counter() - begun:.0f} s for {len(z):,} vectors of {len(set(names))} labels"


def write_page(lines: list[str], white: list[str], timed: str) -> None:
    text = [
        "# Photos from shops",
        "",
        f"`make real-photos`, {time.strftime('%B %Y')}: Verger {version('verger')}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.0f} at the end.",
        "Intervals are of 95 % (Wilson), as if no two photos were of one shelf: they are too narrow.",
        "",
        "## Trained on a shop's photos, asked about other ones",
        "",
        "GroceryStoreDataset: trained on `train` (2,640 photos, its packages as `--other carton`), "
        "asked about `val` (196 photos of fruit and vegetables, 100 of packages).",
        "*Promised* is what the training photos say of fine names: split by groups of near copies, "
        "the default, and at random. Coarse names are summed probabilities. *Named* and *wrong* are at the classifier's own "
        "threshold, *cartons named* at a probability of 0.5; *alarm* is the share unlike every "
        "known photo.",
        "",
        "| views | method | promised | fine right | coarse right | named | of those wrong | cartons named "
        "| alarm, fruit | alarm, cartons | `classify train` |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        *(
            [f"`classify train` makes 22 fits; one of scikit-learn's takes {timed}.", ""]
            * bool(timed)
        ),
    ]
    if white:
        text += [
            "## Trained on white ground, asked about shops",
            "",
            f"Fruits-360: {PER_WHITE_CLASS} photos of each class, asked about the fruit of `val` "
            "that it has a name for, by coarse names, and about the packages.",
            "",
            "| views | right | named at 0.5 | cartons named at 0.5 | alarm, fruit | alarm, cartons |",
            "|---|---|---|---|---|---|",
            *white,
            "",
        ]
    (HERE / "REAL_PHOTOS.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
