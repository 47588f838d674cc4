"""What this process may use: the cores and the memory of the machine, or of its container.

A container sees the processors and the memory of the whole machine. What it may use of them is
written in the files of its control groups, of version 1 or 2; each group is bound by those above.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Where the control groups are mounted, and the list of those that this process is in.
CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

#: What a worker takes: 200 to 300 MB with small photos, some 620 MB with 24 megapixels.
WORKER_BYTES = 640 * 2**20
#: What the driver takes besides: Python, the listing, the PCA.
DRIVER_BYTES = 512 * 2**20

#: Least and most heap of the JVM of a local session; Spark does not start with less than 450 MiB.
_JAVA_MIB = 512, 4096


def memory_bytes() -> int:
    """Return the memory that this process may use, or 4 GiB where the machine does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        total = 4 * 2**30
    limits = [_numbers(folder / "memory.max") for folder in _groups("")]
    limits += [_numbers(folder / "memory.limit_in_bytes") for folder in _groups("memory")]
    return min([total, *(limit[0] for limit in limits if limit and limit[0] > 0)])


def usable_cores() -> int:
    """Return how many cores this process may use: by its affinity, and by its container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    quotas = [_numbers(folder / "cpu.max") for folder in _groups("")]
    for folder in _groups("cpu"):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quotas.append([number for name in names for number in _numbers(folder / name)])
    shares = [quota[0] / quota[1] for quota in quotas if len(quota) == 2 and min(quota) > 0]
    return max(1, min([cores, *map(round, shares)]))


def default_workers(reserved_bytes: int = 0) -> int:
    """Return how many workers to start: one a core, and no more than the memory holds.

    Parameters
    ----------
    reserved_bytes : int
        Memory that something else takes, besides the driver.
    """
    free = memory_bytes() - DRIVER_BYTES - reserved_bytes
    return max(1, min(usable_cores(), free // WORKER_BYTES))


def java_heap_mib() -> int:
    """Return the heap of the JVM of a local session: a quarter of the memory, from 0.5 to 4 GiB.

    The JVM holds listings and what Spark caches; photos and the model are in the Python workers.
    """
    low, high = _JAVA_MIB
    return min(max(memory_bytes() // 4 // 2**20, low), high)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups: of a controller of version 1, or "" for 2.

    Without a namespace of its own a container reads the machine's path of its group, which is not
    below its mount: the mount itself is then the group.
    """
    try:
        lines = OWN_GROUPS.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        for mount in (CGROUPS / (controllers or "unified"), CGROUPS / controller):
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if mount in folder.parents)
            yield mount


def _numbers(file: Path) -> list[int]:
    """Read the whole numbers of a file; none if there is no file or no limit ("max")."""
    try:
        return [int(word) for word in file.read_text("ascii").split()]
    except (OSError, ValueError):
        return []
