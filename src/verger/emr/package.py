"""Make and read packages: all that a run on EMR needs, below one address in a bucket.

::

    s3://bucket/env/name/
      environment-1f2e3d4c5b6a.tar.gz   an interpreter with Verger and what it needs, no pyspark
      main.py  probe.py                 what spark-submit starts: the command line; what doctor asks
      weights/file                      of a model whose weights no package carries; of a model of
                                        one's own FILE.onnx, its card, its data
      package.json                      which of these files belong together; written last

Archives are named by their content: a run that has begun keeps the one that it was started with.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from verger.emr.aws import Cloud, aws_errors, read_object, split_address
from verger.emr.elf import MAGIC, Binary, read_binary
from verger.emr.jobs import ARCHITECTURES, pythons_of
from verger.emr.system import GLIBC, LIBRARIES
from verger.engine.environment import cached_environment
from verger.errors import (
    CloudError,
    ConfigError,
    EnvironmentNotReadyError,
    OutputError,
    OutputExistsError,
)
from verger.features.model.checksum import sha256_of
from verger.features.model.load import model_files

MANIFEST = "package.json"
#: What spark-submit starts, whole: the command line that people type, and what doctor asks.
ENTRIES = {
    "main.py": "from verger.cli import main\n\nmain()\n",
    "probe.py": "from verger.emr.probe import main\n\nmain()\n",
}

#: Modules of the standard library that neither Verger nor its packages import: one that does not
#: load there is not missed.
_UNUSED = re.compile(
    r"/lib-dynload/(_tkinter|_curses|_curses_panel|readline|_dbm|_gdbm|_crypt|nis|ossaudiodev)\."
)
_PLATFORMS = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}
_NAMES = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}


@dataclass(frozen=True)
class Environment:
    """What an archive of an environment holds.

    Attributes
    ----------
    python : str
        Such as ``3.11``.
    architectures : tuple of str
        Of its binaries.
    glibc : tuple of int
        Newest symbol version of the C library that one of them asks for.
    lacking : dict of str to str
        Libraries that neither the archive nor the workers' system has, and a binary that needs it.
    packages : tuple of str
        Top-level folders of those beside the standard library.
    size_bytes, unpacked_bytes : int
    """

    python: str
    architectures: tuple[str, ...]
    glibc: tuple[int, int]
    lacking: Mapping[str, str]
    packages: tuple[str, ...]
    size_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True)
class Package:
    """What ``package.json`` says.

    Attributes
    ----------
    root : str
        Address, ``s3://bucket/env/name``.
    release, architecture, python, verger : str
    model : str
        Whose weights it has.
    archive : str
        Name of the environment's archive.
    weights : str or None
        Name of the file of weights; None where the environment carries them.
    files : dict of str to dict
        Name to ``bytes`` and ``sha256``.
    unpacked_bytes : int
        Of the environment.
    """

    root: str
    release: str
    architecture: str
    python: str
    verger: str
    model: str
    archive: str
    weights: str | None
    files: Mapping[str, Mapping[str, Any]]
    unpacked_bytes: int

    @property
    def n_bytes(self) -> int:
        """Sum of its files."""
        return sum(file["bytes"] for file in self.files.values())


# Made here


def build_here(release: str, architecture: str) -> Path:
    """Return the archive of this machine's environment; make it if it is missing.

    Libraries of this system that Amazon Linux lacks go along, as ``libbz2.so.1.0`` of Debian.

    Raises
    ------
    EnvironmentNotReadyError
        If this machine is no Linux on that processor: its binaries would not run there.
    """
    pythons_of(release)
    here = _NAMES.get(platform.machine().lower())
    if platform.system() != "Linux" or here != architecture:
        raise EnvironmentNotReadyError(
            f"architecture={architecture}: this machine is {platform.system()} on "
            f"{platform.machine()}, and an environment for the workers is made on their like; "
            "--dockerfile FILE writes what makes it anywhere"
        )
    archive = cached_environment(for_driver=True)
    lacking = sorted(inspect_environment(archive).lacking)
    return cached_environment(for_driver=True, libraries=lacking) if lacking else archive


def inspect_environment(archive: Path) -> Environment:
    """Read what an archive holds; nothing is unpacked to a disk.

    Raises
    ------
    ConfigError
        If it is no environment.
    """
    names: list[str] = []
    binaries: dict[str, Binary] = {}
    unpacked = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                names.append(name)
                unpacked += member.size
                file = tar.extractfile(member) if member.isfile() else None
                if file and (start := file.read(len(MAGIC))) == MAGIC:
                    binaries[name] = read_binary(start + file.read())
    except (OSError, EOFError, tarfile.TarError) as err:
        raise ConfigError(f"environment {archive}: cannot be read: {err}") from err
    pythons = _matches(r"lib(?:64)?/python(\d+\.\d+)/", names)
    has_python = "bin/python" in names
    if not has_python or len(pythons) != 1:
        raise ConfigError(
            f"environment {archive}: is no environment: has "
            f"{'Python ' + ', '.join(pythons) if has_python else 'no bin/python'}"
        )
    return Environment(
        pythons[0],
        tuple(sorted({binary.machine for binary in binaries.values()})),
        max((binary.glibc for binary in binaries.values()), default=(2, 0)),
        _lacking(binaries),
        tuple(_matches(r"(?:packages|lib.*/site-packages)/([^/]+)/", names)),
        archive.stat().st_size,
        unpacked,
    )


def _matches(pattern: str, names: list[str]) -> list[str]:
    """Return what a pattern captures at the beginning of names, sorted, each once."""
    found = (re.match(pattern, name) for name in names)
    return sorted({match[1] for match in found if match})


def _lacking(binaries: Mapping[str, Binary]) -> dict[str, str]:
    """Return the libraries that neither the binaries themselves nor the workers' system are."""
    there = LIBRARIES | {binary.soname for binary in binaries.values()}
    there |= {name.rpartition("/")[2] for name in binaries}
    return {
        library: name
        for name, binary in binaries.items()
        if not _UNUSED.search(name)
        for library in binary.needs
        if library not in there
    }


