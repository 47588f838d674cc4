"""Lists of photos, as people have them: a path a line, with a label and a group if they are known.

A list is a source (``verger run train.csv OUT``), or it labels the photos of a folder
(``--labels``).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq

from verger.errors import ConfigError, SourceError, SourceNotFoundError
from verger.files.packed import PACKED_SUFFIXES
from verger.files.paths import explain, filesystem_of, normalize_source
from verger.language import counted
from verger.schema import GROUPS, arrow_schema
from verger.source.packed import has_photo_column

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
#: Columns of a list, in the order in which they stand where no line names them.
COLUMNS = ("path", "label", "group")
#: What stands between the cells of a .csv file: spreadsheets write ; in France.
SIGNS = ",;\t"


@dataclass(frozen=True)
class PhotoList:
    """What a list says of photos.

    Attributes
    ----------
    address : str
        Of the list itself, in the form in which it is stored.
    photos : mapping of str to (str or None, str or None)
        Stored path, in Unicode's form NFC, to label and group.
    has_labels, has_groups : bool
        Whether it has these columns.
    n_twice, n_blank : int
        Lines that repeat another one, and lines without a path.
    """

    address: str
    photos: Mapping[str, tuple[str | None, str | None]] = field(repr=False)
    has_labels: bool
    has_groups: bool
    n_twice: int = 0
    n_blank: int = 0

    def labels(self, paths: Iterable[str]) -> list[str | None]:
        """Return the label of each path; None for one that the list does not name."""
        return [self.photos.get(normalize("NFC", path), (None, None))[0] for path in paths]

    def describe(self, n_photos: int, n_named: int, source: str, *, joined: bool) -> list[str]:
        """Return what looks like a mistake in the list.

        Parameters
        ----------
        n_photos, n_named : int
            Photos of the source, and those that the list names.
        source : str
        joined : bool
            Whether the list labels the photos of a source that it is not itself.
        """
        n_away = len(self.photos) - n_named
        n_bare = sum(not label for label, _ in self.photos.values()) if self.has_labels else 0
        notes = []
        if joined and n_named < n_photos:
            photos = counted(n_photos - n_named, "photo has", "photos have")
            notes.append(f"{photos} no line in {self.address}, so no label")
        if joined and n_away:
            are = "path of {} is no photo" if n_away == 1 else "paths of {} are no photos"
            notes.append(f"{n_away:,} {are.format(self.address)} of {source}")
        if self.n_twice:
            lines = counted(self.n_twice, "line repeats", "lines repeat")
            notes.append(f"{lines} another one in {self.address}")
        for n, what in ((n_bare, "label"), (self.n_blank, "path")):
            if n:
                lines = counted(n, "line has", "lines have")
                notes.append(f"{lines} no {what} in {self.address}")
        return notes

    def groups(self, paths: Sequence[str]) -> pa.Table | None:
        """Return ``path`` and ``group`` of those of some paths that have a group, numbered.

        Returns
        -------
        pyarrow.Table or None
            ``group`` is int32: photos of one group have one number. None without groups.
        """
        named = (self.photos.get(normalize("NFC", path), (None, None))[1] for path in paths)
        pairs = [(path, group) for path, group in zip(paths, named, strict=True) if group]
        if not pairs:
            return None
        numbers = {group: i for i, group in enumerate(sorted({group for _, group in pairs}))}
        columns = [[path for path, _ in pairs], [numbers[group] for _, group in pairs]]
        return pa.table(columns, schema=arrow_schema(GROUPS)).sort_by("path")


def is_list(source: str) -> bool:
    """Whether a source is a list of photos: a file by its suffix, and not a folder."""
    if not source.lower().endswith(LIST_SUFFIXES):
        return False
    is_file = "://" in source or not Path(normalize_source(source)).is_dir()
    return is_file and not has_photos(source)


def has_photos(source: str) -> bool:
    """Whether a source is a file that holds photos in its rows, not one that lists them."""
    if not source.lower().endswith(PACKED_SUFFIXES):
        return False
    path = normalize_source(source)
    if not path.startswith("s3://") and not Path(path).is_file():
        return False
    try:
        return has_photo_column(path)
    except SourceError:  # whoever reads it says what is wrong
        return path.lower().endswith(".arrow")


def read_list(address: str, root: str | None = None) -> PhotoList:
    """Read a list.

    Parameters
    ----------
    address : str
        A ``.txt``, ``.csv`` or ``.parquet`` file, here or in a bucket. Text has a photo a line,
        ``path[, label[, group]]``, or a first line that names its columns.
    root : str, optional
        What paths are relative to, and below which all are; by default the list's folder.

    Raises
    ------
    SourceNotFoundError
        If it is not there.
    ConfigError
        If it is no such list, or gives one photo two labels or groups.
    """
    stored = normalize_source(address)
    if not stored.lower().endswith(LIST_SUFFIXES):
        raise ConfigError(f"list {address}: must end in one of {', '.join(LIST_SUFFIXES)}")
    root = stored.rpartition("/")[0] if root is None else root
    content = _read(stored)
    read = _read_parquet if stored.lower().endswith(".parquet") else _read_text
    names, rows = read(content, stored)
    photos: dict[str, tuple[str | None, str | None]] = {}
    n_twice = n_blank = 0
    for path, label, group in rows:
        if not path.strip():  # an answer of `verger serve --feedback` whose photo was not kept
            n_blank += 1
            continue
        key, said = normalize("NFC", _below(path, root, stored)), (label, group)
        n_twice += key in photos
        if photos.setdefault(key, said) != said:
            raise ConfigError(
                f"list {stored}: names {path} twice, with {_said(photos[key])} and with "
                f"{_said(said)}; keep one line"
            )
    if not photos:
        raise ConfigError(f"list {stored}: names no photo")
    return PhotoList(stored, photos, "label" in names, "group" in names, n_twice, n_blank)


def _said(said: tuple[str | None, str | None]) -> str:
    label, group = said
    named = f"label {label!r}" if label else "no label"
    return f"{named}, group {group!r}" if group else named


def _read(stored: str) -> bytes:
    filesystem, inner = filesystem_of(stored)
    try:
        with filesystem.open_input_file(inner) as file:
            return file.read()  # type: ignore[no-any-return]
    except (FileNotFoundError, IsADirectoryError) as err:
        raise SourceNotFoundError(f"list {stored}: does not exist, or is no file") from err
    except (OSError, pa.ArrowException) as err:
        raise SourceNotFoundError(f"list {stored}: cannot be read: {explain(err)}") from err


_Row = tuple[str, str | None, str | None]


def _read_parquet(content: bytes, stored: str) -> tuple[Sequence[str], Iterator[_Row]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        table = file.read(columns=names)
        columns = {name: table[name].cast(pa.string()).to_pylist() for name in names}
    except (OSError, ValueError, pa.ArrowException) as err:
        raise ConfigError(f"list {stored}: cannot be read: {err}") from err
    if "path" not in columns:
        raise ConfigError(
            f"list {stored}: must have a column path; optional: label, group; or, to hold photos, "
            "a column of bytes"
        )
    nothing = [None] * len(table)
    rows = zip(*(columns.get(name, nothing) for name in COLUMNS), strict=True)
    return names, (_row(list(row)) for row in rows)


def _read_text(content: bytes, stored: str) -> tuple[Sequence[str], Iterator[_Row]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ConfigError(f"list {stored}: is not UTF-8: save it as CSV UTF-8") from err
    try:
        lines = read_cells(text, SIGNS if stored.lower().endswith(".csv") else ",")
    except ValueError as err:
        raise ConfigError(f"list {stored}: {err}") from err
    names = [cell.strip().lower() for cell in lines[0]] if lines else []
    if "path" in names:
        lines = lines[1:]
    else:
        names = list(COLUMNS[: max(map(len, lines), default=1)])
    longest = max(map(len, lines), default=0)
    if longest > len(names):
        raise ConfigError(
            f"list {stored}: a line has {longest} columns, not {len(names)}: a line is "
            "path[,label[,group]], and a path with a comma stands in quotes"
        )
    place = {name: names.index(name) for name in COLUMNS if name in names}
    return list(place), (_row(_cells(line, place)) for line in lines)


def read_cells(text: str, signs: str = SIGNS) -> list[list[str]]:
    """Return the cells of CSV, without its blank lines.

    Parameters
    ----------
    text : str
    signs : str
        What may stand between the cells: whichever the first line has most of.

    Raises
    ------
    ValueError
        If it is no CSV; the text names the line.
    """
    delimiter = max(signs, key=text.partition("\n")[0].count)
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        return [line for line in reader if any(line)]
    except csv.Error as err:
        raise ValueError(f"line {reader.line_num}: {err}") from err


def _cells(line: Sequence[str], place: Mapping[str, int]) -> list[str | None]:
    cells = (place.get(name, len(line)) for name in COLUMNS)
    return [line[i] if i < len(line) else None for i in cells]


def _row(cells: Sequence[str | None]) -> _Row:
    """Return path, label and group; blank text is no label, and no group."""
    path, label, group = cells
    label, group = ((text or "").strip() or None for text in (label, group))
    return path or "", label and normalize("NFC", label), group


def _below(path: str, root: str, stored: str) -> str:
    """Return a listed path as it is stored."""
    top = root.rstrip("/") + "/"
    whole = path.removeprefix("file://")
    if not whole.startswith(("/", "s3://")):
        whole = top + whole.removeprefix("./")
    if not whole.startswith("s3://"):
        whole = os.path.normpath(whole)
    if not whole.startswith(top) or "\0" in whole:
        raise ConfigError(
            f"list {stored}: {path!r} is no path below {root}: paths are relative to it, or begin "
            "with it"
        )
    return whole
