"""The limit: a bare session per core and nothing around it.

The clock runs from the moment when all processes are ready to the end of the last. They take
photos from one counter, so that none is idle at the end. With ``--decoded`` the pixels
lie in memory before; without, reading and decoding count. Nothing is written before it stops.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from job import MICRO_BATCH, Featurizer, Job, run, to_table


def work(
    job: Job, paths: list[str], following: Synchronized[int], ready: Any, pixels: Any, features: Any
) -> None:
    featurizer = Featurizer(job.model)
    shape = (featurizer.size, featurizer.size, 3)
    decoded = np.frombuffer(pixels, np.uint8).reshape(-1, *shape) if job.decoded else None
    result = np.frombuffer(features, np.float32).reshape(len(paths), -1)
    featurizer.infer(np.zeros((MICRO_BATCH, *shape), np.uint8))  # allocates
    ready.wait()
    while True:
        with following.get_lock():
            start = following.value
            following.value += MICRO_BATCH
        if start >= len(paths):
            return
        rows = slice(start, start + MICRO_BATCH)
        if decoded is not None:
            result[rows] = featurizer.infer(decoded[rows])
        else:
            result[rows] = featurizer([Path(path).read_bytes() for path in paths[rows]])


def decode_all(featurizer: Featurizer, paths: list[str], pixels: Any) -> None:
    shape = (len(paths), featurizer.size, featurizer.size, 3)
    decoded = np.frombuffer(pixels, np.uint8).reshape(shape)
    for row, path in zip(decoded, paths, strict=True):
        row[:] = featurizer.decode(Path(path).read_bytes())


def main(job: Job) -> float:
    paths = job.paths()
    featurizer = Featurizer(job.model)
    n_features = featurizer.infer(np.zeros((1, featurizer.size, featurizer.size, 3))).shape[1]
    spawn = multiprocessing.get_context("spawn")
    pixels = spawn.RawArray("B", len(paths) * featurizer.size**2 * 3 if job.decoded else 1)
    features = spawn.RawArray("f", len(paths) * n_features)
    if job.decoded:
        decode_all(featurizer, paths, pixels)
    ready, following = spawn.Barrier(job.cores + 1), spawn.Value("q", 0)
    arguments = (job, paths, following, ready, pixels, features)
    workers = [spawn.Process(target=work, args=arguments) for _ in range(job.cores)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process of the limit has failed")
    job.features.mkdir()
    table = to_table(paths, np.frombuffer(features, np.float32).reshape(len(paths), -1))
    pq.write_table(table, job.features / "part-0.parquet")
    return seconds


if __name__ == "__main__":
    run(main)
