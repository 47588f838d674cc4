"""Read an object of a bucket by one request.

Arrow asks for the size of an object first, which the listing has told: two requests a photo, which
is half of the speed where each waits, and twice the price. It also refuses keys with two slashes.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from verger.files.paths import (
    CONNECT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    aws_variables,
    endpoint_and_region,
    is_unsigned,
)

if TYPE_CHECKING:
    from obstore.store import S3Store

#: How often a request is tried again that met a busy server or a lost connection, for how long at
#: most, and how long a whole answer may take.
_RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_ANSWER_TIMEOUT = timedelta(minutes=10)


def store_of(path: str) -> tuple[S3Store, str] | None:
    """Return the store of an object and the key in it, or None if only Arrow can read it.

    A key in a store has no empty part, so that ``a//b.jpg`` is the object ``b.jpg`` of a store
    whose address ends in ``a/``.
    """
    inner = path.removeprefix("s3://")
    folder, slashes, key = inner.rpartition("//")
    if slashes:
        folder += "/"
    else:
        folder, _, key = inner.partition("/")
    store = _store(folder, aws_variables())
    return None if store is None else (store, key)


def read_object(store: S3Store, key: str) -> bytes:
    """Return the bytes of an object.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
    ValueError
        If the key has characters that the store does not take.
    """
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        return bytes(store.get(key).bytes())
    except BaseError as err:
        text = str(err).partition("\n")[0]  # what follows is for those who debug the store
        denied = isinstance(err, PermissionDeniedError | UnauthenticatedError)
        raise (PermissionError if denied else OSError)(text) from err


@lru_cache(maxsize=64)
def _store(folder: str, variables: tuple[tuple[str, str], ...]) -> S3Store | None:
    """Open a bucket, or a folder in it, by the standard variables or the role of this machine.

    None if the credentials are Arrow's alone to find: obstore reads no profiles.
    """
    import obstore
    from obstore.exceptions import BaseError

    given = dict(variables)
    unsigned = is_unsigned(given)
    if not unsigned and _has_profile(given):
        return None
    bucket = folder.partition("/")[0]
    endpoint, region = endpoint_and_region(bucket, variables)
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
    # As Arrow takes an address without a scheme; obstore would panic, which no handler catches.
    endpoint = endpoint if "://" in endpoint else f"https://{endpoint}"
    store = obstore.store.S3Store(
        bucket,
        aws_endpoint_url_s3=f"{endpoint.rstrip('/')}/{quote(folder, safe='/~')}",
        virtual_hosted_style_request=True,  # the address has the bucket already
        region=region or "us-east-1",
        skip_signature=unsigned,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            "timeout": _ANSWER_TIMEOUT,
        },
        retry_config=_RETRIES,  # type: ignore[arg-type]
    )
    if not unsigned:
        try:  # needs credentials, and asks S3 nothing
            obstore.sign(store, "GET", "x", timedelta(minutes=1))
        except BaseError:
            return None
    return store


def _has_profile(given: dict[str, str]) -> bool:
    """Whether the credentials are in AWS's files, and not in variables, which come first."""
    if "AWS_ACCESS_KEY_ID" in given:
        return False
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
        "AWS_CONFIG_FILE": "~/.aws/config",
    }
    places = (given.get(name, usual) for name, usual in files.items())
    return "AWS_PROFILE" in given or any(Path(place).expanduser().is_file() for place in places)
