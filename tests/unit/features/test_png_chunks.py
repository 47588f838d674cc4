"""Which of a PNG's chunks its pixels depend on, and what a fault of the others costs: nothing."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from support.corpus import (
    BLUE,
    COLORS,
    GREEN,
    GREY,
    HEIGHT,
    RED,
    WHITE,
    WIDTH,
    chunk,
    corners,
    encoded,
    exif,
    palette_with_hole,
    png_with,
    quarters,
    srgb,
)
from verger.features.preprocess import DecodeError, decode_full_size, decode_photo
from verger.schema import Reason

PNG = encoded(quarters(), "PNG")


def damaged(kind: bytes, data: bytes) -> bytes:
    """Write a chunk with a wrong checksum."""
    content = chunk(kind, data)
    return content[:-1] + bytes([content[-1] ^ 1])


def behind_pixels(*chunks: bytes) -> bytes:
    end = PNG.index(b"IEND") - 4
    return PNG[:end] + b"".join(chunks) + PNG[end:]


def with_header(*fields: int, size: bytes = PNG[16:24]) -> bytes:
    """Write another header, with its right checksum: depth, colour type and three methods."""
    return PNG[:8] + chunk(b"IHDR", size + bytes(fields)) + PNG[33:]


def reason_of(content: bytes) -> Reason:
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=16)
    return caught.value.reason


TEXT = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n" + exif(6).hex().encode())
FAULTS = {
    "gAMA, checksum": damaged(b"gAMA", struct.pack(">I", 45455)),
    "gAMA of 2 bytes": chunk(b"gAMA", b"\0\1"),
    "pHYs, checksum": damaged(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    "pHYs of 3 bytes": chunk(b"pHYs", b"abc"),
    "cHRM, checksum": damaged(b"cHRM", bytes(32)),
    "cHRM of 4 bytes": chunk(b"cHRM", bytes(4)),
    "sRGB, empty": chunk(b"sRGB", b""),
    "tEXt, checksum": damaged(b"tEXt", b"Comment\0hello"),
    "tEXt named exif": chunk(b"tEXt", b"exif\0" + exif(6)),
    "zTXt of an unknown method": chunk(b"zTXt", b"Comment\0\x07" + zlib.compress(b"hello")),
    "zTXt with a turn": chunk(b"zTXt", TEXT),
    "iTXt, checksum": damaged(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
    "iCCP, checksum": damaged(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb())),
    "iCCP of an unknown method": chunk(b"iCCP", b"sRGB\0\x05" + zlib.compress(srgb())),
    "eXIf, checksum": damaged(b"eXIf", exif(6).removeprefix(b"Exif\0\0")),
    "tRNS, checksum": damaged(b"tRNS", b"\0\xff\0\0\0\0"),
    "acTL of 3 bytes": chunk(b"acTL", b"abc"),
    "fcTL, sequence": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", b"\xff" * 26),
    "tIME, checksum": damaged(b"tIME", bytes(7)),
    "a private one, checksum": damaged(b"abCd", b"12345"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_broken_ancillary_chunk_costs_nothing(fault: bytes) -> None:
    """A photo with a wrong checksum or content beside its pixels decodes, as in browsers."""
    for content in (png_with(PNG, fault), behind_pixels(fault)):
        photo = decode_photo(content, size=16)
        assert (photo.width, photo.height, photo.truncated) == (WIDTH, HEIGHT, False)
        np.testing.assert_array_equal(corners(photo.pixels), COLORS)
        np.testing.assert_array_equal(decode_full_size(content), np.asarray(quarters()))


def test_whole_chunks_that_say_how_it_is_seen_are_kept() -> None:
    """Palette, transparent colours and EXIF count beside broken chunks too."""
    broken = b"".join(FAULTS[name] for name in ("gAMA, checksum", "pHYs, checksum"))
    holed = decode_photo(png_with(palette_with_hole("PNG"), broken), size=16)
    np.testing.assert_array_equal(corners(holed.pixels), (RED, GREEN, BLUE, WHITE))
    turned = encoded(quarters(), "PNG", exif=exif(6))
    photo = decode_photo(png_with(turned, broken), size=16)
    np.testing.assert_array_equal(corners(photo.pixels), (BLUE, RED, GREY, GREEN))


def test_a_transparent_colour_behind_the_pixels_is_none() -> None:
    """A ``tRNS`` must precede the pixels; one that follows them is ignored, as in browsers."""
    content = behind_pixels(chunk(b"tRNS", b"\0\xff\0\0\0\0"))
    np.testing.assert_array_equal(corners(decode_photo(content, size=16).pixels), COLORS)


@pytest.mark.parametrize("name", ["gAMA, checksum", "tEXt named exif"])
def test_cut_pngs_with_broken_chunks_are_truncated(name: str) -> None:
    """Broken chunks hide no cut, wherever it is before the end of the pixels."""
    content = png_with(PNG, FAULTS[name])
    whole = decode_photo(content, size=16).pixels
    for end in range(8, len(content) - 1):
        try:
            photo = decode_photo(content[:end], size=16)
        except DecodeError as err:
            assert err.reason is Reason.TRUNCATED  # noqa: PT017 - either is right
        else:
            assert end > content.index(b"IDAT") + 4
            np.testing.assert_array_equal(photo.pixels, whole)


OTHERS = {
    "Apple's CgBI": PNG[:8] + chunk(b"CgBI", bytes.fromhex("50002002")) + PNG[8:],
    "an unknown critical chunk": png_with(PNG, chunk(b"ABCD", b"12345")),
    "a palette of 16 bits": with_header(16, 3, 0, 0, 0),
    "colour type 5": with_header(8, 5, 0, 0, 0),
    "another compression": with_header(8, 2, 1, 0, 0),
    "another filter": with_header(8, 2, 0, 64, 0),
    "another interlacing": with_header(8, 2, 0, 0, 2),
    "a header of 12 bytes": with_header(8, 2, 0, 0),
    "no width": with_header(8, 2, 0, 0, 0, size=bytes(4) + PNG[20:24]),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_what_is_whole_and_no_usual_png_is_unsupported(content: bytes) -> None:
    """A critical chunk or header that PNG does not know, with its right checksum, is no damage."""
    assert reason_of(content) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("place", [20, 30])
def test_a_damaged_header_is_truncated(place: int) -> None:
    """A header whose checksum is wrong is a broken photo."""
    content = bytearray(PNG)
    content[place] ^= 1
    assert reason_of(bytes(content)) is Reason.TRUNCATED
