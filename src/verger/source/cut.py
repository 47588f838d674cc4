"""Cut a listing into the partitions that tasks work on."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.files.packed import row_of

_PHOTOS_PER_PARTITION = (32, 256)


def count_partitions(n_photos: int, parallelism: int) -> int:
    """Return how many tasks to cut the photos into.

    Enough that the cores end together and progress is seen, few enough that a task is worth
    its start: 16 a core, of 32 to 256 photos.
    """
    low, high = _PHOTOS_PER_PARTITION
    per_partition = min(max(n_photos // (16 * parallelism), low), high)
    n = -(-n_photos // per_partition)
    return max(1, min(n_photos, -(-n // parallelism) * parallelism))


def cut_partitions(lengths: npt.NDArray[np.int64], n_partitions: int) -> npt.NDArray[np.int64]:
    """Deal photos to partitions, so that each has the same number and about the same bytes.

    From the largest photo to the smallest, each goes to the partition with the fewest bytes that
    has not its full number yet: beside a huge photo come small ones. Counts differ by one photo
    at most, bytes by the largest photo, and mostly by far less.

    Parameters
    ----------
    lengths : ndarray of shape (n_photos,), int64
        Sizes in bytes.

    Returns
    -------
    ndarray of shape (n_photos,), int64
        Partition of each photo, from 0.
    """
    n_each, n_with_one_more = divmod(len(lengths), n_partitions)
    partition = np.zeros(len(lengths), np.int64)
    counts, sizes = [0] * n_partitions, lengths.tolist()
    lightest = [(0, number) for number in range(n_partitions)]  # a heap: (bytes, partition)
    for photo in np.argsort(-lengths, kind="stable").tolist():
        n_bytes, number = heapq.heappop(lightest)
        while counts[number] == n_each and not n_with_one_more:
            n_bytes, number = heapq.heappop(lightest)
        n_with_one_more -= counts[number] == n_each
        counts[number] += 1
        partition[photo] = number
        if counts[number] <= n_each:
            heapq.heappush(lightest, (n_bytes + sizes[photo], number))
    return partition


def cut_listing(
    photos: pa.Table, parallelism: int, n_partitions: int | None = None
) -> tuple[pa.Table, int]:
    """Cut a listing into partitions.

    Parameters
    ----------
    photos : pyarrow.Table
        As in :class:`Listing`.
    parallelism : int
        Tasks that run at once.
    n_partitions : int, optional
        By default by count and bytes.

    Returns
    -------
    photos : pyarrow.Table
        With a column ``partition``.
    n_partitions : int
    """
    n = n_partitions or count_partitions(len(photos), parallelism)
    if len(photos) and row_of(photos["path"][0].as_py()):
        # Rows of a file are read one after the other: a task has those that follow one another.
        numbers = np.arange(len(photos), dtype=np.int64) * n // len(photos)
        return photos.append_column("partition", pa.array(numbers)), n
    lengths = photos["length"].to_numpy()
    return photos.append_column("partition", pa.array(cut_partitions(lengths, n))), n
