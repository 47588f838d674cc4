"""A pack is read as it was written, or refused: no part of it is ever taken for the whole."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verger.cli import packing
from verger.cli.packing import describe_pack, pack_photos
from verger.config import Config
from verger.errors import ConfigError, EmptySourceError, OutputExistsError, SourceError
from verger.files.folder import Folder
from verger.files.reading import Unread
from verger.result.output import as_json
from verger.schema import IMAGES, PACKED, Reason
from verger.source import pack
from verger.source.listing import Listing, list_photos, refuse_pack

CONTENT = {f"{kind}/{i}.jpg": f"{kind}{i}".encode() * i for kind in "ab" for i in range(1, 6)}


@dataclasses.dataclass(frozen=True)
class Packed:
    """A folder, and its pack."""

    photos: Path
    root: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.root / "pack.json").read_text())

    def change(self, **values: Any) -> None:
        (self.root / "pack.json").write_bytes(as_json(self.manifest | values))

    def part(self, below: str = "photos") -> Path:
        return min((self.root / below).iterdir())

    def rows(self) -> list[dict[str, Any]]:
        photos = list_photos(str(self.root)).photos
        order = [("file", "ascending"), ("row_group", "ascending")]
        return photos.sort_by(order).to_pylist()


def write_pack(source: Path, target: Path, gone: tuple[str, ...] = ()) -> Packed:
    """Pack a folder without Spark: what the tasks do, one after the other."""
    listing = list_photos(str(source))
    for name in gone:
        (source / name).unlink()
    photos, n_files = packing._deal(listing, parallelism=2, n_files=2)
    photos = photos.set_column(
        photos.schema.get_field_index("row_group"),
        "row_group",
        pa.array([i // 3 for i in range(len(photos))]),
    )
    photos = photos.set_column(
        photos.schema.get_field_index("partition"),
        "partition",
        pa.array([i // 6 for i in range(len(photos))]),
    )
    folder, reports = Folder(str(target)), []
    for number in range(n_files):
        mine = photos.filter(pa.compute.equal(photos["partition"], number))
        name = f"photos/part-{number:032x}.parquet"
        found = packing._write_file(folder, name, packing._read_rows(mine.to_batches()))
        places = {group: i for i, group in enumerate(found["row_groups"])}
        reports.append(packing._Report(pack.Part(**found["part"]), places, found["unread"]))
    placed = packing._place(photos, reports)
    manifest = packing._describe(listing, placed, reports, Config())
    manifest["listing"] = packing._write_listing(folder, placed).as_dict()
    folder.write("pack.json", as_json(manifest))
    return Packed(source, target)


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    source = tmp_path / "photos"
    for name, content in CONTENT.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return write_pack(source, tmp_path / "pack")


def test_a_pack_is_listed_as_its_folder(packed: Packed) -> None:
    """Paths, times, lengths and labels are those of the photos; the source is the pack."""
    folder, found = list_photos(str(packed.photos)), list_photos(str(packed.root))
    assert found.photos.select(IMAGES).equals(folder.photos)
    assert found.photos.schema.names == [*IMAGES, *PACKED]
    assert (folder.is_pack, found.is_pack) == (False, True)
    assert found.source == str(packed.root)
    assert found.n_bytes == folder.n_bytes


def test_photos_come_out_as_they_went_in(packed: Packed) -> None:
    """Every byte is the photo's, in the order of the rows, also where batches cut a row group."""
    rows = packed.rows()
    for size in (1, 2, 4, 10):
        found = [
            content
            for start in range(0, 10, size)
            for content in pack.read_packed(rows[start : start + size])
        ]
        names = [os.path.relpath(row["path"], packed.photos) for row in rows]
        assert dict(zip(names, found, strict=True)) == CONTENT
    assert list(pack.read_packed([])) == []


