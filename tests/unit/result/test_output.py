"""A refusal leaves nothing behind, and a new result takes the old one's place, and only that."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from support.results import run_record
from verger.errors import ConfigError, OutputError, OutputExistsError, SchemaError
from verger.files.folder import Folder
from verger.files.records import to_plain
from verger.files.tables import Part
from verger.result import output
from verger.result.output import (
    JOURNAL,
    MOMENTS_NPZ,
    OWN_NAMES,
    PCA_NPZ,
    PUBLISH,
    REPORT,
    RUN,
    SCREE,
    SPARK_PCA,
    SPECTRUM,
    STAGED,
    TABLES,
    Output,
)


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


def root(out: Output) -> Path:
    return Path(out.root)


RECORD = run_record(
    contract={"model": "m"}, seconds={"list": 0.1}, source="/data/été/🍎", output="/out"
)
PLAIN = to_plain(RECORD)


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
        assert Output.at(text).root == str(tmp_path / "a b")


@pytest.mark.parametrize("address", ["hdfs://node/out", "gs://bucket/out"])
def test_out_must_be_a_folder_or_a_bucket_of_s3(address: str) -> None:
    """An OUT that is elsewhere is refused with what it must be."""
    with pytest.raises(ConfigError, match=f"OUT={address}: must be a folder that .*, or s3://"):
        Output.at(address)


def test_out_may_be_in_a_bucket() -> None:
    """A bucket's OUT has one address, whatever Hadoop calls it."""
    assert Output.at("s3a://bucket/out/").root == Output.at("s3://bucket/out").root


def test_everything_lies_below_out() -> None:
    """Every place that is Verger's own lies below OUT, under a name that is declared."""
    places = [
        JOURNAL,
        PUBLISH,
        STAGED,
        SPARK_PCA,
        PCA_NPZ,
        MOMENTS_NPZ,
        SPECTRUM,
        SCREE,
        REPORT,
        RUN,
        *TABLES,
    ]
    assert {place.split("/")[0] for place in places} <= set(OWN_NAMES)


# Before a run


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_out_that_is_not_there_is_ready(source: Path, out: Output, overwrite: bool) -> None:
    """A folder that does not exist yet, nor its parents, is fine and is not made."""
    below = Output.at(root(out) / "a" / "b")
    below.prepare(source=str(source), overwrite=overwrite)
    assert not root(out).exists()


