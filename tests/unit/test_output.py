"""A refusal leaves nothing behind, and a new result takes the old one's place, and only that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from verger import output
from verger.errors import ConfigError, OutputError, OutputExistsError, SchemaError
from verger.output import OWN_NAMES, Output, write_text


def tree(folder: Path) -> dict[str, str | None]:
    """Return every path below a folder, with the text of the files."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("__", "/")).write_text(text)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of one photo, which nothing may change."""
    return fill(tmp_path / "photos", apple="x")


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output.at(tmp_path / "out")


# Where it is


def test_out_is_absolute_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder, one of the home folder and a file:// address name the same OUT."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("a b", "~/a b", Path("a b"), f"file://{tmp_path}/a%20b/"):
        assert Output.at(text).root == tmp_path / "a b"


@pytest.mark.parametrize("address", ["s3://bucket/out", "s3a://bucket/out", "hdfs://node/out"])
def test_out_must_be_a_folder(address: str) -> None:
    """An OUT that is in a bucket is refused with what it must be."""
    with pytest.raises(ConfigError, match=f"OUT={address}: must be a folder on a file system"):
        Output.at(address)


def test_everything_lies_below_out(out: Output) -> None:
    """Every place that is Verger's own lies below OUT, under a name that is declared."""
    places = [
        out.staging, out.spark_pca, out.pca_npz, out.moments_npz, out.explained_variance,
        out.scree, out.run, out.table("features"), out.table("rejected"), out.table("pca"),
    ]  # fmt: skip
    assert {place.relative_to(out.root).parts[0] for place in places} <= set(OWN_NAMES)


# Before a run


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_out_that_is_not_there_is_ready(source: Path, out: Output, overwrite: bool) -> None:
    """A folder that does not exist yet, nor its parents, is fine and is not made."""
    below = Output.at(out.root / "a" / "b")
    below.prepare(source=str(source), overwrite=overwrite)
    assert not out.root.exists()


def test_an_out_that_is_empty_is_ready(source: Path, out: Output) -> None:
    """An empty folder is fine, and so is what a killed run has left of its staging."""
    out.root.mkdir()
    out.prepare(source=str(source), overwrite=False)
    fill(out.staging, half="x")
    out.prepare(source=str(source), overwrite=False)


@pytest.mark.parametrize("name", ["", "features__part", "holiday.txt", ".hidden"])
def test_a_result_needs_overwrite(source: Path, out: Output, name: str) -> None:
    """A folder with a result of Verger's is refused without --overwrite, and nothing changes."""
    before = tree(fill(out.root, **{"run.json": "x"} | ({name: "x"} if name else {})))
    with pytest.raises(OutputExistsError, match=r"OUT=.*/out: is not empty; .* or --overwrite"):
        out.prepare(source=str(source), overwrite=False)
    out.prepare(source=str(source), overwrite=True)
    assert tree(out.root) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["features__part", "holiday.txt", ".hidden", "run.json__part"])
def test_what_is_no_result_is_never_replaced(
    source: Path, out: Output, name: str, overwrite: bool
) -> None:
    """A folder that holds anything but a result is refused with --overwrite too, unchanged."""
    before = tree(fill(out.root, **{name: "x"}))
    says = r"OUT=.*/out: is not empty, and holds no result of Verger's; choose another folder$"
    with pytest.raises(OutputExistsError, match=says):
        out.prepare(source=str(source), overwrite=overwrite)
    assert tree(out.root) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["photos/out", "photos", "photos/a/../b/c", "."])
def test_out_and_source_lie_apart(
    tmp_path: Path, source: Path, place: str, overwrite: bool
) -> None:
    """An OUT inside the source, the source itself, or around it, is refused untouched."""
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"must lie outside SRC=.*/photos, and not around it"):
        Output.at(tmp_path / place).prepare(source=str(source), overwrite=overwrite)
    assert tree(tmp_path) == before


