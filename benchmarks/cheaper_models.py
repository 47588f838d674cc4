"""Cheaper models: int8 and small inputs, how much faster they are and what they cost.

    python benchmarks/cheaper_models.py PHOTOS [--weights FILE] [--per-class 24]

PHOTOS is a folder of class folders, or a tar of one. For each model: images/s of one core, in
turns with float32 at 224 pixels; the cosine of its features to those of the same input in
float32; and the accuracy of a linear probe (multinomial logistic regression on standardised
features). The probe is measured on two splits: photos drawn at random, and the last third of
each film's frames after a gap, which are no neighbours of those it was trained on. int8 is
calibrated on photos of the first part. Writes benchmarks/CHEAPER_MODELS.md.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import verger
from photos import source_folder
from verger.config import INPUT_SIZES
from verger.features.model import Model
from verger.features.model.int8 import N_CALIBRATION
from verger.features.preprocess import decode_photo

HERE = Path(__file__).parent
LEAST_SPEED_OF_INT8 = 1.4
TURNS = 15
BATCH = 8

Array = npt.NDArray[np.float32]
Name = tuple[str, int]  # precision, input size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--per-class", type=int, default=24)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "bench")
    arguments = parser.parse_args()
    paths = choose(source_folder(arguments.photos, arguments.work), arguments.per_class)
    split = contiguous(paths)
    models, features, speeds = {}, {}, {}
    for size in INPUT_SIZES:
        pixels = [decode_photo(path.read_bytes(), size=size).pixels for path in paths]
        whole = verger.load_model(arguments.model, weights=arguments.weights, input_size=size)
        drawn = np.random.default_rng(0).choice(np.flatnonzero(split == TRAIN), N_CALIBRATION)
        models["float32", size] = whole
        models["int8", size] = verger.quantize(whole, [pixels[i] for i in drawn])
        for name in (("float32", size), ("int8", size)):
            features[name] = predict(models[name], pixels)
            print(f"{name[0]} at {size}: features of {len(paths)} photos", flush=True)
    speeds = measure_speeds(models)
    labels = np.array([path.parent.name for path in paths])
    probes = {name: probe(values, labels, split) for name, values in features.items()}
    page = render(features, speeds, probes, labels, arguments)
    (HERE / "CHEAPER_MODELS.md").write_text(page)
    print(page)


# Photos

TRAIN, TEST, GAP = 0, 1, 2


def choose(folder: Path, per_class: int) -> list[Path]:
    """Return photos of every class, evenly spread over its films."""
    chosen: list[Path] = []
    for name in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = sorted(name.iterdir(), key=film_and_frame)
        places = np.linspace(0, len(found) - 1, min(per_class, len(found))).round().astype(int)
        chosen += [found[place] for place in places]
    return chosen


def film_and_frame(path: Path) -> tuple[str, int]:
    """Take a name apart: ``r_12_100.jpg`` is frame 12 of the film ``r_``."""
    match = re.match(r"(\D*)(\d*)", path.name)
    film, frame = match.groups() if match else ("", "")
    return film, int(frame or 0)


def contiguous(paths: list[Path]) -> npt.NDArray[np.int64]:
    """Mark of each film the first 60 % as for training, the last 30 % as for the test."""
    films: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        films[path.parent.name, film_and_frame(path)[0]].append(place)
    split = np.full(len(paths), GAP)
    for places in films.values():
        split[places[: round(0.6 * len(places))]] = TRAIN
        split[places[round(0.7 * len(places)) :]] = TEST
    return split


# What is measured


def predict(model: Model, pixels: list[npt.NDArray[np.uint8]]) -> Array:
    predictor = model.open()
    parts = [np.stack(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
    return np.concatenate([predictor.predict(part) for part in parts])


def measure_speeds(models: dict[Name, Model]) -> dict[Name, list[float]]:
    """Return seconds of one core for a micro-batch, all models in turns."""
    predictors = {name: model.open() for name, model in models.items()}
    noise = np.random.default_rng(0)
    batches = {
        name: noise.integers(0, 255, (BATCH, name[1], name[1], 3), np.uint8) for name in models
    }
    seconds: dict[Name, list[float]] = {name: [] for name in models}
    for _ in range(TURNS):
        for name, predictor in predictors.items():
            predictor.predict(batches[name])
            start = time.process_time()
            predictor.predict(batches[name])
            predictor.predict(batches[name])
            seconds[name].append((time.process_time() - start) / 2)
    return seconds


def probe(
    features: Array, labels: npt.NDArray[np.str_], split: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Return the accuracy of a linear probe on the random and on the contiguous split."""
    drawn = np.random.default_rng(0).permutation(split)
    return tuple(
        float(
            fit(features[how == TRAIN], labels[how == TRAIN]).score(
                features[how == TEST], labels[how == TEST]
            )
        )
        for how in (drawn, split)
    )  # type: ignore[return-value]


def fit(features: Array, labels: npt.NDArray[np.str_]) -> Pipeline:
    linear = LogisticRegression(C=0.1, max_iter=300)
    return make_pipeline(StandardScaler(), linear).fit(features, labels)


def cosine(one: Array, other: Array) -> Array:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


# The page


def render(
    features: dict[Name, Array],
    speeds: dict[Name, list[float]],
    probes: dict[Name, tuple[float, float]],
    labels: npt.NDArray[np.str_],
    arguments: argparse.Namespace,
) -> str:
    lines = [
        "# Cheaper models",
        "",
        f"`python benchmarks/cheaper_models.py {arguments.photos.name} --per-class "
        f"{arguments.per_class}` on {cpu_name()}, {time.strftime('%Y-%m-%d')}, {arguments.model}, "
        f"onnxruntime {version('onnxruntime')}: {len(labels):,} photos of {len(set(labels))} "
        "classes.",
        "",
        "| precision | input | images/s of one core | speed, float32 at 224 = 1 | speed, float32 "
        "at this size = 1 | cosine to float32 at this size: mean, worst | probe, random split | "
        "probe, contiguous split |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = ("float32", INPUT_SIZES[0])
    for name in sorted(features, key=lambda n: (-n[1], n[0])):
        same = ("float32", name[1])
        found = cosine(features[name], features[same])
        cells = [
            name[0],
            f"{name[1]}",
            f"{BATCH / statistics.median(speeds[name]):.0f}",
            f"{ratio(speeds[whole], speeds[name]):.2f}",
            f"{ratio(speeds[same], speeds[name]):.2f}",
            f"{found.mean():.4f}, {found.min():.4f}" if name != same else "-",
            *(f"{accuracy:.1%}" for accuracy in probes[name]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    gain = ratio(speeds[whole], speeds["int8", whole[1]])
    verdict = "kept" if gain >= LEAST_SPEED_OF_INT8 else "NOT worth keeping"
    return "\n".join(
        [
            *lines,
            "",
            f"int8 is to be kept where it is at least {LEAST_SPEED_OF_INT8} times as fast as float32: "
            f"it is {gain:.2f} times as fast here, {verdict}. Neither int8 nor a small input is ever "
            "the default, and each has a contract of its own.",
            "",
            f"CPU seconds of one process and one thread, median of {TURNS} turns. The probe is a "
            "multinomial logistic regression (C = 0.1) on standardised features, trained on 60 % of "
            "the photos and asked about 30 %: drawn at random, or those that come last in each film. "
            "Frames of one film are of one fruit turning: neither number says how well photos of other "
            "fruits are told apart.",
            "",
        ]
    )


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()
