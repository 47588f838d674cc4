"""The only place that makes a SparkSession."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger.config import Config
from verger.engine.causes import cause_of
from verger.engine.checks import check_start, named_python, spark_defaults
from verger.engine.environment import PYTHON, UNPACKED, cached_environment
from verger.engine.home import (
    environment_for_block,
    java_locale,
    temporary_home,
    user_home,
    user_name,
)
from verger.engine.java import Java, find_java
from verger.engine.limits import default_workers, java_heap_mib
from verger.engine.local import WORKER_ENVIRONMENT
from verger.engine.scratch import scratch_folder
from verger.engine.spark import is_connect
from verger.engine.tasks import LOG_WAIT, TASK_ATTEMPTS, OnWait
from verger.engine.yarn import Application, check_hadoop_conf, followed
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

#: Errors that say nothing but that Java has ended, or Spark in it.
_JAVA_IS_GONE = (
    "Java gateway process exited",
    "Error while sending or receiving",
    "Answer from Java side is empty",
    "Cannot call methods on a stopped SparkContext",
)

#: What Hadoop's library says of a user whom the system does not know.
_NAMELESS = ("invalid null input: name", "Invalid UID")

#: Spark puts these before what a user gives as ``spark.driver.extraJavaOptions``.
_JAVA_OPTIONS = "spark.driver.defaultJavaOptions"


def get_session(config: Config | None = None, *, on_wait: OnWait = LOG_WAIT) -> SparkSession:
    """Return the active SparkSession, or start one.

    Parameters
    ----------
    config : Config, optional
        ``master``, ``conf``, ``app_name`` and ``ui`` are used. An active session is taken as it
        is, with the settings of ``conf`` that can still be changed.
    on_wait : callable, optional
        Told if YARN has no room for half a minute; by default the log says it.

    Raises
    ------
    EnvironmentNotReadyError
        If there is no Java that fits, a variable or setting asks for what cannot be, or Spark
        does not start.

    Examples
    --------
    >>> spark = verger.get_session()
    >>> spark.range(3).count()
    3
    """
    config = config or Config()
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        check_is_classic(active)
        return _with_conf(active, config)
    log = None if "VERGER_SPARK_LOG" in os.environ else scratch_folder() / "java.log"
    java = check_environment(config)
    settings, variables = _plan_start(config, java.spark_home(log) if java else None)
    try:
        with environment_for_block(variables):
            session = _start(settings, on_wait)
    except Exception as err:
        raise EnvironmentNotReadyError(
            f"Spark does not start (master {settings.get('spark.master')}): {_cause(err, log)}; "
            "try verger doctor"
        ) from err
    if java is not None:
        _hush()
        _log_in(session)
    return session


def _start(settings: dict[str, Any], on_wait: OnWait) -> SparkSession:
    from pyspark.sql import SparkSession

    if settings.get("spark.master") != "yarn":
        return SparkSession.builder.config(map=settings).getOrCreate()
    application = Application(settings)
    with followed(application, on_wait):
        return SparkSession.builder.config(map=application.settings).getOrCreate()


def check_environment(config: Config) -> Java | None:
    """Find out whether a session could be started, without starting one.

    Returns
    -------
    Java or None
        What starts it; None if a session is active, or ``spark-submit`` has started Java.

    Raises
    ------
    EnvironmentNotReadyError
        If there is no Java that fits, or a variable or setting asks for what cannot be.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    check_is_classic(active)
    if active is not None or is_submitted():
        return None
    settings = spark_defaults() | dict(config.conf)
    check_start(settings, local=_is_local(_master(config)))
    if _master(config) == "yarn":
        check_hadoop_conf(settings)
    return find_java()


def check_is_classic(session: SparkSession | None) -> None:
    """Refuse a session of Spark Connect, which has no JVM for the tasks and models of a run.

    Raises
    ------
    EnvironmentNotReadyError
    """
    if session is not None and is_connect(session):
        raise EnvironmentNotReadyError(
            "the active session is one of Spark Connect, and a whole run needs a classic one: use "
            "read_images, featurize, ImageFeaturizer and PCA in that session, or stop it and start "
            "Python without SPARK_REMOTE and SPARK_API_MODE"
        )


def _master(config: Config) -> str:
    return config.master or configured_master() or "local[*]"


def _is_local(master: str | None) -> bool:
    return bool(master and master.startswith("local"))


