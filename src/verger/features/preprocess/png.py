"""PNGs without the chunks that no pixel depends on, so that no fault of them costs the photo.

Pillow refuses a PNG for a wrong checksum in a resolution, for a gamma of two bytes or for a long
text. Browsers skip an ancillary chunk that is broken (PNG, third edition, 13.1: it may be ignored),
and so does Verger.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from verger.features.preprocess.reasons import DecodeError
from verger.schema import Reason

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# What says how a photo is seen: its transparent colours, and which way is up. Both count only
# before the pixels.
_SEEN = (b"tRNS", b"eXIf")
# Bits of a sample by the colour type: grey, RGB, palette, grey and alpha, RGB and alpha.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True, repr=False)
class _Chunk:
    kind: bytes
    data: memoryview
    start: int
    end: int

    def is_intact(self, content: memoryview) -> bool:
        checksum = int.from_bytes(content[self.end - 4 : self.end])
        return zlib.crc32(self.data, zlib.crc32(self.kind)) == checksum


def pixels_of_png(content: bytes) -> bytes:
    """Return a PNG with no chunks but those that its pixels depend on.

    Of an animation its first picture is left, of a file that was cut off what there is.

    Raises
    ------
    DecodeError
        'unsupported format', if it is whole so far and its header or a chunk says that it is not
        decoded as a PNG is: Apple's ``CgBI``, and depths and methods that no PNG has.
    """
    parts, kept_from = [], 0
    view, has_pixels = memoryview(content), False
    for chunk in _chunks(view):
        if chunk.kind in _CRITICAL:
            has_pixels = has_pixels or chunk.kind == b"IDAT"
            if chunk.kind == b"IHDR" and chunk.is_intact(view):
                _check_header(bytes(chunk.data))
            continue
        may_count = chunk.kind in _SEEN or chunk.kind[:1].isupper()
        if may_count and not has_pixels and chunk.is_intact(view):
            if chunk.kind not in _SEEN:
                detail = f"a PNG with the critical chunk {chunk.kind.decode()}"
                raise DecodeError(Reason.UNSUPPORTED_FORMAT, detail)
            continue
        parts.append(view[kept_from : chunk.start])
        kept_from = chunk.end
    if not parts:
        return content
    return b"".join((*parts, view[kept_from:]))


def _chunks(content: memoryview) -> Iterator[_Chunk]:
    """Yield the chunks that are there as a whole, to the end chunk or to what is no chunk."""
    start = len(PNG_MAGIC)
    while start + 12 <= len(content):
        kind = bytes(content[start + 4 : start + 8])
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if end > len(content) or not kind.isalpha():
            return
        yield _Chunk(kind, content[start + 8 : end - 4], start, end)
        if kind == b"IEND":
            return
        start = end


def _check_header(header: bytes) -> None:
    """Refuse what no PNG says of itself; the checksum has told that it is not damage."""
    if len(header) != 13:
        raise DecodeError(Reason.UNSUPPORTED_FORMAT, f"a PNG with a header of {len(header)} bytes")
    depth, color, compression, filtering, interlacing = header[8:]
    if (
        depth not in _DEPTHS.get(color, ())
        or compression
        or filtering
        or interlacing > 1
        or not any(header[:4])
        or not any(header[4:8])
    ):
        detail = f"a PNG with a header that none has: {header.hex()}"
        raise DecodeError(Reason.UNSUPPORTED_FORMAT, detail)
