"""Folders of files, on a disk and in a bucket: each file is written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
from pyarrow import fs

from verger.errors import ConfigError, OutputError, OutputExistsError
from verger.files.paths import explain, filesystem_of

#: Largest file that is read whole, unless a caller says otherwise.
MAX_READ_BYTES = 1_000_000_000


def check_target(path: str | Path, example: str, *, overwrite: bool) -> Path:
    """Return where a file of this machine may be written, as an absolute path.

    Parameters
    ----------
    path : path
    example : str
        Name of such a file, for the message about a folder.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    ConfigError
        If it is a folder.
    OutputExistsError
        If it is there.
    OutputError
        If its folder is not there.
    """
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file, such as {example}")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target}: exists; --overwrite replaces it")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: cannot be written: there is no folder {target.parent}")
    return target


# Folders of files


class Entry(NamedTuple):
    """A file in a folder: its name below the folder, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Folder:
    """A folder of files, on a disk or in a bucket, with what Verger's guarantees are built on.

    A file is either absent or whole: on a disk it is written beside its place, synced and
    renamed; in a bucket an object appears when its upload is complete. Names are below the root,
    with slashes; missing folders are made.

    Attributes
    ----------
    root : str
        An absolute folder, or ``s3://bucket/prefix``.
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether it lies on a file system that this machine has mounted."""
        return self.root.startswith("/")

    def address(self, name: str) -> str:
        """Return the stored path of a file.

        Raises
        ------
        OutputError
            If the name leads out of the folder, by ``..`` or by a linked folder: others may have
            written the files that names come from, and made the links.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise OutputError(f"{self.root}: {name!r} is no name of a file in it")
        self._check_links(name.rpartition("/")[0])
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _check_links(self, below: str) -> None:
        """Refuse a folder that links lead out of the root."""
        if not self.is_local or not below:
            return
        root, place = os.path.realpath(self.root), os.path.realpath(f"{self.root}/{below}")
        if place != root and not place.startswith(root.rstrip("/") + "/"):
            raise OutputError(
                f"{self.root}/{below}: is a link to {place}, outside {root}; put a folder in its "
                "place"
            )

    def _inner(self, name: str) -> tuple[fs.FileSystem, str]:
        return filesystem_of(self.address(name))

    def _inner_folder(self, below: str) -> tuple[fs.FileSystem, str]:
        found = self._inner(below)
        self._check_links(below)
        return found

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading at any place.

        Raises
        ------
        FileNotFoundError
        OutputError
            If it is a pipe or a device, which may never give its bytes, or end.
        """
        filesystem, inner = self._inner(name)
        if self.is_local:
            mode = Path(inner).stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OutputError(f"{inner}: is a pipe or a device, not a file; remove it")
        return filesystem.open_input_file(inner)

    def read(self, name: str, most: int = MAX_READ_BYTES) -> bytes:
        """Read a whole file of at most so many bytes.

        Raises
        ------
        FileNotFoundError
        OutputError
            If it is larger, no file, or cannot be read.
        """
        try:
            with self.open(name) as file:
                if (size := file.size()) > most:
                    raise OutputError(
                        f"{self.address(name)}: size={size:,} bytes must be at most {most:,}"
                    )
                content: bytes = file.read()
                return content
        except (FileNotFoundError, OutputError):
            raise
        except OSError as err:
            raise OutputError(f"{self.address(name)}: cannot be read: {explain(err)}") from err

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        filesystem, inner = self._inner(name)
        try:
            found: bool = filesystem.get_file_info(inner).type == fs.FileType.File
        except OSError as err:
            raise OutputError(f"{self.address(name)}: cannot be looked at: {explain(err)}") from err
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or leave what was there before; never a part of it.

        Raises
        ------
        OutputError
        """
        filesystem, inner = self._inner(name)
        with _write_errors(self.address(name)):
            if self.is_local:
                _write_local(Path(inner), content)
                return
            with filesystem.open_output_stream(inner) as stream:
                stream.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes] | pa.NativeFile]:
        """Write a file piece by piece; it is there once the block has ended well.

        Raises
        ------
        OutputError
        """
        filesystem, inner = self._inner(name)
        with _write_errors(self.address(name)):
            if self.is_local:
                with _local_file(Path(inner)) as file:
                    yield file
                return
            stream = filesystem.open_output_stream(inner)
            try:
                yield stream
            except BaseException:
                with suppress(OSError):  # to close is to finish the upload: it goes again
                    stream.close()
                    filesystem.delete_file(inner)
                raise
            stream.close()

    def create(self, name: str, content: bytes) -> bool:
        """Write a file only if there is none of this name; return whether it was written.

        On a disk that is one step. A bucket knows no such step here: the file is written if none
        is seen, and read again after a moment, for whoever wrote last.
        """
        if not self.is_local:
            if self.exists(name):
                return False
            self.write(name, content)
            time.sleep(_SETTLE_S)
            try:
                return self.read(name) == content
            except FileNotFoundError:
                return False
        path = Path(self.address(name))
        part = _part_of(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            try:
                path.hardlink_to(part)
            except (FileExistsError, FileNotFoundError):  # whoever has the lock has swept
                return False
            except OSError as err:
                if err.errno not in _NO_LINKS:
                    raise
                return _create_without_link(path, content)
            finally:
                part.unlink(missing_ok=True)
        except OSError as err:
            raise OutputError(f"{path}: cannot be written: {err.strerror or err}") from err
        return True

    def move(self, origin: str, target: str) -> None:
        """Give a file another name, replacing what has it; done already is done.

        Raises
        ------
        OutputError
        """
        filesystem, inner = self._inner(origin)
        place = self._inner(target)[1]
        try:
            if self.is_local:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                Path(inner).replace(place)
                _sync_folder(Path(place).parent)
            else:
                filesystem.copy_file(inner, place)
                filesystem.delete_file(inner)
        except OSError as err:
            if self.exists(origin) or not self.exists(target):
                raise OutputError(
                    f"{self.address(target)}: cannot be moved into place: {err.strerror or err}"
                ) from err

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is fine."""
        filesystem, inner = self._inner(name)
        try:
            if self.is_local:
                Path(inner).unlink(missing_ok=True)  # a link, not what is behind it
            else:
                filesystem.delete_file(inner)
        except OSError as err:  # FileNotFoundError too
            if self.exists(name):
                raise OutputError(
                    f"{self.address(name)}: cannot be removed: {explain(err)}"
                ) from err
        if self.is_local:  # a bucket has no empty folders
            for above in list(Path(name).parents)[:-1]:
                with suppress(OSError):
                    Path(self.address(str(above))).rmdir()

    def remove_tree(self, name: str = "") -> None:
        """Remove a folder and all below it; one that is gone is fine."""
        filesystem, inner = self._inner(name)
        try:
            if self.is_local:
                shutil.rmtree(inner)
            else:
                filesystem.delete_dir(inner)
        except FileNotFoundError:
            return
        except OSError as err:
            raise OutputError(f"{self.address(name)}: cannot be removed: {explain(err)}") from err

    def files(self, below: str = "", *, recursive: bool = False) -> list[Entry]:
        """List the files of a folder below the root, sorted by name; none if it is not there.

        Raises
        ------
        OutputError
        """
        filesystem, inner = self._inner_folder(below)
        base = self._inner("")[1].rstrip("/") + "/"
        selector = fs.FileSelector(inner, recursive=recursive, allow_not_found=True)
        try:
            infos = filesystem.get_file_info(selector)
        except (OSError, pa.ArrowInvalid) as err:
            raise OutputError(f"{self.address(below)}: cannot be listed: {explain(err)}") from err
        files = (info for info in infos if info.type == fs.FileType.File)
        return sorted(Entry(info.path.removeprefix(base), info.size or 0) for info in files)

    def folders(self, below: str = "") -> list[str]:
        """List the names of the folders in a folder, sorted; none if it is not there."""
        filesystem, inner = self._inner_folder(below)
        selector = fs.FileSelector(inner, allow_not_found=True)
        try:
            infos = filesystem.get_file_info(selector)
        except OSError as err:
            raise OutputError(f"{self.address(below)}: cannot be listed: {explain(err)}") from err
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def sweep(self, below: str = "") -> None:
        """Remove what a killed process has left half written in a local folder."""
        if self.is_local:
            for part in Path(self._inner_folder(below)[1]).glob(".*.part"):
                if is_half_written(part.name):
                    with suppress(OSError):
                        part.unlink()


def is_half_written(name: str) -> bool:
    """Whether a name is that of a file of ours which a killed process has not finished."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.part", name) is not None


#: What file systems without hard links say: exFAT, some network and user-space ones.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


#: How long two that write the same object at once wait before they look who was last.
_SETTLE_S = 1.0


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


@contextmanager
def _write_errors(address: str) -> Iterator[None]:
    """Raise what an operating system says of a file as an OutputError that names it."""
    try:
        yield
    except OSError as err:
        raise OutputError(f"{address}: cannot be written: {err.strerror or explain(err)}") from err


def _write_local(path: Path, content: bytes) -> None:
    with _local_file(path) as file:
        file.write(content)


@contextmanager
def _local_file(path: Path) -> Iterator[IO[bytes]]:
    """Write beside the place of a file, and rename once the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def _create_without_link(path: Path, content: bytes) -> bool:
    """Write a file that must be new; who reads it at this moment may see a part of it."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the file system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
