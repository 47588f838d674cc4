"""Stored paths: their one form, and the filesystem behind each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from pyarrow import fs

from verger.errors import ConfigError, SourceError
from verger.redaction import refuse_secret

#: How long S3 may take to accept a connection, and to send more of an answer.
CONNECT_TIMEOUT_S = 10


REQUEST_TIMEOUT_S = 30


def normalize_source(source: str | Path) -> str:
    """Return the form in which paths of this source are stored.

    ``s3a://`` and ``s3n://`` become ``s3://``; ``file://`` and relative folders become absolute
    paths; any other scheme (only ``reader="spark"`` can read it) stays.

    Raises
    ------
    ConfigError
        If the address has no folder, or no bucket, or holds a password or a key; or if no object
        below a prefix of its form can be read.
    """
    source = os.fspath(source)
    refuse_secret("address", source)
    scheme, address, rest = source.partition("://")
    scheme = scheme.lower() if address else ""
    if scheme in ("s3", "s3a", "s3n"):
        if not rest.strip("/") or rest.startswith("/"):
            raise ConfigError(f"{source!r}: must be s3://bucket or s3://bucket/prefix")
        stored = "s3://" + rest.rstrip("/")
        if odd_part(stored) is not None:
            raise ConfigError(
                f"{source!r}: must have no part that is empty, '.' or '..': objects below it "
                "cannot be read, or others are read in their place; copy them to another prefix"
            )
        return stored
    if scheme == "file":
        folder = rest.removeprefix("localhost")
        if not folder.startswith("/"):
            raise ConfigError(f"{source!r}: must be file:///folder, with three slashes")
        return os.path.abspath(unquote(folder))
    if not source.strip():
        raise ConfigError("'' is no folder: name one, or s3://bucket/prefix")
    return source if scheme else os.path.abspath(os.path.expanduser(source))


def odd_part(path: str, *, slashes: bool = True) -> str | None:
    """Return the part of a bucket's key that cannot be read, or is read as another key; or None.

    Clients ask for ``a/c`` where ``a/b/../c`` was meant, and Arrow refuses an empty part.

    Parameters
    ----------
    path : str
    slashes : bool
        Whether an empty part in the midst, of two slashes, counts.
    """
    if not path.startswith("s3://"):
        return None
    *folders, name = path.split("/")[2:]
    folders = [part for part in folders if part or slashes]
    return next((part for part in (*folders, name) if part in ("", ".", "..")), None)


def aws_variables() -> tuple[tuple[str, str], ...]:
    """Return AWS's variables: one that is set again, in a notebook, opens a bucket anew."""
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))


def is_unsigned(given: Mapping[str, str]) -> bool:
    """Whether the variables say that requests are to be nobody's."""
    return given.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true")


@lru_cache(maxsize=64)
def endpoint_and_region(
    bucket: str, variables: tuple[tuple[str, str], ...]
) -> tuple[str | None, str | None]:
    """Return the address of the server if it is not AWS's, and the region of a bucket.

    Raises
    ------
    SourceError
        If neither AWS nor a variable tells the region.
    """
    given = dict(variables)
    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or None
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION")
    if endpoint is None:  # AWS says itself where a bucket is, whatever region others are in
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as err:
            if region is None:
                raise SourceError(f"s3://{bucket}: no such bucket, or no way to it: {err}") from err
    return endpoint, region


@lru_cache(maxsize=64)
def _s3(bucket: str, variables: tuple[tuple[str, str], ...]) -> fs.FileSystem:
    """Open S3 for one bucket, by the standard AWS variables, profile or role."""
    endpoint, region = endpoint_and_region(bucket, variables)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        anonymous=is_unsigned(dict(variables)),
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

    Spark's ``binaryFile`` writes ``file:/folder`` and ``s3a://bucket``: these are read too.

    Raises
    ------
    ConfigError
        If only Hadoop may know the scheme.
    """
    path = re.sub("^s3[an]://", "s3://", re.sub("^file:/+", "/", path))
    if path.startswith("s3://"):
        inner = path.removeprefix("s3://")
        return _s3(inner.split("/", 1)[0], aws_variables()), inner
    if "://" in path:
        scheme = path.split("://", 1)[0]
        raise ConfigError(
            f"source {path}: the arrow reader knows folders and s3://, not {scheme}://; "
            "use --reader spark"
        )
    return fs.LocalFileSystem(), path


def is_below(path: str, source: str) -> bool:
    """Whether a stored path lies below a source, links followed, and the source is not too wide.

    A result names its photos, and may come from a stranger. Every photo that it names is read
    again only if this is true: no other file of this machine is shown, and no other bucket asked.
    The result records its source too, so that one which holds everything is refused.

    Parameters
    ----------
    path : str
        As a result names it.
    source : str
        As ``run.json`` records it.
    """
    folder = source.rstrip("/") + "/"
    if not path.startswith(folder) or ".." in path.split("/"):
        return False
    if source.startswith("s3://"):
        return source != "s3://"
    if not source.startswith("/"):
        return False
    try:
        real, top = os.path.realpath(path), os.path.realpath(source)
        return real.startswith(top + "/") and not _is_too_wide(top)
    except (OSError, ValueError):  # a circle of links; a path with a null byte
        return False


def _is_too_wide(folder: str) -> bool:
    """Whether a folder is or holds this user's home, or is the system's, not one of photos."""
    home = os.path.realpath(os.path.expanduser("~"))
    return (home + "/").startswith(folder.rstrip("/") + "/") or (
        f"{folder}/".startswith(_SYSTEM) or folder in _SHARED
    )


#: Folders of the system, which hold no photos anywhere below.
_SYSTEM = ("/boot/", "/etc/", "/private/etc/", "/proc/", "/sys/")
#: Folders that hold those of many users, programs or disks.
_SHARED = (
    *("/dev", "/home", "/media", "/private/var", "/root", "/run", "/Users", "/usr", "/var"),
    *("/private/tmp", "/tmp", "/Volumes"),  # noqa: S108 - compared, and not written to
)


def is_reachable(path: str) -> bool:
    """Whether a stored path is where this process can read, and not Hadoop alone."""
    try:
        filesystem_of(path)
    except (ConfigError, SourceError):
        return False
    return True
