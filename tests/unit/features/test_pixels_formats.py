"""What the samples of PNG, BMP, PPM, GIF and the lossy formats are worth, in pictures of 2 by 2."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from support.corpus import without_segment, ycck
from support.pictures import (
    ALPHA,
    COLORS,
    Samples,
    assert_seen,
    bmp,
    chunk,
    greys,
    onto_white,
    packed,
    png,
    refusal,
)
from verger.features.preprocess import decode_full_size
from verger.schema import Reason

#: A file, the pixels that it stands for, and how exactly.
Row = tuple[bytes, Samples, int]

LEVELS = {
    1: np.array([[0, 1], [1, 0]], np.uint8),
    2: np.array([[0, 1], [2, 3]], np.uint8),
    4: np.array([[0, 5], [10, 15]], np.uint8),
    8: np.array([[0, 60], [140, 255]], np.uint8),
    16: np.array([[2000, 20000], [40000, 65000]], np.uint16),
}
DEEP = COLORS.astype(np.uint16) * 256 + 33
DEEP_ALPHA = ALPHA.astype(np.uint16) * 257
SEEN = onto_white(COLORS, ALPHA)
PALETTE = COLORS.reshape(4, 3)


def with_band(colors: Samples, band: Samples) -> Samples:
    return np.dstack([colors, band])


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def big_endian(*levels: int) -> bytes:
    return b"".join(int(level).to_bytes(2) for level in levels)


def white_where(colors: Samples, is_clear: Samples) -> Samples:
    return np.where(is_clear[..., None], 255, colors)


def _pngs() -> Iterator[tuple[str, Row]]:
    for bits, samples in LEVELS.items():
        seen = greys(samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1)))
        yield f"PNG grey, {bits} bits", (png(samples, bits, 0), seen, 0)
        for level in np.unique(samples)[bits == 1 :]:
            hole = png(samples, bits, 0, chunk(b"tRNS", big_endian(level)))
            clear = white_where(seen, samples == level)
            if np.ptp(clear):
                yield f"PNG grey, {bits} bits, {level} transparent", (hole, clear, 0)
    for bits, rgb, alpha in ((8, COLORS, ALPHA), (16, DEEP, DEEP_ALPHA)):
        yield f"PNG RGB, {bits} bits", (png(rgb, bits, 2), COLORS, 0)
        hole = png(rgb, bits, 2, chunk(b"tRNS", big_endian(*rgb[1, 1])))
        clear = white_where(COLORS, np.array([[0, 0], [0, 1]], bool))
        yield f"PNG RGB, {bits} bits, one transparent", (hole, clear, 0)
        near = png(rgb, bits, 2, chunk(b"tRNS", big_endian(*rgb[1, 1, :2], rgb[1, 1, 2] + 1)))
        yield f"PNG RGB, {bits} bits, a near one transparent", (near, COLORS, 0)
        yield f"PNG RGBA, {bits} bits", (png(with_band(rgb, alpha), bits, 6), SEEN, 1)
        grey = rgb[..., 1]
        seen = onto_white(greys(COLORS[..., 1]), ALPHA)
        yield f"PNG grey and alpha, {bits} bits", (png(with_band(grey, alpha), bits, 4), seen, 1)
    for bits in (1, 2, 4, 8):
        samples = LEVELS[2] & (2**bits - 1)
        colors = chunk(b"PLTE", PALETTE[: 2**bits].tobytes())
        seen = PALETTE[samples]
        yield f"PNG palette, {bits} bits", (png(samples, bits, 3, colors), seen, 0)
        hole = png(samples, bits, 3, colors, chunk(b"tRNS", b"\xff\0"))
        clear = white_where(seen, samples == 1)
        yield f"PNG palette, {bits} bits, one transparent", (hole, clear, 0)
        alphas = np.array([128, 0, 255, 255], np.uint8)
        hole = png(samples, bits, 3, colors, chunk(b"tRNS", alphas.tobytes()[: 2**bits]))
        yield f"PNG palette, {bits} bits, alphas", (hole, onto_white(seen, alphas[samples]), 1)


def _rows(samples: Samples, bits: int = 8) -> list[bytes]:
    return [packed(row[None], bits) for row in samples]


RED, GREEN, BLUE = 0xFF0000, 0xFF00, 0xFF
#: Masks of 32 bits, and in which order their bands lie.
MASKS = {
    "BGRA": ((RED, GREEN, BLUE, 0xFF000000), (2, 1, 0, 3)),
    "RGBA": ((BLUE, GREEN, RED, 0xFF000000), (0, 1, 2, 3)),
    "ABGR": ((0xFF000000, RED, GREEN, BLUE), (3, 2, 1, 0)),
}


def _bmps() -> Iterator[tuple[str, Row]]:
    for as_dib in (False, True):
        for top_down in (False, True):
            form = f"{'DIB' if as_dib else 'BMP'}{' top down' if top_down else ''}"
            for name, row in (*_bmp_colors(as_dib, top_down), *_bmp_palettes(as_dib, top_down)):
                yield f"{form} {name}", row


def _bmp_colors(as_dib: bool, top_down: bool) -> Iterator[tuple[str, Row]]:
    how: dict[str, Any] = {"as_dib": as_dib, "top_down": top_down}
    for header in (40, 52, 56, 108, 124) if top_down else (12, 40, 52, 56, 108, 124):
        content = bmp(_rows(COLORS[..., ::-1]), 2, 24, header=header, **how)
        yield f"24 bits, header of {header}", (content, COLORS, 0)
    rgba = with_band(COLORS, ALPHA)
    yield "32 bits", (bmp(_rows(rgba[..., [2, 1, 0, 3]]), 2, 32, **how), COLORS, 0)
    how["compression"] = 3
    masks, order = MASKS["BGRA"]
    content = bmp(_rows(rgba[..., order]), 2, 32, masks=masks[:3], **how)
    yield "32 bits by masks", (content, COLORS, 0)
    content = bmp(_rows(rgba[..., order]), 2, 32, masks=(*masks[:3], 0), header=56, **how)
    yield "32 bits by masks, none of an alpha", (content, COLORS, 0)
    for name, (masks, order) in MASKS.items():
        for header in (56, 108, 124):
            content = bmp(_rows(rgba[..., order]), 2, 32, masks=masks, header=header, **how)
            yield f"32 bits, {name}, header of {header}", (content, SEEN, 1)
            clear = with_band(COLORS, ALPHA * 0)[..., order]
            content = bmp(_rows(clear), 2, 32, masks=masks, header=header, **how)
            yield f"32 bits, {name}, alpha unused, header of {header}", (content, COLORS, 0)
    for name, counts in {"565": (5, 6, 5), "555": (5, 5, 5)}.items():
        masks, samples, seen = _of_16_bits(counts)
        content = bmp(_rows(samples, 16), 2, 16, masks=masks, **how)
        yield f"16 bits, {name}", (content, seen, 1)
    how["compression"] = 0
    yield "16 bits", (bmp(_rows(samples, 16), 2, 16, **how), seen, 1)
    how |= {"compression": 3, "masks": (*masks, 0x8000), "header": 56}
    yield "16 bits, alpha unused", (bmp(_rows(samples, 16), 2, 16, **how), seen, 1)
    holed = samples | (ALPHA.astype(np.uint16) >> 7) << 15
    clear = white_where(seen, ALPHA < 128)
    yield "16 bits, one of an alpha", (bmp(_rows(holed, 16), 2, 16, **how), clear, 1)


def _of_16_bits(counts: Sequence[int]) -> tuple[tuple[int, ...], Samples, Samples]:
    """Return masks, samples and pixels of colours of so many bits in red, green and blue."""
    shifts = (counts[1] + counts[2], counts[2], 0)
    small = [COLORS[..., band].astype(np.uint16) >> 8 - n for band, n in enumerate(counts)]
    samples = sum(band << shift for band, shift in zip(small, shifts, strict=True))
    masks = tuple((2**n - 1) << shift for n, shift in zip(counts, shifts, strict=True))
    return (
        masks,
        np.asarray(samples, np.uint16),
        np.dstack(small) * 255 / (2 ** np.array(counts) - 1),
    )


def _bmp_palettes(as_dib: bool, top_down: bool) -> Iterator[tuple[str, Row]]:
    how: dict[str, Any] = {"as_dib": as_dib, "top_down": top_down}
    palettes = {
        "colours": PALETTE,
        "black and white": np.array([[0] * 3, [255] * 3], np.uint8),
        "white and black": np.array([[255] * 3, [0] * 3], np.uint8),
        "a few greys": np.arange(8, dtype=np.uint8)[:, None].repeat(3, axis=1),
        "greys": np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1),
    }
    for bits in (1, 4, 8):
        for name, colors in palettes.items():
            colors = colors[: 2**bits]
            samples = LEVELS[2] & min(len(colors) - 1, 2**bits - 1)
            seen = colors[samples]
            short = b"".join(bytes(color[::-1]) + b"\0" for color in colors)
            rows = _rows(samples, bits)
            content = bmp(rows, 2, bits, palette=short, n_colors=len(colors), **how)
            yield f"{bits} bits, {name}", (content, seen, 0)
            whole = short.ljust(4 * 2**bits, b"\0")
            yield (
                f"{bits} bits, {name}, filled up",
                (bmp(rows, 2, bits, palette=whole, **how), seen, 0),
            )
            if not top_down:
                old = b"".join(bytes(color[::-1]) for color in colors).ljust(3 * 2**bits, b"\0")
                content = bmp(rows, 2, bits, palette=old, header=12, **how)
                yield f"{bits} bits, {name}, OS/2", (content, seen, 0)
            if bits > 1 and not top_down:
                content = _run_lengths(samples, bits, palette=short, n_colors=len(colors), **how)
                yield f"{bits} bits, {name}, run lengths", (content, seen, 0)


def _run_lengths(samples: Samples, bits: int, **options: Any) -> bytes:
    """Write RLE8 or RLE4: runs of one pixel from the lowest row, each row and the file closed."""
    shift = 4 if bits == 4 else 0
    rows = (b"".join(bytes([1, int(level) << shift]) for level in row) for row in samples[::-1])
    data = b"\0\0".join(rows) + b"\0\0\0\1"
    return bmp([data], 2, bits, compression=2 if bits == 4 else 1, **options)


def _pnm(kind: bytes, top: int, samples: Samples) -> bytes:
    head = kind + b"\n# a comment\n2 2\n%d\n" % top
    if kind in (b"P2", b"P3"):
        return head + b"".join(b"%d\n" % level for level in samples.ravel())
    return head + samples.astype(">u2" if top > 255 else "u1").tobytes()


def _ppms() -> Iterator[tuple[str, Row]]:
    for top in (1, 3, 100, 255, 256, 1023, 4095, 65535):
        grey = np.array([[0, top // 3], [top // 2, top]])
        rgb = np.dstack([grey, grey[::-1], grey.T])
        for kind, samples in ((b"P2", grey), (b"P5", grey), (b"P3", rgb), (b"P6", rgb)):
            seen = samples * 255 / top
            row = (_pnm(kind, top, samples), greys(seen) if samples.ndim == 2 else seen, 1)
            yield f"PPM {kind.decode()}, maxval {top}", row
    bits = greys([[255, 0], [0, 255]])
    yield "PPM P4", (b"P4\n2 2\n\x40\x80", bits, 0)
    yield "PPM P1", (b"P1\n# a comment\n2 2\n01\n#another\n10", bits, 0)
    floats = np.array([[0, 0.25], [0.6, 1]], np.float32)
    seen = greys(np.rint(floats * 255))
    for order, scale in (("<", b"-1.0"), (">", b"1.0")):
        data = floats[::-1].astype(order + "f4").tobytes()
        yield f"PPM Pf, {scale.decode()}", (b"Pf\n2 2\n%s\n%s" % (scale, data), seen, 0)


def _gifs() -> Iterator[tuple[str, Row]]:
    image = Image.new("P", (2, 2))
    image.putpalette(PALETTE.tobytes())
    image.putdata(range(4))
    for name, options in {"": {}, ", not interlaced": {"interlace": 0}}.items():
        yield f"GIF palette{name}", (encoded(image, "GIF", **options), COLORS, 0)
    clear = white_where(COLORS, np.array([[0, 0], [1, 0]], bool))
    yield "GIF palette, one transparent", (encoded(image, "GIF", transparency=2), clear, 0)
    grey = COLORS[..., 0]
    yield "GIF greys", (encoded(Image.fromarray(grey), "GIF"), greys(grey), 0)
    few = Image.fromarray(COLORS[:1])
    small = bytearray(encoded(few, "GIF"))
    small[6:10] = b"\2\0\2\0"  # the screen is higher than the one frame
    seen = np.concatenate([COLORS[:1], np.full((1, 2, 3), 255)])
    yield "GIF of a frame smaller than its screen", (bytes(small), seen, 0)


def _webps() -> Iterator[tuple[str, Row]]:
    picture = encoded(Image.fromarray(COLORS[:, :2].repeat(2, axis=0)), "WEBP", lossless=True)[12:]
    for name, flags in {"": 0x02, ", alpha": 0x12}.items():
        size = bytes([1, 0, 0, 5, 0, 0])  # less one: 2 by 6, of which the frame is the lower 4 rows
        frame = bytes([0, 0, 0, 1, 0, 0, 1, 0, 0, 3, 0, 0, 100, 0, 0, 0]) + picture
        chunks = {b"VP8X": bytes([flags, 0, 0, 0]) + size, b"ANIM": bytes(6), b"ANMF": frame}
        body = b"WEBP" + b"".join(
            kind + struct.pack("<I", len(data)) + data for kind, data in chunks.items()
        )
        content = b"RIFF" + struct.pack("<I", len(body)) + body
        yield f"WEBP of a frame smaller than its screen{name}", (content, COLORS, 0)


def _lossless() -> Iterator[tuple[str, Row]]:
    rgba = Image.fromarray(with_band(COLORS, ALPHA))
    for form in ("WEBP", "AVIF"):
        if features.check(form.lower()):
            how: dict[str, Any] = (
                {"lossless": True, "exact": True}
                if form == "WEBP"
                else {"quality": 100, "subsampling": "4:4:4"}
            )
            slack = 0 if form == "WEBP" else 4
            image = Image.fromarray(COLORS)
            yield f"{form} RGB", (encoded(image, form, **how), COLORS, slack)
            yield f"{form} RGBA", (encoded(rgba, form, **how), SEEN, slack + 1)
            grey = Image.fromarray(COLORS[..., 1])
            yield f"{form} grey", (encoded(grey, form, **how), greys(COLORS[..., 1]), slack)


CASES = {name: row for family in (_pngs, _bmps, _ppms, _gifs, _lossless) for name, row in family()}


@pytest.mark.parametrize("name", CASES)
def test_samples_are_what_the_format_says(name: str) -> None:
    """Every depth, palette and transparency of a format gives its true pixels."""
    content, seen, tolerance = CASES[name]
    assert_seen(content, seen, tolerance)


# ---- formats that blur: blocks of 8 by 8 ----------------------------------------------------


def blocks(colors: Samples) -> Image.Image:
    """Draw every pixel of 2 by 2 as a block of 8 by 8, which a JPEG's one coefficient holds."""
    return Image.fromarray(colors.repeat(8, axis=0).repeat(8, axis=1))


