"""The only place that makes a SparkSession."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger.cds import archive_options, drop_archive, train_at_exit
from verger.config import Config
from verger.environment import PYTHON, UNPACKED, cached_environment
from verger.errors import EnvironmentNotReadyError
from verger.java import Java, find_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: One thread a Python worker: Spark runs one worker a core, and two threads on a core only wait
#: for each other.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: What workers must know of a bucket's place; keys are theirs to have, by a role or a profile.
_SHARED = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE",
    "AWS_NO_SIGN_REQUEST",
)  # fmt: skip

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
#: Java's quick compiler only: the thorough one takes a core while Spark starts. And the collector
#: that has neither threads nor tables of its own.
_BRIEF = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def get_session(config: Config | None = None, *, brief: bool = False) -> SparkSession:
    """Return the active SparkSession, or start one.

    Parameters
    ----------
    config : Config, optional
        ``master``, ``conf``, ``app_name`` and ``ui`` are used. An active session is taken as it
        is, with the settings of ``conf`` that can still be changed.
    brief : bool
        Start a local session seconds sooner, in a JVM that does not optimise what it runs for
        long. Right for Verger's own stages, whose work is done in Python workers.

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
    submitted = _is_submitted()
    java = None if submitted else find_java()
    master = config.master or (None if submitted else _configured_master())
    local = bool(master and master.startswith("local"))
    settings = session_settings(config, local=local)
    python = _named_python(config) or sys.executable
    if not local and not submitted and _named_python(config) is None:
        python = PYTHON
        settings = {"spark.archives": f"{cached_environment().as_uri()}#{UNPACKED}"} | settings
    # Options of the user's own replace all of ours.
    archive, takes_options = "", local and _JAVA_OPTIONS not in config.conf
    if java is not None and takes_options:
        archive = archive_options(java)
        settings[_JAVA_OPTIONS] += f" {_BRIEF} {archive}" if brief else f" {archive}"
    if master:
        settings |= {"spark.master": forgiving_master(master)}
    settings |= {"spark.app.name": config.app_name}
    quiet = "VERGER_SPARK_LOG" not in os.environ
    variables = {"PYSPARK_PYTHON": python}
    if java is not None:
        variables["JAVA_HOME"] = str(java.home)
    if local:  # a laptop's session is nobody else's: it listens on loopback only
        variables["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1")
    try:
        with _environment_for_block(variables):
            if java is not None and quiet:
                settings = _launch(settings, java, archive)
            session = SparkSession.builder.config(map=settings).getOrCreate()
        if quiet:
            _hush(session)
        if java is not None and takes_options:
            train_at_exit(java)
        if brief and local:
            _start_workers(session)
        return session
    except EnvironmentNotReadyError:
        raise
    except Exception as err:
        raise EnvironmentNotReadyError(
            f"Spark does not start (master {master}): {_first_line(err)}; try verger doctor"
        ) from err


def _launch(settings: dict[str, Any], java: Java, archive: str) -> dict[str, Any]:
    """Start the JVM, once more without the archive of its classes if it does not start with it.

    Returns
    -------
    dict
        The settings that it has started with.
    """
    try:
        _launch_quietly(settings)
    except EnvironmentNotReadyError:
        if not archive:
            raise
        drop_archive(java)
        settings = settings | {_JAVA_OPTIONS: settings[_JAVA_OPTIONS].replace(archive, "")}
        _launch_quietly(settings)
    return settings


