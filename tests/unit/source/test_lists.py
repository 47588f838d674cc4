"""A list names photos, and says their labels and groups, in the forms that people have."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verger.errors import ConfigError, SourceNotFoundError
from verger.source.listing import Listing, list_photos
from verger.source.notes import describe_source

PHOTOS = ("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "plain")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of four files."""
    for name in PHOTOS:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path / "in"


def rows(listing: Listing) -> list[tuple[str, str | None]]:
    """Return path below the source and label of every listed photo."""
    below = len(listing.source) + 1
    columns = (listing.photos[name].to_pylist() for name in ("path", "label"))
    return [(path[below:], label) for path, label in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all.csv", "path,label,group\ntrain/a/1.jpg,x,g\nplain,y y,\n"),
        ("all.csv", "\ufeffgroup;label;path;more\r\ng;x;train/a/1.jpg;1\r\n;y y;plain;2\r\n"),
        ("all.txt", "train/a/1.jpg, x, g\n\nplain, y y\n"),
        ("all.csv", '"train/a/1.jpg",x,g\n./train/../plain, y y ,\n'),
    ],
)
def test_a_list_is_a_source(folder: Path, name: str, text: str) -> None:
    """Its photos are taken as it names them, with its labels and groups; paths stay absolute."""
    (folder / name).write_text(text)
    listing = list_photos(str(folder / name))
    assert rows(listing) == [("plain", "y y"), ("train/a/1.jpg", "x")]
    assert (listing.source, listing.named_by) == (str(folder), str(folder / name))
    assert listing.groups is not None
    assert listing.groups.to_pylist() == [{"path": f"{folder}/train/a/1.jpg", "group": 0}]


def test_parquet_and_absolute_paths(folder: Path) -> None:
    """A Parquet list has the columns by name; without labels the rule gives them."""
    table = pa.table({"path": [f"{folder}/{name}" for name in PHOTOS[:2]]})
    pq.write_table(table, folder / "some.parquet")
    listing = list_photos(str(folder / "some.parquet"), label_from="none", exclude=["b"])
    assert rows(listing) == [("train/a/1.jpg", None)]
    assert listing.ignored == {"excluded": 1}
    with pytest.raises(ConfigError, match=r"column:kind.* has no photos in Parquet"):
        list_photos(str(folder / "some.parquet"), label_from="column:kind")
    assert listing.groups is None


def test_a_photo_that_is_not_there_stays_listed(folder: Path) -> None:
    """It will be rejected, never just lost; but a list of nothing but such is a mistake."""
    (folder / "all.txt").write_text("gone.jpg\nplain\n")
    assert rows(list_photos(str(folder / "all.txt"))) == [("gone.jpg", "in"), ("plain", "in")]
    (folder / "all.txt").write_text("in/plain\n")
    with pytest.raises(SourceNotFoundError, match="not one of its 1 photos is there; the first"):
        list_photos(str(folder / "all.txt"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("../out.jpg\n", "is no path below"),
        ("plain,x\nplain,y\n", "names plain twice, with label 'x' and with label 'y'; keep"),
        ("plain,x,g,more\n", "path,label,group"),
        ("path,label\n", "names no photo"),
        ("pl\udcffain\n", "is not UTF-8"),
        ('plain,"x\n', "line 1: unexpected end of data"),
    ],
)
def test_a_list_that_cannot_be_used(folder: Path, text: str, match: str) -> None:
    """The error names the list and says what is wrong."""
    (folder / "all.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    match = match.replace("path,label,group", "a line has 4 columns")
    with pytest.raises(ConfigError, match=match):
        list_photos(str(folder / "all.csv"))


def test_labels_are_joined_to_a_folder(folder: Path, tmp_path: Path) -> None:
    """By the path below the source, in any form of Unicode; what is left over is noted."""
    (folder / normalize("NFD", "pêche.jpg")).write_bytes(b"x")
    labels = tmp_path / "labels.csv"
    labels.write_text("pêche.jpg,pêche\ntrain/a/1.jpg,x\nother.jpg,x\n")
    listing = list_photos(str(folder), labels=str(labels), glob=["train/*", "p*"])
    found = [("plain", None), ("train/a/1.jpg", "x"), ("train/b/2.jpg", None)]
    assert rows(listing) == sorted([*found, (normalize("NFD", "pêche.jpg"), "pêche")])
    notes = describe_source(listing, "parent")
    assert [note.split(" of ")[0].split(" in ")[0] for note in notes[:2]] == [
        "2 photos have no line",
        "1 path",
    ]
    labels.write_text("path,label\nplain,\ntrain/a/1.jpg,x\n")
    (note,) = list_photos(str(folder), labels=str(labels), glob=["plain", "1.jpg"]).notes
    assert note == f"1 line has no label in {labels}"
    labels.write_text("1.jpg,x\n")
    with pytest.raises(ConfigError, match="names not one of the 4 photos"):
        list_photos(str(folder), labels=str(labels))


def test_patterns_with_a_slash_are_of_the_path_below_the_source(folder: Path) -> None:
    """Without a slash a glob is of the name alone, and an exclusion of any folder too."""
    assert rows(list_photos(str(folder), glob=["train/*.jpg"])) == [
        ("train/a/1.jpg", "a"),
        ("train/b/2.jpg", "b"),
    ]
    kept = list_photos(str(folder), exclude=["val/*", "b"])
    assert rows(kept) == [("train/a/1.jpg", "a")]


def test_patterns_are_taken_as_people_write_folders(folder: Path) -> None:
    """A slash at the end, a dot before; what is no such path is refused or noted."""
    assert rows(list_photos(str(folder), glob=["./train/a/"])) == [("train/a/1.jpg", "a")]
    kept = list_photos(str(folder), glob=["*.jpg"], exclude=["b/", "./train/b", "val/", "Nope"])
    assert rows(kept) == [("train/a/1.jpg", "a")]
    assert [note.split(";")[0] for note in kept.notes] == ["--exclude 'Nope' leaves nothing out"]
    for pattern in (f"{folder}/train/*", "s3://bucket/*"):
        with pytest.raises(ConfigError, match="is a whole path; patterns are names"):
            list_photos(str(folder), glob=[pattern])


def test_feedback_of_a_page_is_a_list(folder: Path) -> None:
    """Its kept photos are; answers without a photo are counted."""
    lines = ["path,label,prediction,time", f"{folder}/plain,apple,pear,2026-01-01", ",kiwi,,2026"]
    (folder / "said.csv").write_text("\n".join(lines))
    listing = list_photos(str(folder / "said.csv"))
    assert rows(listing) == [("plain", "apple")]
    assert listing.notes == (f"1 line has no path in {folder}/said.csv",)
