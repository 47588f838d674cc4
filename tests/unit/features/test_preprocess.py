"""What must hold between the bytes of a photo and the pixels that a model takes."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, PngImagePlugin

from verger.features.preprocess import (
    DecodeError,
    Photo,
    decode_full_size,
    decode_photo,
    normalize,
    resize_image,
    to_rgb,
)
from verger.schema import Reason

Pixels = npt.NDArray[np.uint8]

ORIENTATION = 0x0112  # EXIF

#: (mode, format) of files that Pillow opens in that mode again; RGBX opens as RGB.
MODES = (
    ("1", "PNG"),
    ("1", "TIFF"),
    ("1", "BMP"),
    ("L", "JPEG"),
    ("L", "PNG"),
    ("L", "TIFF"),
    ("LA", "PNG"),
    ("LA", "TIFF"),
    ("P", "PNG"),
    ("P", "GIF"),
    ("P", "BMP"),
    ("P", "TIFF"),
    ("P, transparency", "PNG"),
    ("P, transparency", "GIF"),
    ("PA", "TIFF"),
    ("RGB", "JPEG"),
    ("RGB", "PNG"),
    ("RGB", "WEBP"),
    ("RGB", "TIFF"),
    ("RGB", "AVIF"),
    ("RGB", "PPM"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("RGBA", "TIFF"),
    ("RGBX", "TIFF"),
    ("CMYK", "JPEG"),
    ("CMYK", "TIFF"),
    ("YCbCr", "TIFF"),
    ("LAB", "TIFF"),
    ("I", "TIFF"),
    ("I;16", "PNG"),
    ("I;16", "TIFF"),
    ("I;16B", "TIFF"),
    ("F", "TIFF"),
)
TURNED = ("JPEG", "PNG", "WEBP", "TIFF")  # formats that Pillow writes EXIF to


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    shape = (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """Ramps in red and green, which survive JPEG."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


def in_mode(mode: str, width: int, height: int, seed: int) -> Image.Image:
    if mode.startswith("I;16"):
        grey = np.random.default_rng(seed).integers(0, 65536, (height, width))
        return Image.fromarray(grey.astype(">u2" if mode == "I;16B" else "<u2"))
    image = noise(width, height, seed)
    if mode == "I":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) << 23)
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    if mode == "P, transparency":
        image = image.convert("P")
        image.info["transparency"] = 0
        return image
    if mode == "RGBA":
        image.putalpha(noise(width, height, seed + 1).convert("L"))
    if mode in ("LA", "PA"):
        image = image.convert("L" if mode == "LA" else "P")
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    return image.convert(mode)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def chunk(kind: bytes, data: bytes) -> bytes:
    sum_ = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + sum_


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    """Write a PNG by hand; ``rows`` each with their filter byte 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def reason_of(content: bytes, **options: Any) -> Reason:
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=8, **options)
    return caught.value.reason


# ---- every mode, size and turn -------------------------------------------------------------


def test_modes_are_kept_by_their_formats() -> None:
    """The files of this module are read back in the mode that they stand for."""
    for mode, form in MODES:
        opened = Image.open(io.BytesIO(encoded(in_mode(mode, 5, 4, 1), form)))
        assert opened.mode == {"RGBX": "RGB"}.get(mode, mode.partition(",")[0]), (mode, form)


@settings(max_examples=120)
@given(
    mode_and_format=st.sampled_from(MODES),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    turn=st.integers(1, 8),
    size=st.sampled_from([1, 32, 224]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_mode_size_and_turn_decodes(
    mode_and_format: tuple[str, str], width: int, height: int, turn: int, size: int, seed: int
) -> None:
    """Any mode, size and EXIF turn decodes to uint8 (size, size, 3) and the size as it is seen."""
    mode, form = mode_and_format
    turn = turn if form in TURNED else 1
    options = {"exif": exif(turn)} if form in TURNED else {}
    photo = decode_photo(encoded(in_mode(mode, width, height, seed), form, **options), size=size)
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (size, size, 3)
    seen = (height, width) if turn >= 5 else (width, height)
    assert (photo.width, photo.height) == seen


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_extreme_shapes_decode_to_their_colour(form: str, size: tuple[int, int]) -> None:
    """A photo of one colour keeps it, however small or narrow the photo is."""
    image = Image.new("RGB", size, (200, 100, 50))
    photo = decode_photo(
        encoded(image, form, **({"quality": 100} if form == "JPEG" else {})), size=224
    )
    assert (photo.width, photo.height) == size
    np.testing.assert_allclose(photo.pixels, np.full((224, 224, 3), (200, 100, 50)), atol=2)


@pytest.mark.parametrize("mode", ["RGBa", "HSV", "LAB", "RGBX", "YCbCr", "CMYK"])
def test_modes_that_no_format_keeps_convert_too(mode: str) -> None:
    """Modes that only plug-ins give are converted without an error, to the colour they hold."""
    if mode == "LAB":
        image = Image.new("LAB", (3, 2), (255, 128, 128))  # white, with Pillow's offset of 128
    else:
        white = Image.new("RGBA", (3, 2), "white")
        image = (
            white.convert("RGB") if mode in ("HSV", "RGBX", "YCbCr", "CMYK") else white
        ).convert(mode)
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    np.testing.assert_allclose(np.asarray(rgb), 255, atol=2)


# ---- the notebook's rule -------------------------------------------------------------------


@settings(max_examples=30)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
    progressive=st.booleans(),
    quality=st.integers(30, 100),
)
def test_rgb_jpegs_decode_as_in_the_notebook(
    width: int, height: int, seed: int, progressive: bool, quality: int
) -> None:
    """Pixels of an RGB JPEG equal the notebook's convert and resize, to the bit."""
    content = encoded(noise(width, height, seed), "JPEG", progressive=progressive, quality=quality)
    notebook = Image.open(io.BytesIO(content)).convert("RGB").resize((224, 224))
    np.testing.assert_array_equal(decode_photo(content, size=224).pixels, np.asarray(notebook))


