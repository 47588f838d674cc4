"""Every photo of a folder is listed once, as it is, and lands in exactly one partition."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verger.config import IMAGE_SUFFIXES
from verger.errors import ConfigError, EmptySourceError, SourceError, SourceNotFoundError
from verger.schema import IMAGES, arrow_schema
from verger.source.cut import count_partitions, cut_partitions
from verger.source.listing import labels_of, list_photos, make_listing
from verger.source.patterns import matches
from verger.source.spark_reader import hadoop_glob, hadoop_path
from verger.source.stored import StoredFile

ODD_NAMES = [
    "a b",
    "  two  spaces",
    "été",
    "50%",
    "%20",
    "a#b",
    "a+b",
    "a,b",
    'it\'s "x"',
    "🍎🍏",
    "تفاح",
    "new\nline",
    "back\\slash",
    "a&b=c?d",
    "{a,b}[c]*",
    "日本",
    "e\u0301",
]


def fill(folder: Path, *names: str, content: bytes = b"x") -> Path:
    """Make files below a folder; what is in them does not matter to a listing."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def listed(folder: Path, **options: Any) -> list[str]:
    """Return the paths of a listing, below the folder."""
    photos = list_photos(str(folder), **options).photos
    return [os.path.relpath(path, folder) for path in photos["path"].to_pylist()]


# What is listed


def test_the_table_is_the_one_of_the_schema(tmp_path: Path) -> None:
    """A listing has the columns and types of the table images, and the folder's absolute path."""
    listing = list_photos(str(fill(tmp_path / "in", "apple/1.jpg", content=b"four")))
    assert listing.photos.schema == arrow_schema(IMAGES)
    assert listing.source == str(tmp_path / "in")
    (row,) = listing.photos.to_pylist()
    assert row["path"] == str(tmp_path / "in" / "apple" / "1.jpg")
    assert (row["length"], row["label"], listing.n_bytes) == (4, "apple", 4)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_in_any_case(tmp_path: Path, suffix: str) -> None:
    """A photo is known by its suffix whatever its case."""
    names = [f"{i}{s}" for i, s in enumerate((suffix, suffix.upper(), suffix.title()))]
    assert listed(fill(tmp_path, *names, "no" + suffix[1:])) == names


def test_photos_are_sorted_by_path(tmp_path: Path) -> None:
    """The order is that of the paths' characters, whatever the file system's."""
    names = ["b/1.jpg", "a/10.jpg", "a/2.jpg", "B/1.jpg", "é/1.jpg", "a.jpg", "🍎.jpg"]
    assert listed(fill(tmp_path, *names)) == sorted(names)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_any_characters(tmp_path: Path, name: str) -> None:
    """Folders and files keep their names to the character in the path, and in the label in NFC."""
    fill(tmp_path / name, f"{name}/{name}.jpg")
    listing = list_photos(str(tmp_path / name))
    assert listing.photos["path"].to_pylist() == [str(tmp_path / name / name / f"{name}.jpg")]
    assert listing.photos["label"].to_pylist() == [normalize("NFC", name)]


def test_a_name_that_is_no_utf8_is_counted(tmp_path: Path) -> None:
    """A photo in an old encoding, or in a folder of one, is left out and counted as such."""
    fill(tmp_path, "good.jpg")
    latin_1 = os.fsdecode(b"\xe9t\xe9")
    fill(tmp_path, f"{latin_1}.jpg", f"{latin_1}/1.jpg", f"{latin_1}.txt", f".{latin_1}.jpg")
    listing = list_photos(str(tmp_path))
    assert listing.photos["path"].to_pylist() == [str(tmp_path / "good.jpg")]
    assert listing.ignored == {"with a name that is not UTF-8": 2, ".txt": 1, "hidden": 1}


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        (("*.jpg",), ["1.jpg", "sub/2.jpg"]),
        (("*.JPG",), ["3.JPG"]),
        (("*.jpg", "*.JPG", "*.txt"), ["1.jpg", "3.JPG", "notes.txt", "sub/2.jpg"]),
        (("?.jpg", "1*"), ["1.jpg", "sub/2.jpg"]),
        (("[!1]*.jpg",), ["sub/2.jpg"]),
        (("*",), ["1.jpg", "3.JPG", "notes.txt", "plain", "sub/2.jpg"]),
        ((), ["1.jpg", "3.JPG", "sub/2.jpg"]),
    ],
)
def test_the_glob_takes_names_case_as_written(
    tmp_path: Path, glob: tuple[str, ...], names: list[str]
) -> None:
    """A file is taken when its name fits one of the patterns, never when it is hidden."""
    fill(tmp_path, "1.jpg", "sub/2.jpg", "3.JPG", "notes.txt", "plain", ".4.jpg")
    assert listed(tmp_path, glob=glob) == names