def check_environment_of(archive: Path, release: str, architecture: str) -> Environment:
    """Refuse an archive that cannot run on the workers.

    Raises
    ------
    ConfigError
        If its Python is none of the release's, its binaries are for other machines, for a newer
        system or need libraries that this one lacks, it lacks Verger, or it has a pyspark, which
        would be another than the workers'.
    """
    packed = inspect_environment(archive)
    pythons = pythons_of(release)
    problem = None
    if packed.python not in pythons:
        problem = f"has Python {packed.python}; {release} takes {' or '.join(pythons)}"
    elif set(packed.architectures) - {architecture}:
        problem = f"has binaries for {', '.join(packed.architectures)}, not {architecture} alone"
    elif packed.glibc > GLIBC:
        newest, there = (".".join(map(str, pair)) for pair in (packed.glibc, GLIBC))
        problem = (
            f"asks for glibc {newest}, and the workers have {there}; --dockerfile FILE writes what "
            "makes one on their system"
        )
    elif packed.lacking:
        what = ", ".join(f"{library} (for {name})" for library, name in packed.lacking.items())
        problem = (
            f"needs {what}, which the workers' Amazon Linux 2023 does not have; --dockerfile FILE "
            "writes what makes one on their system"
        )
    elif "verger" not in packed.packages:
        problem = "has no verger"
    elif "pyspark" in packed.packages:
        problem = "has a pyspark; the workers have their own"
    if problem:
        raise ConfigError(f"environment {archive}: {problem}")
    return packed


def dockerfile(release: str, architecture: str, file: str = "Dockerfile") -> str:
    """Return a Dockerfile that makes the archive, or an image, on the workers' own system.

    Raises
    ------
    ConfigError
    """
    check_architecture(architecture)
    text = (resources.files("verger.emr") / "dockerfile.in").read_text("utf-8")
    values = {
        "release": release,
        "architecture": architecture,
        "file": file,
        "platform": _PLATFORMS[architecture],
        "python": pythons_of(release)[0],
    }
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def write_dockerfile(path: Path, release: str, architecture: str) -> None:
    """Write :func:`dockerfile` into a file that is not there yet, or holds one already.

    Raises
    ------
    OutputExistsError
        If it holds anything else.
    OutputError
        If it cannot be written.
    """
    text = dockerfile(release, architecture, str(path))
    first = text.partition(" release")[0]  # of any release
    try:
        if path.exists() and not path.read_text("utf-8", "replace").startswith(first):
            raise OutputExistsError(f"{path}: is there, and none of Verger's; choose another")
        path.write_text(text, "utf-8")
    except OSError as err:
        if isinstance(err, OutputExistsError):
            raise
        raise OutputError(f"{path}: cannot be written: {err.strerror}") from err


