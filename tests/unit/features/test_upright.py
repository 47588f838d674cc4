"""What turns a photo upright: the mark of its format, as browsers read it, and nothing else."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.corpus import (
    BLUE,
    COLORS,
    GREEN,
    GREY,
    HEIGHT,
    RED,
    WIDTH,
    chunk,
    corners,
    encoded,
    exif,
    quarters,
)
from verger.features.preprocess import decode_full_size, decode_photo

#: What stands where in a photo that is stored as it is seen, and in one turned by orientation 6.
STORED = (COLORS, (WIDTH, HEIGHT))
TURNED = ((BLUE, RED, GREY, GREEN), (HEIGHT, WIDTH))

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100},
}


def of_form(form: str, **options: Any) -> bytes:
    return encoded(quarters(), form, **OPTIONS.get(form, {}), **options)


def tiff(orientation: int | None = None, **options: Any) -> bytes:
    tags: dict[int, Any] = {700: XMP} | ({} if orientation is None else {274: orientation})
    return encoded(quarters(), "TIFF", tiffinfo=tags, **options)


def png(*, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Write a PNG with chunks before and behind its pixels."""
    content = of_form("PNG")
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    return content[:start] + before + content[start:end] + behind + content[end:]


def segment(data: bytes) -> bytes:
    """Write a JPEG's APP1 segment."""
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes) -> bytes:
    content = of_form("JPEG")
    return content[:2] + b"".join(segments) + content[2:]


def block(orientation: int) -> bytes:
    """Return EXIF as a PNG keeps it, without its six letters in front."""
    return exif(orientation).removeprefix(b"Exif\0\0")


def avif_with_exif_alone() -> bytes:
    """Write an AVIF whose EXIF says 6 and whose boxes say nothing: Pillow makes boxes of it."""
    tags = Image.Exif()
    tags[0x0113] = 6  # the next tag is the orientation
    content = of_form("AVIF", exif=tags.tobytes())
    assert content.count(b"\x01\x13\0\x03") == 1
    return content.replace(b"\x01\x13\0\x03", b"\x01\x12\0\x03")


def raw_profile(name: bytes, orientation: int) -> bytes:
    """Write EXIF into a PNG's text as ImageMagick does."""
    data = b"Exif\0\0" + block(orientation)
    return name + b"\0\0" + zlib.compress(b"\nexif\n%8d\n%s\n" % (len(data), data.hex().encode()))


XMP_SEGMENT = segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)
XMP_CHUNK = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
UNTURNED = {
    "JPEG, XMP": jpeg(XMP_SEGMENT),
    "JPEG, EXIF 1 and XMP": jpeg(segment(b"Exif\0\0" + block(1)), XMP_SEGMENT),
    "JPEG, EXIF behind the scan": of_form("JPEG")[:-2]
    + segment(b"Exif\0\0" + block(6))
    + b"\xff\xd9",
    "PNG, XMP": png(before=XMP_CHUNK),
    "PNG, XMP behind the pixels": png(behind=XMP_CHUNK),
    "PNG, EXIF behind the pixels": png(behind=chunk(b"eXIf", block(6))),
    "PNG, EXIF in a text": png(before=chunk(b"zTXt", raw_profile(b"Raw profile type exif", 6))),
    "WebP, XMP": of_form("WEBP", xmp=XMP),
    "WebP, EXIF 1 and XMP": of_form("WEBP", xmp=XMP, exif=exif(1)),
    "TIFF, XMP": tiff(),
    "TIFF in LZW, XMP": tiff(compression="tiff_lzw"),
    "TIFF, tag 1 and XMP": tiff(1),
    "AVIF, XMP": of_form("AVIF", xmp=XMP),
    "AVIF, EXIF without a box": avif_with_exif_alone(),
    "GIF, XMP": encoded(quarters().quantize(4), "GIF", xmp=XMP),
}
RIGHTED = {
    "JPEG, EXIF": jpeg(segment(b"Exif\0\0" + block(6))),
    "JPEG, EXIF and XMP": jpeg(XMP_SEGMENT, segment(b"Exif\0\0" + block(6))),
    "PNG, EXIF": png(before=chunk(b"eXIf", block(6))),
    "WebP, EXIF": of_form("WEBP", exif=exif(6)),
    "WebP, EXIF and XMP": of_form("WEBP", exif=exif(6), xmp=XMP.replace(b"6", b"3")),
    "TIFF, tag and XMP": tiff(6),
    "AVIF, a box": of_form("AVIF", exif=exif(6)),
}


def assert_seen(content: bytes, colors: Any, size: tuple[int, int]) -> None:
    for accept in (False, True):
        photo = decode_photo(content, size=16, accept_truncated=accept)
        assert (photo.width, photo.height) == size
        np.testing.assert_allclose(corners(photo.pixels), colors, atol=10)
    full = decode_full_size(content)
    assert full.shape == (*size[::-1], 3)


@pytest.mark.parametrize("content", UNTURNED.values(), ids=UNTURNED)
def test_what_is_no_mark_of_the_format_turns_nothing(content: bytes) -> None:
    """XMP, texts and EXIF in a wrong place leave a photo as it is stored, as in browsers."""
    assert_seen(content, *STORED)


@pytest.mark.parametrize("content", RIGHTED.values(), ids=RIGHTED)
def test_the_mark_of_the_format_turns_whatever_stands_beside_it(content: bytes) -> None:
    """EXIF, a TIFF's tag or an AVIF's box turns the photo, with XMP that says otherwise too."""
    assert_seen(content, *TURNED)


def test_the_box_is_what_turns_an_avif() -> None:
    """An AVIF whose box says another angle is turned by that (ISO/IEC 23008-12, 6.5.10)."""
    content = of_form("AVIF", exif=exif(6))
    assert content.count(b"irot\x03") == 1  # three times 90 degrees, anticlockwise
    assert_seen(content.replace(b"irot\x03", b"irot\0"), *STORED)