def test_normalize_is_keras_preprocess_input_to_the_bit() -> None:
    """With mean = std = 127.5 every level is x / 127.5 - 1 in float32, to the bit."""
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    keras = levels.astype(np.float32)
    keras /= np.float32(127.5)
    keras -= np.float32(1.0)
    found = normalize(levels, mean=(127.5,), std=(127.5,))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), keras.view(np.uint32))


def test_normalize_takes_the_channels_apart() -> None:
    """Three means and spreads go to red, green and blue, each as (x - mean) / std."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    expected = (pixels.astype(np.float64) - mean) / std
    found = normalize(pixels, mean=mean, std=std)
    assert found.shape == pixels.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)
    elsewhere = np.asfortranarray(pixels)
    np.testing.assert_array_equal(normalize(elsewhere, mean=mean, std=std), found)


def test_normalize_leaves_its_input_alone() -> None:
    """The caller's pixels are the same afterwards, and no pixels give no pixels."""
    pixels = np.full((1, 2, 2, 3), 7, dtype=np.uint8)
    normalize(pixels, mean=(127.0,), std=(128.0,))
    assert (pixels == 7).all()
    assert normalize(pixels[:0], mean=(0.0,), std=(1.0,)).shape == (0, 2, 2, 3)


# ---- the EXIF turn -------------------------------------------------------------------------

# What row 0 and column 0 of the file are in the upright photo: EXIF 2.32, tag 0x0112.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(upright: Pixels, orientation: int) -> Pixels:
    """Turn upright pixels (height, width, 3) to the rows and columns that a camera stores."""
    row_0, column_0 = SIDES[orientation]
    stored = upright if row_0 in ("top", "bottom") else upright.transpose(1, 0, 2)
    if row_0 in ("bottom", "right"):
        stored = stored[::-1]
    if column_0 in ("bottom", "right"):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_turns_the_photo_upright(form: str, orientation: int) -> None:
    """A photo stored in any of the eight EXIF orientations decodes to the upright one."""
    upright = np.asarray(smooth(48, 32)).copy()
    upright[:8, :8] = (255, 255, 255)  # top left
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    content = encoded(
        Image.fromarray(as_stored(upright, orientation)),
        form,
        exif=exif(orientation),
        **options.get(form, {}),
    )
    photo = decode_photo(content, size=16)
    assert (photo.width, photo.height) == (48, 32)
    expected = np.asarray(Image.fromarray(upright).resize((16, 16)))
    np.testing.assert_allclose(photo.pixels, expected, atol=4 if form == "JPEG" else 0)


