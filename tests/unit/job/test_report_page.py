"""What must hold of the report page: it is whole, it is one file, and no name can harm it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from verger.job.report.charts import scree_chart
from verger.job.report.chosen import path_below
from verger.job.report.page import (
    format_moment,
    format_number,
    format_percent,
    format_plain,
    format_seconds,
    format_size,
    render_page,
)
from verger.language import messages

Report = dict[str, Any]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"quotes' & ampersands {{ 7 * 7 }}",
    "تفاح \u202e أحمر",
    "リンゴ",
    "long" * 50,
)
HEADINGS = (
    "Ledger",
    "Notices",
    "Classes",
    "Map",
    "Principal components",
    "Rejected photos",
    "Time by stage",
    "Small print",
)
N_POINTS = 3000
SPRITE = b"\xff\xd8 not looked into \xff\xd9"


class Page(HTMLParser):
    """The tags, the text and the scripts of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append((self.tags[-1][1].get("type"), data))
        elif self.cdata_elem is None:
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def _report(labels: tuple[str | None, ...] = HOSTILE, n_points: int = 20) -> Report:
    evil = HOSTILE[0]
    return {
        "verger": "0.1.0",
        "created": "2026-11-22T16:00:00+00:00",
        "source": f"/data/{evil}",
        "output": f"/out/{evil}",
        "command": f"verger run '/data/{evil}' /out",
        "counts": {
            "listed": 1002,
            "featurized": 1000,
            "rejected": 2,
            "bytes": 93_000_000,
            "ignored": {".txt": 12, evil: 1},
        },
        "reasons": {"truncated": 1, evil: 1},
        "rejected": [
            {
                "path": f"file:///data/{evil}/a.jpg",
                "label": evil,
                "length": 123,
                "reason": "truncated",
                "detail": HOSTILE[1],
            },
            {
                "path": "/elsewhere/b.jpg",
                "label": None,
                "length": None,
                "reason": evil,
                "detail": None,
            },
        ],
        "classes": [
            {"label": label, "featurized": 10 + i, "rejected": i % 2, "thumbnails": [i, 0]}
            for i, label in enumerate(labels)
        ],
        "model": {
            "name": evil,
            "license": "Apache-2.0",
            "weights_sha256": "ab" * 32,
            "weights_path": evil,
            "published": False,
            "n_features": 1280,
            "input_size": 224,
            "precision": "float32",
        },
        "contract": {"model": "mobilenet_v2", "mean": [127.5] * 3, evil: evil},
        "contract_hash": "cd" * 32,
        "pca": {
            "n_samples": 1000,
            "n_components": 174,
            "components": 0.9,
            "kept": 0.9003,
            "standardize": False,
            "center": False,
            "k": {"0.8": 74, "0.9": 174, "0.95": 328},
        },
        "spectrum": [0.1, 0.08, 0.05],
        "map": {
            "labels": [label or "" for label in labels],
            "scores": {"low": [-1.5, -2.0], "high": [3.25, 4.0], "steps": "AAAA" * n_points},
            "label": [i % len(labels) for i in range(n_points)],
            "name": [
                f"{labels[i % len(labels)]}/photo {i} of the orchard.jpg" for i in range(n_points)
            ],
            "thumbnail": [i if i < 8 else -1 for i in range(n_points)],
            "share": [0.21, 0.11, 0.05],
            "neighbours": {"x": [0.0], "y": [0.0], "perplexity": 30, "of": "a digest"},
            "totals": [10 + i for i in range(len(labels))],
            "n_total": 1000,
        },
        "sprite": {
            "tile": 48,
            "columns": 40,
            "paths": [f"/photos/{evil}/{i}.jpg" for i in range(8)],
        },
        "stages": [
            {"name": "list", "seconds": 0.8, "images_per_s": 25777.5},
            {"name": "featurize", "seconds": 221.4, "images_per_s": 151.2},
            {"name": "write", "seconds": 3.1, "images_per_s": None},
        ],
        "checks": [
            {"name": "listed = featurized + rejected", "holds": True, "detail": "1002 = 1000 + 2"}
        ],
        "versions": {"verger": "0.1.0", "java": None},
        "machine": {"cpu_count": 2, "platform": "Linux"},
        "config": {"glob": [], "conf": {evil: evil}, "master": None},
        "notices": [evil],
    }


