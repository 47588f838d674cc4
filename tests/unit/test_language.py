"""The catalogue holds what the pages say, all of it and nothing else."""

from __future__ import annotations

import re
from importlib import resources

from verger.language import messages
from verger.serve.look import TITLE


def test_the_page_says_nothing_that_the_catalogue_does_not_have() -> None:
    folder = resources.files("verger.serve")
    page = folder.joinpath("page.html.j2").read_text()
    scripts = [folder.joinpath("static", f"{name}.js").read_text() for name in ("page", "server")]
    said = set(re.findall(r'data-say>([^<{"]+)<', page))
    said |= set(re.findall(r'(?:alt|aria-label)="([^"{]+)" data-say', page))
    said |= {text for script in scripts for text in re.findall(r'"([A-Z][^"]*[a-z.?])"', script)}
    said -= {"Content-Type"}
    assert said | {TITLE, f"{TITLE} - Verger", "Unknown"} == set(messages("page"))


def test_what_is_filled_in_is_the_same_in_both_languages() -> None:
    for part in ("page", "plot", "report"):
        for english, french in messages(part).items():
            assert set(re.findall(r"{\w*}", english)) == set(re.findall(r"{\w*}", french)), english


def test_the_plot_says_nothing_that_the_catalogue_does_not_have() -> None:
    plot = resources.files("verger.pca").joinpath("plots.py").read_text()
    assert set(re.findall(r'say\(\s*"([^"]+)"', plot)) == set(messages("plot"))
