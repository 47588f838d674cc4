"""A real YARN on loopback, from Maven's artifacts: a ResourceManager and one or two NodeManagers.

Files of applications lie on the local disk: what Spark sends is copied to no HDFS. The home folder
of containers can't be written, as YARN's ``/home/`` can't by users that are not root.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark

from support.processes import end_session, kill, wait_until
from verger.engine.environment import cached_environment
from verger.engine.java import find_java

START_S = 120.0
SPARK = Path(pyspark.__file__).parent
#: Label of the node that drivers are kept on, in a cluster of two nodes.
LABEL = "ON_DEMAND"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>verger</groupId><artifactId>yarn</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>
"""
_DEPENDENCY = """\
<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>
"""
_LOG = """\
log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{HH:mm:ss} %p %c{1}: %m%n
"""


class NoMavenError(Exception):
    """YARN's artifacts cannot be had here; the text says why."""


def hadoop_version() -> str:
    """Return the version of Hadoop that pyspark carries."""
    (jar,) = (SPARK / "jars").glob("hadoop-client-api-*.jar")
    return jar.stem.removeprefix("hadoop-client-api-")


def fetch_artifacts(cache: Path) -> Path:
    """Return the folder of YARN's jars; Maven fetches them once.

    Raises
    ------
    NoMavenError
        If there is no Maven, or it reaches no repository.
    """
    folder = cache / hadoop_version()
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise NoMavenError("no mvn")
    needed = [
        ("org.apache.hadoop", "hadoop-client-minicluster", hadoop_version()),
        ("org.slf4j", "slf4j-reload4j", "1.7.36"),
        ("org.bouncycastle", "bcpkix-jdk18on", "1.78.1"),  # the ResourceManager loads it
    ]
    part = cache / f"part-{os.getpid()}"
    part.mkdir(parents=True)
    pom = part / "pom.xml"
    pom.write_text(_POM.format("".join(_DEPENDENCY.format(*each) for each in needed)))
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={part / 'jars'}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(part)
        raise NoMavenError(f"mvn: {done.stdout.strip().splitlines()[:1]}")
    with suppress(OSError):  # another process of the tests was first
        (part / "jars").rename(folder)
    shutil.rmtree(part)
    return folder


@dataclass(frozen=True)
class Yarn:
    """A YARN that runs.

    Attributes
    ----------
    folder : Path
    address : str
        Of the ResourceManager's REST interface.
    environment : dict of str to str
        What whoever submits to it has, besides a ``PATH``.
    """

    folder: Path
    address: str
    environment: Mapping[str, str]

    def ask(self, what: str) -> dict[str, Any]:
        """Return what the ResourceManager says of ``apps``, ``metrics`` ..."""
        with urllib.request.urlopen(f"http://{self.address}/ws/v1/cluster/{what}") as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def applications(self) -> list[dict[str, Any]]:
        """Return all applications, the youngest first."""
        apps = (self.ask("apps")["apps"] or {}).get("app", [])
        return sorted(apps, key=lambda app: app["id"], reverse=True)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Return what runs in containers: all, or Javas with a class of this name."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_ours = Path(process.cwd()).is_relative_to(self.folder / "containers")
                if is_ours and any(name in word for word in process.cmdline()):
                    found.append(process)
        return found


