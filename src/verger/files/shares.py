"""Which task does which photos: written down by the driver, read by the tasks.

A listing that went through Spark would be decoded, optimised, broadcast and hashed by the JVM,
which takes memory and seconds for every photo, and then goes to every executor whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from verger.files.folder import Folder
from verger.files.tables import encode, read_part

#: Tasks whose photos are in one file, some 10,000: a worker reads it once for many of its tasks.
TASKS_PER_FILE = 64


@dataclass(frozen=True)
class Shares:
    """The photos of every task.

    Attributes
    ----------
    folder : Folder
    path : str
        Below the folder, where the files lie.
    n_tasks : int
    """

    folder: Folder
    path: str
    n_tasks: int

    @classmethod
    def write(cls, folder: Folder, path: str, photos: pa.Table, n_tasks: int) -> Shares:
        """Write down the shares of all tasks.

        Parameters
        ----------
        folder : Folder
        path : str
        photos : pyarrow.Table
            Any columns, and ``partition``: the number of the task, below ``n_tasks``.
        n_tasks : int

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        task = photos["partition"].to_numpy()
        order = np.argsort(task, kind="stable")
        firsts = np.arange(0, n_tasks, TASKS_PER_FILE)
        bounds = np.append(np.searchsorted(task[order], firsts), len(order))
        shares = cls(folder, path, n_tasks)
        for first, start, end in zip(firsts.tolist(), bounds, bounds[1:], strict=False):
            content = encode(photos.take(order[start:end]), photos.schema)
            folder.write(shares._file_of(first), content)
        return shares

    def read(self, task: int) -> pa.Table:
        """Return the photos of one task, without ``partition``, in the order of the listing.

        Raises
        ------
        SchemaError
            If its file is not there or cannot be read.
        """
        photos, tasks = _read(self.folder, self._file_of(task))
        start, end = np.searchsorted(tasks, [task, task + 1]).tolist()
        return photos.slice(start, end - start)

    def batches(self, task: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Return the photos of one task as Arrow batches of a few rows."""
        return iter(self.read(task).to_batches(max_chunksize=rows))

    def _file_of(self, task: int) -> str:
        return f"{self.path}/{task // TASKS_PER_FILE:06}.parquet"


@lru_cache(maxsize=1)
def _read(folder: Folder, name: str) -> tuple[pa.Table, np.ndarray]:
    table = read_part(folder, name).combine_chunks()
    return table.drop_columns(["partition"]), table["partition"].to_numpy()
