"""Stored paths: their one form, the filesystem behind each, and reading with several in flight.

Everything that touches a photo's bytes does so here, on the driver and in the workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from verger.errors import ConfigError, SourceError
from verger.schema import Reason

#: Reads that one task keeps in flight: on object storage each waits 20 to 50 ms.
READS_IN_FLIGHT = 8
#: Times that a read is tried before the photo is rejected, and the first pause between.
READ_ATTEMPTS = 3
READ_PAUSE_S = 0.2


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
    if region is None and endpoint is None:
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as err:
            raise SourceError(
                f"source s3://{bucket}: no such bucket, or no way to it: {err}"
            ) from err
    return fs.S3FileSystem(endpoint_override=endpoint, region=region)


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


@dataclass(frozen=True)
class Unread:
    """A photo that could not be read."""

    reason: Reason
    detail: str


def read_photo(path: str) -> bytes | Unread:
    """Read one file, trying again where that may help."""
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return _read_bytes(path)
        except FileNotFoundError:
            return Unread(Reason.VANISHED, "it was there when the source was listed")
        except (OSError, pa.ArrowInvalid) as err:  # ArrowInvalid: a key that S3 has but Arrow not
            if isinstance(err, PermissionError) or "ACCESS_DENIED" in str(err):
                return Unread(Reason.PERMISSION, getattr(err, "strerror", None) or str(err))
            last = f"{READ_ATTEMPTS} times: {err}"
        if attempt < READ_ATTEMPTS:
            time.sleep(READ_PAUSE_S * 2 ** (attempt - 1))
    return Unread(Reason.READ_ERROR, last)


def _read_bytes(path: str) -> bytes:
    filesystem, inner = filesystem_of(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with open(inner, "rb") as file:
            return file.read()
    with filesystem.open_input_stream(inner) as stream:
        content: bytes = stream.read()
        return content


def read_ahead(
    paths: Iterable[str], *, in_flight: int = READS_IN_FLIGHT
) -> Iterator[bytes | Unread]:
    """Read files in order, several at a time.

    Beside the one that is handed out, at most ``in_flight`` are held in memory.
    """
    paths = iter(paths)
    with ThreadPoolExecutor(in_flight) as pool:
        waiting: list[Future[bytes | Unread]] = [
            pool.submit(read_photo, path) for path in islice(paths, in_flight)
        ]
        while waiting:
            content = waiting.pop(0).result()
            waiting.extend(pool.submit(read_photo, path) for path in islice(paths, 1))
            yield content
