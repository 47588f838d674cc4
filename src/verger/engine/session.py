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
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger.config import Config
from verger.engine.cds import archive_options, drop_archive, train_at_exit
from verger.engine.environment import PYTHON, UNPACKED, cached_environment
from verger.engine.gateway import Gateway, environment_for_block
from verger.engine.java import Java, find_java
from verger.errors import EnvironmentNotReadyError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: One thread a Python worker: Spark runs one worker a core, and two threads on a core only wait
#: for each other.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

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
    start = _plan_start(config, None if _is_submitted() else find_java(), brief=brief)
    try:
        with environment_for_block(start.variables):
            if start.launches:
                start = _launch(start)
            if brief and start.local:
                _start_workers(start.settings)
            session = SparkSession.builder.config(map=start.settings).getOrCreate()
        if start.launches:
            _hush(session)
        if start.java is not None and start.takes_options:
            train_at_exit(start.java)
        return session
    except EnvironmentNotReadyError:
        raise
    except Exception as err:
        master = start.settings.get("spark.master")
        raise EnvironmentNotReadyError(
            f"Spark does not start (master {master}): {_first_line(err)}; try verger doctor"
        ) from err


@dataclass(frozen=True)
class _Start:
    """What a session is started with.

    Attributes
    ----------
    settings : dict
        Of Spark.
    variables : dict of str to str
        That Spark reads from the environment.
    java : Java or None
        None where spark-submit has started the JVM.
    archive : str
        Options of Java's by which it uses the archive of its classes; empty without one.
    local : bool
        Whether tasks run on this machine.
    takes_options : bool
        Whether options of Java's are ours to choose.
    """

    settings: dict[str, Any]
    variables: dict[str, str]
    java: Java | None
    archive: str
    local: bool
    takes_options: bool

    @property
    def launches(self) -> bool:
        """Whether we start the JVM, and keep it quiet."""
        return self.java is not None and "VERGER_SPARK_LOG" not in os.environ

    def without_archive(self) -> _Start:
        options = self.settings[_JAVA_OPTIONS].replace(self.archive, "")
        return replace(self, settings=self.settings | {_JAVA_OPTIONS: options}, archive="")


def _plan_start(config: Config, java: Java | None, *, brief: bool) -> _Start:
    """Choose what a session is started with; starts nothing."""
    submitted = java is None
    master = config.master or (None if submitted else _configured_master())
    local = _is_local(master)
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
    variables = {"PYSPARK_PYTHON": python}
    if java is not None:
        variables["JAVA_HOME"] = str(java.home)
    if local:  # a laptop's session is nobody else's: it listens on loopback only
        variables["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1")
    return _Start(settings, variables, java, archive, local, takes_options)


def _is_local(master: str | None) -> bool:
    return bool(master and master.startswith("local"))


#: The JVM that was started ahead, and what it was started with.
_ahead: tuple[_Start, Gateway] | None = None


def launch_ahead(config: Config) -> None:
    """Start the JVM of a brief local session, if there is one to come; waits for nothing.

    What is in the way of it is said by :func:`get_session`, and a Java that is not known before
    it is run is left to it. Where no session follows, the JVM ends with this process.
    """
    global _ahead
    if _ahead or _is_submitted() or not _is_local(config.master or _configured_master()):
        return
    if "pyspark.sql" in sys.modules:  # there may be a session
        return
    with suppress(EnvironmentNotReadyError, OSError):
        start = _plan_start(config, find_java(ask=False), brief=True)
        if start.launches:
            _ahead = start, Gateway(start.settings, start.variables)


def _launch(start: _Start) -> _Start:
    """Start the JVM, once more without the archive of its classes if it does not start with it.

    Returns
    -------
    _Start
        What it has started with.
    """
    from pyspark import SparkContext

    if SparkContext._gateway is not None:  # a stopped session has left its JVM
        return start
    try:
        gateway = _gateway_of(start).connect()
    except EnvironmentNotReadyError:
        if not start.archive or start.java is None:
            raise
        drop_archive(start.java)
        start = start.without_archive()
        gateway = Gateway(start.settings, start.variables).connect()
    SparkContext._ensure_initialized(gateway=gateway)
    return start


def _gateway_of(start: _Start) -> Gateway:
    """Return the JVM that was started ahead, if it is what this session needs, or a new one."""
    global _ahead
    ahead, _ahead = _ahead, None
    if ahead:
        if ahead[0] == start:
            return ahead[1]
        ahead[1].stop()
    return Gateway(start.settings, start.variables)


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


def _start_workers(settings: Mapping[str, Any]) -> None:
    """Have a worker a core ready while the session and its first job are still being made."""
    from pyspark import SparkConf, SparkContext

    context = SparkContext.getOrCreate(SparkConf().setAll(list(settings.items())))
    n_cores = context.defaultParallelism
    nothing = context.parallelize(range(n_cores), n_cores)

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
        "spark.python.daemon.module": "verger.engine.daemon",
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
    return Path(str(resources.files("verger.engine") / "log4j2.properties")).as_uri()


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
