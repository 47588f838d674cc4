"""The only place that makes a SparkSession."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger.config import Config
from verger.engine.environment import PYTHON, UNPACKED, cached_environment
from verger.engine.java import Java, find_java
from verger.engine.local import WORKER_ENVIRONMENT
from verger.engine.scratch import scratch_folder
from verger.engine.tasks import TASK_ATTEMPTS
from verger.errors import EnvironmentNotReadyError
from verger.redaction import SECRET_NAMES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: What workers must know of a bucket's place; keys are theirs to have, by a role or a profile.
_SHARED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_NO_SIGN_REQUEST",
)

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"


def get_session(config: Config | None = None) -> SparkSession:
    """Return the active SparkSession, or start one.

    Parameters
    ----------
    config : Config, optional
        ``master``, ``conf``, ``app_name`` and ``ui`` are used. An active session is taken as it
        is, with the settings of ``conf`` that can still be changed.

    Raises
    ------
    EnvironmentNotReadyError
        If there is no Java that fits, or Spark does not start.
    """
    config = config or Config()
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return _with_conf(active, config)
    java = None if is_submitted() else find_java()
    settings, variables = _plan_start(config, java)
    try:
        with environment_for_block(variables):
            if java is not None and "VERGER_SPARK_LOG" not in os.environ:
                return _start_quietly(settings)
            return SparkSession.builder.config(map=settings).getOrCreate()
    except Exception as err:
        raise EnvironmentNotReadyError(
            f"Spark does not start (master {settings.get('spark.master')}): {_first_line(err)}; "
            "try verger doctor"
        ) from err


def _plan_start(config: Config, java: Java | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return Spark's settings, and the variables that it reads from the environment."""
    submitted = java is None
    master = config.master or (None if submitted else configured_master() or "local[*]")
    local = bool(master and master.startswith("local"))
    settings = session_settings(config, local=local)
    python = _named_python(config) or sys.executable
    if not local and not submitted and _named_python(config) is None:
        python = PYTHON
        settings = {"spark.archives": f"{cached_environment().as_uri()}#{UNPACKED}"} | settings
    if master:
        settings |= {"spark.master": forgiving_master(master)}
    settings |= {"spark.app.name": config.app_name}
    variables = {"PYSPARK_PYTHON": python}
    if java is not None:
        variables["JAVA_HOME"] = str(java.home)
    if local:  # a laptop's session is nobody else's: it listens on loopback only
        variables["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1")
    return settings, variables


