"""An evaluation or inspection from a stranger: a page or a message, never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from support.results import write_vectors
from verger.errors import SchemaError, VergerError
from verger.files.records import as_json, to_plain
from verger.files.tables import part_name, stored_schema, write_part
from verger.job.report.stage import write_report
from verger.result.derived import Evaluation
from verger.result.inspected import Inspection
from verger.result.output import EVALUATION, INSPECTION, REPORT, Output
from verger.schema import REJECTED, arrow_schema

Path_ = tuple[str | int, ...]
NAMES = {EVALUATION: Evaluation, INSPECTION: Inspection}

_PART = {"name": "x/part-1.parquet", "rows": 1, "size": 1, "sha256": "0"}
_EFFECT = {"threshold": 0.5, "coverage": 0.75, "error": 0.01, "others": 0.04}
_SPLIT = {
    "scores": dict.fromkeys(("accuracy", "top5", "balanced_accuracy", "log_loss", "ece"), 0.5)
    | {"n": 200},
    "reliability": [{"low": 0.9, "n": 200, "probability": 0.95, "accuracy": 0.91}],
    "threshold": _EFFECT,
    "curve": [_EFFECT, _EFFECT | {"threshold": 0.9, "error": None, "others": None}],
    "n_others": 30,
    "others": ["carton"],
    "alarm": {
        "distance": 0.7,
        "right": [1, 140],
        "wrong": [2, 10],
        "unknown": [3, 50],
        "others": [20, 30],
    },
    "sure": {"threshold": 0.99, "wrong": 3, "others": 1},
    "split": "contiguous",
    "n_train": 700,
    "n_test": 200,
    "n_left_out": 100,
    "training": {"threshold": 0.5},
    "untested": ["none of it"],
    "leakage": {
        "n": 200,
        "nearest_neighbour_accuracy": 0.88,
        "neighbouring_frame": 0.9,
        "same_film": 0.4,
    },
    "by_k": [{"k": k, "variance": 0.5, "accuracy": 0.5} for k in (1, 9)],
    "n_components": 7,
}
_EVALUATION = {
    "verger": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
    "recipe": {"method": "logistic"},
    "n_labels": 2,
    "n_photos": 900,
    "n_unlabelled": 1,
    "against": "/other",
    "method": "logistic",
    "on": "pca",
    "evaluation": _SPLIT,
    "beside": _SPLIT | {"split": "random"},
    "seconds": {"train": 1.5},
    "labels": ["apple", "pear"],
    "classes": [{"label": "apple", "n": 10, "recall": 0.9, "precision": None, "f1": 0.8}],
    "confusion": [[0, 0, 9], [0, 1, 1]],
    "pairs": [
        {
            "label": "apple",
            "prediction": "pear",
            "n": 1,
            "share": 0.1,
            "photos": ["/a.jpg"],
            "known": ["/b.jpg"],
        }
    ],
    "predictions": _PART,
}
_ALIKE = {"across": "labels", "size": 2, "photos": ["/a.jpg"], "labels": ["apple", None]}
_TWO = {"groups": 1, "photos": 2}
_ACROSS = {"labels": _TWO, "folders": _TWO, "photos": _TWO, "film": _TWO, "frames": _TWO}
_INSPECTION = {
    "verger": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
    "contract_hash": "c0ffee",
    "criteria": {"k": 3, "near": 0.98, "frames": None, "approximate": True, "outlying": 3.5},
    "search": {
        "exact": False,
        "index": {
            "file": "index/x",
            "size_bytes": 1,
            "features": "f",
            "n_photos": 900,
            "n_features": 8,
            "n_lists": 3,
            "n_probe": 2,
            "recall": 0.998,
            "k": 10,
            "n_tried": 500,
            "faiss": "1",
            "seconds": 1.5,
        },
    },
    "n_photos": 900,
    "n_labels": 2,
    "n_measured": 1,
    "n_unlabelled": 1,
    "too_small": ["pear"],
    "counts": {
        "exact": _ACROSS,
        "near": _ACROSS,
        "mislabelled": 1,
        "outliers": 1,
        "quality": {"dark": 1},
    },
    "galleries": {
        "exact": [_ALIKE],
        "near": [_ALIKE | {"across": "folders"}],
        "film": [_ALIKE | {"across": "film"}],
        "mislabelled": [
            {
                "label": "apple",
                "suggestion": "pear",
                "n_votes": 3,
                "n_against": 2,
                "photos": ["/a.jpg"],
                "like": ["/b.jpg"],
                "typical": ["/c.jpg"],
            }
        ],
        "outliers": [
            {"label": "apple", "n": 1, "score": 9.5, "photos": ["/a.jpg"], "typical": ["/b.jpg"]}
        ],
    },
    "seconds": {"search": 1.5},
    "files": {"duplicates": [_PART]},
}
VALID = {EVALUATION: _EVALUATION, INSPECTION: _INSPECTION}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Return a result of one photo that can no longer be read."""
    output = write_vectors(tmp_path / "out", [[1.0, 2.0]], labels=["apple"])
    schema = stored_schema(REJECTED, "c0ffee")
    empty = pa.Table.from_pylist([], arrow_schema(REJECTED))
    rejected = write_part(output.folder, part_name("rejected"), empty, schema)
    run = json.loads(output.folder.read("run.json"))
    run["files"]["rejected"] = [to_plain(rejected)]
    output.folder.write("run.json", as_json(run))
    return output


