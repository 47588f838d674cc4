"""How a local session starts: with an archive of its classes, and without harm from a bad one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

START = """
import json, psutil, verger
from verger.engine.session import launch_ahead
config = verger.Config(master="local[1]")
launch_ahead(config)
spark = verger.get_session(config, brief=True)
rows = spark.range(4, numPartitions=1).mapInArrow(lambda batches: batches, "id long").count()
pid = spark.sparkContext._jvm.ProcessHandle.current().pid()
maps = open(f"/proc/{pid}/maps").read()
daemons = [p.info["cmdline"][1:3] for p in psutil.process_iter(["ppid", "cmdline"])
           if p.info["ppid"] == pid and p.info["cmdline"] and "-m" in p.info["cmdline"]]
print(json.dumps({"rows": rows, "daemons": daemons, "archives": sorted(
    {line.split("/", 1)[1] for line in maps.splitlines() if line.endswith(".jsa")})}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which a process of its own has made the archive."""
    folder = tmp_path_factory.mktemp("cache") / "verger's home"
    python("-m", "verger.engine.warmup", home=folder)
    return folder


def python(
    *arguments: str, home: Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "VERGER_CLASS_ARCHIVE"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=env | {"VERGER_HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
    )


def start(home: Path, cwd: Path | None = None) -> dict[str, Any]:
    done = python("-c", START, home=home, cwd=cwd)
    found: dict[str, Any] = json.loads(done.stdout)  # and nothing of Java's beside it
    return found


def archive_of(home: Path) -> Path:
    return next((home / "java").glob("spark-*.jsa"))


def test_spark_starts_from_the_archive_of_its_classes(home: Path) -> None:
    """The JVM has mapped it, and Spark works."""
    found = start(home)
    assert found["rows"] == 4
    assert str(archive_of(home)).lstrip("/") in found["archives"]


def test_the_first_job_takes_the_workers_that_were_started_before_it(home: Path) -> None:
    """All workers come from one process of ours: another one would load all of it again."""
    assert start(home)["daemons"] == [["-m", "verger.engine.daemon"]]


@pytest.mark.parametrize("damaged", [slice(0, 64), slice(1 << 20, None)], ids=["head", "body"])
def test_a_damaged_archive_is_left_aside(home: Path, damaged: slice, tmp_path: Path) -> None:
    """Spark starts as it would without, and says nothing."""
    broken = tmp_path / "home"
    shutil.copytree(home, broken)
    archive = archive_of(broken)
    content = bytearray(archive.read_bytes())
    content[damaged] = bytes(len(content[damaged]))
    archive.chmod(0o644)
    archive.write_bytes(content)
    assert start(broken, cwd=tmp_path)["rows"] == 4


def test_the_session_takes_the_java_that_was_started_ahead(home: Path) -> None:
    """One JVM is started; of one that does not fit the session, nothing is left."""
    script = """
import json, os, psutil, sys, verger
from verger.engine.session import launch_ahead

def children():
    return [p.pid for p in psutil.Process().children()]

launch_ahead(verger.Config(master="local[1]"))
launch_ahead(verger.Config(master="local[1]"))
ahead = children()
config = verger.Config(master="local[1]", app_name=sys.argv[1])
spark = verger.get_session(config, brief=True)
name = spark.sparkContext.appName
print(json.dumps({"ahead": ahead, "after": children(), "name": name,
                  "environment": "PYSPARK_GATEWAY_PORT" in os.environ}))
"""
    same = json.loads(python("-c", script, "verger", home=home).stdout)
    assert len(same["ahead"]) == 1
    assert same["after"] == same["ahead"]
    other = json.loads(python("-c", script, "orchard", home=home).stdout)
    assert len(other["after"]) == 1
    assert other["after"] != other["ahead"]
    assert other["name"] == "orchard"
    assert not same["environment"]  # else the next session would be taken for a submitted one


def test_a_mistake_leaves_nothing_of_the_java_that_was_started_ahead(
    home: Path, tmp_path: Path
) -> None:
    """A command that ends before Spark is needed leaves no process and no folder."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "verger", "run", str(tmp_path / "none"), str(tmp_path / "out")],
        env=os.environ | {"VERGER_HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "none: does not exist" in done.stderr
    assert list(temporary.iterdir()) == []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            assert str(temporary) not in process.environ().values()
