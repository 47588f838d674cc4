"""Stored paths: their one form, the filesystem behind each, reading photos, and folders of files.

Everything that touches a photo's bytes, or a file of a result, does so here: on the driver and
in the workers, on a disk and in a bucket.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from verger.config import MAX_PIXELS
from verger.errors import ConfigError, OutputError, SourceError
from verger.schema import Reason

#: Reads that one task keeps in flight. On object storage each waits 20 to 50 ms twice, for the size
#: and for the bytes, and longer where all cores are busy: eight were too few.
READS_IN_FLIGHT = 24
#: Bytes of photos that one task holds ahead of the decoder, beside the one being decoded.
BYTES_IN_FLIGHT = 64 * 2**20
#: Largest file that is read: a photo of the most pixels, four bytes each.
MAX_FILE_BYTES = 4 * MAX_PIXELS
#: Times that a read is tried before the photo is rejected, and the first pause between.
READ_ATTEMPTS = 3
READ_PAUSE_S = 0.2
#: How long S3 may take to accept a connection, and to send more of an answer.
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 30


def normalize_source(source: str) -> str:
    """Return the form in which paths of this source are stored.

    ``s3a://`` and ``s3n://`` become ``s3://``; ``file://`` and relative folders become absolute
    paths; any other scheme (only ``reader="spark"`` can read it) stays.

    Raises
    ------
    ConfigError
        If the address has no folder, or no bucket.
    """
    scheme, address, rest = source.partition("://")
    scheme = scheme.lower() if address else ""
    if scheme in ("s3", "s3a", "s3n"):
        if "@" in rest.split("/", 1)[0]:
            raise ConfigError(
                f"{scheme}://...@{rest.split('@', 1)[1]}: no keys in an address, which is written "
                "to run.json; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            )
        if not rest.strip("/") or rest.startswith("/"):
            raise ConfigError(f"{source!r}: must be s3://bucket or s3://bucket/prefix")
        return "s3://" + rest.rstrip("/")
    if scheme == "file":
        folder = rest.removeprefix("localhost")
        if not folder.startswith("/"):
            raise ConfigError(f"{source!r}: must be file:///folder, with three slashes")
        return os.path.abspath(unquote(folder))
    if not source.strip():
        raise ConfigError("'' is no folder: name one, or s3://bucket/prefix")
    return source if scheme else os.path.abspath(os.path.expanduser(source))


@lru_cache(maxsize=64)
def _s3(bucket: str) -> fs.FileSystem:
    """Open S3 for one bucket, by the standard AWS variables, profile or role."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint is None:  # AWS says itself where a bucket is, whatever region others are in
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as err:
            if region is None:
                raise SourceError(f"s3://{bucket}: no such bucket, or no way to it: {err}") from err
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        anonymous=os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true"),
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        # A small file is one request, not three, and a killed writer leaves no upload unfinished
        # (of a large one it may; see docs/guarantees.md).
        allow_delayed_open=True,
    )


#: What S3 or Arrow says, and what to do about it.
_ADVICE = {
    "while the bucket is located in": "set AWS_REGION to the bucket's region",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "INVALID_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID, or the profile's, is unknown there",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY is not the key's, or has a typing error",
    "ExpiredToken": "the session is over: sign in again",
    "ACCESS_DENIED": "these credentials may not: they need s3:ListBucket and s3:GetObject; of a "
    "public bucket, AWS_NO_SIGN_REQUEST=yes",
}


def explain(err: Exception) -> str:
    """Return what an error says, and what to do about it where S3 says it."""
    text = str(err)
    return next((f"{text}; {advice}" for sign, advice in _ADVICE.items() if sign in text), text)