def check_architecture(architecture: str) -> None:
    """Refuse a processor that EMR Serverless does not have."""
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"architecture={architecture!r} must be one of {', '.join(ARCHITECTURES)}"
        )


# In the bucket


def upload_package(
    cloud: Cloud,
    archive: Path,
    root: str,
    *,
    release: str,
    architecture: str,
    model: str,
    weights: Path | None = None,
) -> Package:
    """Upload an environment, the entry points and weights; equal files are not uploaded again.

    Parameters
    ----------
    cloud : Cloud
    archive : Path
        As :func:`check_environment_of` has let it pass.
    root : str
        ``s3://bucket/env/name``.
    release, architecture, model : str
    weights : Path, optional
        A file of the model's weights; by default those that are found on this machine.

    Raises
    ------
    CloudError, WeightsError, ConfigError
    """
    environment = check_environment_of(archive, release, architecture)
    weights, beside = model_files(model, weights)
    bucket, prefix = split_address(root)
    root = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
    name = f"environment-{sha256_of(archive)[:12]}.tar.gz"
    paths = {name: archive} | ({_weights_name(weights): weights} if weights else {})
    paths |= {_weights_name(path): path for path in beside}
    files = _upload_files(cloud, root, paths)
    package = Package(
        root,
        release,
        architecture,
        environment.python,
        version("verger"),
        model,
        name,
        _weights_name(weights) if weights else None,
        files,
        environment.unpacked_bytes,
    )
    _put(cloud, root, MANIFEST, json.dumps(asdict(package), indent=2).encode())
    return package


def _weights_name(weights: Path) -> str:
    return f"weights/{weights.name}"


def _upload_files(cloud: Cloud, root: str, paths: Mapping[str, Path]) -> dict[str, Any]:
    """Upload files by the name that they get there, and the entry points; return what is there."""
    before = read_manifest(cloud, root) or {}
    files = {name: _upload(cloud, root, name, path, before) for name, path in paths.items()}
    return files | {name: _put(cloud, root, name, text.encode()) for name, text in ENTRIES.items()}


def _upload(
    cloud: Cloud, root: str, name: str, path: Path, before: Mapping[str, Any]
) -> dict[str, Any]:
    note = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    if before.get("files", {}).get(name) != note:
        bucket, key = split_address(f"{root}/{name}")
        with aws_errors(f"write {root}/{name}"):
            cloud.s3.upload_file(str(path), bucket, key)
    return note


def _put(cloud: Cloud, root: str, name: str, content: bytes) -> dict[str, Any]:
    bucket, key = split_address(f"{root}/{name}")
    with aws_errors(f"write {root}/{name}"):
        cloud.s3.put_object(Bucket=bucket, Key=key, Body=content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_manifest(cloud: Cloud, root: str) -> dict[str, Any] | None:
    """Read ``package.json``; None if there is none.

    Raises
    ------
    CloudError
        If it is no JSON.
    """
    content = read_object(cloud, f"{root}/{MANIFEST}")
    if content is None:
        return None
    try:
        values: dict[str, Any] = json.loads(content)
    except ValueError as err:
        raise CloudError(f"{root}/{MANIFEST}: is damaged: {err}; verger emr package") from err
    return values


def read_package(cloud: Cloud, root: str) -> Package:
    """Return the package at an address.

    Raises
    ------
    CloudError
        If there is none, or it is of another version of Verger.
    """
    bucket, prefix = split_address(root)
    root = f"s3://{bucket}/{prefix}"
    values = read_manifest(cloud, root)
    if values is None:
        raise CloudError(f"{root}: holds no package; make it with verger emr package {root}")
    try:
        return Package(**values | {"root": root})
    except TypeError as err:
        raise CloudError(
            f"{root}/{MANIFEST}: is not of this version of Verger ({err}); verger emr package"
        ) from err


def list_package(cloud: Cloud, root: str) -> Iterator[str]:
    """Yield the keys of Verger's own files below the address of a package."""
    bucket, prefix = split_address(root)
    own = re.compile(
        rf"environment-[0-9a-f]{{12}}\.tar\.gz|main\.py|probe\.py|{MANIFEST}|weights/[^/]+"
    )
    pages = cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    with aws_errors(f"list {root}"):
        for page in pages:
            for entry in page.get("Contents", ()):
                if own.fullmatch(entry["Key"].removeprefix(f"{prefix}/")):
                    yield entry["Key"]
