"""Disturb Verger's runs for real, and see that the results stay what they are.

    export PYTHONPATH=tests
    python tests/soak/soak.py [--rounds 50] [--seed 0] [--photos 400] [--only KIND] [--keep]

Every round starts a run, lets something befall it (see kinds.py), puts right what was broken and
starts the same command again until it comes through. What must hold then is in rounds.py. Writes
benchmarks/SOAK.md, and exits 1 if a round has failed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import disks
from kinds import KINDS, MOUNTING, Arena
from record import Header, render
from rounds import COMMIT_EVERY, Played, make_reference, play

from support.cluster import run_cluster
from support.store import run_store
from verger.source.render import render_dataset

HERE = Path(__file__).parent
REPORT = HERE.parent.parent / "benchmarks" / "SOAK.md"
PHOTOS_A_CLASS = 20


def main() -> int:
    options = _options()
    can_mount = disks.enter_namespace()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="verger-soak-"))
    started = time.monotonic()
    played: list[Played] = []
    try:
        with _arena(folder, options.photos) as arena:
            reference = make_reference(arena)
            for number, kind in enumerate(schedule(options, can_mount=can_mount), start=1):
                rng = random.Random(f"{options.seed} {number} {kind}")
                played.append(play(arena, reference, number, kind, rng))
                print(played[-1].line(), flush=True)
                if not options.only:
                    minutes = (time.monotonic() - started) / 60
                    REPORT.write_text(render(Header(options, minutes, can_mount), played), "utf-8")
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(one.problems for one in played) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--photos", type=int, default=400, help="to render (default: 400)")
    only = f"play this kind alone, and write no report: {', '.join(KINDS)}"
    parser.add_argument("--only", choices=KINDS, metavar="KIND", help=only)
    parser.add_argument("--keep", action="store_true", help="keep the results and what was said")
    return parser.parse_args()


def schedule(options: argparse.Namespace, *, can_mount: bool) -> Iterator[str]:
    """Choose the kinds: every kind once a lap, in an order that the seed draws anew each lap."""
    names = [options.only] if options.only else [*KINDS]
    names = [name for name in names if can_mount or name not in MOUNTING]
    rng = random.Random(options.seed)
    drawn: list[str] = []
    while len(drawn) < options.rounds:
        drawn += rng.sample(names, k=len(names))
    yield from drawn[: options.rounds]


@contextmanager
def _arena(folder: Path, n_photos: int) -> Iterator[Arena]:
    """Render the photos and start the servers and the cluster."""
    photos = folder / "photos"
    n_all = make_photos(photos, n_photos)
    with ExitStack() as stack:
        store = stack.enter_context(run_store(photos))
        os.environ |= {
            **store.environment,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
        }
        cluster = stack.enter_context(run_cluster(folder / "cluster", os.environ))
        yield Arena(folder, photos, n_all, -(-n_all // COMMIT_EVERY), store, cluster)


def make_photos(folder: Path, n_photos: int) -> int:
    """Render photos, and put some beside them that are none; returns how many there are."""
    n_classes = -(-n_photos // PHOTOS_A_CLASS)
    paths = render_dataset(folder, n_classes=n_classes, per_class=PHOTOS_A_CLASS)
    for path in paths[n_photos:]:
        path.unlink()
    whole = paths[0].read_bytes()
    bad = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"no photo at all\n" * 20,
        "cut off": whole[:100],
    }
    for name, content in bad.items():
        (paths[0].parent / f"{name}.jpg").write_bytes(content)
        (paths[len(paths) // 2].parent / f"{name}.jpg").write_bytes(content)
    return len(paths[:n_photos]) + 2 * len(bad)


if __name__ == "__main__":
    sys.exit(main())