def _jpegs() -> Iterator[tuple[str, Row]]:
    image, sharp = blocks(COLORS), {"quality": 100, "subsampling": 0}
    yield "JPEG YCbCr", (encoded(image, "JPEG", **sharp), COLORS, 4)
    content = encoded(image, "JPEG", quality=100, subsampling=0, progressive=True)
    yield "JPEG progressive", (content, COLORS, 4)
    content = encoded(image, "JPEG", quality=100, subsampling=0, keep_rgb=True)
    yield "JPEG RGB", (content, COLORS, 4)
    grey = COLORS[..., 1]
    yield "JPEG grey", (encoded(blocks(grey), "JPEG", quality=100), greys(grey), 2)
    inks = encoded(image.convert("CMYK"), "JPEG", **sharp)
    yield "JPEG CMYK", (inks, COLORS, 4)
    yield "JPEG CMYK, not by Adobe", (without_segment(inks, 0xEE), COLORS, 4)
    yield "JPEG YCCK", (ycck(image), COLORS, 6)
    pair = encoded(image, "MPO", save_all=True, append_images=[image.rotate(90)], **sharp)
    yield "MPO", (pair, COLORS, 4)


def _blurred() -> Iterator[tuple[str, Row]]:
    image, rgba = blocks(COLORS), blocks(with_band(COLORS, ALPHA))
    grey = COLORS[..., 1]
    yield "WEBP lossy", (encoded(image, "WEBP", quality=100), COLORS, 30)
    yield "WEBP lossy, RGBA", (encoded(rgba, "WEBP", quality=100), SEEN, 30)
    yield "WEBP lossy, grey", (encoded(blocks(grey), "WEBP", quality=100), greys(grey), 4)
    sharp = {"quality": 100, "subsampling": "4:4:4"}
    for span in ("full", "limited"):
        content = encoded(image, "AVIF", range=span, **sharp)
        yield f"AVIF, {span} range", (content, COLORS, 4)
        content = encoded(rgba, "AVIF", range=span, **sharp)
        yield f"AVIF RGBA, {span} range", (content, SEEN, 5)
    content = encoded(rgba, "AVIF", alpha_premultiplied=True, **sharp)
    yield "AVIF RGBA, multiplied", (content, SEEN, 6)
    content = encoded(blocks(grey), "AVIF", quality=100, subsampling="4:0:0")
    yield "AVIF grey", (content, greys(grey), 2)


