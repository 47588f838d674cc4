"""What can be known before Spark starts: variables and settings that it would not start with.

Each error names the variable or the setting at fault; what Java would say of it is far from that.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from verger.engine.causes import cause_of
from verger.engine.home import can_be_made
from verger.errors import EnvironmentNotReadyError

#: Longest that a Python may take to import what a worker needs, in seconds.
ASK_SECONDS = 60.0

#: A Python's version, as Spark compares it with the driver's, and what a task imports.
_IMPORTS = (
    "import sys; print('%d.%d' % sys.version_info[:2], flush=True); "
    "import verger.features.task, pandas, pyarrow"
)


def check_start(settings: Mapping[str, str], *, local: bool) -> None:
    """Refuse what Spark cannot be started with.

    Parameters
    ----------
    settings : mapping
        What Spark is to be given, those of ``spark-defaults.conf`` included.
    local : bool
        Whether its workers run on this machine.

    Raises
    ------
    EnvironmentNotReadyError
    """
    check_classic(settings)
    check_spark_home()
    _check_event_log(settings)
    if local:
        _check_local_folders(settings)
        check_python(settings)


def check_classic(settings: Mapping[str, str]) -> None:
    """Refuse Spark Connect: Verger's tasks and models need the session's own JVM.

    Raises
    ------
    EnvironmentNotReadyError
    """
    env = os.environ
    connects = {
        "SPARK_REMOTE": "SPARK_REMOTE" in env,
        "SPARK_CONNECT_MODE_ENABLED": "SPARK_CONNECT_MODE_ENABLED" in env,
        "SPARK_API_MODE": env.get("SPARK_API_MODE", "").lower() == "connect",
        "spark.remote": "spark.remote" in settings,
        "spark.api.mode": settings.get("spark.api.mode", "").lower() == "connect",
    }
    for name, is_set in connects.items():
        if is_set:  # its value may hold a token
            raise EnvironmentNotReadyError(
                f"{name} is set: it asks for Spark Connect, and Verger needs Spark's classic "
                f"sessions; unset {name}, and name the master by --master"
            )


def check_spark_home() -> None:
    """Refuse a ``SPARK_HOME`` that holds no Spark, or one of another version than pyspark.

    Raises
    ------
    EnvironmentNotReadyError
    """
    home = os.environ.get("SPARK_HOME")
    if not home:
        return
    advice = "unset SPARK_HOME, and pyspark's own Spark is used"
    jars = Path(home, "jars").glob("spark-core_*.jar")
    found = sorted(re.sub(r"^spark-core_[\d.]+-", "", jar.stem) for jar in jars)
    if not found or not Path(home, "bin", "spark-submit").is_file():
        raise EnvironmentNotReadyError(
            f"SPARK_HOME={home}: holds no Spark (bin/spark-submit and jars/spark-core_*.jar); "
            f"{advice}"
        )
    from pyspark import __version__ as ours

    if found[-1].split(".")[:2] != ours.split(".")[:2]:
        raise EnvironmentNotReadyError(
            f"SPARK_HOME={home}: holds Spark {found[-1]}, and the installed pyspark is {ours}; "
            f"{advice}, or `pip install pyspark=={found[-1]}`"
        )


def check_python(settings: Mapping[str, str]) -> None:
    """Refuse a Python for the workers of this machine that could not run a task.

    Raises
    ------
    EnvironmentNotReadyError
    """
    name, python = named_python(settings)
    if python in (None, sys.executable):
        return
    advice = f"unset {name}, or install Verger there"
    try:
        done = subprocess.run(
            [str(python), "-c", _IMPORTS],
            env=os.environ | {"PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        why = getattr(err, "strerror", None) or f"gave no answer within {ASK_SECONDS:g} s"
        raise EnvironmentNotReadyError(f"{name}={python}: {why}; {advice}") from err
    ours, theirs = "{}.{}".format(*sys.version_info), done.stdout.strip()
    if theirs not in ("", ours):
        raise EnvironmentNotReadyError(
            f"{name}={python}: is Python {theirs}, and the driver's is {ours}: Spark needs the "
            f"same; unset {name}, or name a Python {ours} that has Verger"
        )
    if done.returncode:
        why = cause_of(done.stderr)
        raise EnvironmentNotReadyError(f"{name}={python}: runs no task of Verger: {why}; {advice}")


def named_python(settings: Mapping[str, str]) -> tuple[str, str | None]:
    """Return what names the Python of the workers, and which; the setting goes first."""
    for name, values in (("spark.pyspark.python", settings), ("PYSPARK_PYTHON", os.environ)):
        if values.get(name):
            return name, values[name]
    return "PYSPARK_PYTHON", None


def _check_event_log(settings: Mapping[str, str]) -> None:
    if settings.get("spark.eventLog.enabled", "false").lower() != "true":
        return
    given = settings.get("spark.eventLog.dir", "file:///tmp/spark-events")
    address = urlsplit(given)
    folder = unquote(address.path) if address.scheme == "file" else given
    is_local = address.scheme in ("", "file")
    if is_local and not (Path(folder).is_dir() and can_be_made(Path(folder))):
        raise EnvironmentNotReadyError(
            f"spark.eventLog.dir={given}: no folder that can be written; make it, or set "
            "spark.eventLog.enabled=false"
        )


def _check_local_folders(settings: Mapping[str, str]) -> None:
    """Refuse folders for Spark's blocks of which none can be written: its JVM would just end."""
    name = "SPARK_LOCAL_DIRS" if os.environ.get("SPARK_LOCAL_DIRS") else "spark.local.dir"
    given = os.environ.get("SPARK_LOCAL_DIRS") or settings.get("spark.local.dir")
    if given and not any(can_be_made(Path(folder.strip())) for folder in given.split(",")):
        raise EnvironmentNotReadyError(
            f"{name}={given}: no folder that can be written; name another, or unset it"
        )


def spark_conf_folder() -> str | None:
    """Return the folder of Spark's own settings, where one is named."""
    home = os.environ.get("SPARK_HOME")
    return os.environ.get("SPARK_CONF_DIR") or (home and str(Path(home, "conf")))


def spark_defaults() -> dict[str, str]:
    """Return the settings of ``spark-defaults.conf``, where Spark would look for it."""
    folder = spark_conf_folder()
    try:
        text = Path(folder, "spark-defaults.conf").read_text("utf-8") if folder else ""
    except (OSError, UnicodeDecodeError):
        return {}
    lines = (line.strip() for line in text.splitlines())
    pairs = (re.split(r"[\s=:]+", line, maxsplit=1) for line in lines if line[:1] not in ("#", "!"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
