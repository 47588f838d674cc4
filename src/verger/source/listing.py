"""List photos on the driver: local folders and buckets, through pyarrow's filesystems."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import pyarrow as pa

from verger.config import COLUMN, check_label_rule
from verger.errors import ConfigError, EmptySourceError, SourceNotFoundError
from verger.files.packed import PACKED_SUFFIXES
from verger.files.paths import normalize_source
from verger.schema import IMAGES, TIMES_MS, arrow_schema, normal_labels
from verger.source.lists import PhotoList, has_photos, is_list, read_list
from verger.source.packed import has_photo_column, rows_of_file
from verger.source.patterns import (
    excludes,
    hidden_as,
    matches,
    path_below,
    several_excludes,
    several_globs,
)
from verger.source.stored import StoredFile, list_files, stat_file

#: Files of photos that are read at once, to list their rows.
_PACKED_AT_ONCE = 8
#: Their suffixes, in any case.
_PACKED_GLOB = tuple(
    "*." + "".join(f"[{letter}{letter.upper()}]" for letter in suffix[1:])
    for suffix in PACKED_SUFFIXES
)
#: What such a file is counted under that has none.
_WITHOUT_PHOTOS = tuple(f"{suffix} without a column of bytes" for suffix in PACKED_SUFFIXES)


@dataclass(frozen=True, repr=False)
class Listing:
    """The photos of a source, as they were when it was listed.

    Attributes
    ----------
    source : str
        As every path in the table begins: an absolute folder, or ``s3://bucket/prefix``.
    photos : pyarrow.Table
        Columns ``path``, ``modification_time``, ``length``, ``label``; sorted by path.
    ignored : dict of str to int
        Number of files that were left out, by suffix or by what they are.
    recursive : bool
        Whether subfolders were looked into.
    n_clamped : int
        Photos whose modification time no table holds; see :data:`verger.schema.TIMES_MS`.
    named_by : str or None
        The list that was given as the source.
    labelled_by : str or None
        The list that the labels are from, where no rule gave them.
    groups : pyarrow.Table or None
        Columns ``path`` and ``group`` (int32) of the photos that a list puts into groups.
    notes : tuple of str
        What looks like a mistake in a list, in words.
    """

    source: str
    photos: pa.Table
    ignored: dict[str, int]
    recursive: bool = True
    n_clamped: int = 0
    named_by: str | None = None
    labelled_by: str | None = None
    groups: pa.Table | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Sum of the photos' sizes."""
        return int(pa.compute.sum(self.photos["length"]).as_py() or 0)

    def __repr__(self) -> str:
        return f"Listing({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in self._facts().items())
        return f"<table><caption>Listing</caption>{''.join(rows)}</table>"

    def _facts(self) -> dict[str, str]:
        return {
            "source": repr(self.source),
            "photos": str(len(self.photos)),
            "labels": str(len(self.photos["label"].unique())),
            "size": f"{self.n_bytes / 1e6:.1f} MB",
            "ignored": str(sum(self.ignored.values())),
        }


def list_photos(
    source: str | Path,
    *,
    glob: Sequence[str] = (),
    recursive: bool = True,
    label_from: str = "parent",
    ignore: bool = True,
    exclude: Sequence[str] = (),
    labels: str | Path | None = None,
) -> Listing:
    """List the photos of a folder or a bucket, or those that a list names.

    Parameters
    ----------
    source : path
        A folder, ``file://`` or ``s3://bucket/prefix``; or a list of photos below its own folder
        (:func:`verger.source.lists.read_list`), all of which are taken.
    glob : sequence of str
        Patterns of file names, case as written, or with a slash of paths below the source, where
        ``*`` matches slashes too. Without any, every common suffix of an image, in any case.
    recursive, ignore : bool
        Look into subfolders; leave out hidden files, and folders of thumbnails and bins.
    label_from : str
        ``parent``, ``none``, or a regular expression on the path whose first group is the label.
    exclude : sequence of str
        Names of files and folders to leave out; with a slash, as for ``glob``.
    labels : path, optional
        A list that has the labels, by path below the source; a photo without a line has none.

    Raises
    ------
    SourceNotFoundError, EmptySourceError, SourceError
        If there is no such source, not one photo in it, or it cannot be listed.
    ConfigError
        If ``label_from`` is no usable rule, or a list cannot be used.

    Examples
    --------
    >>> verger.list_photos("photos/", glob=["*.jpg"])
    Listing(source='.../photos', photos=30, labels=6, size=..., ignored=0)
    """
    check_label_rule(label_from)
    source, labels = os.fspath(source), labels and os.fspath(labels)
    how: Any = {"recursive": recursive, "exclude": several_excludes(exclude), "labels": labels}
    if has_photos(source):  # asked first: it reads the file's footer, and a list is asked it too
        root = normalize_source(source)
        return list_packed([stat_file(root)], root, source, label_from, labels=how["labels"])
    if is_list(source):
        return _list_named(source, several_globs(glob), label_from, **how)
    return _list_folder(source, label_from, glob=several_globs(glob), ignore=ignore, **how)