def test_links_and_addresses_hide_no_nesting(tmp_path: Path, source: Path) -> None:
    """An OUT inside the source is found through links and file:// addresses too."""
    (tmp_path / "link").symlink_to(source)
    inside = Output.at(source / "out")
    for text in (str(tmp_path / "link"), source.as_uri(), f"{source}/"):
        with pytest.raises(ConfigError, match="must lie outside"):
            inside.prepare(source=text, overwrite=False)
    with pytest.raises(ConfigError, match="must lie outside"):
        Output.at(tmp_path / "link" / "out").prepare(source=str(source), overwrite=False)


def test_neighbours_are_apart(tmp_path: Path, source: Path) -> None:
    """A folder whose name only begins like the source's lies outside it."""
    Output.at(tmp_path / "photos-out").prepare(source=str(source), overwrite=False)
    Output.at(tmp_path / "phot").prepare(source=str(source), overwrite=False)


def test_a_bucket_is_apart_from_every_folder(out: Output) -> None:
    """A source in a bucket cannot hold OUT."""
    out.prepare(source="s3://bucket/photos", overwrite=False)
    assert not out.root.exists()


def test_a_file_is_no_out(tmp_path: Path, source: Path) -> None:
    """A file in OUT's place, or above it, is refused and stays as it is."""
    fill(tmp_path, file="mine")
    with pytest.raises(OutputError, match=r"OUT=.*/file: is .*not a folder"):
        Output.at(tmp_path / "file").prepare(source=str(source), overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"OUT=.*/file/out: cannot be read: Not a directory"):
            Output.at(tmp_path / "file" / "out").prepare(source=str(source), overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_may_not_be_written(
    source: Path, out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest folder that exists is asked, and named when it is closed."""
    asked = []

    def refuse(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(output.os, "access", refuse)
    with pytest.raises(OutputError, match=rf"OUT={out.root}: {out.root.parent} cannot be written"):
        out.prepare(source=str(source), overwrite=False)
    assert asked == [(out.root.parent, os.W_OK | os.X_OK)]
    assert not out.root.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_refused(tmp_path: Path, source: Path) -> None:
    """A folder that is really closed to this user is refused before anything is made."""
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="closed cannot be written"):
        Output.at(tmp_path / "closed" / "out").prepare(source=str(source), overwrite=False)


@pytest.mark.parametrize("name", ["x" * 300, "circle"])
def test_a_path_that_cannot_be_is_refused_in_words(tmp_path: Path, source: Path, name: str) -> None:
    """A name that is too long, or a circle of links, is refused as any OUT that can't be."""
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OutputError, match="OUT="):
        Output.at(tmp_path / name).prepare(source=str(source), overwrite=False)


def test_a_dangling_link_is_refused_before_the_work(tmp_path: Path, source: Path) -> None:
    """A link to nowhere, where no folder can be made, is refused before a run, not after it."""
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="OUT="):
        Output.at(tmp_path / "link").prepare(source=str(source), overwrite=False)


# The new result


def test_staging_starts_empty(out: Output) -> None:
    """What a killed run has staged is gone when the next begins."""
    fill(out.staging, half="x")
    assert list(out.start_staging().iterdir()) == []


def test_staging_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder that went away or closed after the check is told as an OUT that can't be written."""
    fill(tmp_path, file="x")
    with pytest.raises(OutputError, match=r"OUT=.*/file/out: cannot be written: Not a directory"):
        Output.at(tmp_path / "file" / "out").start_staging()


def test_publish_replaces_what_is_new_and_drops_what_is_stale(out: Output) -> None:
    """New parts take the place of old ones, stale ones go, and all else stays."""
    fill(
        out.root, features__old="1", rejected__old="1", pca__old="1", models__pca__old="1",
        run="mine", scree="mine",
    )  # fmt: skip
    staging = out.start_staging()
    fill(staging, features__new="2", models__npz="2")
    out.publish(("features", "models/npz"), stale=("pca", "models", "gone"))
    assert tree(out.root) == {
        "features": None, "features/new": "2", "rejected": None, "rejected/old": "1",
        "models": None, "models/npz": "2", "run": "mine", "scree": "mine",
    }  # fmt: skip


