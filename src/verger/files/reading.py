"""Read the bytes of photos: one, or many with several reads in flight."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, repeat
from time import perf_counter

import pyarrow as pa
from pyarrow import fs

from verger.config import MAX_PIXELS
from verger.errors import ConfigError
from verger.files.bucket import read_object, store_of
from verger.files.packed import read_row, row_of
from verger.files.paths import filesystem_of, odd_part
from verger.schema import Reason

#: Reads that one task keeps in flight. On object storage each waits 20 to 50 ms, and longer where
#: all cores are busy: eight were too few.
READS_IN_FLIGHT = 24


#: Bytes of photos that one task holds ahead of the decoder, beside the one being decoded.
BYTES_IN_FLIGHT = 64 * 2**20


#: Largest file that is read: a photo of the most pixels, four bytes each.
MAX_FILE_BYTES = 4 * MAX_PIXELS


#: Times that a read is tried before the photo is rejected, and the first pause between.
READ_ATTEMPTS = 3


READ_PAUSE_S = 0.2


@dataclass(frozen=True)
class Unread:
    """A photo that could not be read."""

    reason: Reason
    detail: str


WAS_THERE = "it was there when the source was listed"


def refuse(path: str, length: int | None, *, slashes: bool = False) -> Unread | None:
    """Return why a file of this name and size is not read, or None.

    Two slashes in a key are refused only where ``slashes`` says so.
    """
    part = odd_part(path, slashes=slashes)
    if part is not None:
        return _unreadable(part)
    if length is None or length <= MAX_FILE_BYTES:
        return None
    return Unread(Reason.TOO_MANY_PIXELS, f"{length} bytes is more than {MAX_FILE_BYTES}")


def _unreadable(part: str) -> Unread:
    return Unread(Reason.UNREADABLE_KEY, f"a part of it is {part!r}; copy it to another key")


def read_photo(path: str, length: int | None = None) -> bytes | Unread:
    """Read one file, trying again where that may help.

    Parameters
    ----------
    path : str
    length : int, optional
        Its size in bytes when it was listed: a photo of another size is being changed, and what
        the tables say of it would not be true.
    """
    if unread := refuse(path, length):
        return unread
    if not path:
        return Unread(Reason.READ_ERROR, "it has no path")
    row = row_of(path)
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            content = _read_packed(*row) if row else _read_bytes(path, first=attempt == 1)
            if isinstance(content, Unread):
                return content
        except FileNotFoundError:
            return Unread(Reason.VANISHED, WAS_THERE)
        except ConfigError as err:  # an address that only Hadoop may know, in a table of the user's
            return Unread(Reason.READ_ERROR, str(err))
        except (OSError, pa.ArrowInvalid) as err:  # ArrowInvalid: a key that S3 has but Arrow not
            if isinstance(err, PermissionError) or "ACCESS_DENIED" in str(err):
                return Unread(Reason.PERMISSION, getattr(err, "strerror", None) or str(err))
            if isinstance(err, pa.ArrowInvalid) and odd_part(path) == "":
                return _unreadable("")
            last = f"{READ_ATTEMPTS} times: {err}"
        else:
            if length is None or len(content) == length:
                return content
            last = f"listed with {length} bytes, read {len(content)}: it was changed since"
        if attempt < READ_ATTEMPTS:
            time.sleep(READ_PAUSE_S * 2 ** (attempt - 1))
    return Unread(Reason.READ_ERROR, last)


def _read_packed(file: str, row: int) -> bytes | Unread:
    """Read a photo that lies in a row of a file."""
    try:
        content = read_row(file, row)
    except IndexError:
        return Unread(Reason.VANISHED, "its file has fewer rows than when the source was listed")
    return Unread(Reason.EMPTY, "its bytes are null") if content is None else content


def _read_bytes(path: str, *, first: bool) -> bytes:
    filesystem, inner = filesystem_of(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with open(inner, "rb", opener=_open_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "is no file any more")
            # One byte more than there is, or than is allowed, tells a file that grows.
            return file.read(min(found.st_size, MAX_FILE_BYTES) + 1)
    # Another client is tried where the first one fails: it looks for credentials in other places.
    if first or "//" in inner:
        with suppress(ValueError):  # a key of characters that only Arrow takes
            if found_store := store_of(f"s3://{inner}"):
                return read_object(*found_store)
    with filesystem.open_input_stream(inner) as stream:
        content: bytes = stream.read()
        return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open what was a file when it was listed, and may be a pipe without a writer by now."""
    return os.open(path, flags | os.O_NONBLOCK)


#: A file that takes no longer to read, in seconds, is read without a thread, which costs 0.2 ms.
#: Files in buckets all take longer.
PROMPT_S = 0.001


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
    ``bytes_in_flight``, or a single one if it is larger. Photos in the rows of a file are read one
    after the other.
    """
    photos = zip(paths, repeat(None) if lengths is None else lengths, strict=False)
    for is_packed, some in groupby(photos, lambda photo: row_of(photo[0]) is not None):
        if is_packed:
            yield from (read_photo(*photo) for photo in some)
        else:
            yield from _read_files(some, in_flight, bytes_in_flight)


def _read_files(
    photos: Iterator[tuple[str, int | None]], in_flight: int, bytes_in_flight: int
) -> Iterator[bytes | Unread]:
    waiting: deque[tuple[Future[bytes | Unread], int]] = deque()
    following, slow = next(photos, None), 0
    while following is not None and slow < _SLOW_IN_A_ROW and "://" not in following[0]:
        start = perf_counter()
        content = read_photo(*following)
        slow = slow + 1 if perf_counter() - start > PROMPT_S else 0
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
