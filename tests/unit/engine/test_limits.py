"""How many workers there are, and how much memory Java gets, where a container has less."""

from __future__ import annotations

from pathlib import Path

import pytest

from verger.engine.limits import default_workers, java_heap_mib, memory_bytes, usable_cores
from verger.engine.session import forgiving_master

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return where control groups are mounted, on a machine of 64 cores and 256 GiB."""
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * GIB // 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr("verger.engine.limits.CGROUPS", tmp_path)
    monkeypatch.setattr("verger.engine.limits.OWN_GROUPS", tmp_path / "self")
    return tmp_path


def put(machine: Path, groups: str, **files: str) -> None:
    (machine / "self").write_text(groups)
    for name, text in files.items():
        file = machine / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", {"memory.max": "2147483648\n", "cpu.max": "200000 100000\n"}),
        # A job of a batch system or of systemd: the limit is that of a group above.
        (
            "0::/system.slice/job.scope\n",
            {
                "system.slice/job.scope/memory.max": "max\n",
                "system.slice/job.scope/cpu.max": "max 100000\n",
                "system.slice/memory.max": "2147483648\n",
                "system.slice/cpu.max": "200000 100000\n",
            },
        ),
        (
            "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/jobs/7\n",
            {
                "memory/jobs/7/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/jobs/memory.limit_in_bytes": "2147483648\n",
                "cpu,cpuacct/jobs/7/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/jobs/7/cpu.cfs_period_us": "100000\n",
            },
        ),
        # Docker with version 1: the path is the machine's, the mount the container's.
        (
            "4:memory:/docker/0a1b\n1:cpu:/docker/0a1b\n0::/docker/0a1b\n",
            {
                "memory/memory.limit_in_bytes": "2147483648\n",
                "cpu/cpu.cfs_quota_us": "200000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
    ids=["2, a container", "2, a group above", "1, a group above", "1, a container"],
)
def test_a_containers_limits_bound_workers_and_java(
    machine: Path, groups: str, files: dict[str, str]
) -> None:
    """A container of two GiB and two cores on a large machine starts two workers, Spark's one."""
    put(machine, groups, **files)
    assert (memory_bytes(), usable_cores()) == (2 * GIB, 2)
    assert default_workers() == 2
    assert java_heap_mib() == 512
    assert forgiving_master("local[*]") == "local[1,4]"
    assert forgiving_master("local[3]") == "local[3,4]"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("", 64), ("-1 100000", 64)],
)
def test_a_quota_bounds_the_workers(machine: Path, quota: str, cores: int) -> None:
    """A part of a core counts as the nearest whole number, and no quota as all cores."""
    put(machine, "0::/", **{"cpu.max": quota})
    assert usable_cores() == cores


def test_little_memory_bounds_the_workers_of_many_cores(machine: Path) -> None:
    """Workers that do not fit into memory would be killed, and their tasks with them."""
    assert (default_workers(), java_heap_mib()) == (64, 4096)
    put(machine, "0::/", **{"memory.max": str(6 * GIB)})
    assert default_workers() == 8
    assert java_heap_mib() == 1536
    put(machine, "0::/", **{"memory.max": str(GIB // 2)})
    assert (default_workers(), java_heap_mib()) == (1, 512)


def test_a_machine_without_control_groups_tells_its_own() -> None:
    """Without /proc, as on macOS, the machine's own memory and cores count."""
    assert (memory_bytes(), usable_cores()) == (256 * GIB, 64)
