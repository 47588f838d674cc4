"""Verger beside other ways to the same features: whole processes, in turns, on the same photos.

    python benchmarks/bench.py --photos FOLDER --weights FILE --sizes 300 3000 --rounds 5

Every run is one process, from the start of the interpreter to the last Parquet file. Its rows
are counted and its features compared with Verger's before its time counts. Runs are kept in
results.json one by one: the same command goes on where it was stopped, and other sizes or more
rounds are added. Writes RESULTS.md and results.png. ``make bench`` makes the peers'
environments first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import verger
from measure import Features, run_measured
from pca import N_RANDOM
from photos import make_folder
from report import write_report
from verger.errors import WeightsNotFoundError
from ways import ROOT, WAYS, Model, Way, command_of, environment_of, python_of

#: Largest difference of one feature from Verger's.
TOLERANCE = 1e-3
#: Options whose values say where things lie, which is nobody's concern.
PATHS = ("--photos", "--weights", "--out", "--work")
#: Photos of the unmeasured run that each way makes first.
N_TRIAL = 60

Run = dict[str, Any]
Step = tuple[str, int, int]  # way, photos, round


# Runs


@dataclass
class Bench:
    """What is fixed for all runs, and the runs so far.

    Attributes
    ----------
    out : Path
        Folder of results.json, RESULTS.md and results.png.
    work : Path
        Folder of photos, of features to compare with, and of what is thrown away.
    photos : Path or None
        Real ones; None renders photos.
    model : Model
    cores : int
    results : dict
        What results.json holds.
    """

    out: Path
    work: Path
    photos: Path | None
    model: Model
    cores: int
    results: dict[str, Any]

    def run(self, key: str, n: int) -> Run:
        """Run one way on n photos, and hold its features to Verger's."""
        way, photos, out = WAYS[key], make_folder(n, self.photos, self.work), self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = command_of(way, photos, out, self.model, self.cores)
        seconds, peak = run_measured(command, environment_of(way), self.work / f"{key}.log")
        if way.verb and not self.reference(n).exists():
            shutil.copytree(out / "features", self.reference(n))
        found = Features.read(out / "features")
        difference = found.difference(Features.read(self.reference(n)))
        if len(found.names) != n or not difference <= TOLERANCE:
            sys.exit(
                f"{key}: {len(found.names)} rows of {n} photos, features differ by {difference} "
                f"(at most {TOLERANCE}) from Verger's"
            )
        clock = out / "work.json"
        inner = json.loads(clock.read_text())["seconds"] if clock.exists() else None
        return {
            "way": key,
            "n": n,
            "seconds": round(seconds, 3),
            "peak_bytes": peak,
            "inner_seconds": inner,
            "difference": difference,
        }

    def reference(self, n: int) -> Path:
        return self.work / f"features-{n}-{self.model.sha256[:8]}"

    def measure(self, plan: list[Step]) -> None:
        """Make those runs that are not in the results yet."""
        known = {(run["way"], run["n"], run["round"]) for run in self.results["runs"]}
        todo = [step for step in plan if step not in known]
        # Each way once on a few photos: it works, and its files have been read from the disk.
        for key in dict.fromkeys(["verger"] * bool(todo) + [key for key, _, _ in todo]):
            say(f"trial  {key:<14} features differ by {self.run(key, N_TRIAL)['difference']:.1e}")
        for position, (key, n, number) in enumerate(todo, 1):
            if not self.reference(n).exists() and not WAYS[key].verb:
                self.run("verger", n)
            found = self.run(key, n) | {"round": number}
            self.results["runs"].append(found)
            self.save()
            say(
                f"{position}/{len(todo)}  round {number}  {key:<14} {n:>6} photos "
                f"{found['seconds']:8.1f} s  {found['peak_bytes'] / 1e6:6,.0f} MB"
            )

    def measure_pca(self, rounds: int) -> None:
        """Fit on the features of the whole data set, or on as many random vectors."""
        target, features = self.work / "pca.json", self.reference(N_RANDOM)
        command = [sys.executable, str(ROOT / "benchmarks" / "pca.py"), "--rounds", str(rounds)]
        command += ["--json", str(target), *([str(features)] if features.exists() else [])]
        run_measured(command, dict(os.environ), self.work / "pca.log")
        self.results["pca"] = json.loads(target.read_text())
        self.save()

    def save(self) -> None:
        part = self.out / "results.json.part"
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.out / "results.json")


def make_plan(keys: list[str], sizes: dict[int, int], flat: dict[int, int]) -> list[Step]:
    """Return all runs, {photos: rounds} of all ways and of Verger alone.

    All sizes come in every round, so that two sizes of one round have met the same machine, and
    another way begins in each.
    """
    plan = []
    for number in range(max(*sizes.values(), *flat.values(), 0, 0)):
        start = number % len(keys)
        for n in sorted({*sizes, *flat}):
            for key in keys[start:] + keys[:start]:
                rounds = max(sizes.get(n, 0), flat.get(n, 0) if key == "verger" else 0)
                if number < rounds:
                    plan.append((key, n, number))
    return plan


