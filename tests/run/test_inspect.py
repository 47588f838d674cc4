"""What is planted among rendered photos is found, and nothing else stands before it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from support.engines import BOTH_ENGINES
from support.results import write_vectors
from support.runs import new_bucket
from verger import Config
from verger.classify.nearest import Cosine, NearestRows
from verger.cli import app
from verger.engine.tasks import Engine
from verger.errors import EnvironmentNotReadyError, OutputError
from verger.files.tables import read_part
from verger.job.pipeline import run, run_featurize
from verger.result.output import INDEX, INSPECTION, Output
from verger.similar.index import ensure_index, find_neighbors_by_index
from verger.similar.inspection.outliers import OUTLYING
from verger.similar.inspection.stage import Criteria, inspect_photos
from verger.similar.neighbors import find_neighbors
from verger.similar.rows import read_stored_rows
from verger.source.render import render_dataset

CONFIG = Config(model="efficientnet_lite0", components=5)


def tables_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    output = Output.at(out)
    return {
        name: [
            row
            for part in output.part_names(name)
            for row in read_part(output.folder, part).to_pylist()
        ]
        for name in ("duplicates", "mislabelled", "outliers")
    }


# Neighbours


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(40, 48))[rng.integers(40, size=500)] + 0.2, 0)
    return (x * rng.normal(1, 0.1, size=x.shape)).astype(np.float32)


@BOTH_ENGINES
def test_the_tasks_find_what_one_process_finds(
    started: Engine, vectors: np.ndarray, tmp_path: Path
) -> None:
    """To the bit, whatever the order of the rows and their files."""
    number = np.arange(500, dtype=np.int32)
    expected = NearestRows(Cosine(vectors), 7, own=number)
    expected.add(vectors, number)
    order = np.random.default_rng(1).permutation(500)
    paths = [f"{i:03}" for i in order]
    x = vectors[order]
    output = write_vectors(tmp_path / "out", x[:40], x[40:40], x[40:300], x[300:], paths=paths)
    found = find_neighbors(started, read_stored_rows(output, [])[0], 7)
    assert (found.row == expected.row).all()
    assert (found.similarity == expected.likeness).all()


def test_the_index_of_a_bucket_is_searched_in_the_tasks(
    s3: str, started: Engine, vectors: np.ndarray
) -> None:
    bucket = new_bucket(s3)
    output = write_vectors(f"s3://{bucket}/out", vectors[:200], vectors[200:])
    rows, _ = read_stored_rows(output, [])
    exact = find_neighbors(started, rows, 5)
    found = find_neighbors_by_index(started, rows, ensure_index(output), 5)
    hits = [np.isin(a, b).mean() for a, b in zip(exact.row, found.row, strict=True)]
    assert np.mean(hits) > 0.98
    assert (found.row != np.arange(500)[:, None]).all()
    same = found.row == exact.row
    np.testing.assert_allclose(found.similarity[same], exact.similarity[same], atol=1e-3)


# The command, on photos with planted mistakes

#: Neighbouring frames of the smoothest class are nearer than the usual 0.98.
CRITERIA = Criteria(near=0.987)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render 5 classes of 12 photos, and plant a mistake of every kind.

    0 has a copy of its own photo, 1 one of class 2's, 2 one of nothing, which looks most like this
    class, and 3 a photo saved anew.
    """
    folder = tmp_path_factory.mktemp("planted") / "photos"
    render_dataset(folder, n_classes=5, per_class=12, seed=3, size=200)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    first = [sorted(path.glob("*.jpg")) for path in classes]
    shutil.copy(first[0][2], classes[0] / "copied.jpg")
    shutil.copy(first[2][4], classes[1] / "misplaced.jpg")
    with Image.open(first[3][6]) as image:
        image.save(classes[3] / "saved anew.jpg", quality=97)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(classes[2] / "noise.png")
    return folder


@pytest.fixture(scope="module")
def inspected(planted: Path, tmp_path_factory: Any) -> Path:
    """Return the result of these photos, inspected; do not write to it."""
    out = tmp_path_factory.mktemp("inspected") / "out"
    run(str(planted), out, CONFIG)
    inspect_photos(out, CONFIG, CRITERIA)
    return out


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["path"]).name for row in rows]


