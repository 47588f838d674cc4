"""What a stranger may ask of a server: how large, how long, how many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from verger.config import MAX_PIXELS
from verger.engine.limits import usable_cores

# Content types of a photo besides image/*; curl --data-binary sends the last one. text/plain is not
# among them: a page of another site can post it without asking first.
_PHOTO_KINDS = (b"", b"application/octet-stream", b"application/x-www-form-urlencoded")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server.

    Attributes
    ----------
    max_bytes : int
        Of a request's body.
    max_pixels : int
        Largest width x height that is decoded.
    read_timeout_s : float
        How long a photo may take to arrive.
    decode_timeout_s : float
        How long its decoder may take.
    max_waiting : int
        Requests that are read, wait or are answered at a time, of all clients.
    n_threads : int
        Photos that are decoded and classified at a time.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = MAX_PIXELS
    read_timeout_s: float = 30
    decode_timeout_s: float = 10
    max_waiting: int = 32
    n_threads: int = field(default_factory=usable_cores)


@dataclass(frozen=True)
class Refusal:
    """The body of an answer that refuses a request."""

    error: str
    detail: str


class Refused(Exception):
    """A request is refused.

    Parameters
    ----------
    status : int
        Of HTTP.
    error, detail : str
    retry_after_s : int, optional
    """

    def __init__(
        self, status: int, error: str, detail: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(error)
        self.status, self.refusal = status, Refusal(error, detail)
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}


async def read_body(stream: AsyncIterator[bytes], announced: str | None, limits: Limits) -> bytes:
    """Read a request's body into memory, and stop at the first byte that is too many.

    Parameters
    ----------
    stream : async iterator of bytes
    announced : str or None
        The header ``Content-Length``.
    limits : Limits

    Raises
    ------
    Refused
        If it is too large or too slow, or the client goes away.
    """
    too_large = Refused(413, "too large", f"a photo may have {limits.max_bytes:,} bytes at most")
    if announced and announced.isdigit() and int(announced) > limits.max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_timeout_s):
            async for chunk in stream:
                body += chunk
                if len(body) > limits.max_bytes:
                    raise too_large
    except TimeoutError as err:
        detail = f"the photo took longer than {limits.read_timeout_s:g} s to arrive"
        raise Refused(408, "too slow", detail) from err
    except ClientDisconnect as err:
        raise Refused(400, "gone", "the client went away before all had arrived") from err
    return bytes(body)


def photo_of(body: bytes, content_type: str | None) -> bytes:
    """Return the photo of a body: itself, or the one part of a form.

    Raises
    ------
    Refused
        If its type is none of a photo, or it is a form that cannot be read or has not one part.
    """
    kind, options = parse_options_header(content_type)
    if kind in _PHOTO_KINDS or kind.startswith(b"image/"):
        return body
    if kind != b"multipart/form-data":
        detail = "Content-Type must be image/*, application/octet-stream or multipart/form-data"
        raise Refused(415, "not a photo", detail)
    form = _OnePart()
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""), {"on_part_begin": form.begin, "on_part_data": form.add}
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as err:
        raise Refused(400, "not a form", str(err)) from err
    if not form.parts:
        raise Refused(400, "not a form", "a form of 0 parts must have 1: the photo")
    return bytes(form.parts[0])


class _OnePart:
    """The one part of a form; a second one is refused at once, for a body may hold a million."""

    def __init__(self) -> None:
        self.parts: list[bytearray] = []

    def begin(self) -> None:
        if self.parts:
            raise Refused(400, "not a form", "a form of several parts must have 1: the photo")
        self.parts.append(bytearray())

    def add(self, data: bytes, start: int, end: int) -> None:
        self.parts[0] += data[start:end]
