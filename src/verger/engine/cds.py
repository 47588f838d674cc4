"""An archive of Spark's classes, with which the JVM of a local session starts in half the time.

A starting Spark loads thousands of classes out of hundreds of jars, and Java checks each of them.
HotSpot can write what it has loaded and checked to a file once, and map that file into memory
ever after (class-data sharing: JEP 310 and JEP 350). The archive lies in Verger's cache, named
after the Java and the Spark that it belongs to. It is written by a process of its own
(:mod:`verger.engine.warmup`) once a local run has ended. A Java that finds an archive damaged, or
made by another Java or from other jars, leaves it aside and starts as ever.

``VERGER_CLASS_ARCHIVE=off`` neither makes nor uses it.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from verger.config import verger_home
from verger.engine.java import Java

SWITCH = "VERGER_CLASS_ARCHIVE"

#: Raised by one when :mod:`verger.engine.warmup` loads other classes.
_TRAINING = 2
#: How long a training that has left no archive keeps others from trying, in seconds.
_TRY_AGAIN_S = 86_400
# What HotSpot has to say of an archive goes to its standard output by default, thousands of lines.
_SILENT = "-Xlog:disable -Xlog:all=error:stderr"


def archive_options(java: Java) -> str:
    """Return the options that let a JVM use the archive of its classes; none where there is none.

    Parameters
    ----------
    java : Java
        The one that is started.
    """
    archive = archive_path(java)
    if _is_off() or not _is_whole(archive):
        return ""
    base = _base_path(java, archive)
    both = f"{base}{os.pathsep}{archive}" if base.is_file() else str(archive)
    return f'"-XX:SharedArchiveFile={both}" {_SILENT}'


def drop_archive(java: Java) -> None:
    """Have a Java that did not start with its archive start without it, for a day at least."""
    archive_path(java).unlink(missing_ok=True)


def _is_whole(archive: Path) -> bool:
    """Whether the archive has the size that was noted: Java crashes where its end is missing."""
    try:
        return archive.stat().st_size == int(_note_path(archive).read_text())
    except (OSError, ValueError):
        return False


def archive_path(java: Java) -> Path:
    """Return where the archive of this Java and of the installed Spark is, or would be."""
    jars = spark_home() / "jars"
    core = next(iter(sorted(jars.glob("spark-core_*.jar"))), jars)
    # A jar that is installed anew has another time, and no archive of the old one is good for it.
    made_of = (java.home, java.full_version, core, core.stat().st_mtime_ns, _TRAINING)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    spark = importlib.metadata.version("pyspark")
    return verger_home() / "java" / f"spark-{spark}-java-{java.full_version}-{digest}.jsa"


def spark_home() -> Path:
    """Return the folder whose jars Spark is started from, as pyspark finds it."""
    if home := os.environ.get("SPARK_HOME"):
        return Path(home)
    return Path(str(importlib.metadata.distribution("pyspark").locate_file("pyspark")))


def _base_path(java: Java, archive: Path) -> Path:
    """Return where the archive of Java's own classes is, for a Java that comes without one."""
    return archive.with_name(f"java-{java.full_version}-{archive.stem[-12:]}.jsa")


def _note_path(archive: Path) -> Path:
    """Return the file that says that somebody makes the archive, and then how large it is."""
    return archive.with_suffix(".size")


def _is_off() -> bool:
    return os.environ.get(SWITCH, "").lower() in ("off", "0", "no")


def train_at_exit(java: Java) -> None:
    """Have the archive made when this process has ended, where there is none yet.

    Nothing waits for it: it takes half a minute at the lowest priority.
    """
    if not _is_off() and not _is_whole(archive_path(java)):
        atexit.unregister(_start_training)  # of a session before this one
        atexit.register(_start_training)


def _start_training() -> None:
    with suppress(OSError):
        subprocess.Popen(
            [sys.executable, "-m", "verger.engine.warmup"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def make_archive(java: Java, use_spark: Callable[[str], None]) -> Path | None:
    """Keep what a JVM has loaded while it did what a run has it do.

    Parameters
    ----------
    java : Java
    use_spark : callable
        Starts Spark with the options of Java that it is given, uses it, and waits for its end.

    Returns
    -------
    Path or None
        The archive; None where another process makes it, or has tried within a day and failed.

    Raises
    ------
    OSError
        If the cache cannot be written, or this Java makes no archive.
    """
    archive = archive_path(java)
    if _is_whole(archive):
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not _begin(_note_path(archive)):
        return None
    part = archive.with_suffix(f".{os.getpid()}.part")
    try:
        base = _make_base(java, archive)
        based = f'"-XX:SharedArchiveFile={base}" ' if base else ""
        use_spark(f'{based}"-XX:ArchiveClassesAtExit={part}" {_SILENT}')
        if not part.is_file():
            raise OSError(f"Java {java.full_version} has written no archive of its classes")
        size = part.stat().st_size
        part.replace(archive)
        _note_path(archive).write_text(str(size))
    finally:
        part.unlink(missing_ok=True)
    return archive


def _begin(note: Path) -> bool:
    """Whether nobody else makes the archive now or has tried in vain; from now on, we do."""
    with suppress(OSError):
        if time.time() - note.stat().st_mtime > _TRY_AGAIN_S:
            note.unlink()
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _make_base(java: Java, archive: Path) -> Path | None:
    """Make the archive of Java's own classes, on which Spark's is laid, where there is none."""
    if any(java.home.glob("lib/**/classes.jsa")) or any(java.home.glob("jre/lib/**/classes.jsa")):
        return None
    base = _base_path(java, archive)
    if not base.is_file():
        part = base.with_suffix(f".{os.getpid()}.part")
        command = [str(java.home / "bin" / "java"), "-Xshare:dump", f"-XX:SharedArchiveFile={part}"]
        done = subprocess.run(command, check=False, capture_output=True, timeout=300)
        if done.returncode or not part.is_file():
            part.unlink(missing_ok=True)
            return None
        part.replace(base)
    return base