def filesystem_of(path: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a stored path, and the path in that filesystem's terms.

    Raises
    ------
    ConfigError
        If only Hadoop may know the scheme.
    """
    if path.startswith("s3://"):
        inner = path.removeprefix("s3://")
        return _s3(inner.split("/", 1)[0]), inner
    if "://" in path:
        scheme = path.split("://", 1)[0]
        raise ConfigError(
            f"source {path}: the arrow reader knows folders and s3://, not {scheme}://; "
            "use --reader spark"
        )
    return fs.LocalFileSystem(), path


def is_reachable(path: str) -> bool:
    """Whether a stored path is where this process can read, and not Hadoop alone."""
    try:
        filesystem_of(path)
    except (ConfigError, SourceError):
        return False
    return True


@dataclass(frozen=True)
class Unread:
    """A photo that could not be read."""

    reason: Reason
    detail: str


WAS_THERE = "it was there when the source was listed"


def too_large(length: int | None) -> Unread | None:
    """Return why a file of this size is not read, or None."""
    if length is None or length <= MAX_FILE_BYTES:
        return None
    return Unread(Reason.TOO_MANY_PIXELS, f"{length} bytes is more than {MAX_FILE_BYTES}")


def read_photo(path: str, length: int | None = None) -> bytes | Unread:
    """Read one file, trying again where that may help.

    Parameters
    ----------
    path : str
    length : int, optional
        Its size in bytes when it was listed: a photo of another size is being changed, and what
        the tables say of it would not be true.
    """
    if unread := too_large(length):
        return unread
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            content = _read_bytes(path)
        except FileNotFoundError:
            return Unread(Reason.VANISHED, WAS_THERE)
        except (OSError, pa.ArrowInvalid) as err:  # ArrowInvalid: a key that S3 has but Arrow not
            if isinstance(err, PermissionError) or "ACCESS_DENIED" in str(err):
                return Unread(Reason.PERMISSION, getattr(err, "strerror", None) or str(err))
            last = f"{READ_ATTEMPTS} times: {err}"
        else:
            if length is None or len(content) == length:
                return content
            last = f"listed with {length} bytes, read {len(content)}: it was changed since"
        if attempt < READ_ATTEMPTS:
            time.sleep(READ_PAUSE_S * 2 ** (attempt - 1))
    return Unread(Reason.READ_ERROR, last)


def _read_bytes(path: str) -> bytes:
    filesystem, inner = filesystem_of(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with open(inner, "rb", opener=_open_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "is no file any more")
            # One byte more than there is, or than is allowed, tells a file that grows.
            return file.read(min(found.st_size, MAX_FILE_BYTES) + 1)
    with filesystem.open_input_stream(inner) as stream:
        content: bytes = stream.read()
        return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open what was a file when it was listed, and may be a pipe without a writer by now."""
    return os.open(path, flags | os.O_NONBLOCK)


#: A file that takes no longer to read, in seconds, is read without a thread, which costs 0.2 ms.
#: Files in buckets all take longer.
_PROMPT_S = 0.001
#: Files that take longer, one after the other, until threads read ahead: one alone may be that
#: another process had the core.
_SLOW_IN_A_ROW = 2


def read_ahead(
    paths: Iterable[str],
    lengths: Iterable[int | None] | None = None,
    *,
    in_flight: int = READS_IN_FLIGHT,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> Iterator[bytes | Unread]:
    """Read files in order, several at a time once two in a row had to be waited for.

    Beside the one that is handed out, at most ``in_flight`` are held in memory, and no more than
    ``bytes_in_flight``, or a single one if it is larger.
    """
    photos = zip(paths, repeat(None) if lengths is None else lengths, strict=False)
    waiting: deque[tuple[Future[bytes | Unread], int]] = deque()
    following, slow = next(photos, None), 0
    while following is not None and slow < _SLOW_IN_A_ROW and "://" not in following[0]:
        start = perf_counter()
        content = read_photo(*following)
        slow = slow + 1 if perf_counter() - start > _PROMPT_S else 0
        following = next(photos, None)
        yield content
    held = 0
    with ThreadPoolExecutor(in_flight) as pool:
        while waiting or following is not None:
            while following is not None and len(waiting) < in_flight:
                size = following[1] or 0
                if waiting and held + size > bytes_in_flight:
                    break
                waiting.append((pool.submit(read_photo, *following), size))
                held += size
                following = next(photos, None)
            future, size = waiting.popleft()
            content = future.result()
            del future  # it would hold the bytes while the photo is decoded
            held -= size
            yield content


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
            If the name leads out of the folder: names come from files that others may have written.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise OutputError(f"{self.root}: {name!r} is no name of a file in it")
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _inner(self, name: str) -> tuple[fs.FileSystem, str]:
        return filesystem_of(self.address(name))

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading at any place.

        Raises
        ------
        FileNotFoundError
        """
        filesystem, inner = self._inner(name)
        return filesystem.open_input_file(inner)

    def read(self, name: str) -> bytes:
        """Read a whole file.

        Raises
        ------
        FileNotFoundError
        """
        try:
            with self.open(name) as file:
                content: bytes = file.read()
                return content
        except FileNotFoundError:
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
        filesystem, inner = self._inner(below)
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
        filesystem, inner = self._inner(below)
        selector = fs.FileSelector(inner, allow_not_found=True)
        try:
            infos = filesystem.get_file_info(selector)
        except OSError as err:
            raise OutputError(f"{self.address(below)}: cannot be listed: {explain(err)}") from err
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def sweep(self, below: str = "") -> None:
        """Remove what a killed process has left half written in a local folder."""
        if self.is_local:
            for part in Path(self.address(below)).glob(".*.part"):
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
