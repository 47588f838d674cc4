"""Which engine runs the tasks, and that nothing is loaded to find out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyspark.sql import SparkSession

from verger.config import Config
from verger.engine.choose import check_engine, start_engine, wants_spark
from verger.errors import ConfigError, EnvironmentNotReadyError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a shell that says nothing of Spark, without a session."""
    for name in ("PYSPARK_GATEWAY_PORT", "SPARK_HOME", "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)


def test_one_machine_needs_no_spark() -> None:
    """By default processes of this machine run the tasks: one a core, or as many as asked for."""
    assert not wants_spark(Config())
    engine = start_engine(Config(workers=3))
    assert (engine.name, engine.master, engine.n_cores) == ("local", None, 3)
    assert engine.versions == {}


@pytest.mark.parametrize(
    "config",
    [
        Config(master="local[*]"),
        Config(master="yarn"),
        Config(conf={"spark.driver.memory": "8g"}),
        Config(ui=True),
        Config(reader="spark"),
        Config(legacy_parquet=True),
    ],
    ids=["local", "cluster", "conf", "ui", "reader", "legacy"],
)
def test_an_option_that_only_spark_has_asks_for_it(config: Config) -> None:
    """Whoever sets something of Spark's means Spark."""
    assert wants_spark(config)


def test_an_active_session_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook that has one, ``verger.run`` runs on it."""
    session = SimpleNamespace()
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: session)
    assert wants_spark(Config())


def test_a_submitted_process_runs_on_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """``spark-submit`` has started it, on a cluster perhaps."""
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert wants_spark(Config())


def test_a_configured_master_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``spark-defaults.conf`` may name a cluster; one that names no master asks for nothing."""
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    defaults = tmp_path / "spark-defaults.conf"
    defaults.write_text("spark.driver.memory 2g\n")
    assert not wants_spark(Config())
    defaults.write_text("# a comment\nspark.master = spark://orchard:7077\n")
    assert wants_spark(Config())


def test_java_is_looked_for_only_where_spark_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a Java the local engine is ready, and Spark is not."""

    def none() -> None:
        raise EnvironmentNotReadyError("no Java")

    monkeypatch.setattr("verger.engine.session.find_java", none)
    check_engine(Config())
    with pytest.raises(EnvironmentNotReadyError, match="no Java"):
        check_engine(Config(master="local[2]"))


def test_file_names_must_be_read_as_utf8() -> None:
    """In an old locale photos whose names are not ASCII would be left out, or labelled wrongly."""
    program = (
        "from verger.config import Config; from verger.engine.choose import check_engine; "
        "check_engine(Config())"
    )
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | old
    )
    assert "reads file names as ascii here" in done.stderr
    assert done.stderr.strip().endswith("set PYTHONUTF8=1")


def test_a_run_needs_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that can only be read may have none: that is said before a photo is read."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(EnvironmentNotReadyError, match=r"in \['/tmp'\]; set TMPDIR to one"):
        check_engine(Config())


def test_choosing_loads_no_spark() -> None:
    """To find out that Spark is not wanted costs no import of it."""
    program = (
        "import sys; from verger.config import Config; from verger.engine.choose import *; "
        "start_engine(Config()).stop(); print([m for m in ('pyspark', 'py4j') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_workers_are_not_sparks() -> None:
    """Spark's master says how many there are."""
    with pytest.raises(ConfigError, match=r"workers=2 with master='local\[4\]': .* local\[N\]"):
        Config(workers=2, master="local[4]")