def say(text: str) -> None:
    print(text, flush=True)


# What it was measured with


def export_model(weights: Path | None, work: Path) -> Model:
    """Write the ONNX graph that all ways run, and the numbers that belong to it."""
    try:
        model = verger.load_model("mobilenet_v2", weights=weights)
    except WeightsNotFoundError:
        if weights is not None:
            raise
        model = verger.load_model("efficientnet_lite0")
    onnx, contract = work / "model.onnx", model.contract
    onnx.write_bytes(model.onnx)
    card = {"size": contract.input_size, "mean": contract.mean, "std": contract.std}
    onnx.with_suffix(".json").write_text(json.dumps(card))
    return Model(contract.model, onnx, Path(model.weights_path), contract.weights_sha256)


def describe(model: Model, photos: Path | None, keys: list[str], cores: int) -> dict[str, Any]:
    """Return what has to be the same for runs to be compared."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return {
        "machine": {
            "cpu": cpu,
            "cores": cores,
            "memory_bytes": psutil.virtual_memory().total,
            "system": system,
        },
        "model": {"name": model.name, "sha256": model.sha256},
        "photos": "rendered" if photos is None else "real",
        "versions": {WAYS[key].venv: versions_of(WAYS[key]) for key in keys},
    }


_VERSIONS = """
import json, platform
from importlib.metadata import distributions
names = ("verger", "pyspark", "onnxruntime", "tensorflow_cpu", "keras", "ray", "daft",
         "scikit-learn", "numpy", "pandas", "pyarrow", "pillow")
found = {d.name.lower(): d.version for d in distributions()}
versions = {name: found[name] for name in names if name in found}
print(json.dumps({"python": platform.python_version()} | versions))
"""


def versions_of(way: Way) -> dict[str, str]:
    python = python_of(way)
    if not python.exists():
        sys.exit(f"{python}: missing; benchmarks/peers/setup.sh PYTHON makes it")
    told = subprocess.run(
        [python, "-c", _VERSIONS], env=environment_of(way), stdout=subprocess.PIPE, check=True
    )
    versions: dict[str, str] = json.loads(told.stdout)
    return versions


def open_results(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return the results so far, if they were measured with the same things."""
    if not path.exists():
        return {**described, "flat": [], "commands": [], "runs": [], "pca": None}
    results: dict[str, Any] = json.loads(path.read_text())
    known, versions = results["versions"], described["versions"]
    results["versions"] = {**versions, **known}
    if any(results[name] != described[name] for name in ("machine", "model", "photos")) or any(
        known.get(venv, found) != found for venv, found in versions.items()
    ):
        sys.exit(f"{path}: measured on another machine or with other versions; --anew forgets it")
    return results


# Command line


def sizes_of(texts: list[str], rounds: int) -> dict[int, int]:
    """Return {photos: rounds} of ``3000`` and ``20622:1``."""
    pairs = (text.partition(":") for text in texts)
    return {int(n): int(own) if own else rounds for n, _, own in pairs}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = "photos, as N or N:ROUNDS"
    parser.add_argument("--sizes", nargs="*", default=["300", "3000", "20622"], help=sizes)
    parser.add_argument("--flat", nargs="*", default=[], help=f"for Verger alone: {sizes}")
    parser.add_argument("--rounds", type=int, default=3, help="where a size has none of its own")
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS), help="ways")
    parser.add_argument("--photos", type=Path, help="folder of class folders, or a tar of one")
    parser.add_argument("--weights", type=Path, help="of MobileNetV2, as Keras publishes them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--pca-rounds", type=int, default=5, help="0 leaves the PCA as it is")
    parser.add_argument("--anew", action="store_true", help="forget what was measured before")
    return parser.parse_args()


def command_line() -> str:
    """Return the command that was given, with folders of one's own left out."""
    words = iter(sys.argv[1:])
    shown = [f"{word} {Path(next(words)).name}" if word in PATHS else word for word in words]
    return " ".join(["python benchmarks/bench.py", *shown])


def main() -> None:
    arguments = parse()
    out, work, cores = arguments.out, arguments.work, len(os.sched_getaffinity(0))
    if arguments.anew:
        (out / "results.json").unlink(missing_ok=True)
        for folder in work.glob("features-*"):
            shutil.rmtree(folder)
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    model, keys = export_model(arguments.weights, work), arguments.only
    if model.name != "mobilenet_v2" and "notebook" in keys:
        say(f"MobileNetV2's weights are not here: {model.name} is used, and the notebook left out")
        keys = [key for key in keys if key != "notebook"]
    results = open_results(out / "results.json", describe(model, arguments.photos, keys, cores))
    bench = Bench(out, work, arguments.photos, model, cores, results)
    sizes, flat = (sizes_of(text, arguments.rounds) for text in (arguments.sizes, arguments.flat))
    results["flat"] = sorted(flat) or results["flat"]
    results["commands"].append(command_line())
    bench.measure(make_plan(keys, sizes, flat))
    if arguments.pca_rounds:
        bench.measure_pca(arguments.pca_rounds)
    write_report(results, out)
    say(f"{out / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
