"""YARN: its settings are asked for before Spark starts, and a queue that is full is no silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import wait_until
from verger.engine import yarn
from verger.engine.yarn import Application, Report, check_hadoop_conf, followed
from verger.errors import EnvironmentNotReadyError


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a shell that says nothing of Hadoop, and look often."""
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_CONF_DIR", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(yarn, "LOOK_S", 0.01)
    monkeypatch.setattr(yarn, "PATIENCE_S", 0.05)


def test_the_variable_that_says_where_yarn_is_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where it names a folder without such settings; ``spark-env.sh`` may set it instead."""
    with pytest.raises(EnvironmentNotReadyError, match=r"HADOOP_CONF_DIR is not set.*yarn-site"):
        check_hadoop_conf({})
    monkeypatch.setenv("YARN_CONF_DIR", str(tmp_path))
    with pytest.raises(EnvironmentNotReadyError, match=f"YARN_CONF_DIR={tmp_path}: holds no yarn"):
        check_hadoop_conf({})
    check_hadoop_conf({"spark.hadoop.yarn.resourcemanager.hostname": "orchard"})
    (tmp_path / "yarn-site.xml").touch()
    check_hadoop_conf({})
    monkeypatch.delenv("YARN_CONF_DIR")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "spark-env.sh").write_text("# HADOOP_CONF_DIR=/off\n")
    with pytest.raises(EnvironmentNotReadyError, match="HADOOP_CONF_DIR is not set"):
        check_hadoop_conf({})
    (tmp_path / "spark-env.sh").write_text("export HADOOP_CONF_DIR=${HADOOP_CONF_DIR:-/etc}\n")
    check_hadoop_conf({})


class Queued(Application):
    """An application that YARN has accepted and never starts."""

    killed = False

    def report(self) -> Report:
        return Report("application_1_0001", "ACCEPTED", "ripe", "Queue's AM limit is exceeded.")

    def kill(self) -> None:
        self.killed = True


def test_a_full_queue_is_said_and_left_when_the_start_is_interrupted() -> None:
    """Once, with the application's name; nothing stays in the queue."""
    application, told = Queued({"spark.yarn.tags": "mine"}), list[str]()
    assert application.settings["spark.yarn.tags"].startswith("mine,verger-")

    def start() -> None:
        with followed(application, told.append):
            assert wait_until(lambda: told, 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    (line,) = told
    assert line.startswith("YARN has no room yet: application_1_0001 waits in queue ripe (Queue's")
    assert application.killed


def test_a_start_that_goes_well_kills_nothing() -> None:
    application, told = Queued({}), list[str]()
    with followed(application, told.append):
        pass
    assert (application.killed, told) == (False, [])