def _evaluation(labels: tuple[str, ...] = HOSTILE, split: str = "contiguous") -> Report:
    """What is known after ``verger classify evaluate``."""
    n = len(labels)
    curve = [
        {"threshold": t, "coverage": 1 - t / 2, "error": 0.1 - t / 20, "others": 0.5 - t / 2}
        for t in (0, 0.5, 0.99)
    ]
    one = {
        "split": split,
        "n_train": 700,
        "n_test": 200,
        "n_left_out": 100,
        "untested": [],
        "scores": {
            "n": 200,
            "accuracy": 0.912,
            "top5": 0.99,
            "balanced_accuracy": 0.9,
            "log_loss": 0.31,
            "ece": 0.02,
        },
        "reliability": [{"low": 0.9, "n": 200, "probability": 0.95, "accuracy": 0.91}],
        "threshold": {"threshold": 0.5, "coverage": 0.75, "error": 0.01, "others": 0.04},
        "curve": curve,
        "n_others": 30,
        "sure": {"threshold": 0.99, "wrong": 3, "others": 1},
        "training": {"threshold": 0.5},
        "n_components": None,
        "leakage": {
            "n": 200,
            "nearest_neighbour_accuracy": 0.88,
            "neighbouring_frame": 0.0,
            "same_film": 0.4,
        },
        "by_k": [{"k": k, "accuracy": 1 - 1 / (k + 1), "variance": k / 1280} for k in (1, 9, 99)],
    }
    leaking = one["leakage"] | {"neighbouring_frame": 0.97}
    return {
        "method": "logistic",
        "on": "features",
        "against": None,
        "n_unlabelled": 0,
        "labels": list(labels),
        "evaluation": one,
        "beside": one | {"split": "random", "n_left_out": 0, "leakage": leaking},
        "classes": [
            {"label": label, "n": 10, "recall": 0.9, "precision": None, "f1": 0.8}
            for label in labels
        ],
        "confusion": [[i, i, 9] for i in range(n)] + [[0, 1, 1]],
        "pairs": [
            {
                "label": labels[0],
                "prediction": labels[1],
                "n": 1,
                "share": 0.1,
                "photos": ["/a.jpg"],
                "known": ["/b.jpg"],
                "thumbnails": [0],
                "known_thumbnails": [1],
            }
        ],
    }


def _bare() -> Report:
    """What is known after ``verger featurize`` of photos without labels."""
    report = _report(labels=(None,))
    counts = {"listed": 10, "featurized": 10, "rejected": 0, "bytes": 9, "ignored": {}}
    return report | {
        "counts": counts,
        "reasons": {},
        "rejected": [],
        "pca": None,
        "map": None,
        "sprite": None,
        "classes": [{"label": None, "featurized": 10, "rejected": 0, "thumbnails": []}],
        "stages": [],
        "checks": [],
        "notices": [],
        "config": None,
        "machine": None,
        "command": None,
    }


def _render(report: Report) -> str:
    return render_page(report, sprite_jpeg=SPRITE)


def _text(html: str) -> str:
    return " ".join(" ".join(Page(html).text).split())


# Names from the disk


def test_hostile_names_make_no_tag_and_no_script():
    """A name never becomes markup: the page has the same tags as one with harmless names."""
    hostile = Page(_render(_report()))
    assert not [a for a in hostile.all("img") if not (a["src"] or "").startswith("data:")]
    assert not [a for _, a in hostile.tags if any(name.startswith("on") for name in a)]
    assert [kind for kind, _ in hostile.scripts] == ["application/json", None]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_they_are(name: str):
    """What a reader sees is the name itself, character by character."""
    page = Page(_render(_report()))
    assert name in page.text