def _list_folder(
    source: str, label_from: str, *, recursive: bool, ignore: bool, **how: Any
) -> Listing:
    """List a folder of photos, or of files that hold photos in their rows."""
    root = normalize_source(source)
    files = list(list_files(root, recursive, ignore))
    packed, ignored = _packed_files(files, root, how["glob"], how["exclude"], ignore)
    if packed:
        listing = list_packed(packed, root, source, label_from, labels=how["labels"])
        idle = _idle(files, root, how["exclude"])
        return replace(listing, ignored=ignored, notes=(*idle, *listing.notes))
    if any(what in ignored for what in _WITHOUT_PHOTOS):
        _check_any([], source, how["glob"], ignored, recursive)
    glob = how.pop("glob")
    how |= {"recursive": recursive, "ignore": ignore}
    return make_listing(files, root, source, glob, label_from, **how)


def _packed_files(
    files: list[StoredFile],
    root: str,
    glob: tuple[str, ...],
    exclude: tuple[str, ...],
    ignore: bool,
) -> tuple[list[StoredFile], dict[str, int]]:
    """Return the files that hold photos in their rows, where there is no photo beside them.

    Returns
    -------
    files : list of StoredFile
    ignored : dict of str to int
        What was left out; empty where photos are files of their own.

    Raises
    ------
    SourceError
        If such a file cannot be read: its photos would be lost without a word.
    """
    others = (file for file in files if not file.path.lower().endswith(PACKED_SUFFIXES))
    if any(_left_out(file, root, glob, ignore, exclude) is None for file in others):
        return [], {}
    wanted, ignored = _by_glob(files, root, glob or _PACKED_GLOB, ignore, exclude)
    with ThreadPoolExecutor(_PACKED_AT_ONCE) as pool:
        have_photos = list(pool.map(lambda file: has_photo_column(file.path), wanted))
    packed = list(compress(wanted, have_photos))
    without = [file.path.lower() for file in set(wanted) - set(packed)]
    for suffix, what in zip(PACKED_SUFFIXES, _WITHOUT_PHOTOS, strict=True):
        if n := sum(path.endswith(suffix) for path in without):
            ignored[what] = n
    return packed, ignored


def list_packed(
    files: list[StoredFile], root: str, source: str, label_from: str, *, labels: str | None = None
) -> Listing:
    """List the photos that lie in the rows of files.

    Their lengths are not written anywhere, so that the bytes are read once, a few at a time.

    Raises
    ------
    SourceError
        If a file cannot be read.
    """
    with ThreadPoolExecutor(_PACKED_AT_ONCE) as pool:
        found = list(pool.map(lambda file: rows_of_file(file.path, label_from), files))
    rows = [row for some in found for row in some]
    if not rows:
        raise EmptySourceError(f"source {source}: no photo in it: the file of photos has no row")
    stored = [
        StoredFile(row.path, row.length, file.modified_ns)
        for file, some in zip(files, found, strict=True)
        for row in some
    ]
    if stored and not any(file.length for file in stored):
        raise EmptySourceError(
            f"source {source}: not one of its {len(stored):,} rows has bytes; datasets' to_parquet "
            "leaves only the paths of files: give the folder of the files, or use save_to_disk"
        )
    how: Any = {"recursive": True, "labels": labels, "ignore": False}
    listing = make_listing(stored, root, source, ("*",), "none", **how)
    if labels is not None or label_from == "none":
        return listing
    said = {row.path: row.label for row in rows}
    names = pa.array([said[path] for path in listing.photos["path"].to_pylist()], pa.string())
    place = listing.photos.schema.get_field_index("label")
    photos = listing.photos.set_column(place, "label", normal_labels(names))
    return replace(listing, photos=photos, labelled_by=f"the rows of {root}")


