"""Why a photo gives no pixels: whatever a decoder raises, as one reason of the closed list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from verger.errors import VergerError
from verger.features.preprocess.jpeg import is_unsupported_jpeg
from verger.features.preprocess.pillow import register_formats
from verger.schema import Reason


class DecodeError(VergerError, ValueError):
    """A photo gives no pixels; it becomes a row of ``rejected`` and does not end a run.

    Attributes
    ----------
    reason : Reason
        One of the closed list.
    detail : str
        What the decoder said.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[DecodeError], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)


@contextmanager
def decode_errors(*, is_photo: bool) -> Iterator[None]:
    """Raise whatever a decoder raises as a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except MemoryError as err:
        raise DecodeError(Reason.TOO_MANY_PIXELS, "out of memory while decoding") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        size = str(err).partition(" exceeds")[0]
        detail = f"{size} is more than max_pixels={Image.MAX_IMAGE_PIXELS}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail) from err
    except Exception as err:  # Pillow's plug-ins raise anything on hostile bytes
        raise DecodeError(_decode_reason(err, is_photo), _one_line(err)) from err


_MEMORY_WORDS = ("memory", "decompressed data too large")
_TRUNCATED_WORDS = (
    "truncated",
    "not processed",
    "unexpected end",
    "premature",
    "eof",
    "cannot load this image",
    "could not create decoder object",
    "broken data stream",
    "failed to decode",
)
# The last one is of a PPM in words: a sample below 0 or over its maxval.
_UNSUPPORTED_WORDS = ("unsupported", "not supported", "not available", "channel value")


def _decode_reason(err: Exception, is_photo: bool) -> Reason:
    text = str(err).lower()
    if any(word in text for word in _MEMORY_WORDS):
        return Reason.TOO_MANY_PIXELS
    if isinstance(err, EOFError) or any(word in text for word in _TRUNCATED_WORDS):
        # Decoders raise the same for a photo that was cut off and for noise behind a good header.
        return Reason.TRUNCATED
    if isinstance(err, NotImplementedError) or any(word in text for word in _UNSUPPORTED_WORDS):
        return Reason.UNSUPPORTED_FORMAT
    return Reason.TRUNCATED if is_photo else Reason.NOT_AN_IMAGE


#: First bytes of photos.
PHOTO_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)
# JPEG XL and JPEG 2000, bare and in their containers; PAM, and PFM in colour.
_UNSUPPORTED_MAGIC = (
    b"P7\n",
    b"PF\n",
    b"\xff\x0a",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)


# Brands of the files that hold an AVIF or a HEIC photo, behind their size and "ftyp".
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
# The box that says an AVIF's width and height. libavif refuses more pixels by itself.
_AVIF_SIZE = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_AVIF_MAX_PIXELS = 16384 * 16384


# How a WebP begins behind its own name: lossy, lossless, or in parts.
_WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X")


def unidentified_reason(content: bytes) -> Reason:
    """Return why no plug-in knows a file, by its first bytes."""
    if content[4:8] == b"ftyp":
        return _unidentified_media_reason(content)
    if content.startswith(_UNSUPPORTED_MAGIC) or is_unsupported_jpeg(content):
        return Reason.UNSUPPORTED_FORMAT
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        is_known = len(content) < 16 or content[12:16] in _WEBP_CHUNKS
        return Reason.TRUNCATED if is_known else Reason.UNSUPPORTED_FORMAT
    return Reason.TRUNCATED if content.startswith(PHOTO_MAGIC) else Reason.NOT_AN_IMAGE


# What codes the pictures of a HEIC, in the box that says it of each (ISO/IEC 23008-12, 6.2). Of the
# codecs that may (VVC, AVC, JPEG, JPEG 2000, none) ``pillow_heif`` decodes HEVC.
_HEIF_CODEC = re.compile(rb"infe(?:\x02\0\0...|\x03\0\0.....)\0\0(....)", re.DOTALL)


def unidentified_detail(content: bytes) -> str:
    """Return what to tell of a file that no plug-in knows."""
    is_heic = content[4:8] == b"ftyp" and content[8:12] in _BRANDS["HEIF"]
    if is_heic and "HEIF" not in register_formats():
        return "HEIC, which the extra heif reads: pip install pillow-heif (docs/licences.md)"
    return "no decoder knows these bytes"


def _unidentified_media_reason(content: bytes) -> Reason:
    form = next((name for name in _BRANDS if content[8:12] in _BRANDS[name]), None)
    codecs = _HEIF_CODEC.findall(content, 0, 1 << 16) if form == "HEIF" else ()
    if form not in register_formats() or (codecs and b"hvc1" not in codecs):
        return Reason.UNSUPPORTED_FORMAT
    size = _AVIF_SIZE.search(content, 0, 4096) if form == "AVIF" else None
    if size and int.from_bytes(size[1]) * int.from_bytes(size[2]) > _AVIF_MAX_PIXELS:
        return Reason.TOO_MANY_PIXELS
    return Reason.TRUNCATED


def _one_line(err: Exception, limit: int = 200) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text[:limit]