def test_raw_hostile_text_is_nowhere_in_the_page():
    """Not even inside a script block or an attribute does a hostile name stand unescaped."""
    html = _render(_report())
    for name in HOSTILE[:3]:
        assert name not in html
    assert "alert(1)" not in Page(html).scripts[1][1]


def test_template_syntax_in_a_name_is_not_evaluated():
    """A name that looks like a template stays text."""
    html = _render(_report())
    assert "{{ 7 * 7 }}" in html


def test_a_name_that_is_not_utf8_does_not_break_the_page():
    """Lone surrogates, as Python reads bad file names, still give a page that can be written."""
    html = _render(_report(labels=("caf\udce9", "tea")))
    assert "caf?" in html.encode("utf-8").decode("utf-8")


# The data block


def test_the_data_block_parses_back_to_the_same_data():
    """What the script reads is the report's map, its source, and the name of every thumbnail."""
    report = _report()
    data = Page(_render(report)).scripts[0][1]
    assert json.loads(data) == {
        "map": report["map"],
        "sprite": {"tile": 48, "columns": 40},
        "tiles": report["sprite"]["paths"],
        "source": report["source"],
        "messages": {"fr": messages("report")},
    }
    assert not set("<>&") & set(data)


def test_numbers_that_json_has_not_are_refused():
    """NaN would make the browser drop the whole map in silence; it is an error here."""
    report = _report()
    report["map"]["scores"]["low"][1] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        _render(report)


def test_3000_points_stay_below_4_mb_beside_the_sprite():
    """A page of the largest map is small enough to be mailed."""
    labels = tuple(f"Class number {i} リンゴ" for i in range(1000))
    sprite = b"\0" * 3_000_000
    html = render_page(_report(labels, N_POINTS), sprite_jpeg=sprite)
    assert len(html.encode("utf-8")) < 4_000_000 + 4 * len(sprite) / 3 + 4
    assert len(html) > 4 * len(sprite) / 3


def test_the_sprite_is_in_the_page_once():
    """Thumbnails share one picture, however many there are."""
    assert _render(_report()).count(base64.b64encode(SPRITE).decode("ascii")) == 1


# One file


@pytest.mark.parametrize("report", [_report(), _bare()], ids=["full", "bare"])
def test_the_page_asks_for_nothing(report: Report):
    """Every resource is inside the page: links are fragments, pictures are data."""
    html = _render(report)
    page = Page(html)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.S))
    assert all(u.strip("\"'").startswith("data:") for u in re.findall(r"url\((.*?)\)", style))
    assert "@import" not in style
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", html)