def test_exif_turn_of_a_16_bit_grey() -> None:
    """A 16-bit grey photo is turned upright too."""
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * 8192
    content = encoded(Image.fromarray(grey), "PNG", exif=exif(6))
    photo = decode_photo(content, size=2)
    assert (photo.width, photo.height) == (2, 3)
    expected = Image.fromarray((np.rot90(grey, -1) >> 8).astype(np.uint8)).resize((2, 2), 3)
    np.testing.assert_array_equal(photo.pixels[..., 0], np.asarray(expected))


def exif_block(*entries: bytes, data: bytes = b"") -> bytes:
    """Write an EXIF block by hand; ``data`` follows the one directory."""
    directory = struct.pack(">H", len(entries)) + b"".join(entries) + struct.pack(">I", 0)
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory + data


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")


def turned(orientation: int) -> bytes:
    return entry(ORIENTATION, 3, 1, struct.pack(">H", orientation))


EXIF_NOISE = b"Exif\0\0" + bytes(range(1, 90))
WHOLE_EXIF = exif_block(turned(6))
BROKEN_EXIF = {
    "empty": b"Exif\0\0",
    "no directory": b"Exif\0\0MM\0*\0\0\0\x08",
    "cut in the directory": WHOLE_EXIF[:20],
    "directory far outside": b"Exif\0\0MM\0*\x7f\xff\xff\xff",
    "orientation 0": exif_block(turned(0)),
    "orientation 9": exif_block(turned(9)),
    "orientation is text": exif_block(entry(ORIENTATION, 2, 4, b"abc\0")),
    "text far outside": exif_block(entry(0x010F, 2, 99, struct.pack(">I", 1 << 30))),
}


def test_exif_noise_does_not_stop_decoding_a_jpeg() -> None:
    """A JPEG whose EXIF block is noise decodes as if it had none."""
    content = encoded(smooth(32, 24), "JPEG", exif=EXIF_NOISE)
    assert decode_photo(content, size=8).width == 32


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("block", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_broken_exif_does_not_stop_decoding(form: str, block: bytes) -> None:
    """A photo with a broken EXIF block, or one that says no turn, decodes as if it had none."""
    image = smooth(32, 24)
    with_block = decode_photo(encoded(image, form, exif=block), size=16)
    without = decode_photo(encoded(image, form), size=16)
    assert (with_block.width, with_block.height) == (32, 24)
    np.testing.assert_array_equal(with_block.pixels, without.pixels)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_exif_that_is_none_does_not_stop_decoding(form: str) -> None:
    """A PNG or WebP whose EXIF block is noise decodes as if it had none."""
    content = encoded(smooth(32, 24), form, exif=EXIF_NOISE)
    assert decode_photo(content, size=8).width == 32


@pytest.mark.parametrize(
    "other",
    [entry(0x010F, 5, 1, struct.pack(">I", 38)), entry(0x0101, 5, 1, struct.pack(">I", 38))],
    ids=["Make as a fraction", "ImageLength as a fraction"],
)
def test_odd_exif_tag_does_not_stop_the_turn(other: bytes) -> None:
    """A photo that is to be turned decodes whatever its other EXIF tags hold."""
    block = exif_block(other, turned(6), data=struct.pack(">II", 72, 1))
    photo = decode_photo(encoded(smooth(32, 24), "JPEG", exif=block), size=8)
    assert (photo.width, photo.height) == (24, 32)


def test_warnings_filter_does_not_decide_on_a_photo() -> None:
    """A photo is not rejected for a warning, even in a process that makes warnings errors."""
    content = encoded(smooth(32, 24), "JPEG", exif=BROKEN_EXIF["text far outside"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_photo(content, size=8).width == 32


# ---- transparency --------------------------------------------------------------------------


def seen_colours(content: bytes) -> Pixels:
    """Return the colours of a photo of one colour: (n, 3) without repetition."""
    return np.unique(decode_photo(content, size=8).pixels.reshape(-1, 3), axis=0)


def with_palette(transparency: int | bytes) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.info["transparency"] = transparency
    return image


GREY_ROW, RGB_ROW = b"\0" + b"\x05" * 8, b"\0" + b"\x01\x02\x03" * 8
TRANSPARENT = {
    "RGBA PNG": encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG"),
    "RGBA WebP": encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "WEBP", lossless=True),
    "RGBA TIFF": encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "TIFF"),
    "RGBA AVIF": encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "AVIF"),
    "LA PNG": encoded(Image.new("LA", (8, 8), (50, 0)), "PNG"),
    "LA TIFF": encoded(Image.new("LA", (8, 8), (50, 0)), "TIFF"),
    "P PNG, one index": encoded(with_palette(1), "PNG"),
    "P PNG, alphas": encoded(with_palette(b"\xff\x00"), "PNG"),
    "P GIF": encoded(with_palette(1), "GIF"),
    "grey PNG, one level": png(8, 8, 8, 0, GREY_ROW * 8, chunk(b"tRNS", b"\0\x05")),
    "RGB PNG, one colour": png(8, 8, 8, 2, RGB_ROW * 8, chunk(b"tRNS", b"\0\x01\0\x02\0\x03")),
    "16-bit grey and alpha PNG": png(8, 8, 16, 4, (b"\0" + b"\x75\x30\0\0" * 8) * 8),
}


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_pixels_become_white(content: bytes) -> None:
    """Fully transparent pixels are white, whatever colour they hide and however it is said."""
    assert seen_colours(content).tolist() == [[255, 255, 255]]


