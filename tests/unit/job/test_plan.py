"""What must hold of a plan: what a run would do, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.runs import CONFIG
from verger.config import Config
from verger.errors import SourceError
from verger.job.context import Run
from verger.job.plan import check_and_list, describe_plan
from verger.result.output import Output


def write_files(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("x")
    return folder


def test_a_plan_says_what_is_left_out(tmp_path: Path) -> None:
    """The steps count the files that are no photos, by suffix; those of PPM and DIB are photos."""
    photos = ("a.ppm", "b.pgm", "c.pbm", "d.PNM", "e.dib")
    others = ("f.xcf", "g.xcf", "h.xcf", ".hidden", ".also")
    source = write_files(tmp_path / "in", *photos, *others)
    steps = describe_plan(str(source), tmp_path / "out", CONFIG, reduce=False)["steps"]
    assert steps[2].startswith("read 5 photos")
    assert steps[3] == "leave out 5 files: 3 .xcf, 2 hidden (see --glob)"


@pytest.mark.parametrize("names", [("a.jpg",), ("a.jpg", "b.gif")])
def test_a_plan_without_other_files_says_nothing_of_them(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """A folder of nothing but photos leaves nothing out, and the plan has no such step."""
    source = write_files(tmp_path / "in", *names)
    steps = describe_plan(str(source), tmp_path / "out", CONFIG, reduce=False)["steps"]
    assert not [step for step in steps if step.startswith("leave out")]


def test_a_plan_tells_what_looks_like_a_mistake(tmp_path: Path) -> None:
    """A flat folder becomes one class: better said before than after."""
    source = write_files(tmp_path / "in", "a.jpg", "b.jpg")
    plan = describe_plan(str(source), tmp_path / "out", CONFIG, reduce=False)
    (note,) = plan["notes"]
    assert "--label-from none" in note


def test_a_link_to_a_folder_above_is_refused_for_spark(tmp_path: Path) -> None:
    """Hadoop would list its photos 41 times; a link to a folder beside it is none."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "to b").symlink_to("../b")
    run = Run(Output.at(tmp_path.parent / "out"), Config(reader="spark"))
    assert check_and_list(run, str(tmp_path), reduce=False) is None
    (tmp_path / "a" / "loop").symlink_to("..")
    with pytest.raises(SourceError, match=r"a/loop leads to a folder above.*--reader arrow"):
        check_and_list(run, str(tmp_path), reduce=False)
