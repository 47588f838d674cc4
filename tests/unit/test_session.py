"""What a session is started with, as far as it can be seen without starting one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyspark.sql import SparkSession

from verger import session
from verger.config import Config
from verger.environment import PYTHON
from verger.errors import EnvironmentNotReadyError
from verger.session import check_hadoop_reads, session_settings

AWS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from a shell that says nothing of Spark and AWS, and a Spark without a library."""
    for name in (*AWS, "PYSPARK_PYTHON", "PYSPARK_GATEWAY_PORT", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "hadoop-client-api-3.4.9.jar").touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)


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


def test_a_cluster_gets_this_environment_unless_it_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = tmp_path / "environment.tar.gz"
    monkeypatch.setattr(session, "cached_environment", lambda: archive)
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/theirs/bin/python")
    assert session._workers_environment(Config()) == {}
    assert os.environ["PYSPARK_PYTHON"] == "/opt/theirs/bin/python"
    monkeypatch.delenv("PYSPARK_PYTHON")
    assert session._workers_environment(Config()) == {
        "spark.archives": f"file://{archive}#environment"
    }
    assert os.environ["PYSPARK_PYTHON"] == PYTHON == "./environment/bin/python"
    theirs = Config(conf={"spark.pyspark.python": "/opt/other/bin/python"})
    assert session._workers_environment(theirs) == {}
    assert os.environ["PYSPARK_PYTHON"] == "/opt/other/bin/python"


def test_an_active_session_keeps_what_cannot_be_changed() -> None:
    """``--conf`` of what is fixed at the start is not asked for again by each stage."""
    told: dict[str, str] = {}
    conf = SimpleNamespace(isModifiable=lambda key: ".sql." in key, set=told.__setitem__)
    active = SimpleNamespace(conf=conf)
    given = {"spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "2"}
    assert session._with_conf(active, Config(conf=given)) is active  # type: ignore[arg-type]
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
