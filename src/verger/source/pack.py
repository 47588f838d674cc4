"""A pack: many small photos in few large Parquet files, read like the folder that they came from.

::

    PACK/
      pack.json                    what the pack holds; written last: without it there is no pack
      photos/part-4be1.parquet     path, modification_time, length, label, content
      listing/part-07aa.parquet    the same without content, and where each photo is: file and
                                   row_group; of photos that could not be read, reason and detail

``pack.json`` names every file with its rows, size and sha256. The listing is a file of its own so
that planning is one small read, not one for every row group of a bucket. The content of a photo
is found by its path within the row group, never by counting.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verger.errors import OutputError, SchemaError, SourceError
from verger.files.folder import Folder
from verger.files.paths import filesystem_of
from verger.files.reading import READ_ATTEMPTS, READ_PAUSE_S, Unread
from verger.files.tables import Part, part_of, read_part
from verger.schema import IMAGES, PACKED, Reason, arrow_schema

MANIFEST = "pack.json"
PHOTOS = "photos"
LISTING = "listing"
#: Version of this layout, under the key ``pack`` of the manifest.
VERSION = 1
#: Columns of the listing.
COLUMNS = (*IMAGES, *PACKED)
#: The names of files that a pack may have, and the only ones that are read or removed.
PART_NAME = re.compile(rf"(?:{PHOTOS}|{LISTING})/part-[0-9a-f]{{32}}\.parquet")

_KEYS = ("source", "label_from", "counts", "files", "listing")


# The manifest and the listing, on the driver


def is_pack(root: str) -> bool:
    """Whether there is a pack at a place: a ``pack.json`` of ours.

    Parameters
    ----------
    root : str
        As :func:`verger.files.paths.normalize_source` returns it.

    Raises
    ------
    SourceError
        If there is a ``pack.json`` that cannot be read.
    """
    if "://" in root and not root.startswith("s3://"):  # only Hadoop may reach it
        return False
    return _read_json(Folder(root)) is not None


def _read_json(folder: Folder) -> dict[str, Any] | None:
    """Return what ``pack.json`` says, or None where there is none, or none of ours."""
    try:
        if not folder.exists(MANIFEST):
            return None
        values = json.loads(folder.read(MANIFEST))
    except (OutputError, SourceError):  # the listing of the folder will say why
        return None
    except ValueError as err:
        raise SourceError(f"{folder.address(MANIFEST)}: is damaged: {err}") from err
    return values if isinstance(values, dict) and "pack" in values else None


def read_manifest(root: str) -> dict[str, Any]:
    """Read ``pack.json``.

    Raises
    ------
    SourceError
        If it is missing, damaged, of another version, or names a file that no pack has.
    """
    values, place = _read_json(Folder(root)), f"{root}/{MANIFEST}"
    if values is None:
        raise SourceError(f"{place}: is missing, or no pack's")
    if values["pack"] != VERSION:
        raise SourceError(
            f"{place}: is of version {values['pack']}, and this Verger reads {VERSION}; pack anew"
        )
    missing = [key for key in _KEYS if key not in values]
    if missing:
        raise SourceError(f"{place}: is damaged: {missing[0]!r} is missing")
    try:
        named = [Part(**part).name for part in (*values["files"], values["listing"])]
    except (TypeError, AttributeError) as err:
        raise SourceError(f"{place}: is damaged: {err}") from err
    foreign = [name for name in named if not PART_NAME.fullmatch(str(name))]
    if foreign:
        raise SourceError(f"{place}: is damaged: names the file {foreign[0]!r}")
    return values


def read_listing(root: str) -> tuple[dict[str, Any], pa.Table]:
    """Read what a pack holds; no photo is read.

    Parameters
    ----------
    root : str
        The folder or bucket of the pack.

    Returns
    -------
    manifest : dict
    photos : pyarrow.Table
        Columns :data:`COLUMNS`, sorted by path. ``file`` is a stored path of its own; it is null,
        and ``row_group`` -1, for photos that could not be packed.

    Raises
    ------
    SourceError
        If the manifest or the listing is damaged, or a file is missing or of another size.
    """
    manifest, folder = read_manifest(root), Folder(root)
    listing = Part(**manifest["listing"])
    files = [Part(**part) for part in manifest["files"]]
    _check_files(folder, [*files, listing])
    try:
        content = folder.read(listing.name)
        if part_of(listing.name, listing.rows, content) != listing:
            raise SourceError(f"{folder.address(listing.name)}: has another sha256 than was packed")
        photos = read_part(folder, listing.name, list(COLUMNS))
    except (OutputError, SchemaError) as err:
        raise SourceError(str(err)) from err
    _check_rows(root, photos, files)
    files_at = pa.array([folder.address(part.name) for part in files], pa.string())
    index = pc.index_in(photos["file"], value_set=pa.array([part.name for part in files]))
    place = photos.schema.get_field_index("file")
    photos = photos.set_column(place, "file", files_at.take(index.combine_chunks()))
    place = photos.schema.get_field_index("row_group")
    photos = photos.set_column(place, "row_group", pc.fill_null(photos["row_group"], -1))
    return manifest, photos.cast(arrow_schema(COLUMNS))


def _check_files(folder: Folder, parts: Sequence[Part]) -> None:
    sizes = {e.name: e.size for below in (PHOTOS, LISTING) for e in folder.files(below)}
    for part in parts:
        place = folder.address(part.name)
        if part.name not in sizes:
            raise SourceError(f"{place}: is missing from the pack; pack anew")
        if sizes[part.name] != part.size:
            raise SourceError(
                f"{place}: has {sizes[part.name]} bytes, and {part.size} were packed; pack anew"
            )


def _check_rows(root: str, photos: pa.Table, files: Sequence[Part]) -> None:
    """Check that listing and files are of one pack."""
    counts = photos["file"].drop_null().value_counts().to_pylist()
    found = {entry["values"]: entry["counts"] for entry in counts}
    if found != {part.name: part.rows for part in files if part.rows}:
        raise SourceError(f"{root}: its listing does not fit the files of pack.json; pack anew")


# The photos, in the tasks


def read_packed(rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes | Unread]:
    """Read packed photos in order, a row group at a time and the next one ahead.

    Parameters
    ----------
    rows : sequence of mapping
        ``path``, ``length`` and :data:`verger.schema.PACKED`; photos of a row group one after
        the other.
    """
    groups = [(place, list(found)) for place, found in groupby(rows, itemgetter(*PACKED[:2]))]
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(_contents_of, *place) for place, _ in groups[:1]]
        for index, (_, found) in enumerate(groups):
            contents = coming.pop().result()
            coming = [pool.submit(_contents_of, *place) for place, _ in groups[index + 1 :][:1]]
            for row in found:
                yield _content_of(row, contents)


_Contents = Mapping[str, pa.BinaryScalar] | Unread


def _content_of(row: Mapping[str, Any], contents: _Contents) -> bytes | Unread:
    if row["file"] is None:
        return Unread(Reason(row["reason"]), row["detail"])
    if isinstance(contents, Unread):
        return contents
    if row["path"] not in contents:
        detail = f"{row['file']}, row group {row['row_group']}: has no such photo"
        return Unread(Reason.READ_ERROR, detail)
    content: bytes = contents[row["path"]].as_py()
    if len(content) != row["length"]:
        detail = f"listed with {row['length']} bytes, {len(content)} in the pack"
        return Unread(Reason.READ_ERROR, detail)
    return content


def _contents_of(file: str | None, row_group: int) -> _Contents:
    """Read a row group, trying again where that may help."""
    if file is None:  # photos that could not be packed
        return {}
    last = ""
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return _read_row_group(file, row_group)
        except FileNotFoundError:
            return Unread(Reason.VANISHED, f"{file} was there when the pack was listed")
        except (OSError, KeyError, pa.ArrowException) as err:
            last = f"{READ_ATTEMPTS} times: {file}, row group {row_group}: {err}"
        if attempt < READ_ATTEMPTS:
            time.sleep(READ_PAUSE_S * 2 ** (attempt - 1))
    return Unread(Reason.READ_ERROR, last)


# Batches that are committed cut row groups anywhere: the one in use is kept, and the one ahead.
# No name of a file is ever used twice, so that what is kept is never stale.


@lru_cache(maxsize=2)
def _read_row_group(file: str, row_group: int) -> Mapping[str, pa.BinaryScalar]:
    """Return the photos of a row group by path; their bytes stay Arrow's."""
    found = _open(file).read_row_group(row_group, columns=["path", "content"], use_threads=False)
    return dict(zip(found["path"].to_pylist(), found["content"], strict=True))


@lru_cache(maxsize=2)
def _open(file: str) -> pq.ParquetFile:
    filesystem, inner = filesystem_of(file)
    return pq.ParquetFile(
        filesystem.open_input_file(inner),
        pre_buffer=True,  # the columns of a row group are one request to a bucket
        page_checksum_verification=True,
    )