def test_the_policy_lets_only_the_pages_own_script_run():
    """The Content-Security-Policy names the script by its hash, and no other source."""
    page = Page(_render(_report()))
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a) or ""
    script = page.scripts[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_fragment_and_label_points_at_something():
    """Links inside the page, labels and descriptions refer to ids that exist, once each."""
    labels = tuple(f"class {i}" for i in range(40))
    page = Page(_render(_report(labels=labels) | {"classifier": _evaluation(labels)}))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        wanted = [attrs.get(n) for n in ("for", "aria-labelledby", "aria-describedby")]
        wanted.append((attrs.get("href") or "").removeprefix("#"))
        assert {w for w in wanted if w and not w.startswith("data:")} <= set(ids)


def test_every_id_the_script_uses_is_in_the_full_page():
    """The script looks up no element that the template has renamed."""
    labels = tuple(f"class {i}" for i in range(40))
    page = Page(_render(_report(labels=labels) | {"classifier": _evaluation(labels)}))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert set(re.findall(r'\$\("([\w-]+)"\)', page.scripts[1][1])) <= ids


# What is on it


def test_every_section_has_its_heading():
    """The sections stand in their order, each under its heading."""
    found = re.findall(r'<h2 id="[\w-]+">(.*?)</h2>', _render(_report()))
    assert tuple(found) == HEADINGS


def test_a_bare_run_renders_and_says_what_is_missing():
    """Without PCA, map, sprite, checks and times the page says so in words."""
    html = render_page(_bare(), sprite_jpeg=None)
    text = _text(html)
    found = re.findall(r'<h2 id="[\w-]+">(.*?)</h2>', html)
    assert tuple(found) == tuple(h for h in HEADINGS if h != "Notices")
    for words in (
        "Not validated",
        "No map",
        "were not reduced",
        "No photo was rejected",
        "no thumbnails",
        "No times are on record",
        "carry no labels",
    ):
        assert words in text
    assert "None" not in text


def test_thumbnails_without_their_picture_are_left_out():
    """A report that names a sprite renders without its bytes."""
    html = render_page(_report(), sprite_jpeg=None)
    assert json.loads(Page(html).scripts[0][1])["sprite"] is None
    assert "data:image/jpeg" not in html


def test_a_run_without_photos_renders():
    """Zero listed photos divide nothing by zero."""
    report = _bare()
    report["counts"] |= {"listed": 0, "featurized": 0}
    report["classes"] = []
    assert "no class to show" in _text(_render(report))


def test_the_verdict_is_good_when_all_checks_hold():
    """All checks hold, and the photos that were rejected are named."""
    text = _text(_render(_report()))
    assert "The check holds" in text
    assert "1,000 have features, 2 were rejected" in text


def test_the_verdict_is_bad_when_a_check_fails():
    """One failing check turns the verdict, opens the list and shows the detail."""
    report = _report()
    report["checks"].append({"name": "no path twice", "holds": False, "detail": "3 are"})
    html = _render(report)
    assert 'class="verdict bad"' in html
    assert "<details open>" in html
    text = _text(html)
    assert "1 of 2 checks does not hold" in text
    assert text.index("no path twice") < text.index("listed = featurized")


def test_the_verdict_is_bad_when_the_counts_do_not_add_up():
    """A lost photo is never called good, even if no check noticed."""
    report = _report()
    report["counts"]["listed"] += 1
    html = _render(report)
    assert 'class="verdict bad"' in html
    assert "The counts do not add up" in html
    assert "≠" in html


def test_a_truncated_list_of_rejected_says_how_many_there_are():
    """A reader is never led to take the first rows for all of them."""
    report = _report()
    report["counts"] |= {"listed": 21_000, "rejected": 20_000}
    assert "The first 2 of 20,000" in _text(_render(report))


def test_the_quality_of_photos_is_shown_as_far_as_it_was_measured():
    """Names are text; of a result of before only sizes are judged, and the page says so."""
    report, evil = _report(), HOSTILE[0]
    flaw = {"flaw": "small", "n": 9, "limit": 87.0, "photos": [evil], "values": [60.0], "tiles": []}
    report["quality"] = {"n_photos": 1000, "n_measured": 400, "flaws": [flaw]}
    html = _render(report)
    text = " ".join(_text(html).split())
    assert "The other 600 photos are of runs that did not measure." in text
    assert "9 photos, shorter side, in pixels, under 87 60" in text
    assert evil in text
    report["quality"] = {"n_photos": 1000, "n_measured": 0, "flaws": []}
    text = _text(_render(report))
    assert "not measured when this result was made" in text
    assert "None is of an odd size or shape." in text


def test_few_classes_are_all_in_sight_and_many_are_behind_a_search():
    """Five classes need no search box; of a thousand the first are shown, the rest are there."""
    few = Page(_render(_report()))
    many = Page(_render(_report(labels=tuple(f"class {i}" for i in range(1000)))))
    assert not [a for a in few.all("input") if a.get("id") == "class-search"]
    assert [a for a in many.all("input") if a.get("id") == "class-search"]
    assert sum("class-card" in (a.get("class") or "") for a in many.all("li")) == 1000


def test_a_class_has_the_same_colour_in_the_list_and_on_the_map():
    """The list's colour is the class's place in the map's legend, also without a label."""
    report = _report(labels=("b", None, "a"))
    report["map"]["labels"] = ["", "a", "b"]
    dots = re.findall(r'class="dot"[^>]*--i:(\d+);', _render(report))
    assert dots == ["2", "0", "1"]


def test_axes_name_their_share_of_the_variance():
    """Each axis says how much of the variance it shows, as far as that is known."""
    report = _report()
    assert "PC 1 (21.0 % of the variance)" in _text(_render(report))
    report["map"]["share"] = [0.5]
    assert "PC 2 (" not in _render(report)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"cpu_count": 2}, "each stage, on 2 cores"),
        ({"cpu_count": 1}, "each stage, on 1 core"),
        ({}, "Seconds of each stage Stage"),
    ],
)
def test_times_name_the_cores_they_were_taken_on(machine: dict[str, int], words: str):
    """Seconds mean little without the number of cores; unknown, it is left out."""
    assert words in _text(_render(_report() | {"machine": machine}))