def test_transparent_level_of_a_16_bit_grey_becomes_white() -> None:
    """The level of a 16-bit grey PNG that is declared transparent is white."""
    rows = (b"\0" + b"\x75\x30" * 8) * 8
    content = png(8, 8, 16, 0, rows, chunk(b"tRNS", b"\x75\x30"))
    assert seen_colours(content).tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("alpha", [0, 1, 64, 128, 254, 255])
def test_half_transparent_pixels_are_blended_with_white(alpha: int) -> None:
    """A pixel of opacity a is a * colour + (1 - a) * white, to one level."""
    content = encoded(Image.new("RGBA", (8, 8), (0, 100, 255, alpha)), "PNG")
    share = alpha / 255
    expected = [255 * (1 - share), 100 * share + 255 * (1 - share), 255]
    np.testing.assert_allclose(seen_colours(content), [expected], atol=1)


def test_opaque_pixels_keep_their_colour() -> None:
    """Where nothing is transparent an alpha channel changes nothing."""
    image = noise(20, 30)
    plain = decode_photo(encoded(image, "PNG"), size=16)
    with_alpha = decode_photo(encoded(image.convert("RGBA"), "PNG"), size=16)
    np.testing.assert_array_equal(with_alpha.pixels, plain.pixels)


# ---- greys, inks, frames -------------------------------------------------------------------


def grey_16(dtype: str = "<u2") -> Image.Image:
    """Eight levels from black to white in columns, 16 bits."""
    return Image.fromarray(np.linspace(0, 65535, 8).astype(dtype)[None].repeat(8, axis=0))


GREY_LEVELS = np.linspace(0, 65535, 8).astype(np.uint16) >> 8