def test_a_row_group_is_read_once(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    """However rows are cut into batches, each row group is fetched once, and two are held."""
    reads: list[tuple[str, int]] = []
    read = pack._read_row_group.__wrapped__
    pack._read_row_group.cache_clear()

    def counted(file: str, row_group: int) -> Any:
        reads.append((file, row_group))
        return read(file, row_group)

    monkeypatch.setattr(pack, "_read_row_group", pack.lru_cache(maxsize=2)(counted))
    rows = packed.rows()
    for start in range(10):
        list(pack.read_packed(rows[start : start + 1]))
    assert len(reads) == len(set(reads)) == 4


def test_the_content_is_not_compressed_and_has_no_statistics(packed: Packed) -> None:
    """Photos are compressed already; their first bytes say nothing."""
    with pq.ParquetFile(packed.part()) as file:
        column = file.metadata.row_group(0).column(file.schema_arrow.names.index("content"))
    assert column.compression == "UNCOMPRESSED"
    assert column.statistics is None


def test_a_photo_that_vanished_is_named(packed: Packed, tmp_path: Path) -> None:
    """A photo that could not be read is in the manifest and in the listing, with its reason."""
    again = write_pack(packed.photos, tmp_path / "again", gone=("a/2.jpg",))
    counts = again.manifest["counts"]
    assert (counts["listed"], counts["packed"], counts["unreadable"]) == (10, 9, 1)
    assert counts["reasons"] == {"vanished before reading": 1}
    (lost,) = again.manifest["unreadable"]
    assert lost["path"] == str(packed.photos / "a" / "2.jpg")
    assert (lost["length"], lost["label"], lost["reason"]) == (4, "a", "vanished before reading")
    assert len(list_photos(str(again.root)).photos) == 10
    rows = again.rows()
    found = dict(zip([row["path"] for row in rows], pack.read_packed(rows), strict=True))
    unread = found.pop(lost["path"])
    assert unread == Unread(Reason.VANISHED, lost["detail"])
    assert all(isinstance(content, bytes) for content in found.values())


def test_globs_and_labels_apply_to_the_paths_that_were_packed(packed: Packed) -> None:
    """--glob and --label-from mean for a pack what they mean for its folder."""
    root = str(packed.root)
    found = list_photos(root, glob=("1.jpg",), label_from=r"/(\d)\.jpg")
    assert found.photos["label"].to_pylist() == ["1", "1"]
    assert found.ignored == {".jpg": 8}
    assert set(list_photos(root, label_from="none").photos["label"].to_pylist()) == {None}
    with pytest.raises(EmptySourceError, match=r"no file matches \*\.png in it .*10 \.jpg"):
        list_photos(root, glob="*.png")
    with pytest.raises(EmptySourceError, match="no photo in it"):  # all are in subfolders
        list_photos(root, recursive=False)


# Damage

DAMAGE: dict[str, tuple[Callable[[Packed], Any], str]] = {
    "a part is missing": (lambda p: p.part().unlink(), "is missing from the pack; pack anew"),
    "a part is cut off": (lambda p: os.truncate(p.part(), 100), "has 100 bytes, and [0-9]+ were"),
    "the listing is missing": (lambda p: p.part("listing").unlink(), "is missing from the pack"),
    "the listing is another": (
        lambda p: p.part("listing").write_bytes(bytes(p.part("listing").stat().st_size)),
        "has another sha256 than was packed",
    ),
    "the manifest is cut off": (
        lambda p: os.truncate(p.root / "pack.json", 100),
        r"pack\.json: is damaged",
    ),
    "a later version": (lambda p: p.change(pack=2), "is of version 2, and this Verger reads 1"),
    "a key is missing": (lambda p: p.change(files=None), "is damaged: "),
    "no source": (
        lambda p: (p.root / "pack.json").write_text('{"pack": 1}'),
        "'source' is missing",
    ),
    "a file elsewhere": (
        lambda p: p.change(files=[dict(p.manifest["files"][0], name="photos/../../secret")]),
        r"names the file 'photos/\.\./\.\./secret'",
    ),
    "a file too few": (
        lambda p: p.change(files=p.manifest["files"][:1]),
        "listing does not fit the files",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_pack_is_refused(packed: Packed, what: str) -> None:
    """Whatever is missing, cut off or not a pack's is an error that names it."""
    damage, says = DAMAGE[what]
    damage(packed)
    with pytest.raises(SourceError, match=says):
        list_photos(str(packed.root))


def test_a_changed_byte_costs_its_row_group_alone(packed: Packed) -> None:
    """Damage that no size shows is found by the sums of the pages: the photos are read errors."""
    part, rows = packed.part(), packed.rows()
    content = part.read_bytes()
    place = content.index(b"a5" * 5)
    part.write_bytes(content[:place] + b"X" + content[place + 1 :])
    pack._open.cache_clear()
    pack._read_row_group.cache_clear()
    found = list(pack.read_packed(rows))
    lost = [content for content in found if isinstance(content, Unread)]
    assert len(lost) == 3
    assert {unread.reason for unread in lost} == {Reason.READ_ERROR}
    assert f"3 times: {part}, row group" in lost[0].detail


def test_a_part_that_goes_after_the_listing_costs_its_photos(packed: Packed) -> None:
    """A file that was there when the pack was listed and is gone gives a reason a photo."""
    rows = packed.rows()
    pack._open.cache_clear()
    pack._read_row_group.cache_clear()
    packed.part().unlink()
    lost = [c for c in pack.read_packed(rows) if isinstance(c, Unread)]
    assert {unread.reason for unread in lost} == {Reason.VANISHED}


def test_a_photo_that_is_not_in_its_row_group_is_a_read_error(packed: Packed) -> None:
    """A listing that is wrong about one photo never gives it the bytes of another."""
    row = packed.rows()[0]
    elsewhere = list(pack.read_packed([row | {"row_group": 1}]))
    longer = list(pack.read_packed([row | {"length": 99}]))
    beyond = list(pack.read_packed([row | {"row_group": 99}]))
    for (found,), says in ((elsewhere, "no such photo"), (longer, "99 bytes"), (beyond, "99")):
        assert isinstance(found, Unread)
        assert says in found.detail


def test_a_pack_json_of_somebody_elses_is_no_pack(tmp_path: Path) -> None:
    """A folder of photos may hold any file; and what only Hadoop reaches is asked nothing."""
    (tmp_path / "pack.json").write_text('{"name": "sled"}')
    (tmp_path / "1.jpg").write_bytes(b"x")
    assert len(list_photos(str(tmp_path)).photos) == 1
    assert not pack.is_pack("hdfs://somewhere/pack")


# Before Spark


def test_what_may_not_be_written_is_refused(packed: Packed, tmp_path: Path) -> None:
    """A pack is replaced only when asked, anything else never, and nothing goes into the source."""
    source = str(packed.photos)
    with pytest.raises(OutputExistsError, match="holds a pack already; --overwrite replaces it"):
        pack_photos(source, packed.root, Config())
    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    (mine / "photos" / "1.jpg").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match=r"not empty \(photos/1\.jpg\), and holds no pack"):
        pack_photos(source, mine, Config(overwrite=True))
    for target in (source, f"{source}/pack", str(tmp_path)):
        with pytest.raises(ConfigError, match="must lie outside SRC"):
            pack_photos(source, target, Config())
    with pytest.raises(ConfigError, match="is a pack already"):
        pack_photos(str(packed.root), tmp_path / "new", Config())
    with pytest.raises(ConfigError, match="reader='spark': verger pack lists and reads by itself"):
        pack_photos(source, tmp_path / "new", Config(reader="spark"))
    assert not (tmp_path / "new").exists()


def test_sparks_reader_is_refused(packed: Packed) -> None:
    """--reader spark with a pack is a mistake that is found before Spark starts."""
    with pytest.raises(ConfigError, match=r"reader='spark' .*which only the arrow reader reads"):
        refuse_pack(str(packed.root))
    refuse_pack(str(packed.photos))


def test_a_dry_run_says_what_would_be_packed(packed: Packed, tmp_path: Path) -> None:
    """The steps name the photos and the place; nothing is written."""
    new = describe_pack(str(packed.photos), tmp_path / "new", Config())
    assert new["steps"] == [
        f"read 10 photos (0.0 MB, 2 labels) of {packed.photos}",
        f"write a pack to {tmp_path / 'new'}",
    ]
    old = describe_pack(str(packed.photos), packed.root, Config(overwrite=True))
    assert old["steps"][-1] == f"replace the pack in {packed.root}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("size", "n_groups", "n_files"),
    [(5_000, 68, 4), (1_000_000, 250, 21), (50_000_000, 4_000, 1_042)],
)
def test_row_groups_and_files_have_their_sizes(size: int, n_groups: int, n_files: int) -> None:
    """Row groups are a run's partitions, but of about 16 MB at most; files have about 192 MB, or
    less where all cores write.
    """
    photos = pa.table(
        {
            "path": [f"/{i:05}" for i in range(4_000)],
            "length": [size] * 4_000,
            "modification_time": pa.array([0] * 4_000, pa.timestamp("us", tz="UTC")),
            "label": [""] * 4_000,
        }
    )
    dealt, n = packing._deal(Listing("/", photos, {}), parallelism=4, n_files=None)
    assert n == n_files
    assert len(dealt["row_group"].unique()) == n_groups
    assert len(dealt["partition"].unique()) == n_files
    per_group = dealt.group_by("row_group").aggregate([("length", "sum")])["length_sum"]
    assert max(per_group.to_pylist()) <= max(size, 1.1 * packing.ROW_GROUP_BYTES)