def test_a_glob_that_is_one_string_is_one_pattern(tmp_path: Path) -> None:
    """A pattern given alone is that pattern, not a list of its characters."""
    fill(tmp_path, "1.jpg", "notes.txt")
    assert listed(tmp_path, glob="*.jpg") == ["1.jpg"]


def test_a_source_and_its_labels_may_be_paths(tmp_path: Path) -> None:
    """A Path lists what its text does."""
    fill(tmp_path / "photos", "a.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("a.jpg,apple\n")
    photos = list_photos(tmp_path / "photos", labels=labels).photos
    assert photos.equals(list_photos(str(tmp_path / "photos"), labels=str(labels)).photos)


def test_without_recursion_only_the_folder_itself(tmp_path: Path) -> None:
    """With recursive off, subfolders are neither listed nor counted."""
    fill(tmp_path, "1.jpg", "sub/2.jpg", "sub/notes.txt")
    listing = list_photos(str(tmp_path), recursive=False)
    assert listing.photos["path"].to_pylist() == [str(tmp_path / "1.jpg")]
    assert listing.ignored == {}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Files that the glob leaves out are counted by suffix in small letters, the most first."""
    fill(
        tmp_path,
        "1.jpg",
        "a.txt",
        "b.TXT",
        "sub/c.txt",
        "d.csv",
        "e.csv",
        "README",
        ".DS_Store",
        "._1.jpg",
        ".x.jpg",
        "archive.tar.gz",
        "dots.",
        "x.mp4",
    )
    ignored = list_photos(str(tmp_path)).ignored
    assert ignored == {".txt": 3, "hidden": 3, ".csv": 2, "no suffix": 2, ".gz": 1, ".mp4": 1}
    assert list(ignored.values()) == sorted(ignored.values(), reverse=True)


def test_what_lies_in_a_hidden_folder_is_hidden(tmp_path: Path) -> None:
    """Photos below a hidden folder are left out as hidden; a source may be hidden itself."""
    source = fill(
        tmp_path / ".cache" / "in", "1.jpg", ".trash/2.jpg", "a/.trash/b/3.jpg", "..4.jpg"
    )
    listing = list_photos(str(source))
    assert listing.photos["path"].to_pylist() == [str(source / "1.jpg")]
    assert listing.ignored == {"hidden": 3}


THUMBNAILS_AND_BINS = [
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/1.jpg",
    "@Recycle/1.jpg",
    ".@__thumb/default1.jpg",
    "$RECYCLE.BIN/$R1.jpg",
    "$Recycle.Bin/S-1-5-21/$R1.jpg",
    "System Volume Information/1.jpg",
    "__MACOSX/._1.jpg",
    ".Trashes/501/1.jpg",
    ".AppleDouble/1.jpg",
    ".thumbnails/1.jpg",
    "lost+found/#12/1.jpg",
    "LOST.DIR/1.jpg",
    "FOUND.000/1.jpg",
    "M4ROOT/THMBNL/C0001T01.JPG",
]


@pytest.mark.parametrize("name", THUMBNAILS_AND_BINS)
def test_thumbnails_and_bins_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    """What systems and cameras make by themselves is no photo, at any depth, unless asked for."""
    source = fill(tmp_path / "@eaDir", "apple/1.jpg", f"apple/{name}", f"red/apple/{name}")
    listing = list_photos(str(source))
    assert listing.photos["path"].to_pylist() == [f"{source}/apple/1.jpg"]
    (what,) = listing.ignored
    assert listing.ignored == {what: 2}
    assert what == "hidden" or what.removeprefix("in ") in name.split("/")
    taken = [] if "/._" in name else [f"apple/{name}", f"red/apple/{name}"]
    assert listed(source, ignore=False) == sorted(["apple/1.jpg", *taken])


@pytest.mark.parametrize("name", ["thumbs", "recycled", "@home", "#1", "lost", "found.x", "MISC"])
def test_a_class_may_have_a_name_that_is_like_one(tmp_path: Path, name: str) -> None:
    """Only the names that systems give are left out."""
    assert listed(fill(tmp_path, f"{name}/1.jpg")) == [f"{name}/1.jpg"]


def test_hidden_files_are_taken_if_nothing_is_to_be_ignored(tmp_path: Path) -> None:
    """Then they are photos like others; what macOS keeps beside a photo never is one."""
    fill(tmp_path, ".a.jpg", ".b/1.jpg", "._1.jpg")
    assert listed(tmp_path, ignore=False) == [".a.jpg", ".b/1.jpg"]
    assert list_photos(str(tmp_path), ignore=False).ignored == {"hidden": 1}


@pytest.mark.parametrize("name", ["lost+found", ".Trashes", "System Volume Information"])
def test_a_closed_folder_that_is_left_out_stops_no_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Only the system may look into it; it counts as one file, and is an error if asked for."""
    fill(tmp_path, "1.jpg", f"{name}/2.jpg")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    listing = list_photos(str(tmp_path))
    assert listing.photos["path"].to_pylist() == [str(tmp_path / "1.jpg")]
    assert sum(listing.ignored.values()) == 1
    with pytest.raises(SourceError, match=r"cannot be listed: .*Permission denied"):
        list_photos(str(tmp_path), ignore=False)


def test_an_empty_file_is_listed(tmp_path: Path) -> None:
    """A photo without bytes is listed with length 0, so that it can be rejected and counted."""
    listing = list_photos(str(fill(tmp_path, "1.jpg", content=b"")))
    assert listing.photos["length"].to_pylist() == [0]


def test_what_is_no_file_is_no_photo(tmp_path: Path) -> None:
    """Folders, pipes and links to pipes, which a read would wait for, are no photos; told so."""
    fill(tmp_path, "1.jpg", "folder.jpg/2.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    assert listed(tmp_path) == ["1.jpg", "folder.jpg/2.jpg"]
    assert list_photos(str(tmp_path)).ignored == {"no file (pipe or device)": 3}


def test_a_link_to_nowhere_is_listed(tmp_path: Path) -> None:
    """A photo whose file is missing is listed with length 0, so that it is rejected and counted."""
    fill(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("nowhere.jpg")
    rows = list_photos(str(tmp_path)).photos.to_pylist()
    assert [(Path(row["path"]).name, row["length"]) for row in rows] == [("1.jpg", 1), ("2.jpg", 0)]


def test_a_link_to_itself_stops_no_listing(tmp_path: Path) -> None:
    """A link that leads nowhere but to itself is listed with length 0, as one to nowhere."""
    fill(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("2.jpg")
    rows = list_photos(str(tmp_path)).photos.to_pylist()
    assert [(Path(row["path"]).name, row["length"]) for row in rows] == [("1.jpg", 1), ("2.jpg", 0)]


def test_links_are_followed(tmp_path: Path) -> None:
    """Linked files and folders are listed under the names that the source gives them."""
    fill(tmp_path / "real", "1.jpg", "more/2.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    (tmp_path / "in" / "pears").symlink_to(tmp_path / "real" / "more")
    assert listed(tmp_path / "in") == ["one.jpg", "pears/2.jpg"]


def test_a_link_to_a_folder_above_adds_no_photo(tmp_path: Path) -> None:
    """A link to the source, or to a folder between, is passed over wherever it lies."""
    fill(tmp_path, "1.jpg", "a/b/2.jpg")
    (tmp_path / "circle").symlink_to(".")
    (tmp_path / "a" / "b" / "to a").symlink_to("../../a")
    (tmp_path / "a" / "b" / "to the source").symlink_to(tmp_path)
    assert listed(tmp_path) == ["1.jpg", "a/b/2.jpg"]


def test_two_folders_that_link_to_each_other(tmp_path: Path) -> None:
    """A circle through two folders ends where it would close, seen from either."""
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "to b").symlink_to("../b")
    (tmp_path / "b" / "to a").symlink_to("../a")
    assert listed(tmp_path) == ["a/1.jpg", "a/to b/2.jpg", "b/2.jpg", "b/to a/1.jpg"]


class Turned:
    """``os.scandir`` in another order."""

    def __init__(self, entries: Any, turn: Any) -> None:
        with entries:
            self.entries = turn(entries, key=lambda entry: entry.name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __enter__(self) -> Any:
        return iter(self)

    def __exit__(self, *args: object) -> None:
        """Have nothing to close."""


def test_a_folder_and_a_link_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and links to it are all listed, in whatever order they are found."""
    fill(tmp_path, "pears/1.jpg")
    (tmp_path / "apples").symlink_to("pears")
    (tmp_path / "quinces").symlink_to("pears")
    scandir = os.scandir
    found = []
    for turn in (sorted, lambda entries, key: sorted(entries, key=key, reverse=True)):
        monkeypatch.setattr(os, "scandir", lambda path, turn=turn: Turned(scandir(path), turn))
        found.append(listed(tmp_path))
    assert found[0] == found[1] == ["apples/1.jpg", "pears/1.jpg", "quinces/1.jpg"]


# Labels


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("parent", ["apple", "red pear"]),
        ("none", [None, None]),
        (r"/(\w+)_\d+\.jpg$", ["Golden", None]),
        (r"in/(?P<kind>[a-z]+)", ["apple", "red"]),
        (r"(?:in/)(.)", ["a", "r"]),
        (r"(kiwi)?\.jpg$", [None, None]),
    ],
)
def test_labels_follow_the_rule(tmp_path: Path, rule: str, labels: list[str | None]) -> None:
    """A label is the folder's name, nothing, or the first group, and null where none matches."""
    fill(tmp_path / "in", "apple/Golden_1.jpg", "red pear/x.jpg")
    photos = list_photos(str(tmp_path / "in"), label_from=rule).photos
    assert photos["label"].to_pylist() == labels


def test_the_label_of_a_photo_beside_its_source(tmp_path: Path) -> None:
    """A photo in the source itself has the source's name, and one at the root has none."""
    photos = list_photos(str(fill(tmp_path / "orchard", "1.jpg"))).photos
    assert photos["label"].to_pylist() == ["orchard"]
    assert labels_of(["/1.jpg", "s3://bucket/1.jpg"], "parent") == [None, "bucket"]


@pytest.mark.parametrize("rule", ["parent", "in/([^/]+)/", "(Pêche)"])
def test_one_class_in_two_forms_of_unicode(tmp_path: Path, rule: str) -> None:
    """macOS unpacks a name in another form; the label is one, and the paths stay as they are."""
    names = [normalize(form, "Pêche") for form in ("NFD", "NFC")]
    fill(tmp_path / "in", *(f"{name}/1.jpg" for name in names))
    photos = list_photos(str(tmp_path / "in"), label_from=normalize("NFD", rule)).photos
    assert photos["path"].to_pylist() == [f"{tmp_path}/in/{name}/1.jpg" for name in names]
    assert photos["label"].to_pylist() == [names[1]] * 2


def test_the_label_of_a_key_with_two_slashes() -> None:
    """It is the part before them, which is what whoever wrote the key meant."""
    keys = ["s3://bucket/apple//1.jpg", "s3://bucket//1.jpg"]
    assert labels_of(keys, "parent") == ["apple", "bucket"]


def test_a_bad_rule_is_refused_before_the_listing() -> None:
    """A rule for labels that cannot be used is told even when the source is missing too."""
    with pytest.raises(ConfigError, match="label_from='x' needs a group"):
        list_photos("/no/such/folder", label_from="x")


# Times


@pytest.mark.parametrize(
    ("nanoseconds", "kept"),
    [
        (1_700_000_000_123_456_789, datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)),
        (1_700_000_000_999_999_999, datetime(2023, 11, 14, 22, 13, 20, 999_000, UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1_500_000_000, datetime(1969, 12, 31, 23, 59, 58, 500_000, UTC)),
    ],
)
def test_times_are_utc_to_the_millisecond(tmp_path: Path, nanoseconds: int, kept: datetime) -> None:
    """A time is cut to the millisecond, before 1970 too, and is UTC."""
    os.utime(fill(tmp_path, "1.jpg") / "1.jpg", ns=(0, nanoseconds))
    (row,) = list_photos(str(tmp_path)).photos.to_pylist()
    assert row["modification_time"] == kept
    assert row["modification_time"].utcoffset() is not None
    assert not row["modification_time"].utcoffset()


seconds = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(seconds | st.integers(-(10**11), 10**11), min_size=1, max_size=5))
@example([2**63 - 1, -(2**63), 0, -1, 266_000_000_000])
def test_a_time_of_any_64_bits_is_listed(times: list[int]) -> None:
    """A time that pandas, Python and Spark hold stays, another is the nearest, and is counted."""
    files = [StoredFile(f"/in/{i}.jpg", 1, 10**9 * time) for i, time in enumerate(times)]
    listing = make_listing(files, "/in", "/in", (), "parent", recursive=True)
    first, last = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
    kept = [first.timestamp() <= time < last.timestamp() for time in times]
    found = listing.photos["modification_time"].to_pylist()
    assert all(first <= time < last for time in found)
    assert [t.timestamp() for t, k in zip(found, kept, strict=True) if k] == [
        time for time, k in zip(times, kept, strict=True) if k
    ]
    assert listing.n_clamped == kept.count(False)
    nanoseconds = listing.photos["modification_time"].to_pandas().astype("datetime64[ns, UTC]")
    assert list(nanoseconds.dt.tz_convert("Asia/Tokyo")) == found


# Sources that are none


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is the caller's mistake, told with its absolute path."""
    with pytest.raises(SourceNotFoundError, match=f"source {tmp_path}/nope: does not exist"):
        list_photos(str(tmp_path / "nope"))
    with pytest.raises(SourceNotFoundError, match="file/below: does not exist"):
        list_photos(str(fill(tmp_path, "file") / "file" / "below"))


def test_a_file_is_no_source(tmp_path: Path) -> None:
    """A photo instead of its folder is refused with what is wanted."""
    with pytest.raises(SourceNotFoundError, match=r"1\.jpg: is a file; give the folder of the"):
        list_photos(str(fill(tmp_path, "1.jpg") / "1.jpg"))


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ([], {}, r"no photo in it \(it is empty\)"),
        (["a.txt", "b.txt", "c.csv"], {}, r"no photo in it \(left out: 2 \.txt, 1 \.csv\); see --"),
        (["a.png"], {"glob": ("*.jpg", "*.gif")}, r"no file matches \*\.jpg, \*\.gif in it \(left"),
        (["sub/a.jpg"], {"recursive": False}, r"no photo in it itself, and --no-recursive looks"),
        ([".a.jpg"], {}, r"left out: 1 hidden"),
    ],
)
def test_a_source_without_photos_is_refused(
    tmp_path: Path, names: list[str], options: dict[str, Any], says: str
) -> None:
    """A folder without one photo is refused, and the refusal names what was left out."""
    with pytest.raises(EmptySourceError, match=says):
        list_photos(str(fill(tmp_path, *names)), **options)


@pytest.mark.parametrize("content", [b"", b"PAR1 and cut off"])
def test_a_damaged_file_of_photos_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """Its photos would be lost without a word; a table of something else is counted."""
    pq.write_table(pa.table({"image": [b"photo"]}), tmp_path / "PHOTOS.PARQUET")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    fill(tmp_path, "part.parquet", "state.json", content=content)
    with pytest.raises(SourceError, match=r"part\.parquet: cannot be read.*--exclude"):
        list_photos(str(tmp_path))
    for exclude in ["part.*"], "./part.parquet":
        listing = list_photos(str(tmp_path), exclude=exclude)
        assert len(listing.photos) == 1
        left_out = {".parquet without a column of bytes": 1, ".json": 1, "excluded": 1}
        assert listing.ignored == left_out


def test_what_a_list_of_labels_lacks_is_told_of_packed_photos_too(tmp_path: Path) -> None:
    """A folder of Parquet has the notes of its labels, and of patterns that leave nothing out."""
    photos = pa.table({"image": [b"photo", b"other"]})
    pq.write_table(photos, tmp_path / "photos.parquet")
    first = list_photos(str(tmp_path), label_from="none").photos["path"][0].as_py()
    (labels := tmp_path / "labels.csv").write_text(f"path,label\n{first},kiwi\n")
    listing = list_photos(str(tmp_path), labels=str(labels), exclude=["nope"])
    assert [note.partition(" ")[0] for note in listing.notes] == ["--exclude", "1"]
    assert "1 photo has no line in" in listing.notes[1]


def test_a_file_of_photos_without_a_row_is_said_to_have_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "no.parquet")
    with pytest.raises(EmptySourceError, match="has no row"):
        list_photos(str(tmp_path))


@pytest.mark.parametrize("address", ["hdfs://node/photos", "gs://bucket/photos", "abfss://c@a/p"])
def test_a_scheme_that_only_hadoop_knows(address: str) -> None:
    """A scheme that the arrow reader does not know says which reader does."""
    with pytest.raises(ConfigError, match=r"knows folders and s3://, not \w+://; use --reader spa"):
        list_photos(address)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system while listing is told with the folder and the reason."""
    fill(tmp_path, "1.jpg", "closed/2.jpg")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(SourceError, match=r"closed: cannot be listed: .*Permission denied"):
        list_photos(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_closed_subfolder_is_an_error(tmp_path: Path) -> None:
    """A subfolder that is closed to this user is an error, not silently fewer photos."""
    fill(tmp_path, "1.jpg", "closed/2.jpg")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(SourceError, match="cannot be listed"):
        list_photos(str(tmp_path))
    (tmp_path / "closed").chmod(0o700)


# Partitions

sizes = st.lists(st.integers(0, 40_000_000), min_size=1, max_size=300)


def lengths(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def shares(values: npt.NDArray[np.int64], n: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the count and the bytes of every partition, each as a share of the mean."""
    partition = cut_partitions(values, n)
    count = np.bincount(partition, minlength=n)
    size = np.bincount(partition, weights=values, minlength=n)
    return count / count.mean(), size / size.mean()


@given(values=sizes, n=st.integers(1, 64))
def test_every_photo_is_in_one_partition(values: list[int], n: int) -> None:
    """Partitions are numbered from 0 to n - 1, whatever the sizes."""
    partition = cut_partitions(lengths(values), n)
    assert partition.shape == (len(values),)
    assert partition.dtype == np.int64
    assert partition.min() >= 0
    assert partition.max() < n


@given(values=sizes, n=st.integers(1, 30))
def test_partitions_differ_by_one_photo_and_by_the_largest(values: list[int], n: int) -> None:
    """Whatever the sizes, counts differ by at most 1 and bytes by at most the largest photo."""
    partition = cut_partitions(lengths(values), n)
    assert np.ptp(np.bincount(partition, minlength=n)) <= 1
    assert np.ptp(np.bincount(partition, weights=values, minlength=n)) <= max(values)


MIXES = {
    "all alike": lambda rng: np.full(50_000, 5_000),
    "phone photos": lambda rng: rng.lognormal(15, 0.4, 20_000),
    "a heavy tail": lambda rng: rng.lognormal(9, 1.2, 50_000),
    "tiny, then large, by folder": lambda rng: np.repeat([2_000, 900_000, 30_000], 10_000),
    "one in a hundred is a raw": lambda rng: np.where(
        rng.random(50_000) < 0.01, 25_000_000, 3_000_000
    ),
    "sorted by size": lambda rng: np.sort(rng.integers(1_000, 1_000_000, 30_000)),
}


@pytest.mark.parametrize("mix", MIXES)
def test_partitions_are_balanced_in_count_and_in_bytes(mix: str) -> None:
    """Real mixes of sizes, in any order, are cut to within 10 % of the mean in both."""
    values = MIXES[mix](np.random.default_rng(7)).astype(np.int64)
    count, size = shares(values, count_partitions(len(values), 8))
    assert count.min() >= 0.9
    assert count.max() <= 1.1
    assert size.min() >= 0.9
    assert size.max() <= 1.1


@pytest.mark.parametrize("n_photos", [1, 2, 500])
def test_one_partition_takes_all(n_photos: int) -> None:
    """With one partition every photo is in it."""
    assert cut_partitions(lengths([7] * n_photos), 1).tolist() == [0] * n_photos


def test_more_partitions_than_photos() -> None:
    """With more partitions than photos each photo is alone."""
    found = cut_partitions(lengths([10, 10, 10]), 8)
    assert len(set(found.tolist())) == 3


@given(n_photos=st.integers(1, 3_000_000), parallelism=st.integers(1, 2_000))
def test_the_number_of_partitions_has_bounds(n_photos: int, parallelism: int) -> None:
    """There are never more partitions than photos, nor more than 256 photos in one, and whole
    rounds of all cores wherever there are photos enough.
    """
    n = count_partitions(n_photos, parallelism)
    assert 1 <= n <= n_photos
    assert math.ceil(n_photos / n) <= 256
    assert n % parallelism == 0 or n == n_photos
    # Rounding up to whole rounds is all that may make a partition small.
    assert n <= math.ceil(n_photos / 32) + parallelism


@pytest.mark.parametrize(
    ("n_photos", "parallelism", "n"),
    [(1, 4, 1), (3, 4, 3), (100, 4, 4), (22_819, 2, 90), (22_819, 8, 136), (1_000_000, 100, 4000)],
)
def test_known_numbers_of_partitions(n_photos: int, parallelism: int, n: int) -> None:
    """The number of partitions is the one that was chosen for these sizes."""
    assert count_partitions(n_photos, parallelism) == n


# What Hadoop is told


def test_hadoop_takes_every_suffix_in_any_case() -> None:
    """The default pattern spells out both cases of every letter, for every suffix."""
    pattern = hadoop_glob(())
    assert pattern.startswith("*.{")
    assert pattern.endswith("}")
    alternatives = pattern[3:-1].split(",")
    assert len(alternatives) == len(IMAGE_SUFFIXES)
    assert "[jJ][pP][gG]" in alternatives
    assert "[tT][iI][fF][fF]" in alternatives


def test_hadoop_takes_several_patterns_as_one() -> None:
    """One pattern stays as it is, and several become one set of alternatives."""
    assert hadoop_glob(("*.jpg",)) == "*.jpg"
    assert hadoop_glob(("*.jpg", "IMG_*")) == "{*.jpg,IMG_*}"


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ("/data/photos", "file:///data/photos"),
        ("/data/a b/50%/#+", "file:///data/a b/50%/#+"),
        ("/data/{a,b}[c]*?", r"file:///data/\{a\,b\}\[c\]\*\?"),
        ("/data/back\\slash", "file:///data/back\\\\slash"),
        ("s3://bucket/a*", r"s3a://bucket/a\*"),
        ("hdfs://node/photos/", "hdfs://node/photos/"),
    ],
)
def test_hadoop_reads_no_glob_in_a_path(stored: str, told: str) -> None:
    """What Hadoop would read as a pattern is escaped, and a folder becomes an address."""
    assert hadoop_path(stored) == told


@pytest.mark.parametrize(
    ("name", "glob", "fits"),
    [
        ("x.jpg", (), True),
        ("x.JPeG", (), True),
        ("jpg", (), False),
        ("x.jpg.txt", (), False),
        ("x.JPG", ("*.jpg",), False),
        ("x.txt", ("*.jpg", "*.t?t"), True),
    ],
)
def test_what_a_name_must_be(name: str, glob: tuple[str, ...], fits: bool) -> None:
    """A name fits by its suffix where there is no pattern, else by one of them."""
    assert matches(name, glob) is fits