LOSSY = {name: row for family in (_jpegs, _blurred) for name, row in family()}


def middles(pixels: Samples) -> Samples:
    """Return the pixels in the middle of the four blocks: (2, 2, 3)."""
    assert pixels.shape == (16, 16, 3)
    return pixels[4::8, 4::8].astype(int)


@pytest.mark.parametrize("name", LOSSY)
def test_colours_of_lossy_formats_are_near(name: str) -> None:
    """Colours, inks, greys and alphas of a format that blurs come back within its tolerance."""
    content, seen, tolerance = LOSSY[name]
    np.testing.assert_allclose(middles(decode_full_size(content)), seen, rtol=0, atol=tolerance)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_colours_of_heic_are_near(mode: str, bits: int) -> None:
    """A HEIC photo of 8, 10 or 12 bits a colour, with or without an alpha, keeps its colours."""
    pillow_heif = pytest.importorskip("pillow_heif")
    if bits == 8:
        colors = {"RGB": COLORS, "RGBA": with_band(COLORS, ALPHA), "L": COLORS[..., 1]}[mode]
        name = mode
    else:
        colors = {"RGB": DEEP, "RGBA": with_band(DEEP, DEEP_ALPHA), "L": DEEP[..., 1]}[mode]
        name = f"{mode};16"
    samples = colors.repeat(8, axis=0).repeat(8, axis=1)
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    photo = pillow_heif.from_bytes(name, (16, 16), samples.tobytes())
    file = io.BytesIO()
    photo.save(file, quality=-1, chroma=444, matrix_coefficients=0)
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    seen = {"RGB": COLORS, "RGBA": SEEN, "L": greys(COLORS[..., 1])}[mode]
    found = middles(decode_full_size(file.getvalue()))
    np.testing.assert_allclose(found, seen, rtol=0, atol=3)


