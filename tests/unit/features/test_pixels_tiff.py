"""What TIFF's samples are worth: pixels of 2 by 2 in every depth, kind, order and alpha."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from support.pictures import (
    ALPHA,
    ASCII,
    BYTE,
    COLORS,
    DOUBLE,
    FLOAT,
    LONG,
    RATIONAL,
    SHORT,
    SSHORT,
    Samples,
    Tag,
    assert_seen,
    greys,
    onto_white,
    packed,
    refusal,
    tiff,
)
from verger.features.preprocess import decode_full_size
from verger.schema import Reason

WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
SIGNED, FLOATS = {339: (SHORT, [2])}, {339: (SHORT, [3])}
UNUSED, PREMULTIPLIED, STRAIGHT = 0, 1, 2
#: How samples may lie in a file: byte order, packing (1 none, 8 deflate), planes, and in pieces.
Lie = tuple[str, int, int, str]
LIES = tuple(itertools.product("<>", (1, 8), (1, 2), ("strip", "rows", "tile")))
IN_ONE_PLANE = tuple(lie for lie in LIES if lie[2] == 1)


@dataclass(frozen=True)
class Case:
    """Samples, what their file says of them, and the pixels that they stand for."""

    samples: Samples
    bits: int
    photometric: int
    pixels: Samples
    tags: dict[int, Tag] = field(default_factory=dict)
    tolerance: int = 0
    lies: tuple[Lie, ...] = LIES

    def content(self, lie: Lie) -> bytes:
        order, packing, planar, pieces = lie
        return tiff(
            self.samples,
            self.bits,
            self.photometric,
            order=order,
            packing=packing,
            planar=planar,
            pieces=pieces,
            tags=self.tags,
        )


def extra(*kinds: int) -> dict[int, Tag]:
    return {338: (SHORT, list(kinds))}


def ends(low: Any, high: Any, kind: int = SHORT, n: int = 1) -> dict[int, Tag]:
    """SMinSampleValue and SMaxSampleValue."""
    return {340: (kind, [low] * n), 341: (kind, [high] * n)}


def with_bands(*bands: Samples) -> Samples:
    return np.concatenate([band if band.ndim == 3 else band[..., None] for band in bands], axis=2)


def high_8(samples: Samples, low: int, n: int) -> Samples:
    """The high 8 bits of integers from ``low``, of n values."""
    return (samples.astype(np.int64) - low) * 256 // n


def only(order: str) -> tuple[Lie, ...]:
    """The ways of one byte order, where Pillow knows only that."""
    return tuple(lie for lie in LIES if lie[0] == order)


U16 = np.array([[2000, 20000], [40000, 65000]], np.uint16)
U32 = np.array([[0, 2**30], [2**31 + 7, 2**32 - 1]], np.uint32)
F32 = np.array([[0, 0.25], [0.6, 1]], np.float32)
DEEP = COLORS.astype(np.uint16) * 256 + 33
DEEP_ALPHA = ALPHA.astype(np.uint16) * 257


def _greys() -> Iterator[tuple[str, Case]]:
    for bits, levels in {1: [[0, 1], [1, 0]], 2: [[0, 1], [2, 3]], 4: [[0, 5], [10, 15]]}.items():
        samples = np.array(levels, np.uint8)
        seen = samples * (255 // (2**bits - 1))
        yield f"{bits} bits", Case(samples, bits, BLACK_IS_0, greys(seen))
        yield f"{bits} bits, white is 0", Case(samples, bits, WHITE_IS_0, greys(255 - seen))
    eight = COLORS[..., 2]
    yield "8 bits", Case(eight, 8, BLACK_IS_0, greys(eight))
    yield "8 bits, white is 0", Case(eight, 8, WHITE_IS_0, greys(255 - eight))
    twelve = np.array([[0, 1000], [2500, 4095]], np.uint16)
    yield "12 bits", Case(twelve, 12, BLACK_IS_0, greys(twelve >> 4), lies=only("<"))
    yield "16 bits", Case(U16, 16, BLACK_IS_0, greys(U16 >> 8))
    yield "16 bits, white is 0", Case(U16, 16, WHITE_IS_0, greys(255 - (U16 >> 8)))
    white_is_0 = greys(255 - (twelve >> 4))
    yield "12 bits, white is 0", Case(twelve, 12, WHITE_IS_0, white_is_0, lies=only("<"))
    white_is_0 = greys(255 - (U32 >> 24))
    yield "32 bits, white is 0", Case(U32, 32, WHITE_IS_0, white_is_0, lies=only("<"))
    yield "32 bits", Case(U32, 32, BLACK_IS_0, greys(U32 >> 24), lies=only("<"))
    seen = np.rint(F32 * 255)
    yield "floats", Case(F32, 32, BLACK_IS_0, greys(seen), FLOATS)
    yield "floats, white is 0", Case(F32, 32, WHITE_IS_0, greys(255 - seen), FLOATS)
    for bits in (8, 16, 32):
        half = 2 ** (bits - 1)
        signed = np.array([[-half, -half // 3], [half // 5, half - 1]], f"i{bits // 8}")
        seen = greys(high_8(signed, -half, 2**bits))
        yield f"{bits} bits, signed", Case(signed, bits, BLACK_IS_0, seen, SIGNED)
        yield f"{bits} bits, signed, white is 0", Case(signed, bits, WHITE_IS_0, 255 - seen, SIGNED)


def _ranges() -> Iterator[tuple[str, Case]]:
    twelve = np.array([[0, 1000], [3000, 4095]], np.uint16)
    yield "12 bits in 16", Case(twelve, 16, 1, greys(twelve >> 4), {341: (SHORT, [4095])})
    white_is_0 = greys(255 - (twelve >> 4))
    tags: dict[int, Tag] = {341: (SHORT, [4095])}
    yield "12 bits in 16, white is 0", Case(twelve, 16, 0, white_is_0, tags)
    yield "12 bits in 16, as double", Case(twelve, 16, 1, greys(twelve >> 4), ends(0, 4095, DOUBLE))
    yield "from 100 to 4195", Case(twelve + 100, 16, 1, greys(twelve >> 4), ends(100, 4195))
    wide = twelve.astype(np.uint32)
    yield (
        "12 bits in 32",
        Case(wide, 32, 1, greys(twelve >> 4), ends(0, 4095, LONG), lies=only("<")),
    )
    signed = (twelve.astype(np.int16)) - 1000
    tags = SIGNED | ends(-1000, 3095, SSHORT)
    yield "12 bits in 16, signed", Case(signed, 16, 1, greys(twelve >> 4), tags)
    four = np.array([[0, 5], [10, 15]], np.uint8)
    yield "4 bits in 8", Case(four, 8, 1, greys(four << 4), ends(0, 15, BYTE))
    yield "4 bits in 8, white is 0", Case(four, 8, 0, greys(255 - (four << 4)), ends(0, 15, BYTE))
    yield "3 bits in 4", Case(four >> 1, 4, 1, greys((four >> 1) << 5), ends(0, 7, BYTE))
    whole = np.array([[0, 100], [200, 255]], np.float32)
    yield "floats to 255", Case(whole, 32, 1, greys(whole), FLOATS | ends(0, 255, FLOAT))
    rgb = with_bands(twelve, twelve[::-1], twelve.T)
    tags = ends(0, 4095, n=3)
    yield "RGB, 12 bits in 16", Case(rgb, 16, RGB, rgb >> 4, tags, 0, IN_ONE_PLANE)
    tags = {340: (SHORT, [0, 0, 0]), 341: (SHORT, [4095, 8191, 16383])}
    seen = rgb >> np.array([4, 5, 6], np.uint16)
    yield "RGB, other bits", Case(rgb, 16, RGB, seen, tags, 0, IN_ONE_PLANE)
    usual = ends(0, 255, BYTE, n=3)
    yield "RGB, 8 bits", Case(COLORS, 8, RGB, COLORS, usual)
    alpha = np.array([[4095, 4095], [0, 4095]], np.uint16)
    seen = onto_white(rgb >> 4, alpha >> 4)
    tags = extra(STRAIGHT) | ends(0, 4095, n=4)
    yield "RGBA, 12 bits in 16", Case(with_bands(rgb, alpha), 16, RGB, seen, tags, 1, IN_ONE_PLANE)


def _colors() -> Iterator[tuple[str, Case]]:
    for bits, rgb, alpha in ((8, COLORS, ALPHA), (16, DEEP, DEEP_ALPHA)):
        seen, inks = onto_white(COLORS, ALPHA), with_bands(rgb, rgb[..., :1] // 5)
        top = 2**bits - 1
        yield f"RGB, {bits} bits", Case(rgb, bits, RGB, COLORS)
        rgba = with_bands(rgb, alpha)
        said = Case(rgba, bits, RGB, seen, extra(STRAIGHT), 1)
        yield f"RGBA, {bits} bits", said
        yield f"RGBA, {bits} bits, not said", Case(rgba, bits, RGB, seen, {}, 1, IN_ONE_PLANE)
        yield f"RGB and more, {bits} bits", Case(rgba, bits, RGB, COLORS, extra(UNUSED))
        multiplied = with_bands((rgb * (alpha / top)[..., None]).astype(rgb.dtype), alpha)
        tags = extra(PREMULTIPLIED)
        yield f"RGBA, {bits} bits, multiplied", Case(multiplied, bits, RGB, seen, tags, 2)
        ink = (inks >> bits - 8).astype(float)
        printed = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
        yield f"CMYK, {bits} bits", Case(inks, bits, CMYK, printed, {}, 2)
    grey = COLORS[..., 1]
    seen = onto_white(greys(grey), ALPHA)
    la = Case(with_bands(grey, ALPHA), 8, 1, seen, extra(STRAIGHT), 1, IN_ONE_PLANE)
    yield "grey and alpha", la
    yield "grey and more", Case(with_bands(grey, ALPHA), 8, 1, greys(grey), extra(UNUSED))
    multiplied = with_bands((grey * (ALPHA / 255)).astype(np.uint8), ALPHA)
    tags = extra(PREMULTIPLIED)
    yield "grey and alpha, multiplied", Case(multiplied, 8, 1, seen, tags, 2, IN_ONE_PLANE)
    # L* is 0 to 255 for 0 to 100; a* and b* are signed bytes.
    lab = np.array([[[255, 0, 0], [128, 0, 0]], [[153, 30, 236], [153, 226, 20]]], np.uint8)
    yield "LAB", Case(lab, 8, LAB, srgb_of(lab), {}, 3, IN_ONE_PLANE)


#: XYZ at D50, in which LAB is, to linear sRGB (IEC 61966-2-1, Bradford's adaptation).
XYZ_TO_RGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.033454],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


def srgb_of(lab: Samples) -> Samples:
    """Return the sRGB of CIELAB by the formulas of CIE 15."""
    light = lab[..., 0] / 2.55
    green_red, blue_yellow = (lab[..., band].astype(np.int8) for band in (1, 2))
    y = (light + 16) / 116
    roots = np.stack([y + green_red / 500, y, y - blue_yellow / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 3 * (6 / 29) ** 2)
    rgb = (xyz * [0.9642, 1, 0.8249]) @ XYZ_TO_RGB.T
    return np.where(rgb > 0.0031308, 1.055 * np.abs(rgb) ** (1 / 2.4) - 0.055, rgb * 12.92) * 255


def _palettes() -> Iterator[tuple[str, Case]]:
    for bits in (1, 2, 4, 8):
        colors = np.zeros((2**bits, 3), np.uint16)
        colors[:4] = COLORS.reshape(4, 3)[: 2**bits]
        samples = np.array([[0, 1], [2, 3]], np.uint8) & (2**bits - 1)
        tags: dict[int, Tag] = {320: (SHORT, (colors.T * 257).ravel().tolist())}
        seen = colors[samples]
        yield f"palette, {bits} bits", Case(samples, bits, PALETTE, seen, tags)
        old: dict[int, Tag] = {320: (SHORT, colors.T.ravel().tolist())}
        yield f"palette of bytes, {bits} bits", Case(samples, bits, PALETTE, seen, old)
        if bits == 8:
            both = with_bands(samples, ALPHA)
            yield "palette and more", Case(both, 8, PALETTE, seen, tags | extra(UNUSED))
            tags = tags | extra(STRAIGHT)
            seen = onto_white(seen, ALPHA)
            yield "palette and alpha", Case(both, 8, PALETTE, seen, tags, 1, IN_ONE_PLANE)


def _differences() -> Iterator[tuple[str, Case]]:
    full = np.asarray(Image.fromarray(COLORS).convert("YCbCr"))
    each: dict[int, Tag] = {530: (SHORT, [1, 1])}
    yield "YCbCr", Case(full, 8, YCBCR, COLORS, each, 3)
    span = np.array([219, 224, 224]) / 255
    video = np.rint((full - np.array([0, 128, 128.0])) * span + np.array([16, 128, 128]))
    ends_of = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    tags = each | {532: (RATIONAL, ends_of)}
    yield "YCbCr, 16 to 235", Case(video.astype(np.uint8), 8, YCBCR, COLORS, tags, 4)


CASES = {
    name: case
    for family in (_greys, _ranges, _colors, _palettes, _differences)
    for name, case in family()
}


def lie_name(lie: Lie) -> str:
    order, packing, planar, pieces = lie
    parts = ("Intel" if order == "<" else "Motorola", "deflate" if packing == 8 else "plain")
    return ", ".join((*parts, f"{'planes, ' if planar == 2 else ''}{pieces}"))


@pytest.mark.parametrize("name", CASES)
def test_samples_are_what_the_tags_say(name: str) -> None:
    """The same samples give their true pixels however they lie in the file."""
    case = CASES[name]
    for lie in case.lies:
        assert_seen(case.content(lie), case.pixels, case.tolerance, lie_name(lie))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_0, BLACK_IS_0])
def test_bits_in_the_other_order(bits: int, photometric: int) -> None:
    """FillOrder 2, the first pixel in the lowest bit, gives the same pixels as the usual order."""
    samples = (U16 if bits == 16 else np.array([[0, 1], [1, 0]], np.uint8))[..., None]
    data, turned = packed(samples, bits), bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
    content = tiff(samples, bits, photometric, tags={266: (SHORT, [2])})
    content = content[:8] + data.translate(turned) + content[8 + len(data) :]
    usual = decode_full_size(tiff(samples, bits, photometric))
    np.testing.assert_array_equal(decode_full_size(content), usual)


@pytest.mark.parametrize("packing", [1, 8])
@pytest.mark.parametrize("said", [True, False], ids=["said", "by default"])
def test_colour_differences_of_half_the_size(packing: int, said: bool) -> None:
    """Four pixels that share one Cb and Cr, TIFF's default, keep their light and that colour."""
    light, blue, red = [40, 90, 140, 190], 120, 150
    full = np.array([[y, blue, red] for y in light], np.uint8).reshape(2, 2, 3)
    shape: dict[int, Tag] = {
        256: (LONG, [2]),
        257: (LONG, [2]),
        258: (SHORT, [8, 8, 8]),
        277: (SHORT, [3]),
        278: (LONG, [2]),
    }
    tags = shape | ({530: (SHORT, [2, 2])} if said else {})
    together = np.array([[*light, blue, red]], np.uint8)
    content = tiff(together, 8, YCBCR, packing=packing, tags=tags)
    seen = np.asarray(Image.fromarray(full, "YCbCr").convert("RGB"))
    assert_seen(content, seen, 2)