@pytest.mark.parametrize(("form", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_grey_keeps_its_brightness(form: str, dtype: str) -> None:
    """A 16-bit grey is its high byte, not clipped to white."""
    photo = decode_photo(encoded(grey_16(dtype), form), size=8)
    np.testing.assert_array_equal(photo.pixels[0], np.stack([GREY_LEVELS] * 3, axis=-1))


def test_16_bit_pgm_keeps_its_brightness() -> None:
    """A 16-bit grey is its high byte in a PGM file too, as the feature contract says."""
    photo = decode_photo(encoded(grey_16(), "PPM"), size=8)
    np.testing.assert_array_equal(photo.pixels[0], np.stack([GREY_LEVELS] * 3, axis=-1))


def test_16_bit_colours_keep_their_high_byte() -> None:
    """A PNG of 16 bits a colour decodes to the high bytes."""
    rows = (b"\0" + struct.pack(">HHH", 30000, 60000, 10) * 8) * 8
    assert seen_colours(png(8, 8, 16, 2, rows)).tolist() == [[30000 >> 8, 60000 >> 8, 0]]


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
)
def test_cmyk_jpeg_keeps_its_colour(colour: tuple[int, int, int]) -> None:
    """A CMYK JPEG decodes to the colour that its inks print, not to the negative."""
    content = encoded(Image.new("RGB", (16, 16), colour).convert("CMYK"), "JPEG", quality=100)
    np.testing.assert_allclose(
        decode_photo(content, size=8).pixels, np.full((8, 8, 3), colour), atol=3
    )


def test_progressive_jpeg_gives_the_pixels_of_the_baseline_one() -> None:
    """The order of a JPEG's coefficients does not change its pixels."""
    image = smooth(120, 90)
    baseline, progressive = (encoded(image, "JPEG", progressive=p) for p in (False, True))
    assert baseline != progressive
    one, other = (decode_photo(content, size=64).pixels for content in (baseline, progressive))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animation_gives_its_first_frame(form: str) -> None:
    """Of several frames or pages the first one counts."""
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    content = encoded(red, form, save_all=True, append_images=[blue, blue])
    np.testing.assert_allclose(
        decode_photo(content, size=8).pixels, np.full((8, 8, 3), (255, 0, 0)), atol=3
    )


# ---- photos that give no pixels ------------------------------------------------------------

JPEG = encoded(smooth(120, 90), "JPEG")
PNG = encoded(noise(40, 30), "PNG")


def test_no_bytes_are_empty() -> None:
    """A file of 0 bytes is 'empty'."""
    assert reason_of(b"") is Reason.EMPTY


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
    ],
    ids=["JPEG", "progressive JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"],
)
def test_cut_off_photos_are_truncated(form: str, options: dict[str, Any], share: float) -> None:
    """A photo cut anywhere is 'truncated', and never passed with a grey rest."""
    content = encoded(noise(60, 80), form, **options)
    assert reason_of(content[: int(len(content) * share)]) is Reason.TRUNCATED


@pytest.mark.parametrize("n_bytes", [3, 10, 30, 100, len(JPEG) - 2, len(JPEG) - 1])
def test_jpeg_cut_in_its_header_or_tail_is_truncated(n_bytes: int) -> None:
    """A JPEG cut within its first segments, or short of its end marker, is 'truncated'."""
    assert reason_of(JPEG[:n_bytes]) is Reason.TRUNCATED


@pytest.mark.parametrize("n_bytes", [8, 20, 33, 40, 50])
def test_png_cut_in_its_header_is_truncated(n_bytes: int) -> None:
    """A PNG cut within its header, or just behind it, is 'truncated'."""
    assert reason_of(PNG[:n_bytes]) is Reason.TRUNCATED


CUT_OFF = {
    "WebP": encoded(noise(60, 80), "WEBP")[:1000],
    "WebP in its header": encoded(noise(60, 80), "WEBP")[:14],
    "AVIF in its pixels": encoded(noise(60, 80), "AVIF")[:-20],
    "JPEG between two segments": JPEG[: JPEG.index(b"\xff\xc4")],
}


@pytest.mark.parametrize("content", CUT_OFF.values(), ids=CUT_OFF)
def test_cut_off_photos_of_other_formats_are_truncated(content: bytes) -> None:
    """A photo cut off is 'truncated', not 'not an image' or 'unsupported', in any format."""
    assert reason_of(content) is Reason.TRUNCATED


def test_avif_cut_in_its_header_is_truncated() -> None:
    """The same holds of AVIF where not all of its header is there."""
    content = encoded(noise(60, 80), "AVIF")
    assert decode_photo(content, size=8).width == 60
    assert reason_of(content[:1000]) is Reason.TRUNCATED


@pytest.mark.parametrize(
    "magic",
    [
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"RIFF\x99\0\0\0WEBPVP8 ",
    ],
)
def test_broken_photos_are_truncated(magic: bytes) -> None:
    """Noise behind the first bytes of a photo is a broken photo, not another kind of file."""
    assert reason_of(magic + b"\xa5" * 40) is Reason.TRUNCATED


