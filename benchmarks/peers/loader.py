"""A plain pool of processes: each worker reads, decodes and infers; the parent writes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from job import CHUNK, Featurizer, Job, run, to_table

_featurizer: Featurizer


def start(model: Path) -> None:
    global _featurizer
    _featurizer = Featurizer(model)


def featurize(paths: list[str]) -> tuple[list[str], np.ndarray]:
    return paths, _featurizer([Path(path).read_bytes() for path in paths])


def chunks(paths: list[str]) -> Iterator[list[str]]:
    yield from (paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK))


def main(job: Job) -> None:
    job.features.mkdir()
    writer = None
    with multiprocessing.Pool(job.cores, start, (job.model,)) as pool:
        for paths, features in pool.imap_unordered(featurize, chunks(job.paths())):
            table = to_table(paths, features)
            writer = writer or pq.ParquetWriter(job.features / "part-0.parquet", table.schema)
            writer.write_table(table)
    if writer:
        writer.close()


if __name__ == "__main__":
    run(main)
