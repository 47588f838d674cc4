"""Stored results whose vectors were damaged by somebody else: left out, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from support.engines import BOTH_ENGINES
from support.runs import CONFIG, rows
from verger.classify.evaluation import evaluate_split
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.cli import app
from verger.errors import SchemaError
from verger.job import pipeline
from verger.result.output import Output
from verger.similar.index import build_index
from verger.similar.inspection.stage import Criteria, inspect_photos
from verger.similar.photo import search, search_by_index

AGAIN = replace(CONFIG, overwrite=True)
CENTROID = Recipe(method="centroid", split="random")
#: Where the odd vector is.
ODD = 7


def change(out: Path, vector: Callable[[list[float]], list[float | None] | None]) -> str:
    """Replace one vector of a result's features; return the path of its photo."""
    (name,) = Output.at(out).part_names("features")
    table = pq.ParquetFile(out / name).read()
    vectors = table["features"].to_pylist()
    vectors[ODD] = vector(vectors[ODD])
    place, kind = table.schema.get_field_index("features"), table.schema.field("features")
    pq.write_table(table.set_column(place, kind, pa.array(vectors, kind.type)), out / name)
    path: str = table["path"][ODD].as_py()
    return path


def verger(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@BOTH_ENGINES
def test_a_pca_leaves_out_rows_without_a_vector_and_says_so(result: Path, finished: Path) -> None:
    """29 rows are summed and scored, and the PCA is that of these 29."""
    path = change(result, lambda _: None)
    (result / "models" / "moments.npz").unlink()
    record = pipeline.run_reduce(result, AGAIN)
    assert (record.counts.featurized, record.pca.n_samples, record.n_without_vector) == (30, 29, 1)
    scored = rows(result, "pca")
    assert scored.keys() == rows(finished).keys() - {path}
    x = np.array([row["features"] for row in rows(finished).values() if row["path"] != path])
    ratios = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:2] ** 2
    total = ((x - x.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(record.pca.first_ratios, ratios / total, atol=1e-5)
    told = verger("reduce", str(result), "--overwrite", "--components", "5").stderr
    assert "note: the PCA leaves out 1 of 30 rows, which have no vector" in told
    verger("report", str(result))
    notices = json.loads((result / "report.json").read_text())["notices"]
    assert "The PCA leaves out 1 of 30 rows, which have no vector." in notices
    assert not pipeline.run_validate(result, CONFIG).holds


@pytest.mark.parametrize("odd", ["shorter", "NaN"])
def test_validate_names_the_first_odd_vector(result: Path, odd: str) -> None:
    """It counts all of them, and says where the first one is."""
    vector, says = ODD_VECTORS[odd]
    change(result, vector)
    checks = [c.detail for c in pipeline.run_validate(result, CONFIG).checks if not c.holds]
    assert any(re.search(rf"; first features/part-\w+\.parquet: {says}", c) for c in checks)


def test_classifiers_leave_out_rows_without_a_vector_and_count_them(result: Path) -> None:
    path = change(result, lambda _: None)
    for command in (train_classifier, evaluate_split):
        found = command(result, CONFIG, CENTROID)
        assert (found["n_photos"], found["n_without_features"]) == (29, 1)
    assert path not in rows(result, "predictions")
    told = verger("classify", "train", str(result), "--method", "centroid", "--split", "random")
    assert "1 without features left out" in told.output


def test_an_inspection_leaves_out_rows_without_a_vector_and_counts_them(result: Path) -> None:
    path = change(result, lambda _: None)
    for approximate in (False, True):
        found = inspect_photos(result, CONFIG, Criteria(k=3, approximate=approximate))
        assert (found["n_photos"], found["n_without_features"]) == (29, 1)
        assert path not in json.dumps(found)
    assert "1 rows without features left out" in verger("inspect", str(result)).output


def test_searches_leave_out_rows_without_a_vector(
    result: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways find the others, each under its own path, and say how many have no vector."""
    known = rows(finished)
    path = change(result, lambda _: None)
    output = Output.at(result)
    index = build_index(output)
    assert index.n_photos == 29
    for other in sorted(known)[::5]:
        x = np.array(known[other]["features"], np.float32)
        for found in (search(output, x, 30), search_by_index(output, x, 29)):
            assert (len(found), found[0].path) == (29, other)
            assert path not in {match.path for match in found}
        told = "1 rows of the table features have no vector and are left out"
        assert caplog.messages == [told, told]
        caplog.clear()


ODD_VECTORS = {
    "shorter": (lambda v: v[:-1], r"row 7 has a vector of 1279 numbers, which must have 1280"),
    "longer": (lambda v: [*v, 1.0], r"row 7 has a vector of 1281 numbers, which must have 1280"),
    "NaN": (lambda v: [*v[:-1], float("nan")], r"row 7 holds null, NaN or infinity among its 1280"),
    "null": (lambda v: [*v[:-1], None], r"row 7 holds null, NaN or infinity among its 1280"),
}
COMMANDS: dict[str, Callable[[Path], Any]] = {
    "reduce": lambda out: pipeline.run_reduce(out, AGAIN),
    "train": lambda out: train_classifier(out, CONFIG, CENTROID),
    "inspect": lambda out: inspect_photos(out, CONFIG, Criteria()),
    "similar": lambda out: search(Output.at(out), np.ones(1280, np.float32), 3),
    "index": lambda out: build_index(Output.at(out)),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("odd", ODD_VECTORS)
def test_an_odd_vector_is_refused_with_its_file_row_and_length(
    result: Path, odd: str, command: str
) -> None:
    """No command computes with a vector that is none."""
    vector, says = ODD_VECTORS[odd]
    change(result, vector)
    (result / "models" / "moments.npz").unlink()
    with pytest.raises(SchemaError, match=r"features/part-\w+\.parquet: " + says):
        COMMANDS[command](result)
