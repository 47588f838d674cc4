"""What a session is started with, as far as it can be seen without starting one."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from verger.config import Config
from verger.engine import session
from verger.engine.environment import PYTHON
from verger.engine.session import check_hadoop_reads, session_settings
from verger.errors import EnvironmentNotReadyError

AWS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from a shell that says nothing of Spark and AWS, and a Spark without a library."""
    for name in (*AWS, "PYSPARK_PYTHON", "PYSPARK_GATEWAY_PORT", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "hadoop-client-api-3.4.9.jar").touch()
    (tmp_path / "jars" / f"spark-core_2.13-{version('pyspark')}.jar").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spark-submit").touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    # Of another test in this process; pyspark would take it instead of starting one.
    monkeypatch.setattr(SparkSession, "_instantiatedSession", None)
    monkeypatch.setattr(SparkContext, "_jvm", None)


def test_workers_are_told_where_a_bucket_is_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint, region and profile go along; what opens the bucket is for workers to have."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    settings = session_settings(Config(), local=False)
    assert settings["spark.executorEnv.AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert settings["spark.executorEnv.AWS_REGION"] == "eu-west-3"
    assert settings["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9"
    assert "hush" not in str(settings)


@pytest.mark.parametrize("local", [True, False])
def test_workers_import_nothing_from_their_current_folder(local: bool) -> None:
    """Spark starts them by ``python -m``, which would look in the folder of the command first."""
    assert session_settings(Config(), local=local)["spark.executorEnv.PYTHONSAFEPATH"] == "1"


def start(monkeypatch: pytest.MonkeyPatch, config: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what Spark would be started with: settings, and the environment at that moment."""
    seen: list[tuple[dict[str, Any], dict[str, str]]] = []

    def launch(conf: Any) -> None:
        seen.append((dict(conf.getAll()), dict(os.environ)))
        raise RuntimeError("this is enough")

    monkeypatch.delenv("VERGER_SPARK_LOG", raising=False)
    monkeypatch.setattr(SparkContext, "getOrCreate", launch)
    with pytest.raises(EnvironmentNotReadyError, match="enough; try verger doctor"):
        session.get_session(config)
    return seen[0]


@pytest.fixture
def java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the JAVA_HOME of a Java that is never started."""
    found = SimpleNamespace(spark_home=lambda log: tmp_path)
    monkeypatch.setattr(session, "find_java", lambda: found)
    return tmp_path


def test_a_session_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, java: Path
) -> None:
    """A cluster's session after a local one, and the other way round, gets its own Python."""
    archive = tmp_path / "environment.tar.gz"
    monkeypatch.setattr(session, "cached_environment", lambda for_driver: archive)
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    monkeypatch.setenv("JAVA_HOME", "/opt/java")
    before = dict(os.environ)
    for _ in range(2):
        settings, environment = start(monkeypatch, Config(master="local[2]"))
        assert environment["PYSPARK_PYTHON"] == sys.executable
        assert environment["SPARK_LOCAL_IP"] == "127.0.0.1"
        assert environment["JAVA_HOME"] == str(java)
        assert "spark.archives" not in settings
        assert dict(os.environ) == before
        settings, environment = start(monkeypatch, Config(master="spark://127.0.0.1:7077"))
        assert environment["PYSPARK_PYTHON"] == PYTHON
        assert "SPARK_LOCAL_IP" not in environment
        assert settings["spark.archives"] == f"file://{archive}#environment"
        assert dict(os.environ) == before


def test_workers_use_the_python_that_is_named(
    monkeypatch: pytest.MonkeyPatch, java: Path, tmp_path: Path
) -> None:
    """The setting goes before the variable, and no archive is sent along with either."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for link in (ours, other):
        link.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        link.chmod(0o755)
    for master in ("local[2]", "spark://127.0.0.1:7077"):
        monkeypatch.setenv("PYSPARK_PYTHON", str(ours))
        settings, environment = start(monkeypatch, Config(master=master))
        assert environment["PYSPARK_PYTHON"] == str(ours)
        assert "spark.archives" not in settings
        conf = {"spark.pyspark.python": str(other)}
        settings, environment = start(monkeypatch, Config(master=master, conf=conf))
        assert environment["PYSPARK_PYTHON"] == str(other)
        assert "spark.archives" not in settings
        assert os.environ["PYSPARK_PYTHON"] == str(ours)


def test_yarn_gets_the_archive_by_its_own_setting(
    monkeypatch: pytest.MonkeyPatch, java: Path, tmp_path: Path
) -> None:
    """Of ``spark.archives`` it would be sent twice: to YARN, and from the driver."""
    archive = tmp_path / "environment.tar.gz"
    monkeypatch.setattr(session, "cached_environment", lambda for_driver: archive)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    (tmp_path / "yarn-site.xml").touch()
    conf = {"spark.executor.cores": "4", "spark.yarn.dist.archives": "s3://silo/more.zip#more"}
    settings, _ = start(monkeypatch, Config(master="yarn", conf=conf))
    ours = f"file://{archive}#environment"
    assert settings["spark.yarn.dist.archives"] == f"s3://silo/more.zip#more,{ours}"
    assert "spark.archives" not in settings
    assert settings["spark.executor.memoryOverhead"] == "1600m"


@pytest.mark.parametrize(
    ("master", "given", "overhead"),
    [
        ("yarn", {}, "550m"),
        ("k8s://https://orchard", {"cores": "4"}, "1600m"),
        ("yarn", {"cores": "8", "task.cpus": "2"}, "1600m"),
        ("yarn", {"memory": "20g"}, "2048m"),
        ("yarn", {"memoryOverhead": "1g"}, None),
        ("yarn", {"memoryOverheadFactor": "0.4"}, None),
        ("yarn", {"cores": "many"}, None),
        ("spark://orchard:7077", {}, None),
        (None, {}, None),
    ],
)
def test_executors_have_room_for_python(
    master: str | None, given: dict[str, str], overhead: str | None
) -> None:
    """350 MiB a worker and 200, where YARN or Kubernetes ask and the user says nothing of it."""
    named = {f"spark.{'' if '.' in k else 'executor.'}{k}": v for k, v in given.items()}
    assert session.memory_settings(master, named).get("spark.executor.memoryOverhead") == overhead


def test_a_user_without_a_name_gets_one_and_a_home(
    monkeypatch: pytest.MonkeyPatch, java: Path, tmp_path: Path
) -> None:
    """Java takes both from the system's list of users, where a container's user may be missing."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for name in ("HOME", "SPARK_USER"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / f"verger-home-{os.getuid()}"
    given = {"spark.driver.extraJavaOptions": "-Da=b"}
    settings, environment = start(monkeypatch, Config(master="local[2]", conf=given))
    assert f'"-Duser.home={home}"' in settings["spark.driver.defaultJavaOptions"]
    assert settings["spark.driver.extraJavaOptions"] == "-Da=b"
    assert environment["HOME"] == str(home)
    assert environment["SPARK_USER"] == f"uid-{os.getuid()}"
    assert "HOME" not in os.environ


@pytest.mark.parametrize(
    ("error", "printed", "says"),
    [
        ("Java gateway process exited", "WARNING: x\nUnrecognized option: -Xfoo", "option: -Xfoo"),
        ("Java gateway process exited", "WARNING: x", "its Java has ended: killed, or out of mem"),
        (
            "IllegalStateException: Cannot call methods on a stopped SparkContext.",
            "12:00:00 ERROR TransportClientFactory: x\njava.net.UnknownHostException: orchard",
            "UnknownHostException: orchard",
        ),
        ("java.lang.IllegalArgumentException: memory", "12:00:00 ERROR A: b", "Exception: memory"),
    ],
)
def test_what_java_has_printed_tells_why_spark_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, printed: str, says: str
) -> None:
    """If Java ends, its reason is only in what it printed; else Spark's own error has it."""
    monkeypatch.delenv("VERGER_SPARK_LOG", raising=False)

    def spark_home(log: Path) -> Path:
        log.write_text(printed)
        return tmp_path

    found = SimpleNamespace(spark_home=spark_home)
    monkeypatch.setattr(session, "find_java", lambda: found)
    monkeypatch.setattr(SparkContext, "getOrCreate", partial(fail, error))
    with pytest.raises(EnvironmentNotReadyError, match="Spark does not start") as caught:
        session.get_session(Config(master="local[2]"))
    assert says in str(caught.value)


def test_what_needs_a_name_too_early_is_said(
    monkeypatch: pytest.MonkeyPatch, java: Path, tmp_path: Path
) -> None:
    """An event log is written before a user without a name can be given one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    error = "LoginException: java.lang.NullPointerException: invalid null input: name"
    monkeypatch.setattr(SparkContext, "getOrCreate", partial(fail, error))
    with pytest.raises(EnvironmentNotReadyError, match=r"has no name, .* or add the user to /etc"):
        session.get_session(Config(master="local[2]"))


def test_sparks_reader_looks_for_no_sums_of_photos() -> None:
    """Other sessions keep Hadoop's usual file system, as do those of a cluster."""
    key = "spark.hadoop.fs.file.impl"
    assert "RawLocal" in session_settings(Config(reader="spark"), local=True)[key]
    assert key not in session_settings(Config(reader="spark"), local=False)
    assert key not in session_settings(Config(), local=True)


def fail(error: str, _: Any) -> None:
    raise RuntimeError(error)


def test_an_active_session_keeps_what_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--conf`` of what is fixed at the start is not asked for again by each stage."""
    told: dict[str, str] = {}
    conf = SimpleNamespace(isModifiable=lambda key: ".sql." in key, set=told.__setitem__)
    active = SimpleNamespace(conf=conf)  # its class is in no module of Spark Connect's
    given = {"spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "2"}
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: active)
    assert session.get_session(Config(conf=given)) is active  # type: ignore[comparison-overlap]
    assert told == {"spark.sql.shuffle.partitions": "2"}


def test_spark_reads_no_bucket_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting, with the version of Hadoop that this Spark carries."""
    advice = r"spark\.jars\.packages=org\.apache\.hadoop:hadoop-aws:3\.4\.9$"
    for source in ("s3://orchard/photos", "s3a://orchard/photos"):
        with pytest.raises(EnvironmentNotReadyError, match=advice):
            check_hadoop_reads(source, Config(reader="spark"))
    check_hadoop_reads("/photos", Config(reader="spark"))
    check_hadoop_reads("s3://a/b", Config(conf={"spark.jars": "/jars/hadoop-aws-3.4.9.jar"}))
    jars = Path(os.environ["SPARK_HOME"], "jars")
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    check_hadoop_reads("s3://a/b", Config())  # a managed Spark has its own
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT")
    (jars / "hadoop-aws-3.4.9.jar").touch()
    check_hadoop_reads("s3://a/b", Config())