def _plan_start(config: Config, java: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return Spark's settings, and the variables that it reads from the environment."""
    submitted = java is None
    master = config.master if submitted else _master(config)
    local = _is_local(master)
    given = (_submitted_settings() if submitted else spark_defaults()) | dict(config.conf)
    settings = memory_settings(master or given.get("spark.master"), given)
    settings |= session_settings(config, local=local)
    _, python = named_python(given)
    if python is None and not local and not submitted:
        python, archive = PYTHON, cached_environment(for_driver=False)
        # Of spark.archives YARN would get a copy, and each executor another one from the driver.
        name = "spark.yarn.dist.archives" if master == "yarn" else "spark.archives"
        ours, theirs = f"{archive.as_uri()}#{UNPACKED}", given.get(name)
        settings |= {name: f"{theirs},{ours}" if theirs else ours}
    if master:
        settings |= {"spark.master": forgiving_master(master)}
    settings |= {"spark.app.name": config.app_name}
    variables = {"PYSPARK_PYTHON": python or sys.executable}
    if java is not None:
        variables |= {"JAVA_HOME": str(java)} | java_locale() | _identity()
    if local:  # a laptop's session is nobody else's: it listens on loopback only
        variables["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1")
    return settings, variables


def _submitted_settings() -> dict[str, str]:
    """Return what ``spark-submit`` was given."""
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    return dict(SparkConf().getAll())


#: Memory beside the heap of an executor, in MiB: of each Python worker, and of the rest. One of
#: four workers took 1.6 GB.
_WORKER_MIB, _EXECUTOR_MIB = 350, 200


def memory_settings(master: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return the setting by which YARN and Kubernetes leave room for Python beside Java's heap.

    A tenth of the heap, Spark's own, is too little for the model in each worker: the whole executor
    would be killed. Where it is more, it stays.

    Parameters
    ----------
    master : str or None
    given : mapping
        What the user has set; nothing is added to a memory of theirs.
    """
    theirs = ("memoryOverhead", "memoryOverheadFactor", "pyspark.memory")
    named = {f"spark.executor.{name}" for name in theirs} | {
        "spark.kubernetes.memoryOverheadFactor"
    }
    if not str(master).startswith(("yarn", "k8s://")) or named & set(given):
        return {}
    try:
        cores = int(given.get("spark.executor.cores", "1"))
        workers = max(1, cores // int(given.get("spark.task.cpus", "1")))
        size = re.fullmatch(r"(\d+)([mgt]?)b?", given.get("spark.executor.memory", "1g").lower())
    except (ValueError, ZeroDivisionError):  # Spark says what is wrong with them
        return {}
    heap_mib = int(size[1]) * {"": 1, "m": 1, "g": 2**10, "t": 2**20}[size[2]] if size else 0
    overhead_mib = max(_WORKER_MIB * workers + _EXECUTOR_MIB, heap_mib // 10)
    return {"spark.executor.memoryOverhead": f"{overhead_mib}m"}


def _identity() -> dict[str, str]:
    """Return the variables that give Spark a user and a home, where the system knows none."""
    variables = {} if user_home() else {"HOME": str(temporary_home())}
    if user_name() is None:
        variables["SPARK_USER"] = os.environ.get("SPARK_USER") or f"uid-{os.getuid()}"
    return variables


def _log_in(session: SparkSession) -> None:
    """Give Hadoop's library the name of a user whom the system does not know; it would fail."""
    if user_name() is None:
        users = session.sparkContext._jvm.org.apache.hadoop.security.UserGroupInformation  # type: ignore[union-attr]
        users.setLoginUser(users.createRemoteUser(session.sparkContext.sparkUser()))


def _cause(err: Exception, log: Path | None) -> str:
    """Return why Spark does not start: by its own error, or by what its Java has printed last."""
    if user_name() is None and any(words in str(err) for words in _NAMELESS):
        return (
            f"user {os.getuid()} has no name, and Hadoop's library asks for it before it can be "
            "given one: leave out what reads or writes files while Spark starts "
            "(spark.eventLog.enabled), or add the user to /etc/passwd"
        )
    if log is None or not any(words in str(err) for words in _JAVA_IS_GONE):
        return cause_of(err)
    said = log.read_text("utf-8", errors="replace") if log.is_file() else ""
    return cause_of(said) or "its Java has ended: killed, or out of memory"


def _hush() -> None:
    """Let only the error that is raised say that Java has ended, or what could not be sent.

    py4j would log every call that failed, and pyspark the traceback of a function that it could
    not send.
    """
    from pyspark import util

    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    util.print_exec = lambda stream: None  # noqa: ARG005 - the error that is raised says the same


def _with_conf(session: SparkSession, config: Config) -> SparkSession:
    for key, value in config.conf.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def configured_master() -> str | None:
    """Return the master that ``spark-defaults.conf`` names, or None."""
    return spark_defaults().get("spark.master")


def forgiving_master(master: str) -> str:
    """Return a local master that tries a task again, as any cluster does; others as they are.

    Its ``*`` becomes the tasks that the cores and the memory of this machine, or of its container,
    are enough for.
    """
    if master == "local":
        return f"local[1,{TASK_ATTEMPTS}]"
    n_tasks = default_workers(reserved_bytes=java_heap_mib() * 2**20)
    master = re.sub(r"^local\[\*", f"local[{n_tasks}", master)
    return re.sub(r"^local\[(\d+)\]$", rf"local[\1,{TASK_ATTEMPTS}]", master)


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
            "spark.driver.memory": f"{java_heap_mib()}m",
            _JAVA_OPTIONS: _java_options(),
        }
    if local and config.reader == "spark":
        # Hadoop's usual file system looks for the sum of a.jpg in .a.jpg.crc, and would fail at a
        # name with a colon.
        settings["spark.hadoop.fs.file.impl"] = "org.apache.hadoop.fs.RawLocalFileSystem"
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


def _java_options() -> str:
    """Return what Java is told: how much Spark logs, and where temporary files and a home are."""
    log4j = Path(str(resources.files("verger.engine") / "log4j2.properties")).as_uri()
    folders = {"java.io.tmpdir": scratch_folder()}
    if user_name() is None or user_home() is None:
        folders["user.home"] = user_home() or temporary_home()
    given = " ".join(f'"-D{name}={folder}"' for name, folder in folders.items())
    return f"-Dlog4j2.configurationFile={log4j} {given}"