@pytest.mark.parametrize("tail", [b"\0", b"garbage" * 999, JPEG], ids=["byte", "text", "a JPEG"])
@pytest.mark.parametrize("progressive", [False, True])
def test_whole_jpeg_with_a_tail_decodes(progressive: bool, tail: bytes) -> None:
    """What a camera or a card leaves behind the end of a whole JPEG changes nothing."""
    whole = encoded(smooth(60, 80), "JPEG", progressive=progressive)
    photo = decode_photo(whole + tail, size=16)
    assert (photo.width, photo.height) == (60, 80)
    np.testing.assert_array_equal(photo.pixels, decode_photo(whole, size=16).pixels)


@pytest.mark.parametrize("n_bytes", [None, 60, 5000])
def test_jpeg_2000_is_not_supported(n_bytes: int | None) -> None:
    """A JPEG 2000 is refused, whole or not: Pillow gives black for one cut in its first tile."""
    content = encoded(noise(60, 80), "JPEG2000")[:n_bytes]
    assert reason_of(content) is Reason.UNSUPPORTED_FORMAT


NOT_IMAGES = {
    "text": b"Dear reader,\n" * 20,
    "html": b"<!doctype html><title>Sign in</title>",
    "zeros": bytes(500),
    "one byte": b"\xff",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
}


@pytest.mark.parametrize("content", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_other_files_are_not_images(content: bytes) -> None:
    """Bytes of no picture format are 'not an image'."""
    assert reason_of(content) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("form", ["EPS", "ICO", "ICNS", "PCX", "DDS", "SGI"])
def test_formats_of_no_photo_are_not_tried(form: str) -> None:
    """Pictures that no camera writes are left alone, though Pillow could read them."""
    content = encoded(noise(32, 32), form)
    assert Image.open(io.BytesIO(content)).format == form
    assert reason_of(content) is Reason.NOT_AN_IMAGE


UNSUPPORTED = {
    "mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(range(200)),
    "webp of an unknown coding": b"RIFF\x40\0\0\0WEBPVP9 " + bytes(52),
    "bmp of an unknown kind": b"BM" + bytes(12) + struct.pack("<I", 13) + bytes(200),
}


@pytest.mark.parametrize("content", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_formats_without_a_decoder_are_unsupported(content: bytes) -> None:
    """Bytes that say to be media which this Pillow cannot decode are 'unsupported format'."""
    assert reason_of(content) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    "content",
    [b"\xff\x0a" + bytes(range(200)), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200)],
    ids=["bare", "in a container"],
)
def test_jpeg_xl_is_unsupported(content: bytes) -> None:
    """A JPEG XL photo is 'unsupported format', not 'not an image'."""
    assert reason_of(content) is Reason.UNSUPPORTED_FORMAT


def test_too_many_pixels_are_refused_by_the_header() -> None:
    """A file of 100 bytes whose header says 20000x20000 is refused before it is decoded."""
    content = png(20_000, 20_000, 1, 0, bytes(100))
    with pytest.raises(
        DecodeError, match=r"\(400000000 pixels\) is more than max_pixels=200000000"
    ) as caught:
        decode_photo(content, size=8)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS


def test_max_pixels_is_the_last_number_allowed() -> None:
    """A photo of exactly max_pixels decodes, one of a row more does not."""
    assert decode_photo(encoded(noise(10, 10), "PNG"), size=8, max_pixels=100).width == 10
    assert reason_of(encoded(noise(10, 11), "PNG"), max_pixels=100) is Reason.TOO_MANY_PIXELS


def test_too_many_pixels_inside_an_icon_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG inside an icon that says to be smaller than it is, is refused before it is decoded."""
    decoded = []

    def load(image: PngImagePlugin.PngImageFile) -> None:
        decoded.append(image.size)
        raise OSError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    inner = png(2000, 2000, 1, 0, bytes(251 * 2000))
    head = struct.pack("<HHH", 0, 1, 1) + struct.pack(
        "<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22
    )
    reason_of(head + inner, max_pixels=1000)
    assert decoded == []


def test_no_photo_starts_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file is rejected without Ghostscript being run on it."""
    started = []

    def check_call(command: list[str], *args: Any, **options: Any) -> None:
        started.append(command)
        raise OSError("no program may be started")

    monkeypatch.setattr(subprocess, "check_call", check_call)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    reason_of(encoded(Image.new("RGB", (8, 8)), "EPS"))
    assert started == []