def test_copies_are_found_by_their_content(inspected: Path) -> None:
    """Two groups and no other; the one across two labels comes first."""
    rows = [row for row in tables_of(inspected)["duplicates"] if row["kind"] == "exact"]
    assert [row["group"] for row in rows] == [1, 1, 2, 2]
    assert [row["across"] for row in rows] == ["labels", "labels", "photos", "photos"]
    assert set(names(rows)) == {"misplaced.jpg", "210_200.jpg", "copied.jpg", "150_200.jpg"}
    assert len({row["label"] for row in rows[:2]}) == 2
    for one, other in ((0, 1), (2, 3)):
        assert rows[one]["nearest"] == rows[other]["path"]
        content = Path(rows[one]["path"]).read_bytes()
        assert rows[one]["sha256"] == rows[other]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_photo_that_was_saved_anew_is_near_and_comes_before_frames(inspected: Path) -> None:
    near = [row for row in tables_of(inspected)["duplicates"] if row["kind"] == "near"]
    first = [row for row in near if row["group"] == near[0]["group"]]
    assert names(first) == ["270_200.jpg", "saved anew.jpg"]
    assert (first[0]["across"], first[0]["size"]) == ("photos", 2)
    assert 0.98 <= first[0]["similarity"] < 0.9999
    assert {row["across"] for row in near[2:]} <= {"film"}


def test_the_misplaced_photo_alone_has_a_doubtful_label(inspected: Path) -> None:
    (row,) = tables_of(inspected)["mislabelled"]
    assert Path(row["path"]).name == "misplaced.jpg"
    assert row["label"] != row["suggestion"] == Path(row["nearest"]).parent.name
    assert (row["score"], row["n_votes"], row["n_against"]) == (1.0, 10, 10)
    assert row["similarity"] == pytest.approx(1, abs=1e-5)
    assert row["similarity_own"] is None


def test_noise_and_the_misplaced_photo_are_farthest_from_their_classes(inspected: Path) -> None:
    rows = sorted(tables_of(inspected)["outliers"], key=lambda row: -row["score"])
    assert names(rows)[:2] == ["noise.png", "misplaced.jpg"]
    assert rows[1]["score"] > 2 * max([row["score"] for row in rows[2:]], default=OUTLYING)
    assert rows[0]["distance"] > 5 * rows[0]["median"]


def test_the_report_shows_what_was_found(inspected: Path) -> None:
    """Every picture of a gallery is on the page's sheet, and the record says how it was found."""
    page = (inspected / "report.html").read_text()
    found = json.loads((inspected / INSPECTION).read_text())
    report = json.loads((inspected / "report.json").read_text())
    shown = report["inspection"]
    assert page.count("Quality of the photos</h2>") == 1
    flaws = {entry["flaw"]: entry["n"] for entry in report["quality"]["flaws"]}
    assert found["counts"]["quality"] == flaws
    assert report["quality"]["n_measured"] == 64
    assert "Worth a second look" in page
    assert "misplaced.jpg" in page
    (doubt,) = shown["galleries"]["mislabelled"]
    assert [len(doubt["tiles"][name]) for name in ("photos", "like", "typical")] == [1, 3, 3]
    assert [len(group["tiles"]["photos"]) for group in shown["galleries"]["exact"]] == [2, 2]
    assert found["search"] == {"exact": True, "index": None}
    assert found["counts"]["exact"]["labels"] == {"groups": 1, "photos": 2}
    assert found["n_photos"] == 64


@BOTH_ENGINES
def test_the_tables_depend_on_neither_engine_nor_workers(
    engine: str, inspected: Path, tmp_path: Path
) -> None:
    """Row for row what two workers of the local engine found."""
    out = Path(shutil.copytree(inspected, tmp_path / "out"))
    inspect_photos(out, replace(CONFIG, workers=1), CRITERIA)
    assert tables_of(out) == tables_of(inspected)


