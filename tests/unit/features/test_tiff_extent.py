"""Which TIFFs are whole though nobody here decodes them, and which were cut off."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from support.corpus import encoded
from support.pictures import SHORT, refusal, tiff
from verger.features.preprocess import DecodeError, decode_photo
from verger.schema import Reason

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
LEAST_GREY, IS_RGB, CFA = 1, 2, 32803


def compressed_by(code: int) -> bytes:
    """Write a TIFF whose pixels are in some compression that Pillow lacks."""
    return tiff(RGB, 8, IS_RGB, tags={259: (SHORT, [code])})


#: TIFFs that are whole, and that neither Pillow nor its libtiff decodes.
WHOLE = {
    "RGB of 32-bit floats": tiff(
        (RGB / 255).astype(np.float32), 32, IS_RGB, tags={339: (SHORT, [3] * 3)}
    ),
    "RGB of 32-bit integers": tiff(RGB.astype(np.uint32) << 24, 32, IS_RGB),
    "64-bit floats": tiff((GREY / 255), 64, LEAST_GREY, tags={339: (SHORT, [3])}),
    "16-bit floats": tiff(
        (GREY / 255).astype(np.float16), 16, LEAST_GREY, tags={339: (SHORT, [3])}
    ),
    "complex numbers": tiff(GREY.astype(np.complex64), 64, LEAST_GREY, tags={339: (SHORT, [6])}),
    "5 bands": tiff(np.dstack([RGB, RGB[..., :2]]), 8, LEAST_GREY, tags={338: (SHORT, [0] * 4)}),
    "a mosaic of colours": tiff(GREY, 8, CFA),
    "LERC": compressed_by(34887),
    "JPEG 2000": compressed_by(34712),
    "JPEG XL": compressed_by(50002),
    "JPEG XL of DNG 1.7": compressed_by(52546),
    "JPEG XR": compressed_by(22610),
    "PNG": compressed_by(34933),
    "WebP": compressed_by(50001),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_whole_tiffs_that_nobody_decodes_are_unsupported(content: bytes) -> None:
    """Where all offsets lie within the file it is not cut off: 'unsupported format'."""
    assert refusal(content).reason is Reason.UNSUPPORTED_FORMAT
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=8, accept_truncated=True)
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("name", WHOLE)
def test_cut_tiffs_that_nobody_decodes_are_truncated(name: str) -> None:
    """Where an offset, or the directory, passes the end of the file it is cut off.

    The last 4 bytes of a directory say where the next one lies, and may be missing.
    """
    content = WHOLE[name]
    for length in range(8, len(content) - 4):
        assert refusal(content[:length]).reason is Reason.TRUNCATED


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pieces", ["strip", "rows", "tile"])
@pytest.mark.parametrize("packing", [1, 8])
def test_cut_tiffs_that_are_decoded_are_truncated(order: str, pieces: str, packing: int) -> None:
    """A TIFF of any layout is 'truncated' wherever it is cut, or lacks nothing of its picture."""
    content = tiff(RGB, 8, IS_RGB, order=order, pieces=pieces, packing=packing)
    whole = decode_photo(content, size=8).pixels
    passed = []
    for length in range(8, len(content) - 4):
        try:
            pixels = decode_photo(content[:length], size=8).pixels
        except DecodeError as err:
            assert err.reason is Reason.TRUNCATED  # noqa: PT017 - either is right
        else:
            np.testing.assert_array_equal(pixels, whole)
            passed.append(length)
    # Of strips without compression Pillow does not need the sizes, which stand last.
    assert len(passed) == (4 * len(RGB) - 4 if (pieces, packing) == ("rows", 1) else 0)


def test_big_endian_bigtiff_is_unsupported() -> None:
    """Pillow reads a BigTIFF of Intel's byte order only."""
    entries = (
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 16, 1, 8 + 8 + 8 + 7 * 20 + 8),
        (279, 4, 1, 16),
    )
    values = {3: (2, 6), 4: (4, 4), 16: (8, 0)}
    directory = b"".join(
        tag.to_bytes(2)
        + kind.to_bytes(2)
        + n.to_bytes(8)
        + value.to_bytes(values[kind][0])
        + bytes(values[kind][1])
        for tag, kind, n, value in entries
    )
    head = b"MM\0\x2b\0\x08\0\0" + (16).to_bytes(8) + len(entries).to_bytes(8)
    content = head + directory + bytes(8) + bytes(range(16))
    assert refusal(content).reason is Reason.UNSUPPORTED_FORMAT
    assert refusal(content[:-1]).reason is Reason.TRUNCATED


def test_broken_pixels_of_a_whole_tiff_are_truncated() -> None:
    """Noise in the place of compressed pixels is a broken photo, not another format."""
    content = encoded(Image.fromarray(RGB), "TIFF", compression="tiff_lzw")
    start = int.from_bytes(content[4:8], "little")
    broken = content[:8] + b"\xff" * (start - 8) + content[start:]
    assert refusal(broken).reason is Reason.TRUNCATED