def test_pictures_have_a_text_instead():
    """The scree plot's text says what the plot shows; the thumbnails are counted and named."""
    page = Page(_render(_report()))
    (scree,) = [a for a in page.all("svg") if "Scree plot" in (a.get("aria-label") or "")]
    assert "174 components reach 90\u00a0%" in (scree["aria-label"] or "")
    assert any((a.get("aria-label") or "").startswith("2 sample photos of") for _, a in page.tags)
    assert unescape(HOSTILE[0]) in " ".join(a.get("aria-label") or "" for _, a in page.tags)


@pytest.mark.parametrize(("n_components", "chosen"), [(2, True), (174, False)])
def test_the_scree_plot_has_a_bar_a_component_and_its_sums(n_components: int, chosen: bool):
    """Each bar says its numbers; the chosen k has a line where it is on the plot."""
    pca = _report()["pca"] | {"n_components": n_components}
    html = _render(_report() | {"pca": pca, "spectrum": [0.1, 0.08, 0.05]})
    titles = re.findall(r"<title>(Component .+?)</title>", html)
    assert titles == [
        "Component 1: 10.00\u00a0%, with those before 10.0\u00a0%",
        "Component 2: 8.00\u00a0%, with those before 18.0\u00a0%",
        "Component 3: 5.00\u00a0%, with those before 23.0\u00a0%",
    ]
    assert ('class="chosen"' in html) == chosen
    assert ("(beyond this plot)<" in html) != chosen


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("first", [1 / 1280, 0.1, 1.0])
def test_the_bars_of_a_scree_plot_stay_in_it(n: int, first: float):
    """Whatever the spectrum: the first bar is the highest, and the last number is near n."""
    ratios = [first / (i + 1) for i in range(n)]
    chart = scree_chart(ratios, {"n_components": 1, "k": {"0.8": 5, "0.9": 9}})
    heights = [chart["bottom"] - bar["y"] for bar in chart["bars"]]
    assert heights == sorted(heights, reverse=True)
    assert 0.3 * 230 < heights[0] <= 230
    assert chart["bars"][-1]["x"] + chart["bar_width"] <= chart["right"]
    assert [text for _, text in chart["x_ticks"]][-1] in {str(n), str(n - 1)}
    assert [share for _, share, _ in chart["levels"]] == [0.8, 0.9]


# The classifier


def test_without_an_evaluation_nothing_is_said_of_a_classifier():
    assert "Classifier" not in _text(_render(_report()))


def test_both_splits_stand_side_by_side_and_the_leaking_one_is_named():
    """A random split of films is never shown without saying what it measures."""
    text = _text(_render(_report() | {"classifier": _evaluation()}))
    assert "Held out Contiguous arcs Random photos" in text
    assert "Random photos leak. For 97.0 % of the test photos" in text
    assert "Contiguous arcs leak" not in text
    assert "Nearest is a neighbouring frame 0 % 97.0 %" in text


def test_names_of_classes_stay_text_in_the_classifiers_charts():
    """A class name is an SVG text, a title and an attribute, and never markup."""
    html = _render(_report() | {"classifier": _evaluation()})
    for name in HOSTILE[:3]:
        assert name not in html
    assert not [a for _, a in Page(html).tags if any(key.startswith("on") for key in a)]


