"""The commands that start Spark, as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from support.users import run_nameless
from verger.cli import app


def verger(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verger", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture
def no_java(tmp_path: Path) -> str:
    """Return a PATH with everything that this machine's has, but no java."""
    for folder in os.environ["PATH"].split(os.pathsep):
        if Path(folder).is_dir():
            for tool in Path(folder).iterdir():
                link = tmp_path / "bin" / tool.name
                link.parent.mkdir(exist_ok=True)
                if tool.name != "java" and not link.is_symlink():
                    link.symlink_to(tool)
    return str(tmp_path / "bin")


def test_the_demo_runs_where_there_is_no_java(tmp_path: Path, no_java: str) -> None:
    """With no JAVA_HOME and no java on the PATH the wheel's Java runs the whole job.

    Standard output is the summary alone, and nothing is said on standard error but the notice
    that the demo's model is another, where MobileNetV2's weights cannot be had.
    """
    out = tmp_path / "demo"
    # A mirror that refuses at once: the test fetches nothing, with or without a network.
    done = verger(
        "demo",
        out,
        "--classes",
        4,
        "--per-class",
        5,
        "--components",
        3,
        "--json",
        PATH=no_java,
        JAVA_HOME="",
        VERGER_WEIGHTS_URL="http://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["counts"]["featurized"] == 20
    assert record["pca"]["n_components"] == 3
    assert record["model"]["name"] == "efficientnet_lite0"
    assert "efficientnet_lite0" in record["notices"][0]
    assert (out / "result" / "report.html").is_file()
    told = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert told[:2] == ["Looking for weights", "Rendering photos"]
    assert {"Starting Spark", "Computing features: 20 photos", "Writing the report"} < set(told)


@pytest.mark.parametrize(("master", "home"), [(None, Path("/proc")), ("local[2]", None)])
def test_a_run_works_for_a_user_without_a_name(
    photos: Path, tmp_path: Path, master: str | None, home: Path | None
) -> None:
    """Neither engine needs a name or a home, nor does Hadoop or matplotlib; none complains."""
    spark = ["--master", master] if master else []
    out = tmp_path / "out"
    options = ["--model", "efficientnet_lite0", "--components", "2", *spark]
    done = run_nameless("run", photos, out, *options, home=home, temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["counts"]["featurized"] == 30
    assert not [line for line in done.stderr.splitlines() if "matplotlib" in line or "Java" in line]
    assert [path.name for path in tmp_path.glob("verger-*")] == ["verger-home-12345"]


def test_sparks_reader_takes_every_name_in_any_locale(photos: Path, tmp_path: Path) -> None:
    """Java would leave out names that are not ASCII, and fail at one with a colon."""
    folder = tmp_path / "in" / "2021-03-02T20:04" / "Pêche, 1"
    folder.mkdir(parents=True)
    names = ("ä b.jpg", "12:30.jpg", "#1 🙃.jpg", "100%.jpg", "[a].jpg", "{a,b}.jpg", "a?b=1.jpg")
    for name, photo in zip(names, sorted(photos.rglob("*.jpg")), strict=False):
        shutil.copy(photo, folder / name)
    options = ("--model", "efficientnet_lite0", "--reader", "spark", "--json")
    done = verger("featurize", tmp_path / "in", tmp_path / "out", *options, LC_ALL="POSIX")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["featurized"] == len(names)


def test_validate_says_what_does_not_hold_and_exits_1(result: Path) -> None:
    """A damaged result is named on standard error in one line."""
    next((result / "rejected").glob("*.parquet")).unlink()
    done = verger("validate", result)
    assert done.returncode == 1
    assert "FAILED  rejected/ has every file that run.json names" in done.stdout
    _, line = done.stderr.splitlines()  # the first names the stage
    assert line.startswith(
        "verger: it does not hold that rejected/ has every file that run.json names"
    )


def test_sparks_page_stays_up_until_it_is_ended(finished: Path) -> None:
    """--ui prints an address that answers, on loopback, also after the work is done."""
    command = [sys.executable, "-m", "verger", "validate", str(finished), "--ui"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "stays up at" in line:
                break
        address = line.split("stays up at ")[1].split(";")[0]
        assert "127.0.0.1" in address
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "ok      listed = featurized + rejected" in output


def test_commands_on_a_result(spark: SparkSession, result: Path) -> None:
    """reduce, report, validate and show work one by one on what run has left."""
    run = CliRunner().invoke
    for command in (
        ["reduce", str(result), "--components", "0.5", "--overwrite"],
        ["report", str(result)],
        ["validate", str(result)],
        ["show", str(result), "--table", "pca", "--rows", "2"],
        ["show", str(result), "--table", "rejected"],
    ):
        done = run(app, command)
        assert done.exit_code == 0, done.output
    shown = run(app, ["show", str(result), "--json"])
    view = json.loads(shown.stdout)
    assert (view["n_rows"], view["dimensions"], len(view["rows"])) == (30, [1280], 5)
    checks = json.loads(run(app, ["validate", str(result), "--json"]).stdout)
    assert checks["holds"] is True


def test_options_come_from_the_file_and_flags_win(
    spark: SparkSession, photos: Path, tmp_path: Path
) -> None:
    """A TOML file gives the options of a run; what is typed overrides it."""
    (tmp_path / "run.toml").write_text(
        'model = "efficientnet_lite0"\ncomponents = 4\nmicro-batch = 3\n'
        "[conf]\nspark.sql.shuffle.partitions = 3\n"
    )
    done = CliRunner().invoke(
        app,
        [
            "run",
            str(photos),
            str(tmp_path / "out"),
            "--config",
            str(tmp_path / "run.toml"),
            "--components",
            "2",
            "--glob",
            "0_*.jpg",
            "--glob",
            "72_*.jpg",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["counts"]["listed"] == 12
    assert record["counts"]["ignored"] == {".jpg": 18}
    assert (record["pca"]["n_components"], record["config"]["micro_batch"]) == (2, 3)


def test_doctor_finds_this_machine_fit(spark: SparkSession) -> None:
    """Every finding that is not optional works, and Spark is really asked."""
    done = verger("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    spark_says = next(f for f in findings if f["name"] == "Spark")
    assert "returned 1000 rows" in spark_says["detail"]