SCREENS = dict(_webps())


@pytest.mark.parametrize("name", SCREENS)
def test_around_the_first_frame_of_an_animation_is_nothing(name: str) -> None:
    """Where the first frame of a WebP animation does not reach, its screen is white."""
    content, colors, _ = SCREENS[name]
    pixels = decode_full_size(content)
    assert (pixels[:2] == 255).all()
    np.testing.assert_array_equal(pixels[2::2], colors)


# ---- what no pixel can stand for ------------------------------------------------------------

SMALL = np.array([[0, 50], [100, 127]], np.uint16)
CLEAR = np.zeros((2, 2), np.uint8)
REFUSED = {
    "PNG, few of 16 bits": (png(SMALL, 16, 0), "every pixel would be"),
    "PNG, RGB, few of 16 bits": (png(COLORS.astype(np.uint16), 16, 2), "every pixel would be"),
    "PNG, grey and alpha, few of 16 bits": (
        png(with_band(SMALL, SMALL * 0 + 65535), 16, 4),
        "every pixel would be",
    ),
    "PNG, all transparent": (png(with_band(COLORS, CLEAR), 8, 6), "every pixel would be"),
    "PNG, palette, all transparent": (
        png(LEVELS[2], 8, 3, chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", bytes(4))),
        "every pixel would be",
    ),
    "PNG, white on nothing": (
        png(with_band(np.full((2, 2), 255, np.uint8), ALPHA), 8, 4),
        "every pixel would be",
    ),
    "WebP, all transparent": (
        encoded(Image.fromarray(with_band(COLORS, CLEAR)), "WEBP", lossless=True, exact=True),
        "every pixel would be",
    ),
    "PGM, few of 16 bits": (_pnm(b"P5", 65535, SMALL), "every pixel would be"),
    "PPM, few of 16 bits": (_pnm(b"P6", 65535, np.dstack([SMALL] * 3)), "every pixel would be"),
    "PPM in words, few of 16 bits": (
        _pnm(b"P3", 65535, np.dstack([SMALL] * 3)),
        "every pixel would be",
    ),
    "PFM above 1": (b"Pf\n2 2\n-1\n" + np.float32([0, 1, 2, 3]).tobytes(), "a sample is 2, out"),
    "PFM of no numbers": (b"Pf\n2 2\n-1\n" + np.float32([np.nan] * 4).tobytes(), "is nan"),
    "PFM of a scale": (b"Pf\n2 2\n-255\n" + np.float32([0, 1, 0, 1]).tobytes(), "scale=255"),
    "PGM over its maxval": (b"P5\n2 2\n1\n" + bytes([0, 1, 2, 3]), "over its maxval=1"),
    "PPM over its maxval": (b"P6\n2 2\n300\n" + b"\1\55" * 12, "over its maxval=300"),
    "PGM in words over its maxval": (b"P2\n2 2\n2\n0 1 2 3\n", "too large"),
    "PGM in words below 0": (b"P2\n2 2\n2\n0 1 2 -3\n", "negative"),
    "PFM in colour": (b"PF\n2 2\n-1\n" + bytes(48), "no decoder"),
    "PAM": (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nENDHDR\n" + bytes(4), "no decoder"),
    "Pillow's own PPM": (b"PyCMYK\n2 2\n255\n" + bytes(16), "only Pillow knows"),
    "BMP of 4 bits a colour": (
        bmp(_rows(SMALL, 16), 2, 16, compression=3, masks=(0xF00, 0xF0, 0xF, 0xF000), header=56),
        "bitfields layout",
    ),
    "BMP of 2 bits": (bmp(_rows(LEVELS[2], 2), 2, 2, palette=bytes(16)), "pixel depth"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_of_no_known_meaning_are_unsupported(name: str) -> None:
    """What no rule gives a meaning, or would become one colour, is 'unsupported format'."""
    content, words = REFUSED[name]
    err = refusal(content)
    assert err.reason is Reason.UNSUPPORTED_FORMAT
    assert words in err.detail


ONE = {
    "PNG, 16 bits": png(SMALL * 0 + 300, 16, 0),
    "PNG, RGB, 16 bits": png(DEEP * 0 + 300, 16, 2),
    "PNG, grey and alpha, 16 bits": png(np.dstack([SMALL * 0 + 300, SMALL * 0]), 16, 4),
    "PNG, transparent": png(np.dstack([COLORS * 0 + 7, CLEAR]), 8, 6),
    "PPM, 16 bits": _pnm(b"P6", 65535, DEEP * 0 + 300),
    "PPM in words, 16 bits": _pnm(b"P3", 65535, DEEP * 0 + 300),
    "PFM": b"Pf\n2 2\n-1\n" + np.float32([0.5] * 4).tobytes(),
}


@pytest.mark.parametrize("name", ONE)
def test_a_photo_of_one_sample_is_one_colour(name: str) -> None:
    """A photo that holds one colour is one, whatever its depth and its transparency."""
    pixels = decode_full_size(ONE[name])
    assert (pixels == pixels[0, 0]).all()