def _inspection(*, exact: bool = True) -> Report:
    """What is known after ``verger inspect``, of photos with hostile names."""
    evil, tiles = HOSTILE[0], {"photos": [0], "like": [1], "typical": [2]}
    group = {
        "across": "labels",
        "size": 2,
        "labels": [evil, None],
        "photos": [f"/data/{evil}/a"],
        "tiles": {"photos": [3, 4]},
    }
    none = {"groups": 0, "photos": 0}
    across = dict.fromkeys(("labels", "folders", "photos", "film", "frames"), none)
    index = {"recall": 0.998, "k": 10, "n_tried": 500}
    return {
        "n_photos": 20622,
        "n_labels": 2,
        "n_unlabelled": 1,
        "too_small": [evil],
        "criteria": {"k": 10, "near": 0.98},
        "search": {"exact": exact, "index": None if exact else index},
        "counts": {
            "exact": across,
            "mislabelled": 13,
            "outliers": 578,
            "near": across
            | {"labels": {"groups": 1, "photos": 2}, "frames": {"groups": 1751, "photos": 9285}},
        },
        "galleries": {
            "exact": [],
            "near": [group],
            "film": [],
            "mislabelled": [
                {
                    "label": HOSTILE[1],
                    "suggestion": HOSTILE[2],
                    "n_votes": 10,
                    "n_against": 9,
                    "photos": [evil],
                    "tiles": tiles,
                }
            ],
            "outliers": [{"label": evil, "n": 4, "score": 16.72, "photos": [evil], "tiles": tiles}],
        },
    }


def test_an_inspection_says_how_it_searched_and_what_it_found():
    text = _text(_render(_report() | {"inspection": _inspection()}))
    assert "Each of the 20,622 photos was compared with every other." in text
    assert "The same content 0 0" in text
    assert "cosine from 0.98 on: several labels 1 2" in text
    assert "9 of 10 neighbours disagree" in text
    assert "4 photos, the farthest at 16.7 deviations" in text
    text = _text(_render(_report() | {"inspection": _inspection(exact=False)}))
    assert "an approximate index, which finds 99.8 % of the nearest 10" in text
    assert "compared with every other" not in text


def test_names_stay_text_in_the_galleries_of_an_inspection():
    html = _render(_report() | {"inspection": _inspection()})
    for name in HOSTILE[:3]:
        assert name not in html
    assert not [a for _, a in Page(html).tags if any(key.startswith("on") for key in a)]


def test_a_cell_of_the_matrix_says_what_was_taken_for_what():
    """Every cell with photos is there once, coloured by right and wrong, with words."""
    labels = tuple(f"Fruit {i:03}" for i in range(120))
    html = _render(_report() | {"classifier": _evaluation(labels)})
    assert html.count('<rect class="hit"') == 120
    assert html.count('<rect class="miss"') == 1
    assert "Fruit 000 taken for Fruit 001, 1 photo, 10.0\u00a0%" in html


def test_a_cell_and_the_photos_that_were_confused_have_one_key() -> None:
    """The script leads from a red cell to its photos by it."""
    labels = tuple(f"Fruit {i:03}" for i in range(120))
    page = Page(_render(_report() | {"classifier": _evaluation(labels)}))
    cells = {rect.get("data-cell") for rect in page.all("rect")}
    pairs = [card["data-pair"] for card in page.all("li") if "data-pair" in card]
    assert pairs
    assert set(pairs) <= cells


def test_commands_can_be_pasted_as_they_are() -> None:
    """They name the result, quoted for a shell."""
    page = _render(_report() | {"output": "/my results/it's", "checks": [], "pca": None})
    commands = re.findall(r'<code class="command">(.*?)</code>', page)
    assert [unescape(command) for command in commands] == [
        """verger validate '/my results/it'"'"'s'""",
        """verger reduce '/my results/it'"'"'s'""",
    ]


