"""What a session on YARN needs beside Spark's own: where YARN is, and an eye on its application.

Spark waits in silence until YARN has room, and leaves the application in the queue when it is
interrupted meanwhile.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verger.engine.checks import spark_conf_folder
from verger.engine.tasks import PATIENCE_S, OnWait
from verger.errors import EnvironmentNotReadyError

#: Seconds between two looks at an application that waits.
LOOK_S = 2.0

#: What YARN says of an application whose machine is found.
_BEGUN = "AM container is launched"

#: Variables that name the folder of Hadoop's settings.
_FOLDERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR")


def check_hadoop_conf(settings: Mapping[str, str]) -> None:
    """Refuse to start on YARN where nothing says where it is.

    Spark would not start, or look for YARN on this machine for a quarter of an hour.

    Raises
    ------
    EnvironmentNotReadyError
    """
    if _spark_env_names_it():
        return
    given = {name: os.environ[name] for name in _FOLDERS if os.environ.get(name)}
    if not given:
        raise EnvironmentNotReadyError(
            "HADOOP_CONF_DIR is not set, and --master yarn needs it: name the folder that holds "
            "the cluster's yarn-site.xml and core-site.xml, on many clusters /etc/hadoop/conf"
        )
    is_set = any(name.startswith("spark.hadoop.yarn.resourcemanager.") for name in settings)
    folders = [folder for value in given.values() for folder in value.split(os.pathsep)]
    if not is_set and not any(Path(folder, "yarn-site.xml").is_file() for folder in folders):
        name, value = next(iter(given.items()))
        raise EnvironmentNotReadyError(
            f"{name}={value}: holds no yarn-site.xml, which says where YARN is; name the folder "
            "with the cluster's settings"
        )


def _spark_env_names_it() -> bool:
    """Whether a ``spark-env.sh``, which ``spark-submit`` reads, names the folder."""
    folder = spark_conf_folder()
    try:
        text = Path(folder, "spark-env.sh").read_text("utf-8", "replace") if folder else ""
    except OSError:
        return False
    lines = [line.strip() for line in text.splitlines()]
    return any(f"{name}=" in line for line in lines if line[:1] != "#" for name in _FOLDERS)


@dataclass(frozen=True)
class Report:
    """What YARN says of an application: its identifier, state and queue, and why it waits."""

    id: str
    state: str
    queue: str
    why: str


class Application:
    """The application of a session that is being started, found by a tag of its own.

    Parameters
    ----------
    settings : mapping
        What Spark is started with.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._tag = f"verger-{uuid.uuid4().hex}"
        given = settings.get("spark.yarn.tags")
        tags = f"{given},{self._tag}" if given else self._tag
        #: What Spark is to be started with instead.
        self.settings = {**settings, "spark.yarn.tags": tags}

    def report(self) -> Report | None:
        """Return what YARN says of it; None before it is submitted."""
        with self._found() as (_, found):
            return found and Report(
                found.getApplicationId().toString(),
                found.getYarnApplicationState().toString(),
                found.getQueue(),
                _reason(found.getDiagnostics() or ""),
            )

    def kill(self) -> None:
        """End it, if it was submitted, and remove what Spark has uploaded for it."""
        with self._found() as (client, found):
            if found is None:
                return
            client.killApplication(found.getApplicationId())
            path, staging = _jvm().org.apache.hadoop.fs.Path, ".sparkStaging"
            if root := self._conf().get("spark.yarn.stagingDir", ""):
                staging = f"{root}/{found.getUser()}/{staging}"
            folder = path(f"{staging}/{found.getApplicationId().toString()}")
            folder.getFileSystem(client.getConfig()).delete(folder, True)

    def _conf(self) -> Any:
        conf = _jvm().org.apache.spark.SparkConf()
        for name, value in self.settings.items():
            conf.set(name, str(value))
        return conf

    @contextmanager
    def _found(self) -> Iterator[tuple[Any, Any]]:
        """Yield a client of YARN's and its report, or None of each before Java has started."""
        if _jvm() is None:
            yield None, None
            return
        util, yarn = _jvm().org.apache.spark.deploy.SparkHadoopUtil, _jvm().org.apache.hadoop.yarn
        client = yarn.client.api.YarnClient.createYarnClient()
        conf = yarn.conf.YarnConfiguration(util.get().newConfiguration(self._conf()))
        # By default a ResourceManager that does not answer is waited for a quarter of an hour.
        conf.setInt("yarn.resourcemanager.connect.max-wait.ms", 10_000)
        conf.setInt("yarn.resourcemanager.connect.retry-interval.ms", 1_000)
        client.init(conf)
        client.start()
        try:
            asked = yarn.api.protocolrecords.GetApplicationsRequest.newInstance()
            asked.setApplicationTags({self._tag})
            yield client, next(iter(client.getApplications(asked)), None)
        finally:
            client.stop()


def _jvm() -> Any:
    from pyspark import SparkContext

    return SparkContext._jvm


def _reason(diagnostics: str) -> str:
    """Return what YARN says, without its time and the figures of the queue."""
    text = re.sub(r"^\[[^]]*\]", "", " ".join(diagnostics.split()))
    return text.partition(" Details :")[0].strip(" .")


@contextmanager
def followed(application: Application, on_wait: OnWait) -> Iterator[None]:
    """Say during a block that an application waits for room; end it if the block does not end well.

    Parameters
    ----------
    application : Application
    on_wait : callable
        Called once, after half a minute in YARN's queue.
    """
    ended = threading.Event()
    follower = threading.Thread(
        target=_follow, args=(application, on_wait, ended), daemon=True, name="follow-yarn"
    )
    follower.start()
    try:
        yield
    except BaseException:
        ended.set()
        with suppress(Exception):  # Java may be gone
            application.kill()
        raise
    finally:
        ended.set()


def _follow(application: Application, on_wait: OnWait, ended: threading.Event) -> None:
    since = None
    while not ended.wait(LOOK_S):
        report = None
        with suppress(Exception):  # YARN does not answer, or Java has not started or has ended
            report = application.report()
        if report is None or report.why.startswith(_BEGUN):
            continue  # it has room, and copies its files there
        if report.state not in ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED"):
            return
        since = since or time.monotonic()
        if time.monotonic() - since >= PATIENCE_S and not ended.is_set():
            on_wait(
                f"YARN has no room yet: {report.id} waits in queue {report.queue}"
                f"{f' ({report.why})' if report.why else ''}; it starts when there is room, and "
                "Ctrl-C takes it out"
            )
            return