def _list_named(
    source: str, glob: tuple[str, ...], label_from: str, *, labels: str | None, **how: Any
) -> Listing:
    """List the photos that a list names; one that is not there will be rejected, never just lost.

    Raises
    ------
    SourceNotFoundError
        If not one of them is there.
    """
    named = read_list(source)
    if labels is not None and named.has_labels:
        raise ConfigError(f"labels={labels}: the list {named.address} has labels already")
    root = named.address.rpartition("/")[0]
    if root.startswith("/"):
        files = [stat_file(_spelled(path)) for path in named.photos]
    else:
        stored = list_files(root, recursive=True, ignore=False)
        there = {normalize("NFC", file.path): file for file in stored}  # as lists have them
        files = [there.get(path, StoredFile(path, 0, 0)) for path in named.photos]
    if not any(file.modified_ns for file in files):
        raise SourceNotFoundError(
            f"list {named.address}: not one of its {len(files):,} photos is there; the first is "
            f"{files[0].path}; paths are relative to {root}"
        )
    how |= {"labels": labels, "named": named, "ignore": False}
    listing = make_listing(files, root, source, glob or ("*",), label_from, **how)
    return replace(listing, named_by=named.address)


def _spelled(path: str) -> str:
    """Return a listed path as this machine's folders spell it: in Unicode's form NFC, or NFD."""
    decomposed = normalize("NFD", path)
    return decomposed if not os.path.lexists(path) and os.path.lexists(decomposed) else path