def _launch_quietly(settings: dict[str, Any]) -> None:
    """Start the JVM with its standard error in a file that goes with it.

    Java and Spark's launcher say things there before any setting of the log is read; of a
    failure to start, the last line is told.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:  # a stopped session has left its JVM
        return
    conf = SparkConf(loadDefaults=False)
    for key, value in settings.items():
        conf.set(key, value)
    with tempfile.TemporaryFile() as log:
        try:
            gateway = launch_gateway(conf, {"stderr": log})  # type: ignore[no-untyped-call]
        except PySparkRuntimeError as err:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            raise EnvironmentNotReadyError(
                f"the Java of {os.environ['JAVA_HOME']} does not start Spark"
                f"{': ' + said[-1] if said else ''}; try verger doctor"
            ) from err
    SparkContext._ensure_initialized(gateway=gateway)


def _hush(session: SparkSession) -> None:
    """Leave it to the error that is raised to say that Java has ended.

    py4j would log every call that failed, the server of Spark's accumulators its traceback, and
    pyspark that of a function that it could not send.
    """
    from pyspark import util

    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    server = getattr(session.sparkContext, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda *_: None
    util.print_exec = lambda stream: None  # noqa: ARG005 - the error that is raised says the same


def _start_workers(session: SparkSession) -> None:
    """Have a worker a core ready while the first job with photos is still being planned."""
    n_cores = session.sparkContext.defaultParallelism
    nothing = session.sparkContext.parallelize(range(n_cores), n_cores)

    def run() -> None:
        with suppress(Exception):  # the job that needs the workers will say what is wrong
            nothing.foreach(lambda _: None)

    threading.Thread(target=run, name="start-workers", daemon=True).start()


def _with_conf(session: SparkSession, config: Config) -> SparkSession:
    for key, value in config.conf.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def _configured_master() -> str:
    """Return the master of ``spark-defaults.conf`` where there is one, else ``local[*]``."""
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
    return "local[*]"


#: Times that a task is tried, as on a cluster. Spark's local masters give up after one.
TASK_ATTEMPTS = 4


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
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.python.daemon.module": "verger.daemon",
        "spark.executorEnv.SPARK_SIMPLIFIED_TRACEBACK": "1",
        **{f"spark.executorEnv.{name}": "1" for name in _ONE_THREAD},
        **{f"spark.executorEnv.{name}": os.environ[name] for name in _SHARED if name in os.environ},
    }
    if local:
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": _driver_memory(),
            **_worker_sockets(),
            _JAVA_OPTIONS: f"-Dlog4j2.configurationFile={_log4j()}",
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

    theirs = _is_submitted() or SparkSession.getActiveSession() is not None
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


def _is_submitted() -> bool:
    """Whether spark-submit has started this process, and a JVM before it."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _named_python(config: Config) -> str | None:
    """Return the Python that workers are told to use, which they must have; else None."""
    return config.conf.get("spark.pyspark.python") or os.environ.get("PYSPARK_PYTHON")


@contextmanager
def _environment_for_block(variables: Mapping[str, str]) -> Iterator[None]:
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


def _worker_sockets() -> dict[str, str]:
    """Let Python workers talk to Spark over Unix domain sockets, which Spark can since 4.1.

    Over TCP every task of a worker waits 40 ms for an acknowledgement.
    """
    folder = _socket_folder()
    if len(folder) > _LONGEST_SOCKET_FOLDER:
        return {}
    return {
        "spark.python.unix.domain.socket.enabled": "true",
        "spark.python.unix.domain.socket.dir": folder,
    }


#: The kernel takes addresses of 107 bytes, and Spark's names have 42.
_LONGEST_SOCKET_FOLDER = 60


@lru_cache(maxsize=1)
def _socket_folder() -> str:
    """Return a folder that lasts as long as this process: Spark leaves its sockets behind."""
    folder = tempfile.mkdtemp(prefix="verger-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


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


def _log4j() -> str:
    """Return the address of our settings of Spark's log: quiet, unless VERGER_SPARK_LOG is set."""
    return Path(str(resources.files("verger") / "log4j2.properties")).as_uri()


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def java_of(session: SparkSession) -> str:
    """Return the version of the Java that a session runs on."""
    context = session.sparkContext
    return str(context._jvm.java.lang.System.getProperty("java.version"))  # type: ignore[union-attr]


def check_environment() -> None:
    """Find out whether a session could be started, without starting one.

    Raises
    ------
    EnvironmentNotReadyError
        If there is no Java that fits.
    """
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is None and not _is_submitted():
        find_java()
