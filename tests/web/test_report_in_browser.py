"""The report in a real browser: thumbnails enlarge, tables sort, lists of photos are saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import verger
from support.browser import run_script
from verger.classify.evaluation import evaluate_split
from verger.classify.recipe import Recipe
from verger.config import Config
from verger.job.pipeline import run_reduce, run_report
from verger.job.report.page import render_page
from verger.source.render import render_dataset


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of photos, one of them cut off, and the result of a run with an evaluation."""
    folder = tmp_path_factory.mktemp("report")
    photos = folder / "photos"
    first, *_ = render_dataset(photos, n_classes=4, per_class=6)
    (photos / "cut.jpg").write_bytes(first.read_bytes()[:900])
    config = Config(model="efficientnet_lite0")
    verger.run(str(photos), folder / "out", config)
    evaluate_split(folder / "out", config, Recipe(method="centroid", split="random"))
    return photos, folder / "out"


def test_a_report_can_be_worked_with(result: tuple[Path, Path], tmp_path: Path) -> None:
    """Without a request, an error on the console, or a violation that axe-core knows."""
    photos, out = result
    seen = run_script("report.mjs", out / "report.html", tmp_path)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in seen["requests"])
    assert seen["problems"] == []
    assert seen["violations"] == {"desktop": [], "phone": []}
    assert Path(seen["enlarged"]).is_file()
    assert Path(seen["next"]).is_file()
    assert seen["next"] != seen["enlarged"]
    assert seen["isClosed"]
    head, *paths = seen["chosen"].split("\r\n")[:-1]
    assert head == '"path"'
    assert len(paths) == 6
    assert {Path(path.strip('"')).parent.parent for path in paths} == {photos}
    n_caught = len(seen["caught"].split("\r\n")) - 2
    assert seen["lasso"] == f"{n_caught} chosen"
    assert n_caught > len(paths)
    shares = [float(share.rstrip(" %")) for share in seen["rising"]]
    assert shares == sorted(shares)
    assert seen["falling"] == seen["rising"][::-1]
    assert seen["filtered"] == 0
    assert seen["commands"] >= 1
    assert seen["french"][:4] == ["Bilan", "Remarques", "Classes", "Carte"]
    assert seen["english"] == []
    assert seen["axis"].startswith("CP 3 (")
    recalls = [float(share.rstrip(" %").replace(",", ".")) for share in seen["sorted"]]
    assert recalls == sorted(recalls)


def test_a_map_of_one_component_can_be_laid_out_again(
    result: tuple[Path, Path], tmp_path: Path
) -> None:
    """In French, and with a class of which not all photos are on the map."""
    out = shutil.copytree(result[1], tmp_path / "one")
    config = Config(model="efficientnet_lite0", components=1, neighbour_map=True, overwrite=True)
    run_reduce(out, config)
    run_report(out, config)
    report = json.loads((out / "report.json").read_text())
    report["map"]["totals"][0] = 1234
    page = render_page(report, sprite_jpeg=None, lang="fr")
    (tmp_path / "page.html").write_text(page)
    seen = run_script("map.mjs", tmp_path / "page.html")
    assert seen["problems"] == []
    assert seen["count"] == "6 sur 1\u202f234 montrées"
    assert seen["axes"]["neighbours"] == ["t-SNE 2", "t-SNE 1"]
    second, first = seen["axes"]["components"]
    assert second == "CP 2"
    assert first.startswith("CP 1 (")