def test_an_out_that_is_empty_is_ready(source: Path, out: Output) -> None:
    """An empty folder is fine, and so is the journal of a run that was killed."""
    root(out).mkdir()
    out.prepare(source=str(source), overwrite=False)
    fill(root(out) / JOURNAL)
    out.prepare(source=str(source), overwrite=False)
    fill(root(out) / JOURNAL / "0001", start="{}")
    fill(root(out) / "features", part="half of it was being moved here")
    out.prepare(source=str(source), overwrite=False)
    fill(root(out), **{".run.json.686ddbd4.part": "{"})  # killed while run.json was written
    out.prepare(source=str(source), overwrite=False)
    fill(root(out), **{".holiday.part": "x"})
    with pytest.raises(OutputExistsError):
        out.prepare(source=str(source), overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_is_ready_to_be_added_to(source: Path, out: Output, overwrite: bool) -> None:
    """A folder with a result of Verger's is fine, and nothing changes before the run."""
    before = tree(fill(root(out), **{"run.json": json.dumps(PLAIN), "mine": "x"}))
    out.prepare(source=str(source), overwrite=overwrite)
    assert tree(root(out)) == before


def test_a_result_of_an_older_version_needs_overwrite(source: Path, out: Output) -> None:
    """A run.json that names no files cannot be added to, and the error says what can be done."""
    old = {key: value for key, value in PLAIN.items() if key != "files"}
    fill(root(out), **{"run.json": json.dumps(old)})
    with pytest.raises(SchemaError, match="'files' is missing; verger run with --overwrite"):
        out.prepare(source=str(source), overwrite=False)
    out.prepare(source=str(source), overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["features__part", "holiday.txt", ".hidden", "run.json__part", ".a.part"]
)
def test_what_is_no_result_is_never_replaced(
    source: Path, out: Output, name: str, overwrite: bool
) -> None:
    """A folder that holds anything but a result is refused with --overwrite too, unchanged."""
    before = tree(fill(root(out), **{name: "x"}))
    says = r"OUT=.*/out: is not empty, and holds no result of Verger's; choose another folder$"
    with pytest.raises(OutputExistsError, match=says):
        out.prepare(source=str(source), overwrite=overwrite)
    assert tree(root(out)) == before


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
    assert not root(out).exists()


def test_a_file_is_no_out(tmp_path: Path, source: Path) -> None:
    """A file in OUT's place, or above it, is refused and stays as it is."""
    fill(tmp_path, file="mine")
    with pytest.raises(OutputError, match=r"OUT=.*/file: is .*not a folder"):
        Output.at(tmp_path / "file").prepare(source=str(source), overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"OUT=.*/file/out: .*/file cannot be written"):
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
    with pytest.raises(OutputError, match=rf"OUT={out.root}: {root(out).parent} cannot be written"):
        out.prepare(source=str(source), overwrite=False)
    assert asked == [(root(out).parent, os.W_OK | os.X_OK)]
    assert not root(out).exists()


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


def publish(out: Output, remove: tuple[str, ...] = (), **files: str) -> None:
    """Stage files and publish them."""
    names = [name.replace("__", "/") for name in files]
    fill(root(out) / STAGED, **files)
    out.publish(
        RECORD, add=[(f"{STAGED}/{name}", name) for name in names], remove=remove, attempts=True
    )


def test_publish_adds_what_is_new_and_removes_what_is_old(out: Output) -> None:
    """New files are in place, old ones and their empty folders are gone, and all else stays."""
    fill(root(out), features__old="1", features__kept="1", pca__old="1", scree="mine")
    publish(out, remove=("features/old", "pca/old", "gone"), features__new="2", models__npz="2")
    found = tree(root(out))
    assert json.loads(found.pop("run.json") or "") == PLAIN
    assert found == {
        "features": None,
        "features/kept": "1",
        "features/new": "2",
        "models": None,
        "models/npz": "2",
        "scree": "mine",
    }


@pytest.mark.parametrize("n_steps", range(10))
def test_publishing_is_finished_by_whoever_is_next(
    out: Output, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    """Killed after any of its steps, publishing is carried out to the same end by the next run."""
    fill(root(out), features__old="1", rejected__old="1", pca__old="1", **{"run.json": "old"})
    left = n_steps

    class Killed(BaseException):
        """The process is gone: nothing catches this."""

    def dying(patched: pytest.MonkeyPatch, step: str) -> None:
        real = getattr(Folder, step)

        def maybe(*arguments: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*arguments, **options)

        patched.setattr(Folder, step, maybe)

    with monkeypatch.context() as patched:
        for step in ("write", "move", "remove", "remove_tree"):
            dying(patched, step)
        with pytest.raises(Killed):
            publish(
                out,
                remove=("features/old", "rejected/old", "pca/old"),
                features__new="2",
                rejected__new="2",
                models__npz="2",
            )
    begun = out.finish_publishing()
    found = tree(root(out))
    if not begun:  # killed before it was announced: the old result is whole
        assert n_steps == 0
        assert found["features/old"] == found["rejected/old"] == found["pca/old"] == "1"
        return
    assert found["features/new"] == found["rejected/new"] == found["models/npz"] == "2"
    assert not any("old" in name for name in found)
    assert json.loads(found["run.json"] or "") == PLAIN
    assert not out.finish_publishing()


@pytest.mark.parametrize(
    "name", ["../victim", "/victim", "features/../../victim", "notes", "notes/a"]
)
@pytest.mark.parametrize("how", ["remove", "add"])
def test_no_name_leads_out_of_the_folder(out: Output, name: str, how: str) -> None:
    """An announcement that somebody else has written touches nothing outside OUT."""
    victim = fill(root(out).parent, victim="mine") / "victim"
    fill(root(out), notes="mine", **{".journal__new": "2"})
    intent = {"record": PLAIN, "add": [], "remove": [], "attempts": True}
    intent[how] = [name if how == "remove" else [f"{JOURNAL}/new", name]]
    out.folder.write(PUBLISH, json.dumps(intent).encode())
    with pytest.raises(OutputError, match="is no name of a file"):
        out.finish_publishing()
    assert victim.read_text() == (root(out) / "notes").read_text() == "mine"


@pytest.mark.parametrize("how", ["remove", "add"])
def test_no_linked_folder_leads_out_of_the_folder(out: Output, how: str) -> None:
    """An announcement in a folder that somebody else has packed follows no link out of it."""
    home = fill(root(out).parent / "home", victim="mine")
    fill(root(out), **{".journal__new": "2"})
    (root(out) / "features").symlink_to(home)
    name = "features/victim"
    intent = {"record": PLAIN, "add": [], "remove": [], "attempts": True}
    intent[how] = [name if how == "remove" else [f"{JOURNAL}/new", name]]
    out.folder.write(PUBLISH, json.dumps(intent).encode())
    with pytest.raises(OutputError, match=r"is a link to .*home"):
        out.finish_publishing()
    assert tree(home) == {"victim": "mine"}


def test_what_links_point_to_is_never_removed(out: Output) -> None:
    """A link that stands where a table or a derived file does is one file, and goes as one."""
    elsewhere = fill(root(out).parent / "elsewhere", keep="mine")
    fill(root(out), notes="mine", album__photo="mine")
    (root(out) / "pca").symlink_to(elsewhere)
    assert out.derived_files() == ["pca"]
    publish(out, remove=tuple(out.derived_files()), features__new="2")
    assert tree(elsewhere) == {"keep": "mine"}
    found = tree(root(out))
    assert found["album/photo"] == found["notes"] == "mine"
    assert "pca" not in found


# run.json


def test_run_json_is_read_as_it_was_written(out: Output) -> None:
    """What is written comes back, in UTF-8 that people can read."""
    out.write_run(RECORD)
    assert out.read_run() == RECORD
    assert "/data/été/🍎" in (root(out) / RUN).read_text("utf-8")


def test_a_missing_run_json(out: Output) -> None:
    """A folder without run.json is no finished run, and the error says what it may be instead."""
    with pytest.raises(OutputError, match=r"OUT=.*/out: has no run\.json; is this the folder of"):
        out.read_run()
    fill(root(out) / JOURNAL / "0001", start="{}")
    with pytest.raises(OutputError, match="its run is not finished: the same verger run goes on"):
        out.read_run()


@pytest.mark.parametrize("text", ["", "{", "nothing", '{"contract": '])
def test_a_damaged_run_json(out: Output, text: str) -> None:
    """A run.json that is no JSON is refused with its path."""
    fill(root(out), **{"run.json": text})
    with pytest.raises(SchemaError, match=r"out/run\.json: cannot be read"):
        out.read_run()


def test_a_run_json_that_is_no_text(out: Output) -> None:
    """A binary file or a folder of that name is refused as well."""
    run = root(out) / RUN
    run.parent.mkdir()
    run.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match="cannot be read"):
        out.read_run()
    run.unlink()
    run.mkdir()
    with pytest.raises(SchemaError, match="cannot be read"):
        out.read_run()


@pytest.mark.parametrize("value", [[], {}, {"config": {}}, "contract", None])
def test_a_run_json_of_somebody_else(out: Output, value: object) -> None:
    """A run.json without a contract is not Verger's."""
    fill(root(out), **{"run.json": json.dumps(value)})
    with pytest.raises(SchemaError, match=r"run\.json: is not of this version"):
        out.read_run()


@pytest.mark.parametrize(
    ("table", "command"),
    [("features", "verger run or verger featurize"), ("rejected", "verger run"), ("pca", "reduce")],
)
def test_a_missing_table_names_its_command(out: Output, table: str, command: str) -> None:
    """A table that is not there is told with the command that writes it."""
    fill(root(out), **{"run.json": json.dumps(PLAIN)})
    with pytest.raises(OutputError, match=rf"has no table '{table}'; .*{command}.* writes it"):
        out.parts(table)
    part = Part(f"{table}/part-1.parquet", rows=3, size=9, sha256="f00d")
    out.write_run(replace(RECORD, files={table: (part,)}))
    assert out.part_names(table) == [f"{table}/part-1.parquet"]