def test_publish_leaves_foreign_files_alone(out: Output) -> None:
    """Files that nobody named stay, beside the result and where links point to."""
    elsewhere = fill(out.root.parent / "elsewhere", keep="mine")
    fill(out.root, notes="mine", album__photo="mine")
    (out.root / "pca").symlink_to(elsewhere)
    fill(out.start_staging(), features__new="2")
    out.publish(("features",), stale=("pca",))
    assert tree(elsewhere) == {"keep": "mine"}
    assert tree(out.root) == {
        "album": None, "album/photo": "mine", "features": None, "features/new": "2",
        "notes": "mine",
    }  # fmt: skip


def test_nothing_is_dropped_before_the_new_is_whole(out: Output) -> None:
    """When a part is missing from staging, the old result stays as it was."""
    before = tree(fill(out.root, features__old="1", rejected__old="1"))
    fill(out.start_staging(), features__new="2")
    with pytest.raises((OutputError, FileNotFoundError), match="rejected"):
        out.publish(("features", "rejected"))
    after = tree(out.root)
    assert before.items() <= after.items()


# run.json


def test_run_json_is_read_as_it_was_written(out: Output) -> None:
    """What is written comes back, in UTF-8 that people can read."""
    out.root.mkdir()
    record = {
        "contract": {"model": "m"}, "contract_hash": "f00d", "counts": {"listed": 3}, "model": {},
        "seconds": {"list": 0.1}, "source": "/data/été/🍎", "output": str(out.root), "config": {},
    }  # fmt: skip
    out.write_run(record)
    assert out.read_run() == record
    assert "/data/été/🍎" in out.run.read_text("utf-8")


def test_a_missing_run_json(out: Output) -> None:
    """A folder without run.json is no finished run, and the error asks whether it should be."""
    with pytest.raises(OutputError, match=r"OUT=.*/out: has no run\.json; is this the folder of"):
        out.read_run()


@pytest.mark.parametrize("text", ["", "{", "nothing", '{"contract": '])
def test_a_damaged_run_json(out: Output, text: str) -> None:
    """A run.json that is no JSON is refused with its path."""
    fill(out.root, **{"run.json": text})
    with pytest.raises(SchemaError, match=r"out/run\.json: cannot be read"):
        out.read_run()


def test_a_run_json_that_is_no_text(out: Output) -> None:
    """A binary file or a folder of that name is refused as well."""
    out.root.mkdir()
    out.run.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match="cannot be read"):
        out.read_run()
    out.run.unlink()
    out.run.mkdir()
    with pytest.raises(SchemaError, match="cannot be read"):
        out.read_run()


@pytest.mark.parametrize("value", [[], {}, {"config": {}}, "contract", None])
def test_a_run_json_of_somebody_else(out: Output, value: object) -> None:
    """A run.json without a contract is not Verger's."""
    fill(out.root, **{"run.json": json.dumps(value)})
    with pytest.raises(SchemaError, match=r"run\.json: is not Verger's"):
        out.read_run()


@pytest.mark.parametrize(
    ("table", "command"),
    [("features", "verger run or verger featurize"), ("rejected", "verger run"), ("pca", "reduce")],
)
def test_a_missing_table_names_its_command(out: Output, table: str, command: str) -> None:
    """A table that is not there is told with the command that writes it."""
    with pytest.raises(OutputError, match=rf"has no table '{table}'; .*{command}.* writes it"):
        out.check_table(table)
    fill(out.table(table), part="x")
    assert out.check_table(table) == out.root / table


# One file


def test_a_text_is_whole_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced in one step: what is under its name is never half of the new text."""
    path = fill(tmp_path, file="old") / "file"
    seen = []
    replace = Path.replace

    def look(part: Path, target: Path) -> Path:
        seen.append((target.read_text("utf-8"), part.read_text("utf-8"), part.parent))
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", look)
    write_text(path, "new é")
    assert seen == [("old", "new é", tmp_path)]
    assert tree(tmp_path) == {"file": "new é"}


def test_a_text_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves the old file, and no part of the new one."""

    def full(part: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    path = fill(tmp_path, file="old") / "file"
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert tree(tmp_path) == {"file": "old"}
