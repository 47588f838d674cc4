"""What comes from data is printed as text: it moves no cursor, forges no line, hides no letter."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.results import run_record
from verger import cli
from verger.classify.predict import Neighbor, Prediction, Score
from verger.cli.doctor import Finding
from verger.cli.show import TableView
from verger.cli.terminal import TellingHandler, clean, print_json, say, say_lines, tell
from verger.errors import ErrorRateError, SourceError
from verger.job.validate import Validation
from verger.result.record import Check, Counts, ModelRecord
from verger.similar.photo import Match

HOSTILE = "a\x1b[2J\nok      all is well\r\x9b31m\u202egpj.evil\u2028ok\u200b\x00\x7f"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069]")

RECORD = run_record(
    output=HOSTILE,
    counts=Counts(
        listed=3,
        featurized=1,
        rejected=2,
        reasons={HOSTILE: 2},
        ignored={f".{HOSTILE}": 2},
        computed=3,
    ),
    model=ModelRecord(name=HOSTILE, n_features=4),
    contract_hash=HOSTILE,
    seconds={"featurize": 1.0},
    notices=(HOSTILE,),
)
PREDICTIONS = [
    Prediction(
        path=HOSTILE,
        prediction=HOSTILE,
        top=(Score(HOSTILE, 0.9),),
        nearest=(Neighbor(HOSTILE, HOSTILE, 0.1),),
    ),
    Prediction(path=HOSTILE, error="read error", detail=HOSTILE),
]
VIEW = TableView(
    name=HOSTILE,
    columns={HOSTILE: HOSTILE},
    n_rows=1,
    n_files=1,
    dimensions=[4],
    labels={HOSTILE: 1},
    rows=[{"path": HOSTILE, HOSTILE: [0.1, 0.2]}],
)
MODEL = SimpleNamespace(
    layers=(SimpleNamespace(name=HOSTILE, kind=HOSTILE, shape=(1, 2), n_params=3),),
    contract=SimpleNamespace(
        as_dict=lambda: {"model": HOSTILE}, hash="f00d", weights_sha256="f00d"
    ),
    weights_path=HOSTILE,
    published=None,
    license=HOSTILE,
)


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@dataclass(frozen=True)
class AnyPredictor:
    """Says the same of every photo."""

    label_map: None = None

    def iter_predictions(self, *_: Any) -> list[Prediction]:
        return PREDICTIONS


COMMANDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "run": (["run", "a", "b"], {"verger.job.pipeline.run": returning(RECORD)}),
    "a plan": (
        ["run", "a", "b", "--dry-run"],
        {
            "verger.job.plan.describe_plan": returning(
                {"config": {"glob": [HOSTILE]}, "steps": [HOSTILE]}
            )
        },
    ),
    "validate": (
        ["validate", "b"],
        {
            "verger.job.pipeline.run_validate": returning(
                Validation(
                    (Check(HOSTILE, True, HOSTILE), Check("b", False, HOSTILE)), {HOSTILE: 2}
                )
            )
        },
    ),
    "show": (["show", "b"], {"verger.cli.show.view_table": returning(VIEW)}),
    "predict": (
        ["predict", "x", "--model", "b"],
        {
            "verger.classify.predict.Predictor.load": returning(AnyPredictor()),
            "verger.classify.predict.list_named": returning([HOSTILE]),
        },
    ),
    "similar": (
        ["similar", "x", "b"],
        {
            "verger.similar.photo.find_similar": returning([Match(HOSTILE, HOSTILE, 0.9, True)]),
            "verger.classify.predict.list_named": returning([HOSTILE]),
            "verger.files.reading.read_photo": returning(b""),
        },
    ),
    "sample": (
        ["sample", "a", "b"],
        {
            "verger.source.sample.sample_dataset": returning(
                SimpleNamespace(folder=HOSTILE, classes={HOSTILE: 3})
            )
        },
    ),
    "doctor": (
        ["doctor"],
        {"verger.cli.doctor.examine": returning([Finding(HOSTILE, False, HOSTILE, HOSTILE)])},
    ),
    "models show": (
        ["models", "show", "x"],
        {"verger.features.model.load_model": returning(MODEL)},
    ),
}
NO_JSON: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a mistake of an option": (["run", "a", "b", HOSTILE], {}),
    "a choice": (["show", "b", "--table", HOSTILE], {}),
    "an error": (
        ["run", "a", "b"],
        {"verger.job.pipeline.run": raising(SourceError(f"source {HOSTILE}: is gone"))},
    ),
    "a failure": (["run", "a", "b"], {"verger.job.pipeline.run": raising(ErrorRateError(HOSTILE))}),
    "a bug": (["run", "a", "b"], {"verger.job.pipeline.run": raising(KeyError(HOSTILE))}),
    "an error of a text": (
        ["run", "a", "b"],
        {"verger.job.pipeline.run": raising(ZeroDivisionError(HOSTILE))},
    ),
}


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Run a command whose work is replaced; returns what it prints on stdout and on stderr."""

    def call(arguments: list[str], work: dict[str, Any]) -> tuple[str, str]:
        for target, value in work.items():
            monkeypatch.setattr(target, value)
        monkeypatch.setattr(sys, "argv", ["verger", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return call


@pytest.mark.parametrize("command", [*COMMANDS, *NO_JSON])
def test_no_command_prints_control_characters_of_its_data(
    call: Callable[..., tuple[str, str]], command: str
) -> None:
    """Labels, paths, reasons and messages are escaped, and none of them makes a line of its own."""
    arguments, work = (COMMANDS | NO_JSON)[command]
    out, err = call(arguments, work)
    assert "well" in out + err
    assert not UNSAFE.search(out + err)
    assert not [line for line in (out + err).splitlines() if line.startswith("ok      all")]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_has_the_data_as_it_is_and_no_control_character(
    call: Callable[..., tuple[str, str]], command: str
) -> None:
    """A program gets the very text; a terminal that shows the JSON is as safe as with the lines."""
    arguments, work = COMMANDS[command]
    out, _ = call([*arguments, "--json"], work)
    assert not UNSAFE.search(out)
    assert HOSTILE in _texts(json.loads(out))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_lines_of_a_log_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A log keeps its lines; everything else in it is escaped."""
    say_lines("one\x1b[1m\ntwo\n")
    say("three\nfour")
    tell("five\u202e")
    assert capsys.readouterr() == ("one\\x1b[1m\ntwo\nthree\\nfour\n", "five\\u202e\n")


def test_what_the_library_warns_of_is_a_line_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may quote an error of a bucket's client."""
    log = logging.Logger("verger")
    log.addHandler(TellingHandler(logging.WARNING))
    log.warning("it raised %s", "https://me:hunter2@host/x\x1b[2J\nforged")
    log.info("nothing")
    assert capsys.readouterr() == ("", "it raised https://(hidden)@host/x\\x1b[2J\\nforged\n")


@given(st.text())
def test_a_cleaned_text_is_one_line_that_can_be_written(text: str) -> None:
    """Whatever a file says, half characters of odd file names too, is one line of UTF-8."""
    cleaned = clean(text)
    assert not UNSAFE.search(cleaned)
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode()


@pytest.mark.parametrize(
    "sign", ["\u200c", "\u200d", "\u2800", "\u3164", "\U000e0100", "\U0001d173"], ids=ascii
)
def test_a_sign_without_ink_is_shown(sign: str) -> None:
    """Two names that look alike are told apart, on the terminal and in JSON."""
    assert sign not in clean(f"app{sign}le")
    assert "\\u" in clean(f"app{sign}le").lower()


@pytest.mark.parametrize(
    "text", ["pêche, Müller, 桃, خوخ, आड़ू", "a\\b", "👩‍🌾 🍑", "50 % [red]of[/red] it"]
)
def test_ordinary_letters_are_left_as_they_are(text: str) -> None:
    """Accents, other scripts, joined emoji and brackets are no danger."""
    assert clean(text) == text


@given(st.recursive(st.none() | st.booleans() | st.text("ab\n\x1b\u202e\u2028é"), st.lists))
def test_json_comes_back_as_it_went_in(value: Any) -> None:
    """Escaping does not change what the JSON says."""
    from io import StringIO
    from unittest.mock import patch

    with patch("sys.stdout", StringIO()) as out:
        print_json(value)
    assert json.loads(out.getvalue()) == value
    assert not UNSAFE.search(out.getvalue())


# Secrets

PASSWORD = "hunter2-Xq9"
ADDRESS = f"https://user:{PASSWORD}@host.example/photos"
BUCKET = f"s3://AKIAIOSFODNN7:{PASSWORD}@bucket/photos"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", ADDRESS, "out"],
        ["run", f"hdfs://user:{PASSWORD}@node/photos", "out", "--reader", "spark"],
        ["run", "photos", BUCKET],
        ["run", "photos", "out", "--weights", ADDRESS],
        ["run", "photos", "out", "--model", f"{ADDRESS}/m.onnx"],
        ["run", "photos", "out", "--master", f"spark://user:{PASSWORD}@host"],
        ["run", "photos", "out", "--config", f"{ADDRESS}/run.toml"],
        ["run", "photos", "out", "--conf", f"password={PASSWORD}", "--micro-batch", "0"],
        ["run", "photos", "out", f"--pasword={PASSWORD}"],
        ["featurize", BUCKET, "out", "--dry-run"],
        ["reduce", BUCKET],
        ["validate", BUCKET],
        ["report", BUCKET],
        ["show", BUCKET],
        ["predict", ADDRESS, "--model", "out"],
        ["predict", "photos/1.jpg", "--model", BUCKET],
        ["similar", ADDRESS, "out"],
        ["inspect", BUCKET],
        ["classify", "train", BUCKET],
        ["classify", "evaluate", "out", "--against", BUCKET],
        ["export", BUCKET, "app.onnx"],
        ["models", "show", "mobilenet_v2", "--weights", ADDRESS],
        ["sample", ADDRESS, "copy"],
        ["emr", "estimate", BUCKET, "--region", "eu-west-3"],
        ["emr", "submit", BUCKET, "s3://b/out", "--package", "s3://b/env", "--region", "x"],
        ["emr", "teardown", "--package", BUCKET, "--region", "x"],
    ],
    ids=" ".join,
)
def test_no_command_echoes_a_secret_that_it_was_given(
    call: Callable[..., tuple[str, str]],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address with a password is refused, or hidden where the message repeats it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    out, err = call(arguments, {})
    assert err
    assert PASSWORD not in out + err
    assert "Traceback" not in err
    assert [path for path in tmp_path.rglob("*") if PASSWORD in str(path)] == []