def test_an_index_gives_the_same_tables_and_says_so(inspected: Path, tmp_path: Path) -> None:
    """The second inspection takes the place of the first; no file of the first is left."""
    out = Path(shutil.copytree(inspected, tmp_path / "out"))
    exact = tables_of(out)
    found = inspect_photos(out, CONFIG, replace(CRITERIA, approximate=True))
    assert found["search"]["exact"] is False
    assert found["search"]["index"]["recall"] >= 0.99
    for name, rows in tables_of(out).items():
        assert names(rows) == names(exact[name])
        assert len(list((out / "inspection" / name).iterdir())) == 1
    assert "<b>approximate</b> index" in (out / "report.html").read_text()


def test_photos_that_are_gone_are_copies_by_length_and_features(
    inspected: Path, tmp_path: Path
) -> None:
    """Nothing can be read again: there is no sum, but the groups and the quality are the same."""
    output = Output.at(shutil.copytree(inspected, tmp_path / "out"))
    (name,) = output.part_names("features")
    table = read_part(output.folder, name)
    paths = [path.replace("/planted", "/gone") for path in table["path"].to_pylist()]
    pq.write_table(table.set_column(0, "path", pa.array(paths)), output.address(name))
    found = inspect_photos(output.root, CONFIG, Criteria())
    assert found["n_measured"] == found["n_photos"] == 64
    rows = [r for r in tables_of(Path(output.root))["duplicates"] if r["kind"] == "exact"]
    assert [row["sha256"] for row in rows] == [None] * 4
    assert set(names(rows)) == {"misplaced.jpg", "210_200.jpg", "copied.jpg", "150_200.jpg"}


def test_without_labels_copies_are_found_all_the_same(planted: Path, tmp_path: Path) -> None:
    config = Config(model="efficientnet_lite0", label_from="none")
    run_featurize(str(planted), tmp_path / "out", config)
    found = inspect_photos(tmp_path / "out", config, Criteria())
    assert (found["n_unlabelled"], found["n_labels"]) == (64, 0)
    assert (found["counts"]["mislabelled"], found["counts"]["outliers"]) == (0, 0)
    assert found["counts"]["exact"]["folders"] == {"groups": 1, "photos": 2}


def test_no_inspection_outlives_its_features(planted: Path, tmp_path: Path) -> None:
    """A new photo makes another table: index and inspection go."""
    out, more = tmp_path / "out", Path(shutil.copytree(planted, tmp_path / "photos"))
    run_featurize(str(more), out, CONFIG)
    inspect_photos(out, CONFIG, replace(CRITERIA, approximate=True))
    assert (out / INDEX).exists()
    shutil.copy(next(more.rglob("*.jpg")), more / "new.jpg")
    run_featurize(str(more), out, CONFIG)
    assert not (out / "inspection").exists()
    assert not (out / "index").exists()
    with pytest.raises(OutputError, match="has no table 'outliers'; verger inspect writes it"):
        Output.at(out).parts("outliers")


def test_without_faiss_nothing_is_begun(inspected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    before = (inspected / INSPECTION).read_bytes()
    with pytest.raises(EnvironmentNotReadyError, match=r"pip install .*\[index\]'"):
        inspect_photos(inspected, CONFIG, replace(CRITERIA, approximate=True))
    assert (inspected / INSPECTION).read_bytes() == before


def test_the_commands_say_what_was_found(inspected: Path, tmp_path: Path) -> None:
    """inspect and show as a user types them, for people and for machines."""
    out = str(shutil.copytree(inspected, tmp_path / "out"))
    invoke = CliRunner().invoke
    shown = invoke(app, ["inspect", out, "-k", "8"])
    assert shown.exit_code == 0, shown.output
    assert "64 of 5 classes, by every photo with every other" in shown.stdout
    assert "4 photos in 2 groups: 1 across labels, 1 in one folder" in shown.stdout
    found = json.loads(invoke(app, ["inspect", out, "--near", "0.95", "--json"]).stdout)
    assert found["criteria"]["near"] == 0.95
    table = json.loads(invoke(app, ["show", out, "--table", "mislabelled", "--json"]).stdout)
    assert table["n_rows"] == found["counts"]["mislabelled"]
    assert invoke(app, ["validate", out]).exit_code == 0
