"""The page of ``verger serve`` in a real browser, as a person uses it: on a phone, by keyboard.

Pictures of it lie in the folder that VERGER_SCREENSHOTS names, where it is set.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.browser import RUNTIME, run_script
from verger.classify.predict import Predictor

FACT = "Sweet & crisp; <b>keeps</b> until spring."


@contextmanager
def server(out: Path, *options: str | Path) -> Iterator[str]:
    command = [sys.executable, "-m", "verger", "serve", out, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def use_page(address: str, photo: Path, tmp_path: Path) -> dict[str, Any]:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    pictures = Path(os.environ.get("VERGER_SCREENSHOTS", tmp_path))
    return run_script("page.mjs", address, photo, bad, pictures)


@pytest.mark.parametrize("in_browser", [False, True])
def test_a_photo_is_named_in_a_browser(
    trained: Path, photos: Path, tmp_path: Path, in_browser: bool
) -> None:
    photo = sorted(photos.rglob("*.jpg"))[7]
    facts = tmp_path / "facts.toml"
    facts.write_text(f"[{json.dumps(photo.parent.name)}]\nline = {json.dumps(FACT)}\n")
    more = ("--in-browser", "--ort-web", RUNTIME) if in_browser else ()
    feedback = tmp_path / "feedback.csv"
    with server(trained, "--facts", facts, "--feedback", feedback, *more) as address:
        seen = use_page(address, photo, tmp_path)
    (expected,) = Predictor.load(trained).predict([photo.read_bytes()], ["photo"])
    told = [float(text.removesuffix("%")) / 100 for text in seen["scores"]]
    assert told == pytest.approx([score.probability for score in expected.top], abs=0.01)
    assert seen["name"] == expected.prediction == photo.parent.name
    assert seen["status"].startswith(f"{photo.parent.name}. Probability ")  # read aloud
    assert seen["fact"] == FACT  # as text, not as markup
    assert seen["similar"] == [score.label for score in expected.nearest]
    assert seen["failure"].startswith("This file is not a photo that can be read.")
    assert seen["hidden"] is True
    assert seen["again"] == [photo.parent.name] * 2 + [True]  # by camera, and dropped
    large = "not a photo that can be read" if in_browser else "too large to be sent"
    assert large in seen["large"]
    assert seen["heavy"] > 10_000_000  # more than the server takes: the page makes it smaller
    assert "Probability" in seen["heavyStatus"] or "likeliest" in seen["heavyStatus"]
    assert (seen["underWay"], seen["stopped"]) == ([True, True], "Stopped.")
    assert seen["title"].endswith("a-t-il sur cette photo ? - Verger")
    assert "Probabilités" in seen["french"]
    assert seen["thanks"].startswith("Merci.")
    ((path, label, prediction, _),) = list(csv.reader(feedback.read_text().splitlines()))[1:]
    assert (label, prediction) == ("Pêche", photo.parent.name)
    assert Path(path).parent == tmp_path / "feedback-photos"
    assert seen["violations"] == seen["installability"] == []
    assert seen["manifest"][1:] == ["standalone", [200, 200]]
    _check_place(seen, address, in_browser)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_site_gets_nothing(trained: Path, photos: Path, host: str) -> None:
    """Neither one of another host nor one of another port posts, embeds or reads; a link works."""
    photo = sorted(photos.rglob("*.jpg"))[7]
    with server(trained) as address:
        seen = run_script("foreign.mjs", address, host, photo)
    assert seen["read"] == []
    assert seen["title"].endswith("Verger")
    asked = [(method, path) for method, path, _ in seen["answers"]]
    assert asked.count(("POST", "/predict")) == 4
    assert {("GET", "/health"), ("GET", "/known/0.jpg")} <= set(asked)
    allowed = {(m, p) for m, p, status in seen["answers"] if status != 403}
    assert ("GET", "/") in allowed
    assert not allowed & {("POST", "/predict"), ("GET", "/health"), ("GET", "/known/0.jpg")}


def _check_place(seen: dict[str, Any], address: str, in_browser: bool) -> None:
    """Nothing is asked of others, no photo leaves, nothing is refused or runs off the screen."""
    own = (address, f"blob:{address}", "data:")
    assert [url for _, url in seen["requests"] if not url.startswith(own)] == []
    assert [m for m, _ in seen["requests"]].count("POST") == (0 if in_browser else 7)
    assert seen["problemsBefore"] == []
    assert seen["overflow"] == {"phone": 0, "small": 0, "desktop": 0}
    assert seen["firstFocus"] == "file"
    for name in ("Choose a photo", "Use the camera", "Your photo", "Probabilities"):
        assert f'"name":"{name}"' in seen["reader"]
