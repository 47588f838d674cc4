"""What a package holds, and what would not run on the workers: found before it is uploaded."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.environments import elf, environment
from verger.emr.elf import read_binary
from verger.emr.package import build_here, check_environment_of, dockerfile, inspect_environment
from verger.emr.system import GLIBC
from verger.engine.environment import build_environment
from verger.errors import ConfigError, EnvironmentNotReadyError


def test_an_archive_says_what_it_holds(tmp_path: Path) -> None:
    """Python, packages, processor and the newest system that any of its binaries asks for."""
    archive = environment(tmp_path, binaries=(elf(glibc="2.28"), elf(glibc="2.9")))
    found = inspect_environment(archive)
    assert (found.python, found.packages) == ("3.11", ("numpy", "verger"))
    assert (found.architectures, found.glibc) == (("X86_64",), (2, 28))
    assert found.size_bytes == archive.stat().st_size
    assert found.unpacked_bytes > 3 * len(elf())
    assert check_environment_of(archive, "emr-7.10.0", "X86_64") == found


def test_the_interpreter_of_these_tests_is_read_for_what_it_is(tmp_path: Path) -> None:
    """A real binary: this processor, and a version of glibc that this machine has."""
    archive = environment(tmp_path, binary=Path("/proc/self/exe").read_bytes())
    found = inspect_environment(archive)
    assert found.architectures == ({"x86_64": "X86_64", "aarch64": "ARM64"}[platform.machine()],)
    here = tuple(map(int, platform.libc_ver()[1].split(".")[:2]))
    assert (2, 2) <= found.glibc <= here


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"python": "3.12"}, r"has Python 3\.12; emr-7\.10\.0 takes 3\.11"),
        ({"binary": elf("ARM64")}, r"has binaries for ARM64, not X86_64 alone"),
        ({"binaries": (elf("riscv"),)}, r"binaries for X86_64, another, not X86_64 alone"),
        ({"binary": elf(glibc="2.38")}, r"glibc 2\.38, and the workers have 2\.34; --dock"),
        (
            {"binaries": (elf(needs=("libc.so.6", "libbz2.so.1.0")),)},
            r"needs libbz2\.so\.1\.0 \(for lib/python3\.11/lib-dynload/0\.so\).* --dockerfile",
        ),
        ({"packages": ("numpy",)}, "has no verger"),
        ({"packages": ("verger", "pyspark")}, "has a pyspark; the workers have their own"),
        ({"has_python": False}, r"no environment: has no bin/python"),
    ],
)
def test_what_would_not_run_there_is_refused(
    how: dict[str, object], says: str, tmp_path: Path
) -> None:
    archive = environment(tmp_path, **how)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        check_environment_of(archive, "emr-7.10.0", "X86_64")


def test_the_newest_system_of_the_workers_passes(tmp_path: Path) -> None:
    archive = environment(tmp_path, binary=elf(glibc=".".join(map(str, GLIBC))), python="3.13")
    check_environment_of(archive, "emr-spark-8.0.0", "X86_64")


def test_libraries_of_the_workers_and_of_the_archive_are_there(tmp_path: Path) -> None:
    """By the name of a file or by its own; what only a terminal needs is not missed."""
    carried = elf(soname="libblas.so.3")
    needs = elf(needs=("libc.so.6", "libbz2.so.1", "libssl.so.3", "libblas.so.3", "0.so"))
    archive = environment(tmp_path, binaries=(carried, needs))
    assert check_environment_of(archive, "emr-7.10.0", "X86_64").lacking == {}


@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils is not installed")
def test_binaries_are_read_as_the_system_s_own_tool_reads_them() -> None:
    """Every extension module of this Python, held against readelf of binutils."""
    modules = sorted(Path(sysconfig.get_config_var("DESTSHARED")).glob("*.so"))
    assert len(modules) > 20
    for module in modules:
        found = read_binary(module.read_bytes())
        dump = subprocess.run(["readelf", "-d", module], capture_output=True, text=True).stdout
        assert list(found.needs) == re.findall(r"NEEDED.*\[(.*)\]", dump)
        assert found.soname in ("", *re.findall(r"SONAME.*\[(.*)\]", dump))


@pytest.mark.parametrize("length", [4, 20, 60, 100, 200])
def test_a_binary_that_is_cut_off_needs_nothing(length: int) -> None:
    assert read_binary(elf(needs=("libz.so.1",))[:length]).needs == ()


def test_a_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    file = tmp_path / "environment.tar.gz"
    file.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"environment\.tar\.gz: cannot be read"):
        inspect_environment(file)


def test_libraries_that_the_workers_lack_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's bzip2 has another name than Amazon Linux's; one that is nowhere is named."""
    archive = environment(tmp_path, binaries=(elf(needs=("libbz2.so.1.0", "libz.so.1")),))
    asked = []

    def make(*, for_driver: bool, libraries: Sequence[str] = ()) -> Path:
        asked.append(tuple(libraries))
        return archive

    monkeypatch.setattr("verger.emr.package.cached_environment", make)
    here = {"x86_64": "X86_64", "aarch64": "ARM64"}[platform.machine()]
    assert build_here("emr-7.10.0", here) == archive
    assert asked == [(), ("libbz2.so.1.0",)]
    with pytest.raises(EnvironmentNotReadyError, match=r"libnone\.so\.9 is in none of .*/usr/lib"):
        build_environment(tmp_path / "x.tar.gz", libraries=["libnone.so.9"])


def test_for_another_processor_nothing_is_built_here() -> None:
    other = {"x86_64": "ARM64", "aarch64": "X86_64"}[platform.machine()]
    with pytest.raises(EnvironmentNotReadyError, match=r"this machine is Linux on .*--dockerfile"):
        build_here("emr-7.10.0", other)


def test_a_dockerfile_is_for_its_release_and_processor() -> None:
    """Amazon Linux 2023, the release's Python, the release's image; no name is left open."""
    text = dockerfile("emr-7.10.0", "ARM64", "Dockerfile.arm")
    assert "FROM public.ecr.aws/amazonlinux/amazonlinux:2023 AS build" in text
    assert "public.ecr.aws/emr-serverless/spark/emr-7.10.0:latest" in text
    assert "python3.11 -m venv" in text
    assert text.count("--platform linux/arm64") == 2
    assert "-f Dockerfile.arm" in text
    assert "{" not in text
    assert "linux/amd64" in dockerfile("emr-spark-8.0.0", "X86_64")


def test_a_processor_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="architecture='sparc' must be one of X86_64, ARM64"):
        dockerfile("emr-7.10.0", "sparc")