def test_every_photo_of_a_list_carries_its_path() -> None:
    """Lists of rejected and doubtful photos leave as CSV by these."""
    page = Page(_render(_report() | {"inspection": _inspection()}))
    lists = {attrs["data-csv"] for _, attrs in page.tags if "data-csv" in attrs}
    paths = {attrs["data-path"] for _, attrs in page.tags if "data-path" in attrs}
    assert lists == {"rejected", "near", "doubtful", "outliers"}
    assert f"/data/{HOSTILE[0]}/a" in paths


def test_of_very_many_classes_the_matrix_shows_those_with_mistakes():
    """The two classes that are confused are among those shown, and the page says how many are."""
    labels = tuple(f"Fruit {i:03}" for i in range(400))
    evaluation = _evaluation(labels)
    evaluation["confusion"][-1] = [398, 399, 1]
    html = _render(_report() | {"classifier": evaluation})
    assert "Fruit 398 taken for Fruit 399" in html
    assert "The 130 classes of 400 with the most mistakes" in _text(html)


def test_an_evaluation_on_other_photos_renders():
    """Without a split there is neither a second column nor leakage nor a curve by k."""
    evaluation = _evaluation(split="against") | {"beside": None, "against": "/other"}
    for key in ("leakage", "by_k", "n_train", "n_left_out", "n_components"):
        del evaluation["evaluation"][key]
    other = {"label": "Carton", "n": 40, "named": 3, "taken_for": "Fruit 1"}
    evaluation["evaluation"] |= {"other_labels": [other], "n_rejected": 2}
    text = _text(_render(_report() | {"classifier": evaluation}))
    assert "of 200 photos of /other get the right name" in text
    assert "Carton 40 3 Fruit 1" in text
    assert "2 photos of it were rejected" in text
    assert "How many components?" not in text


# Filters


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (20622, "20,622"), (30.24, "30.2"), (151.2, "151"), (25777.5, "25,778"), (9.0, "9")],
)
def test_counts_have_thousands_separators(value: float, text: str):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (93_412_345, "93.4 MB"),
        (5_000_000_000_000_000, "5,000.0 TB"),
    ],
)
def test_bytes_have_a_decimal_unit(n_bytes: int, text: str):
    assert format_size(n_bytes).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.01, "< 0.1 s"),
        (0.8, "0.8 s"),
        (59.97, "1 min 00 s"),
        (221.6, "3 min 42 s"),
        (3599.8, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_seconds_read_as_people_say_them(seconds: float, text: str):
    assert format_seconds(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1.0, "100 %"),
        (0.9003, "90.03 %"),
        (0.999999, "> 99.99 %"),
        (0.000001, "< 0.01 %"),
        (20621 / 20622, "> 99.99 %"),
        (1 / 20622, "< 0.01 %"),
        (0.00007, "0.01 %"),
        (0.9999, "99.99 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, text: str):
    assert format_percent(share, 2).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-11-22T16:00:00+00:00", "22 November 2026, 16:00 UTC"),
        ("2026-11-22T01:00:00+02:00", "21 November 2026, 23:00 UTC"),
        ("2026-11-22T16:00:00", "22 November 2026, 16:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_in_utc(created: str, text: str):
    assert format_moment(created) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"),
        (True, "yes"),
        (False, "no"),
        ([], "none"),
        ({"a": "é"}, '{"a": "é"}'),
        (8, "8"),
        ("x", "x"),
    ],
)
def test_options_read_as_plain_words(value: object, text: str):
    assert format_plain(value) == text


@pytest.mark.parametrize(
    ("path", "source", "text"),
    [
        ("file:///data/f/a/1.jpg", "/data/f", "a/1.jpg"),
        ("/data/f/1.jpg", "/data/f/", "1.jpg"),
        ("s3://b/p/1.jpg", "s3://b/p", "1.jpg"),
        ("/other/1.jpg", "/data/f", "/other/1.jpg"),
    ],
)
def test_paths_are_shown_below_their_source(path: str, source: str, text: str):
    assert path_below(path, source) == text