def make_listing(
    files: Iterable[StoredFile],
    root: str,
    source: str,
    glob: tuple[str, ...],
    label_from: str,
    *,
    recursive: bool,
    ignore: bool = True,
    exclude: tuple[str, ...] = (),
    labels: str | None = None,
    named: PhotoList | None = None,
) -> Listing:
    """Make the listing of all files that are there; ``named`` is the list that named them."""
    if label_from.startswith(COLUMN):
        raise ConfigError(f"label_from={label_from!r}: SRC={source} has no photos in Parquet")
    labelled = read_list(labels, root) if labels is not None else named
    files = list(files)
    wanted, ignored = _by_glob(files, root, glob, ignore, exclude)
    _check_any(wanted, source, glob, ignored, recursive)
    paths = [file.path for file in wanted]
    # Milliseconds are the finest that both readers give.
    times = [file.modified_ns // 1_000_000 for file in wanted]
    first, last = TIMES_MS
    held = [min(max(time, first), last) for time in times]
    columns = {
        "path": paths,
        "modification_time": pa.array(held, pa.timestamp("ms", tz="UTC")),
        "length": [file.length for file in wanted],
        "label": (
            labelled.labels(paths)
            if labelled and (labelled.has_labels or labels is not None)
            else labels_of(paths, label_from)
        ),
    }
    table = pa.table(columns).cast(arrow_schema(IMAGES)).sort_by("path")
    n_clamped = sum(time != kept for time, kept in zip(times, held, strict=True))
    idle = _idle(files, root, exclude)
    listing = Listing(root, table, ignored, recursive, n_clamped, notes=idle)
    return listing if labelled is None else _with_list(listing, labelled, joined=labels is not None)


def _with_list(listing: Listing, said: PhotoList, *, joined: bool) -> Listing:
    """Add to a listing what a list says of its photos.

    Raises
    ------
    ConfigError
        If a list of labels has none, or names not one of the photos.
    """
    paths: list[str] = listing.photos["path"].to_pylist()
    n_named = sum(normalize("NFC", path) in said.photos for path in paths)
    if joined and not said.has_labels:
        raise ConfigError(f"labels={said.address}: has no labels; a line is path,label[,group]")
    if joined and not n_named:
        raise ConfigError(
            f"labels={said.address}: names not one of the {len(paths):,} photos; the first of its "
            f"paths is {next(iter(said.photos))}; they are relative to {listing.source}"
        )
    notes = said.describe(len(paths), n_named, listing.source, joined=joined)
    by = said.address if said.has_labels else None
    return replace(
        listing, labelled_by=by, groups=said.groups(paths), notes=(*listing.notes, *notes)
    )


def _check_any(
    photos: Sequence[Any],
    source: str,
    glob: tuple[str, ...],
    ignored: dict[str, int],
    recursive: bool,
) -> None:
    if len(photos) == 0:
        what = f"no file matches {', '.join(glob)}" if glob else "no photo"
        where = "" if recursive else " itself, and --no-recursive looks into no subfolder"
        left_out = _ignored_text(ignored) if recursive or ignored else ""
        raise EmptySourceError(f"source {source}: {what} in it{where}{left_out}")


def _by_glob(
    files: Iterable[StoredFile],
    root: str,
    glob: tuple[str, ...],
    ignore: bool,
    exclude: tuple[str, ...],
) -> tuple[list[StoredFile], dict[str, int]]:
    wanted: list[StoredFile] = []
    ignored: Counter[str] = Counter()
    for file in files:
        why = _left_out(file, root, glob, ignore, exclude)
        if why is None:
            wanted.append(file)
        else:
            ignored[why] += 1
    return wanted, dict(ignored.most_common())


def _idle(files: list[StoredFile], root: str, exclude: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note for each pattern that no file, and no folder, is left out by."""
    return tuple(
        f"--exclude {pattern!r} leaves nothing out; a name or path is matched as a whole, * is any"
        for pattern in exclude
        if not any(excludes(pattern, path_below(file.path, root)) for file in files)
    )


def _left_out(
    file: StoredFile, root: str, glob: tuple[str, ...], ignore: bool, exclude: tuple[str, ...]
) -> str | None:
    """Return what a file that is not wanted is counted under, or None for a photo."""
    parts = path_below(file.path, root)
    why = hidden_as(parts) if ignore else None
    why = why or _no_photo(file, parts, glob)
    if why is None and any(excludes(pattern, parts) for pattern in exclude):
        why = "excluded"
    return why


def _no_photo(file: StoredFile, parts: list[str], glob: tuple[str, ...]) -> str | None:
    """Return what a file that is no photo is counted under, or None for a photo."""
    name = parts[-1]
    if not file.is_regular:
        return "no file (pipe or device)" if name else "with a key that ends in /"
    if name.startswith("._"):  # what macOS keeps beside a photo on other systems' disks
        return "hidden"
    if not matches("/".join(parts), glob):
        return PurePosixPath(name).suffix.lower() or "no suffix"
    # A name of bytes that are no UTF-8 can stand in no table.
    return None if _is_utf8(file.path) else "with a name that is not UTF-8"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ignored_text(ignored: dict[str, int]) -> str:
    if not ignored:
        return " (it is empty)"
    counts = ", ".join(f"{n} {suffix}" for suffix, n in list(ignored.items())[:5])
    return f" (left out: {counts}); see --glob"


def labels_of(paths: Sequence[str], rule: str) -> list[str | None]:
    """Return the label of every path by the rule of ``label_from``, in Unicode's form NFC."""
    if rule == "none":
        return [None] * len(paths)
    if rule == "parent":
        labels = [_parent(path) for path in paths]
    else:  # both in one form: an expression is typed in NFC, and a path may be in NFD
        rule = normalize("NFC", rule)
        found = (re.search(rule, normalize("NFC", path)) for path in paths)
        labels = [match.group(1) if match else None for match in found]
    normal: list[str | None] = normal_labels(pa.array(labels, pa.string())).to_pylist()
    return normal


def _parent(path: str) -> str | None:
    """Return the name of a file's folder; of a key with two slashes, the part before them."""
    return path.rpartition("/")[0].rstrip("/").rpartition("/")[2] or None