#: What Pillow reads and Verger does not, and a part of the reason.
REFUSED: dict[str, tuple[bytes, str]] = {
    "floats to 255": (tiff(F32 * 255, 32, 1, tags=FLOATS), "63.75, outside of its range"),
    "a float below 0": (tiff(F32 - 0.001, 32, 1, tags=FLOATS), "-0.001, outside .* from 0 to 1"),
    "a float above 1": (tiff(F32 + 0.001, 32, 1, tags=FLOATS), "1.001, outside .* from 0 to 1"),
    "not a number": (tiff(F32 * np.nan, 32, 1, tags=FLOATS), "nan, outside of its range"),
    "infinite": (tiff(F32 + np.inf, 32, 1, tags=FLOATS), "inf, outside of its range"),
    "over its end": (tiff(U16, 16, 1, tags=ends(0, 64999)), "65000, outside .* 0 to 64999"),
    "under its end": (tiff(U16, 16, 1, tags=ends(2001, 65535)), "2000, outside .* 2001 to"),
    "no range": (tiff(U16, 16, 1, tags=ends(9, 9)), "SMaxSampleValue=9: no range"),
    "a range of text": (tiff(U16, 16, 1, tags={341: (ASCII, b"much")}), "341 is no number"),
    "a range of inks": (tiff(np.dstack([DEEP, U16]), 16, CMYK, tags=ends(0, 9, n=4)), "neither"),
    "inks of another kind": (
        tiff(np.dstack([COLORS, ALPHA]), 8, CMYK, tags={332: (SHORT, [2])}),
        "inks are not CMYK",
    ),
    "one range for three": (
        tiff(DEEP, 16, RGB, packing=8, tags={341: (SHORT, [65534])}),
        "341 has 1 values for 3 samples",
    ),
    "no word on black": (tiff(ALPHA, 8, None), "whether 0 is black"),
    "no word on black, 16 bits": (tiff(U16, 16, None), "whether 0 is black"),
    "planes of grey and alpha": (
        tiff(np.dstack([ALPHA, ALPHA]), 8, 1, planar=2, tags=extra(STRAIGHT)),
        "planes of LA",
    ),
    "planes of LAB": (tiff(COLORS, 8, LAB, planar=2), "planes of LAB"),
    "planes, alpha not said": (
        tiff(np.dstack([COLORS, ALPHA]), 8, RGB, planar=2),
        "planes of RGBA",
    ),
    "planes of 12 bits in 16": (
        tiff(DEEP, 16, RGB, planar=2, tags=ends(0, 65534, n=3)),
        "planes of 16 bits",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_of_no_known_meaning_are_unsupported(name: str) -> None:
    """Samples that the rule gives no meaning are 'unsupported format', and the detail says why."""
    content, words = REFUSED[name]
    err = refusal(content)
    assert err.reason is Reason.UNSUPPORTED_FORMAT
    assert re.search(words, err.detail), err.detail


DARK = np.array([[0, 50], [100, 127]])
#: Samples of few levels in many bits, of which 8 bits show one.
FLAT = {
    "uint16": tiff(DARK.astype(np.uint16), 16, 1),
    "uint16, Motorola": tiff(DARK.astype(np.uint16), 16, 1, order=">"),
    "uint16, white is 0": tiff(DARK.astype(np.uint16), 16, 0),
    "uint32": tiff(DARK.astype(np.uint32), 32, 1),
    "int16": tiff(DARK.astype(np.int16), 16, 1, tags=SIGNED),
    "int32": tiff(DARK.astype(np.int32), 32, 1, tags=SIGNED),
    "floats": tiff((DARK / 1e6).astype(np.float32), 32, 1, tags=FLOATS),
    "RGB": tiff(COLORS.astype(np.uint16), 16, RGB),
    "RGB, packed": tiff(COLORS.astype(np.uint16), 16, RGB, packing=8, order=">"),
    "RGB, planes": tiff(COLORS.astype(np.uint16), 16, RGB, planar=2),
    "RGBA": tiff(np.dstack([COLORS, 0 * ALPHA]) + np.uint16(0), 16, RGB, tags=extra(STRAIGHT)),
    "CMYK": tiff(np.dstack([COLORS, ALPHA]).astype(np.uint16), 16, CMYK),
    "black inks": tiff(np.dstack([COLORS, 0 * ALPHA + 255]), 8, CMYK),
    "transparent": tiff(np.dstack([COLORS, 0 * ALPHA]), 8, RGB, tags=extra(STRAIGHT)),
}


@pytest.mark.parametrize("name", FLAT)
def test_what_would_become_one_colour_is_unsupported(name: str) -> None:
    """A photo whose samples differ is never passed as one colour."""
    err = refusal(FLAT[name])
    assert err.reason is Reason.UNSUPPORTED_FORMAT
    assert "every pixel would be" in err.detail or "planes of 16 bits" in err.detail


ONE = {
    "uint16": tiff(U16 * 0 + 300, 16, 1),
    "uint16, Motorola": tiff(U16 * 0 + 300, 16, 1, order=">"),
    "int16": tiff(np.zeros((2, 2), np.int16), 16, 1, tags=SIGNED),
    "floats": tiff(F32 * 0, 32, 1, tags=FLOATS),
    "RGB": tiff(DEEP * 0 + 300, 16, RGB),
    "RGBA": tiff(np.dstack([DEEP * 0 + 300, U16 * 0]), 16, RGB, tags=extra(STRAIGHT)),
    "palette": tiff(ALPHA * 0, 1, PALETTE, tags={320: (SHORT, [9, 65535] * 3)}),
}


@pytest.mark.parametrize("name", ONE)
def test_a_photo_of_one_sample_is_one_colour(name: str) -> None:
    """A photo that holds one colour is one, whatever its depth."""
    pixels = decode_full_size(ONE[name])
    assert (pixels == pixels[0, 0]).all()


def test_an_alpha_that_is_not_said_and_0_everywhere_is_none() -> None:
    """A fourth band of zeros that no tag calls an alpha hides nothing."""
    assert_seen(tiff(np.dstack([COLORS, 0 * ALPHA]), 8, RGB), COLORS)


@pytest.mark.parametrize("order", "<>")
def test_a_directory_that_is_cut_off_is_truncated(order: str) -> None:
    """Of a TIFF that ends within its directory or a range behind it no tag is left out."""
    content = tiff(F32, 32, 1, order=order, tags=FLOATS | ends(0, 1, DOUBLE))
    assert_seen(content, greys(np.rint(F32 * 255)))
    for n_bytes in range(1, len(content) - 24):
        assert refusal(content[:-n_bytes]).reason is Reason.TRUNCATED


@pytest.mark.parametrize("samples", [U16, F32, COLORS], ids=["16 bits", "floats", "RGB"])
def test_big_tiffs_go_by_the_same_rule(samples: Samples) -> None:
    """A BigTIFF gives the pixels of the TIFF of the same samples, and is noticed if it is cut."""
    usual, big = io.BytesIO(), io.BytesIO()
    Image.fromarray(samples).save(usual, "TIFF")
    Image.fromarray(samples).save(big, "TIFF", big_tiff=True)
    expected = decode_full_size(usual.getvalue())
    np.testing.assert_array_equal(decode_full_size(big.getvalue()), expected)
    assert refusal(big.getvalue()[:100]).reason is Reason.TRUNCATED


def test_reading_by_libtiff_is_left_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own switch of its TIFF reader is the same after a photo that needed the other."""
    for before in (False, True):
        monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", before)
        assert_seen(tiff(COLORS, 8, RGB, planar=2), COLORS)
        assert TiffImagePlugin.READ_LIBTIFF is before
