"""Daft's native runner with a class UDF around onnxruntime.

Tuned: one instance a core, each in a process of its own, for threads would share Python's lock
while they decode; chunks as for all peers; Daft fetches the photos by itself, many at once.
"""

from __future__ import annotations

import os

os.environ |= {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}

import daft
import pyarrow as pa
from daft import DataType, Series, col
from daft.functions import download, regexp_extract

from job import CHUNK, Featurizer, Job, run, to_lists


class Model:
    def __init__(self, model: str) -> None:
        self.featurize = Featurizer(model)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=CHUNK)
    def features(self, contents: Series) -> pa.Array:
        return to_lists(self.featurize(contents.to_pylist()))


def main(job: Job) -> None:
    daft.set_runner_native()
    model = daft.cls(Model, use_process=True, max_concurrency=job.cores)(str(job.model))
    photos = daft.from_glob_path(f"{job.photos}/*/*.jpg")
    photos.select(
        "path",
        regexp_extract(col("path"), "([^/]+)/[^/]+$", 1).alias("label"),
        model.features(download(col("path"))).alias("features"),
    ).write_parquet(str(job.features))


if __name__ == "__main__":
    run(main)
