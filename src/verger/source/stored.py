"""The files below a source, as this machine's folders or a bucket list them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from verger.errors import SourceError, SourceNotFoundError
from verger.files.paths import explain, filesystem_of
from verger.source.patterns import hidden_as, path_below


class StoredFile(NamedTuple):
    """A file below a source, as its storage lists it: ``length`` in bytes, time in ns."""

    path: str
    length: int
    modified_ns: int
    is_regular: bool = True


def list_files(root: str, recursive: bool, ignore: bool) -> Iterator[StoredFile]:
    """Yield every file below a source.

    Parameters
    ----------
    root : str
        In the form in which it is stored.
    recursive : bool
        Look into subfolders.
    ignore : bool
        Whether a folder that is left out anyway may be closed to this user.

    Raises
    ------
    SourceNotFoundError, SourceError
        If there is no such folder, or it cannot be listed.
    """
    local = root.startswith("/")
    return _list_local(root, recursive, ignore) if local else _list_s3(root, recursive)


def check_folder(root: str) -> None:
    """Refuse a source on this machine that is no folder; another is not looked at.

    Raises
    ------
    SourceNotFoundError
    """
    folder = Path(root)
    if not root.startswith("/") or folder.is_dir():
        return
    what = "is a file; give the folder of the photos" if folder.exists() else "does not exist"
    raise SourceNotFoundError(f"source {root}: {what}")


def check_circles(root: str) -> None:
    """Refuse a folder with a link to a folder above itself; another place is not looked at.

    Hadoop follows such a link until the system stops it, and lists every photo 41 times.

    Raises
    ------
    SourceError
    """
    if not root.startswith("/"):
        return
    circles: list[str] = []
    for _ in _list_local(root, recursive=True, ignore=True, circles=circles):
        pass
    if circles:
        raise SourceError(
            f"source {root}: the link {circles[0]} leads to a folder above itself, and Spark would "
            "list its photos many times; remove the link, or use --reader arrow"
        )


def _list_local(
    root: str, recursive: bool, ignore: bool, circles: list[str] | None = None
) -> Iterator[StoredFile]:
    """Walk a folder, through links to folders too, but never in a circle.

    One that is left out may be closed to this user, as ``lost+found`` is; it counts as one file.
    Links to a folder above are added to ``circles``.
    """
    check_folder(root)
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        place, above = waiting.pop()
        try:
            found = Path(place).stat()
            identity = (found.st_dev, found.st_ino)
            if identity in above:  # a link to a folder above: a circle
                if circles is not None:
                    circles.append(place)
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is(entry.is_dir):
                        if recursive:
                            waiting.append((entry.path, above | {identity}))
                    elif _is(entry.is_file) or _leads_nowhere(entry):
                        yield stat_file(entry.path)
                    else:
                        yield StoredFile(entry.path, 0, 0, is_regular=False)
        except OSError as err:
            closed = StoredFile(f"{place}/", 0, 0, is_regular=False)
            if not ignore or hidden_as(path_below(closed.path, root)) is None:
                raise SourceError(f"source {place}: cannot be listed: {err.strerror}") from err
            yield closed


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link without a target: listed, and then rejected, never just lost.

    Links to pipes and devices are no photos: they may never end.
    """
    return entry.is_symlink() and not _is(Path(entry.path).exists)


def stat_file(path: str) -> StoredFile:
    """Return size and time of a file, here or in a bucket; 0 where it is not there."""
    if path.startswith("s3://"):
        filesystem, inner = filesystem_of(path)
        info = filesystem.get_file_info(inner)
        return StoredFile(path, info.size or 0, info.mtime_ns or 0)
    try:
        found = os.stat(path)  # noqa: PTH116 - Path(path).stat() takes three times as long
    except OSError:
        return StoredFile(path, 0, 0)
    is_regular = stat.S_ISREG(found.st_mode)
    return StoredFile(path, found.st_size, found.st_mtime_ns, is_regular)


def _list_s3(root: str, recursive: bool) -> Iterator[StoredFile]:
    filesystem, inner = filesystem_of(root)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=recursive))
    except FileNotFoundError as err:
        is_file = filesystem.get_file_info(inner).type == fs.FileType.File
        what = "is a file; give the folder of the photos" if is_file else "does not exist"
        raise SourceNotFoundError(f"source {root}: {what}") from err
    except (OSError, pa.ArrowInvalid) as err:
        if "NO_SUCH_BUCKET" in str(err):
            raise SourceNotFoundError(f"source {root}: does not exist: no such bucket") from err
        raise SourceError(f"source {root}: cannot be listed: {explain(err)}") from err
    above = {info.path.rpartition("/")[0] for info in infos}
    for info in infos:
        if info.type == fs.FileType.File:
            yield StoredFile(f"s3://{info.path}", info.size or 0, info.mtime_ns or 0)
        elif recursive and info.path not in above:  # a folder's marker, or an object of such a key
            yield StoredFile(f"s3://{info.path}/", 0, 0, is_regular=False)
