"""Ray Data with a pool of onnxruntime actors.

Tuned: one actor a core, each with one thread and one of Ray's CPUs; as many CPUs more are
announced, so that the tasks that read and write never wait for an actor to end; Arrow batches.
"""

from __future__ import annotations

import os

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}

import logging

import pyarrow as pa
import ray

from job import CHUNK, Featurizer, Job, run, to_table


class Model:
    def __init__(self, model: str) -> None:
        self.featurize = Featurizer(model)

    def __call__(self, batch: pa.Table) -> pa.Table:
        features = self.featurize(batch["bytes"].to_pylist())
        return to_table(batch["path"].to_pylist(), features)


def main(job: Job) -> None:
    ray.init(
        num_cpus=2 * job.cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.read_binary_files(str(job.photos), include_paths=True).map_batches(
        Model,
        fn_constructor_args=(str(job.model),),
        compute=ray.data.ActorPoolStrategy(size=job.cores),
        batch_size=CHUNK,
        batch_format="pyarrow",
        num_cpus=1,
    ).write_parquet(str(job.features))
    ray.shutdown()


if __name__ == "__main__":
    run(main)