def _ports(n: int) -> list[int]:
    """Return ports that are free at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _write_xml(path: Path, values: Mapping[str, object]) -> None:
    rows = (f"<property><name>{n}</name><value>{v}</value></property>" for n, v in values.items())
    path.write_text(f"<configuration>{''.join(rows)}</configuration>")


def _settings(folder: Path, nodes: int) -> dict[str, object]:
    """Return the settings of the ResourceManager, and those of nodes that they share."""
    manager = "yarn.resourcemanager"
    names = ("address", "scheduler.address", "resource-tracker.address", "admin.address")
    ports = _ports(5)
    addresses = {f"{manager}.{n}": f"127.0.0.1:{p}" for n, p in zip(names, ports[1:], strict=True)}
    kept = ["JAVA_HOME", "JDK_JAVA_OPTIONS", "SPARK_LOCAL_IP", "LANG"]
    kept += [name for name in os.environ if name.startswith("AWS_")]
    labels: dict[str, object] = {
        "yarn.node-labels.enabled": "true",
        "yarn.node-labels.fs-store.root-dir": f"file://{folder}/labels",
        "yarn.node-labels.configuration-type": "distributed",
    }
    return {
        **addresses,
        f"{manager}.webapp.address": f"127.0.0.1:{ports[0]}",
        f"{manager}.nodemanagers.heartbeat-interval-ms": 200,
        f"{manager}.am.max-attempts": 2,
        "yarn.nodemanager.localizer.address": "${yarn.nodemanager.hostname}:0",
        "yarn.nodemanager.webapp.address": "${yarn.nodemanager.hostname}:0",
        "yarn.nodemanager.user-home-dir": "/dev/null/",
        "yarn.nodemanager.resource.memory-mb": 3072,
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
        "yarn.nodemanager.env-whitelist": ",".join(kept),
        "yarn.scheduler.minimum-allocation-mb": 32,
        **(labels if nodes > 1 else {}),
    }


def _scheduler(nodes: int) -> dict[str, object]:
    root = "yarn.scheduler.capacity.root"
    values: dict[str, object] = {
        f"{root}.queues": "default",
        f"{root}.default.capacity": 100,
        "yarn.scheduler.capacity.maximum-am-resource-percent": 0.7,
    }
    for queue in (root, f"{root}.default") if nodes > 1 else ():
        values[f"{queue}.accessible-node-labels"] = "*"
        values[f"{queue}.accessible-node-labels.{LABEL}.capacity"] = 100
    return values


def _write_settings(folder: Path, nodes: int) -> dict[str, object]:
    """Write the folders of settings, one for each daemon and one for Spark."""
    shared = _settings(folder, nodes)
    for number in range(nodes):
        conf = folder / f"conf{number or ''}"
        conf.mkdir()
        host = f"127.0.0.{number + 1}"
        own: dict[str, object] = {
            "yarn.nodemanager.hostname": host,
            "yarn.nodemanager.address": f"{host}:{_ports(1)[0]}",
            "yarn.nodemanager.local-dirs": folder / "containers" / str(number),
            "yarn.nodemanager.log-dirs": folder / "logs" / str(number),
        }
        if nodes > 1 and number == 0:
            provider = "yarn.nodemanager.node-labels.provider"
            own |= {provider: "config", f"{provider}.configured-node-partition": LABEL}
        _write_xml(conf / "yarn-site.xml", shared | own)
        _write_xml(conf / "capacity-scheduler.xml", _scheduler(nodes))
        _write_xml(conf / "core-site.xml", {"hadoop.tmp.dir": folder / "tmp"})
        (conf / "log4j.properties").write_text(_LOG)
    spark = {
        "spark.yarn.jars": f"local:{SPARK}/jars/*",
        "spark.yarn.stagingDir": f"file://{folder}/staging",
        "spark.executor.instances": 1,
        "spark.executor.memory": "512m",
        "spark.yarn.am.memory": "512m",
        "spark.driver.memory": "640m",
        "spark.yarn.submit.waitAppCompletion": "true",
    }
    (folder / "spark").mkdir()
    lines = "".join(f"{name} {value}\n" for name, value in spark.items())
    (folder / "spark" / "spark-defaults.conf").write_text(lines)
    return shared


@contextmanager
def run_yarn(folder: Path, jars: Path, *, nodes: int = 1) -> Iterator[Yarn]:
    """Start YARN in a new folder, and end every process of it at the end.

    Of two nodes the first is labelled, and has room for a driver or an executor.
    """
    folder.mkdir()
    java = find_java()
    shared = _write_settings(folder, nodes)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "JAVA_HOME": str(java.spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        **{n: v for n, v in os.environ.items() if n.startswith(("AWS_", "JDK_", "LANG"))},
    }
    daemons: list[subprocess.Popen[bytes]] = []

    def start(conf: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        opens = "--add-opens=java.base/java.lang=ALL-UNNAMED"
        path = f"{folder / conf}:{jars}/*"
        with (folder / f"{conf}-{name.rpartition('.')[2]}.log").open("wb") as log:
            return subprocess.Popen(
                [str(java.home / "bin" / "java"), opens, "-Xmx256m", "-cp", path, name, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    server = "org.apache.hadoop.yarn.server"
    submitter = environment | {
        "HADOOP_CONF_DIR": str(folder / "conf"),
        "SPARK_CONF_DIR": str(folder / "spark"),
    }
    yarn = Yarn(folder, str(shared["yarn.resourcemanager.webapp.address"]), submitter)
    try:
        daemons.append(start("conf", f"{server}.resourcemanager.ResourceManager"))
        if nodes > 1:
            add = ("-addToClusterNodeLabels", f"{LABEL}(exclusive=false)")
            assert wait_until(lambda: _is_up(yarn, 0), START_S)
            assert start("conf", "org.apache.hadoop.yarn.client.cli.RMAdminCLI", *add).wait() == 0
        node = f"{server}.nodemanager.NodeManager"
        daemons += [start(f"conf{number or ''}", node) for number in range(nodes)]
        if not wait_until(lambda: _is_up(yarn, nodes), START_S, 0.2):
            logs = [log.read_text("utf-8", "replace")[-500:] for log in folder.glob("*.log")]
            raise RuntimeError(f"YARN did not start: {logs}")
        yield yarn
    finally:
        for daemon in daemons:
            end_session(daemon.pid)
            daemon.wait()
        kill(yarn.processes())


def _is_up(yarn: Yarn, nodes: int) -> bool:
    with suppress(OSError):
        return int(yarn.ask("metrics")["clusterMetrics"]["activeNodes"]) >= nodes
    return False


# Commands of a user

#: Small batches, so that a process can be killed between them.
OPTIONS = ("--model", "efficientnet_lite0", "--components", "5", "--json")
OPTIONS += ("--commit-every", "1", "--partitions", "6")


def start(yarn: Yarn, *command: object) -> subprocess.Popen[str]:
    """Start a command of a user, in whose environment nothing speaks of workers."""
    ours = {name: os.environ[name] for name in ("VERGER_HOME", "PYTHONPATH") if name in os.environ}
    return subprocess.Popen(
        [*map(str, command)],
        env=yarn.environment | ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(run: subprocess.Popen[str], *, timeout_s: float = 400) -> str:
    try:
        out, err = run.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        end_session(run.pid)
        raise
    assert run.returncode == 0, err
    return out


def submit(
    yarn: Yarn, main: Path, *arguments: object, spark: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Submit the command line in cluster mode, as docs/cluster.md has it."""
    main.write_text("from verger.cli import main\nmain()\n")
    python = "PYSPARK_PYTHON=./environment/bin/python"
    return start(
        yarn,
        SPARK / "bin" / "spark-submit",
        *("--master", "yarn", "--deploy-mode", "cluster"),
        *("--archives", f"{cached_environment(for_driver=True).as_uri()}#environment"),
        *("--conf", f"spark.yarn.appMasterEnv.{python}", "--conf", f"spark.executorEnv.{python}"),
        *spark,
        *(main, "run", *arguments, *OPTIONS),
    )