# ---- hostile bytes -------------------------------------------------------------------------

DECODING = {
    Reason.EMPTY,
    Reason.TRUNCATED,
    Reason.NOT_AN_IMAGE,
    Reason.UNSUPPORTED_FORMAT,
    Reason.TOO_MANY_PIXELS,
}
MAGIC = (
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF",
    b"\0\0\0\x0cftypavif",
    b"P6 9 9 255\n",
    b"\0\0\x01\0\x01\0",
    b"icns",
    b"8BPS",
    b"DDS ",
)


def photo_or_reason(content: bytes) -> None:
    failure = None
    try:
        photo = decode_photo(content, size=8, max_pixels=1_000_000)
    except DecodeError as err:
        failure = err
    if failure is not None:
        assert failure.reason in DECODING
        assert 0 < len(failure.detail) <= 200
        assert "\n" not in failure.detail
        return
    assert isinstance(photo, Photo)
    assert photo.pixels.shape == (8, 8, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.width * photo.height <= 1_000_000


@settings(max_examples=200)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=400))
def test_any_bytes_give_a_photo_or_a_reason(magic: bytes, rest: bytes) -> None:
    """Arbitrary bytes give a Photo or a DecodeError of the closed list, nothing else."""
    photo_or_reason(magic + rest)


SMALL = [
    encoded(smooth(24, 16), form, **options)
    for form, options in [
        ("JPEG", {"exif": WHOLE_EXIF}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("TIFF", {}),
    ]
]


@settings(max_examples=300)
@given(
    content=st.sampled_from(SMALL),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.floats(0.01, 1),
)
def test_damaged_photos_give_a_photo_or_a_reason(
    content: bytes, changes: list[tuple[float, int]], keep: float
) -> None:
    """Photos with bytes changed and cut off give a Photo or a DecodeError of the closed list."""
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    photo_or_reason(bytes(damaged[: int(len(damaged) * keep)]))


def test_decode_error_says_reason_and_detail() -> None:
    """The text of a DecodeError is its reason and what the decoder said."""
    err = DecodeError(Reason.TRUNCATED, "image file is truncated")
    assert str(err) == "truncated: image file is truncated"


def test_decode_error_crosses_processes() -> None:
    """A DecodeError can be pickled, so that a pool of processes may raise it."""
    err = pickle.loads(pickle.dumps(DecodeError(Reason.EMPTY, "0 bytes")))
    assert (err.reason, err.detail) == (Reason.EMPTY, "0 bytes")


# ---- full size -----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_full_size_is_upright_and_whole(orientation: int) -> None:
    """What an app shows: turned, and of a large JPEG every pixel, which the model needs not."""
    upright = np.asarray(smooth(900, 1000))
    stored = Image.fromarray(as_stored(upright, orientation))
    content = encoded(stored, "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode_full_size(content), upright)
    found = decode_full_size(encoded(stored, "JPEG", exif=exif(orientation), quality=100))
    assert found.shape == (1000, 900, 3)
    assert np.abs(found.astype(int) - upright).mean() < 2


def test_full_size_is_resized_to_what_the_model_is_given() -> None:
    content = encoded(noise(300, 200), "PNG")
    image = Image.fromarray(decode_full_size(content))
    expected = decode_photo(content, size=96).pixels
    np.testing.assert_array_equal(np.asarray(resize_image(image, 96)), expected)


def test_full_size_keeps_the_bounds_of_a_photo() -> None:
    content = encoded(noise(30, 20), "JPEG")
    for broken, reason in ((content[:-200], Reason.TRUNCATED), (b"", Reason.EMPTY)):
        with pytest.raises(DecodeError) as raised:
            decode_full_size(broken)
        assert raised.value.reason is reason
    with pytest.raises(DecodeError, match="30x20 is more than max_pixels=599"):
        decode_full_size(content, max_pixels=599)