def _report(output: Output) -> str:
    # One file is read by the driver: no worker is asked.
    write_report(SimpleNamespace(n_cores=1), output, output.read_run())
    return output.folder.read(REPORT).decode()


def _places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(item, (*at, key))


def _changed(values: Any, at: Path_, value: Any, *, remove: bool = False) -> Any:
    values = copy.deepcopy(values)
    inner = values
    for key in at[:-1]:
        inner = inner[key]
    if remove:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return values


def test_a_spectrum_that_a_spreadsheet_saved_again_gives_no_shares(output: Output) -> None:
    run = json.loads(output.folder.read("run.json"))
    shares = {"components": 1, "kept": 1.0, "first_ratios": [1.0], "k": {}}
    run["model"]["n_features"] = 2
    run["pca"] = shares | {"n_samples": 1, "n_components": 1, "standardize": False, "center": True}
    output.folder.write("run.json", as_json(run))
    output.folder.write("explained_variance.csv", b"component;variance;ratio\n1;2;1\n")
    assert 'id="h-pca"' in _report(output)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_was_written(output: Output, name: str) -> None:
    """A record has every key of its file: read and written again it is the same."""
    output.folder.write(name, as_json(VALID[name]))
    assert to_plain(output.read_derived(NAMES[name], name)) == VALID[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_record_of_wrong_types_is_a_page_or_a_message(output: Output, name: str) -> None:
    """Every value in turn is left out, or is two others: no exception but Verger's own."""
    messages, shown = [], 0
    wrong = [None, [], {}, "x", -1, 2**62, 1e308, True, [[[]]]]
    for number, at in enumerate(_places(VALID[name])):
        for value in (..., wrong[number % 9], wrong[(4 * number + 5) % 9]):
            hostile = _changed(VALID[name], at, value, remove=value is ...)
            output.folder.write(name, as_json(hostile))
            try:
                _report(output)
                shown += 1
            except VergerError as err:
                messages.append(str(err))
    assert all(name in message for message in messages)
    assert len(messages) > 200
    assert shown > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_message_names_the_key(output: Output, name: str) -> None:
    """The file, the place in it and what should be there."""
    output.folder.write(name, as_json(_changed(VALID[name], ("n_photos",), "many")))
    with pytest.raises(SchemaError, match=rf"{name}: .* n_photos='many' must be a whole number"):
        _report(output)


class _Tags(HTMLParser):
    """The tags and attributes that a browser would see, and the text of the script blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def structure(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(name for name, _ in attrs)) for tag, attrs in self.tags]


HARMFUL = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\" onmouseover=alert(1) x='",
    "</title></svg><svg onload=alert(1)>",
    "</style><!--<script>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "\u202e\x00\x1b[31m\ud800",
]


@pytest.mark.parametrize("text", HARMFUL)
def test_no_text_of_a_record_becomes_a_tag(output: Output, text: str) -> None:
    """All labels, paths and captions are hostile: the page's tags stay those of plain texts."""
    pages = {}
    for word in ("plain", text):
        for name, kind in NAMES.items():
            values = copy.deepcopy(VALID[name])
            for at in _places(values):
                inner = values
                for key in at[:-1]:
                    inner = inner[key]
                is_free = at[-1] not in ("method", "on", "split", "across", "flaw")
                if isinstance(inner[at[-1]], str) and is_free:
                    inner[at[-1]] = word
            output.folder.write(name, json.dumps(values).encode())
            assert output.read_derived(kind, name)
        pages[word] = _report(output)
    assert _Tags(pages[text]).structure() == _Tags(pages["plain"]).structure()
    assert "49" not in pages[text] or text != HARMFUL[-2] or "{{ 7 * 7 }}" in pages[text]
    links = [v for _, attrs in _Tags(pages[text]).tags for k, v in attrs if k in ("href", "src")]
    assert not any((link or "").startswith("javascript") for link in links)
