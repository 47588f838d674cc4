"""What stands in Spark's way is named before it starts: the variable or setting, and what to do."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from verger.engine.checks import check_start, spark_defaults
from verger.engine.session import check_is_classic
from verger.errors import EnvironmentNotReadyError

VARIABLES = (
    "SPARK_HOME",
    "SPARK_CONF_DIR",
    "SPARK_REMOTE",
    "SPARK_API_MODE",
    "SPARK_CONNECT_MODE_ENABLED",
    "SPARK_LOCAL_DIRS",
    "PYSPARK_PYTHON",
)
OURS = "{}.{}".format(*sys.version_info)


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a shell that says nothing of Spark."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def refused(*, local: bool = True, **settings: str) -> str:
    with pytest.raises(EnvironmentNotReadyError) as caught:
        check_start(settings, local=local)
    return str(caught.value)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_shell_that_says_nothing_is_fit() -> None:
    """Nor does an event log that is off, or this very Python, stand in the way."""
    check_start({}, local=True)
    check_start(
        {"spark.eventLog.dir": "/nowhere", "spark.pyspark.python": sys.executable}, local=True
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPARK_REMOTE", "sc://orchard:15002/;token=hunter2"),
        ("SPARK_API_MODE", "Connect"),
        ("SPARK_CONNECT_MODE_ENABLED", "1"),
    ],
)
def test_spark_connect_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The variable is named, its value, which may hold a token, is not."""
    monkeypatch.setenv(name, value)
    text = refused()
    assert text.startswith(f"{name} is set: it asks for Spark Connect")
    assert f"unset {name}" in text
    assert "orchard" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(("name", "value"), [("spark.remote", "x"), ("spark.api.mode", "connect")])
def test_a_setting_may_not_ask_for_spark_connect(name: str, value: str) -> None:
    """Nor may a setting of --conf or spark-defaults.conf; classic mode may be asked for."""
    assert refused(**{name: value}).startswith(f"{name} is set")
    check_start({"spark.api.mode": "classic"}, local=True)


def test_a_connect_session_is_refused() -> None:
    """A notebook of a managed Spark may have one; it has no JVM to send a model with."""
    session = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    with pytest.raises(EnvironmentNotReadyError, match="active session is one of Spark Connect"):
        check_is_classic(session)


def test_spark_home_must_hold_the_spark_of_pyspark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another Spark answers pyspark's calls with errors that name neither of them."""
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert refused().startswith(f"SPARK_HOME={tmp_path}: holds no Spark")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spark-submit").touch()
    (tmp_path / "jars").mkdir()
    jar = tmp_path / "jars" / "spark-core_2.12-2.4.8.jar"
    jar.touch()
    text = refused()
    assert f"holds Spark 2.4.8, and the installed pyspark is {version('pyspark')}" in text
    assert "pip install pyspark==2.4.8" in text
    minor = ".".join(version("pyspark").split(".")[:2])
    jar.rename(jar.with_name(f"spark-core_2.13-{minor}.99.jar"))
    check_start({}, local=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            f"echo {OURS}; echo \"ModuleNotFoundError: No module named 'verger'\" >&2; exit 1",
            "runs no task of Verger: ModuleNotFoundError: No module named 'verger'; unset ",
        ),
        ("echo 3.8; exit 1", f"is Python 3.8, and the driver's is {OURS}: Spark needs the same"),
        ("sleep 60", "gave no answer within 0.2 s"),
    ],
)
def test_a_python_that_cannot_work_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, why: str
) -> None:
    """Whatever names it; on a cluster it is no Python of this machine, and is not asked."""
    if "sleep" in text:
        monkeypatch.setattr("verger.engine.checks.ASK_SECONDS", 0.2)
    python = script(tmp_path / "python", text)
    assert f"spark.pyspark.python={python}: {why}" in refused(**{"spark.pyspark.python": python})
    monkeypatch.setenv("PYSPARK_PYTHON", python)
    assert f"PYSPARK_PYTHON={python}: {why}" in refused()
    check_start({}, local=False)


def test_a_python_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that no longer holds a Python is said as such."""
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    assert "PYSPARK_PYTHON=/nowhere/python: No such file" in refused()


def test_a_python_with_verger_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is really asked to import what a task needs."""
    monkeypatch.setenv("PYSPARK_PYTHON", script(tmp_path / "python", f'exec {sys.executable} "$@"'))
    check_start({}, local=True)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}"])
def test_a_folder_for_event_logs_must_be_there(tmp_path: Path, form: str) -> None:
    """Spark does not make it, and ends; that of another system is for Spark to look at."""
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": form.format(tmp_path / "no"),
    }
    assert f"spark.eventLog.dir={form.format(tmp_path / 'no')}: no folder" in refused(**settings)
    (tmp_path / "no").mkdir()
    check_start(settings, local=True)
    check_start(settings | {"spark.eventLog.dir": "hdfs://orchard/logs"}, local=True)


def test_folders_for_blocks_must_be_writable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of several is enough, and one that can be made; Spark's JVM would end without a word."""
    (tmp_path / "file").touch()
    bad = str(tmp_path / "file" / "x")
    assert f"spark.local.dir={bad}: no folder that can be written" in refused(
        **{"spark.local.dir": bad}
    )
    monkeypatch.setenv("SPARK_LOCAL_DIRS", bad)
    assert f"SPARK_LOCAL_DIRS={bad}" in refused()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{bad}, {tmp_path / 'new'}")
    check_start({}, local=True)


def test_defaults_are_read_where_spark_reads_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the forms that Java's properties have, from SPARK_CONF_DIR or below SPARK_HOME."""
    assert spark_defaults() == {}
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(
        "# spark.master yarn\n\nspark.master   spark://orchard:7077\nspark.a = b c\nspark.c:d\n"
    )
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    expected = {"spark.master": "spark://orchard:7077", "spark.a": "b c", "spark.c": "d"}
    assert spark_defaults() == expected
    monkeypatch.delenv("SPARK_HOME")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    assert spark_defaults() == expected