def _start_quietly(settings: Mapping[str, Any]) -> SparkSession:
    """Start a session whose JVM prints nothing; its last line is told if it does not start."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.config(map=dict(settings))
    if SparkContext._gateway is not None:  # a stopped session has left its JVM
        return builder.getOrCreate()
    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    with tempfile.TemporaryFile() as log:
        try:
            gateway = launch_gateway(conf, {"stderr": log})  # type: ignore[no-untyped-call]
        except Exception as err:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise EnvironmentNotReadyError(lines[-1] if lines else str(err)) from err
    SparkContext(conf=conf, gateway=gateway)
    session = builder.getOrCreate()
    _hush(session)
    return session


def _hush(session: SparkSession) -> None:
    """Let the error that is raised say that Java has ended.

    py4j would log every call that failed, the server of Spark's accumulators its traceback, and
    pyspark that of a function that it could not send.
    """
    from pyspark import util

    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    server = getattr(session.sparkContext, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda *_: None
    util.print_exec = lambda stream: None  # noqa: ARG005 - the error that is raised says the same


@contextmanager
def environment_for_block(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Spark reads when it starts; the next session may need other ones."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def _with_conf(session: SparkSession, config: Config) -> SparkSession:
    for key, value in config.conf.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def configured_master() -> str | None:
    """Return the master that ``spark-defaults.conf`` names, or None."""
    home = os.environ.get("SPARK_HOME")
    folder = os.environ.get("SPARK_CONF_DIR") or (home and str(Path(home, "conf")))
    if folder:
        try:
            lines = Path(folder, "spark-defaults.conf").read_text("utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            key, _, value = line.strip().replace("=", " ", 1).partition(" ")
            if key == "spark.master":
                return value.strip()
    return None


def forgiving_master(master: str) -> str:
    """Return a local master that tries a task again, as any cluster does; others as they are."""
    if master == "local":
        return f"local[1,{TASK_ATTEMPTS}]"
    return re.sub(r"^local\[(\*|\d+)\]$", rf"local[\1,{TASK_ATTEMPTS}]", master)


def session_settings(config: Config, *, local: bool) -> dict[str, Any]:
    """Return the settings that a new session gets; ``conf`` wins over all of them."""
    settings = {
        "spark.ui.enabled": str(config.ui).lower(),
        "spark.ui.showConsoleProgress": "false",
        "spark.redaction.regex": SECRET_NAMES,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Workers import nothing from their current folder, which may be one of somebody's photos.
        "spark.executorEnv.PYTHONSAFEPATH": "1",
        **{f"spark.executorEnv.{name}": value for name, value in WORKER_ENVIRONMENT.items()},
        **{f"spark.executorEnv.{name}": os.environ[name] for name in _SHARED if name in os.environ},
    }
    if local:
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": _driver_memory(),
            _JAVA_OPTIONS: f'-Dlog4j2.configurationFile={_log4j()} "{_java_scratch()}"',
        }
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        settings |= {
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
    return settings | dict(config.conf)


#: Settings by which a user brings libraries to Spark.
_LIBRARIES = ("spark.jars", "spark.jars.packages", "spark.driver.extraClassPath")


def check_hadoop_reads(source: str, config: Config) -> None:
    """Refuse ``reader="spark"`` for a bucket that this Spark has no library for.

    Raises
    ------
    EnvironmentNotReadyError
        With the setting that fetches it, of the version of Hadoop that this pyspark carries.
    """
    import pyspark
    from pyspark.sql import SparkSession

    theirs = is_submitted() or SparkSession.getActiveSession() is not None
    given = any(key in config.conf for key in _LIBRARIES)
    if theirs or given or not source.startswith(("s3://", "s3a://", "s3n://")):
        return
    jars = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent, "jars")
    if any(jars.glob("hadoop-aws-*.jar")):
        return
    carried = sorted(jars.glob("hadoop-client-api-*.jar"))
    version = carried[-1].stem.removeprefix("hadoop-client-api-") if carried else "VERSION"
    raise EnvironmentNotReadyError(
        f"source {source}: Spark reads buckets with hadoop-aws, which is not in {jars}; use "
        "--reader arrow, which needs nothing, or "
        f"--conf spark.jars.packages=org.apache.hadoop:hadoop-aws:{version}"
    )


def is_submitted() -> bool:
    """Whether spark-submit has started this process, and a JVM before it."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _named_python(config: Config) -> str | None:
    """Return the Python that workers are told to use, which they must have; else None."""
    return config.conf.get("spark.pyspark.python") or os.environ.get("PYSPARK_PYTHON")


def _driver_memory() -> str:
    """Return a quarter of this machine's memory, from 1 to 4 GiB.

    The JVM holds listings and a cache of finished rows that may spill; photos and the model
    are in the Python workers.
    """
    megabytes = machine_memory_bytes() // 4 // 2**20
    return f"{min(max(megabytes, 1024), 4096)}m"


@contextmanager
def settings_for_block(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of a running session for a block."""
    before = {key: spark.conf.get(key) for key in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            spark.conf.set(key, str(old))


def machine_memory_bytes() -> int:
    """Return the physical memory of this machine, or 4 GiB where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30


def _java_scratch() -> str:
    """Return Java's option for temporary files: Spark's blocks, artifacts and native libraries."""
    return f"-Djava.io.tmpdir={scratch_folder()}"


def _log4j() -> str:
    """Return the address of our settings of Spark's log: quiet, unless VERGER_SPARK_LOG is set."""
    return Path(str(resources.files("verger.engine") / "log4j2.properties")).as_uri()


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def check_environment() -> None:
    """Find out whether a session could be started, without starting one.

    Raises
    ------
    EnvironmentNotReadyError
        If there is no Java that fits.
    """
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is None and not is_submitted():
        find_java()
