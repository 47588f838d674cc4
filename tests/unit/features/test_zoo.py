"""Hostile and odd photos: each has its right colours, or exactly the reason why it has none."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import threading
import types
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import AvifImagePlugin, Image, ImageFile

from support.corpus import (
    BLUE,
    COLORS,
    GREEN,
    GREY,
    HEIGHT,
    RED,
    WHITE,
    WIDTH,
    Specimen,
    animated,
    chunk,
    corners,
    encoded,
    exif,
    grey_16,
    png_with,
    quarters,
    srgb,
    without_segment,
    zoo,
)
from verger.features.preprocess import (
    DCT_MARGIN,
    DecodeError,
    Photo,
    decode_photo,
    register_formats,
    to_rgb,
)
from verger.features.preprocess import pixels as pixels_module
from verger.schema import Reason

ZOO = zoo()
JPEG, PNG = ZOO["JPEG baseline"].content, ZOO["PNG RGB"].content


#: Sizes of the model's input for which the JPEGs here are decoded at a reduced scale, and whole.
SCALES = pytest.mark.parametrize("size", [16, 100], ids=["reduced", "full"])


def error_of(content: bytes, *, size: int = 16, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=size, **options)
    return caught.value


def assert_colors(content: bytes, specimen: Specimen, **options: Any) -> Photo:
    photo = decode_photo(content, size=16, **options)
    assert photo.pixels.shape == (16, 16, 3)
    assert photo.pixels.dtype == np.uint8
    assert (photo.width, photo.height) == specimen.size
    np.testing.assert_allclose(corners(photo.pixels), specimen.colors, atol=specimen.tolerance)
    return photo


# ---- formats and modes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_every_format_and_mode_keeps_its_colours(name: str) -> None:
    """A photo of four colours has them in their places, whatever its format and mode."""
    photo = assert_colors(ZOO[name].content, ZOO[name])
    assert not photo.truncated


@pytest.mark.parametrize("name", ZOO)
def test_a_whole_photo_is_the_same_where_cut_off_ones_are_accepted(name: str) -> None:
    """``accept_truncated`` changes no pixel of a whole photo, and does not mark it."""
    plain, lenient = (
        decode_photo(ZOO[name].content, size=16, accept_truncated=accept)
        for accept in (False, True)
    )
    np.testing.assert_array_equal(lenient.pixels, plain.pixels)
    assert not lenient.truncated


def test_the_zoo_has_every_format_and_mode() -> None:
    """The zoo's files are what their names say, and none of the formats is missing."""
    opened = {name: Image.open(io.BytesIO(photo.content)) for name, photo in ZOO.items()}
    formats = {image.format for image in opened.values()}
    assert formats == {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM"}
    modes = {image.mode for image in opened.values()}
    assert modes >= {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F"}
    adobe = {name: b"Adobe" in photo.content for name, photo in ZOO.items() if "CMYK," in name}
    assert adobe == {
        "JPEG CMYK, Adobe": True,
        "JPEG CMYK, no Adobe": False,
        "JPEG CMYK, progressive": True,
    }


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_turn_in_every_format(form: str, orientation: int) -> None:
    """Colours and sides are where the EXIF orientation puts them (EXIF 2.32, tag 0x0112)."""
    red, green, blue, grey = COLORS
    seen = {
        1: (red, green, blue, grey),
        2: (green, red, grey, blue),
        3: (grey, blue, green, red),
        4: (blue, grey, red, green),
        5: (red, blue, green, grey),
        6: (blue, red, grey, green),
        7: (grey, green, blue, red),
        8: (green, grey, red, blue),
    }[orientation]
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    content = encoded(quarters(), form, exif=exif(orientation), **options.get(form, {}))
    size = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    assert_colors(content, Specimen(b"", seen, tolerance=10, size=size))


SHAPES = [
    (form, size)
    for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "AVIF")
    for size in ((1, 1), (1, 20_000), (20_000, 1), (2, 3))
    if form != "WEBP" or max(size) < 1 << 14  # its limit
]


@pytest.mark.parametrize(("form", "size"), SHAPES)
def test_extreme_shapes_keep_their_colour(form: str, size: tuple[int, int]) -> None:
    """A photo of 1x1, 1x20000 or 20000x1 keeps its colour, in any format."""
    options = {"speed": 10} if form == "AVIF" else {}
    photo = decode_photo(encoded(Image.new("RGB", size, (200, 100, 50)), form, **options), size=8)
    assert (photo.width, photo.height) == size
    np.testing.assert_allclose(photo.pixels, np.full((8, 8, 3), (200, 100, 50)), atol=5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_large_photos_are_converted_in_strips_without_a_seam(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversion of a few rows at a time gives the pixels of conversion at once."""
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (50, 7)).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (50, 7, 4), dtype=np.uint8)).convert(mode)
    if mode in ("P", "I;16"):
        image.info["transparency"] = 7 if mode == "P" else int(np.asarray(image)[3, 3])
    at_once = to_rgb(image)
    monkeypatch.setattr(pixels_module, "STRIP_PIXELS", 7 * 4)  # 4 rows, and 2 at the end
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(at_once))


@pytest.mark.parametrize("level", [-1e30, float("nan"), float("inf"), 1e30])
def test_floats_far_out_of_range_are_unsupported(level: float) -> None:
    """A TIFF of floats that no grey can hold is 'unsupported format'."""
    image = Image.fromarray(np.full((4, 4), level, np.float32))
    with pytest.raises(DecodeError, match="outside of its range from 0 to 1") as caught:
        decode_photo(encoded(image, "TIFF"), size=8)
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


# ---- what lies beside the pixels -----------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "size_bytes"),
    [("JPEG", 65_000), ("PNG", 5_000_000), ("WEBP", 5_000_000), ("TIFF", 5_000_000)],
)
def test_huge_exif_does_not_stop_the_turn(form: str, size_bytes: int) -> None:
    """A photo with megabytes of EXIF is turned as it says."""
    tags = Image.Exif()
    tags[0x0112] = 6
    tags[0x9286] = b"x" * size_bytes  # UserComment
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    content = encoded(quarters(), form, exif=tags, **options.get(form, {}))
    turned = Specimen(b"", (BLUE, RED, GREY, GREEN), tolerance=8, size=(HEIGHT, WIDTH))
    assert_colors(content, turned)


PROFILES = {
    "sRGB": srgb(),
    "noise": bytes(range(256)),
    "broken": srgb()[:200],
    "huge": bytes(2_000_000),
}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_no_colour_profile_changes_a_pixel(form: str, profile: bytes) -> None:
    """A photo with a colour profile, whole, broken or huge, has the pixels of one without."""
    with_profile = decode_photo(encoded(quarters(), form, icc_profile=profile), size=16)
    without = decode_photo(encoded(quarters(), form), size=16)
    np.testing.assert_array_equal(with_profile.pixels, without.pixels)


LONG = zlib.compress(bytes(2_000_000))
BESIDE = {
    "zTXt": chunk(b"zTXt", b"prompt\0\0" + LONG),
    "iTXt": chunk(b"iTXt", b"prompt\0\1\0\0\0" + LONG),
    "iCCP": chunk(b"iCCP", b"scanner\0\0" + LONG),
    "broken iCCP": chunk(b"iCCP", b"scanner\0\0noise"),
    "unknown chunk": chunk(b"abCd", bytes(2_000_000)),
}


@pytest.mark.parametrize("extra", BESIDE.values(), ids=BESIDE)
def test_long_texts_in_a_png_do_not_stop_decoding(extra: bytes) -> None:
    """A PNG with 2 MB of text or profile decodes: image generators write such."""
    assert_colors(png_with(PNG, extra), ZOO["PNG RGB"])


def test_text_bomb_in_a_png_is_not_unpacked() -> None:
    """A PNG whose text would unpack to more than 64 MiB decodes: no text is read."""
    bomb = chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(65 << 20)))
    assert_colors(png_with(PNG, bomb), ZOO["PNG RGB"])


def test_broken_list_of_further_pictures_does_not_stop_decoding() -> None:
    """Of a JPEG whose list of further pictures (MPF) is noise, the first is decoded."""
    content = bytearray(ZOO["JPEG MPO"].content)
    start = content.index(b"MPF\0") + 12
    content[start : start + 40] = bytes(range(40))
    assert_colors(bytes(content), ZOO["JPEG MPO"])


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_jpegs_are_unsupported(bits: int) -> None:
    """A JPEG of 12 or 16 bits a colour is 'unsupported format', not cut off."""
    content = bytearray(JPEG)
    content[content.index(b"\xff\xc0") + 4] = bits
    assert error_of(bytes(content)).reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"])
def test_of_several_pictures_the_first_counts(form: str) -> None:
    """An animation, or a file of several pages, is its first picture."""
    assert_colors(
        animated(form, **({"lossless": True} if form == "WEBP" else {})),
        Specimen(b"", tolerance=20),
    )


# ---- cut off -------------------------------------------------------------------------------


def photo_of(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a photo that takes many bytes in any format; it has no flat part."""
    rng = np.random.default_rng(width * 1000 + height)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    grain = rng.integers(-9, 10, (height, width, 3))
    image = np.clip(np.asarray(small.resize((width, height))) + grain, 0, 255)
    photo = Image.fromarray(image.astype(np.uint8)).convert(mode)
    return Image.fromarray(np.asarray(photo) / np.float32(255)) if mode == "F" else photo


#: (format, mode, options); Pillow decodes a part of the first ones, the others whole or not.
IN_PART = [
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"quality": 100}),
    ("JPEG", "RGB", {"progressive": True}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "L", {}),
    ("GIF", "RGB", {"interlace": 0}),
    ("BMP", "RGB", {}),
    ("DIB", "RGB", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "CMYK", {}),
    ("TIFF", "F", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
]
WHOLE_ONLY = [
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "RGB", {"compression": "zstd"}),
    ("TIFF", "1", {"compression": "group4"}),
]


def sixteenths(content: bytes) -> list[bytes]:
    return [content[: len(content) * part // 16] for part in range(1, 16)]


@SCALES
@pytest.mark.parametrize(("form", "mode", "options"), IN_PART + WHOLE_ONLY)
def test_cut_at_every_sixteenth_is_never_whole(
    form: str, mode: str, options: Any, size: int
) -> None:
    """A photo cut off at any sixteenth of its file is 'truncated', in every format."""
    content = encoded(photo_of(160, 120, mode), form, **options)
    reasons = [error_of(cut, size=size).reason for cut in sixteenths(content)]
    assert reasons == [Reason.TRUNCATED] * 15


@pytest.mark.parametrize(("form", "mode", "options"), IN_PART)
def test_accepted_photos_keep_the_part_that_came(form: str, mode: str, options: Any) -> None:
    """Of a photo that lacks its end the first quarter is right, and it is marked."""
    content = encoded(photo_of(160, 120, mode), form, **options)
    first = slice(12, 16) if form in ("BMP", "DIB") else slice(4)  # those go from bottom to top
    whole = decode_photo(content, size=16).pixels.astype(int)
    for cut in sixteenths(content)[-2:]:
        photo = decode_photo(cut, size=16, accept_truncated=True)
        assert photo.truncated
        assert (photo.width, photo.height) == (160, 120)
        # The late scans of a progressive JPEG bring its last bits.
        tolerance = 6 if "progressive" in options else 0
        np.testing.assert_allclose(photo.pixels[first], whole[first], atol=tolerance)


@pytest.mark.parametrize(("form", "mode", "options"), WHOLE_ONLY)
def test_formats_that_come_whole_or_not_are_rejected_even_so(
    form: str, mode: str, options: Any
) -> None:
    """Where Pillow decodes nothing in part, a cut photo is 'truncated', accepted or not."""
    for cut in sixteenths(encoded(photo_of(160, 120, mode), form, **options)):
        assert error_of(cut, accept_truncated=True).reason is Reason.TRUNCATED


@pytest.mark.parametrize("name", ZOO)
def test_cut_at_any_byte_is_truncated_or_right(name: str) -> None:
    """A file of any kind cut anywhere is rejected, or lacks nothing of its (first) picture.

    A PNG is whole before its end chunk, a GIF before its trailer and a text of numbers before its
    last line break; a JPEG is not before its end marker.
    """
    content = ZOO[name].content
    whole = decode_photo(content, size=16).pixels
    for length in {*range(16, len(content), len(content) // 40 + 1), len(content) - 1}:
        try:
            pixels = decode_photo(content[:length], size=16).pixels
        except DecodeError as err:
            assert err.reason is Reason.TRUNCATED  # noqa: PT017 - either is right
        else:
            np.testing.assert_array_equal(pixels, whole)
            assert name.startswith(("PNG", "GIF", "JPEG MPO", "TIFF", "PPM plain"))


HEADERS = {
    "JPEG": JPEG[: JPEG.index(b"\xff\xda") + 14],
    "JPEG in its tables": JPEG[:200],
    "PNG": PNG[: PNG.index(b"IDAT") + 4],
    "GIF": ZOO["GIF P"].content[:60],
    "BMP": ZOO["BMP RGB"].content[:54],
    "PPM": ZOO["PPM RGB"].content[:13],
    "WebP": ZOO["WEBP lossy"].content[:60],
    "AVIF": ZOO["AVIF RGB"].content[:-40],
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_photos_without_any_pixel_are_rejected_even_so(content: bytes) -> None:
    """A header with no pixel behind it is 'truncated', accepted or not; with the same detail."""
    strict, lenient = error_of(content), error_of(content, accept_truncated=True)
    assert strict.reason is Reason.TRUNCATED
    assert (lenient.reason, lenient.detail) == (strict.reason, strict.detail)


@pytest.mark.parametrize("content", [b"", b"text", bytes(99)], ids=["empty", "text", "zeros"])
def test_accepting_cut_photos_accepts_nothing_else(content: bytes) -> None:
    """What is no photo is rejected as before."""
    reason = error_of(content).reason
    assert error_of(content, accept_truncated=True).reason is reason
    assert reason in (Reason.EMPTY, Reason.NOT_AN_IMAGE)


def test_jpeg_without_its_end_marker_is_truncated() -> None:
    """A JPEG that lacks only its last two bytes is 'truncated'; accepted, its pixels are right."""
    assert error_of(JPEG[:-2]).reason is Reason.TRUNCATED
    photo = decode_photo(JPEG[:-2], size=16, accept_truncated=True)
    assert photo.truncated
    np.testing.assert_array_equal(photo.pixels, decode_photo(JPEG, size=16).pixels)


def test_progressive_jpeg_cut_in_a_scans_header_gives_its_earlier_scans() -> None:
    """The scans before the cut count, though libjpeg gives up at half a header."""
    content = ZOO["JPEG progressive"].content
    cut = content[: content.rindex(b"\xff\xda") + 4]
    photo = decode_photo(cut, size=16, accept_truncated=True)
    assert photo.truncated
    np.testing.assert_allclose(corners(photo.pixels), COLORS, atol=40)


LARGE = encoded(photo_of(200, 150), "JPEG", quality=90)

CLOSED = [
    ("RGB", {"quality": 85}),
    ("RGB", {"quality": 95, "subsampling": 0}),
    ("L", {}),
    ("CMYK", {}),
    ("RGB", {"restart_marker_blocks": 3}),
    ("RGB", {"optimize": True}),
    ("RGB", {"progressive": 1}),
    ("L", {"progressive": 1}),
]


def closed_at(content: bytes, share: float) -> bytes:
    """Cut a JPEG at a share of its scans' bytes and close it with an end marker."""
    start = content.index(b"\xff\xda") + 14
    end = start + int((len(content) - 2 - start) * share)
    return content[:end].rstrip(b"\xff") + b"\xff\xd9"


@SCALES
@pytest.mark.parametrize(("mode", "options"), CLOSED)
def test_cut_jpegs_that_were_closed_again_are_truncated(mode: str, options: Any, size: int) -> None:
    """An end marker behind a cut does not make a JPEG whole: libjpeg would fill it with grey."""
    content = encoded(photo_of(200, 150, mode), "JPEG", **options)
    for share in (0, 0.1, 0.3, 0.5, 0.9, 0.95):
        closed = closed_at(content, share)
        assert error_of(closed, size=size).reason is Reason.TRUNCATED
        if share >= 0.3:
            assert decode_photo(closed, size=size, accept_truncated=True).truncated


@settings(max_examples=150)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    restart=st.integers(0, 5),
    optimize=st.booleans(),
    seed=st.integers(0, 99),
    size=st.sampled_from([4, 16]),
)
def test_no_whole_jpeg_is_taken_for_a_cut_one(
    width: int,
    height: int,
    mode: str,
    quality: int,
    subsampling: int,
    progressive: bool,
    restart: int,
    optimize: bool,
    seed: int,
    size: int,
) -> None:
    """A whole JPEG of any size, mode and coding decodes to exactly what Pillow makes of it."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    image = Image.fromarray(rng.integers(0, 1 + seed * 2, shape, dtype=np.uint8)).convert(mode)
    content = encoded(
        image,
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_blocks=restart,
        optimize=optimize,
    )
    pillow = Image.open(io.BytesIO(content))
    box = None
    if min(width, height) >= 2 * DCT_MARGIN * size:
        _, box = pillow.draft(None, (DCT_MARGIN * size, DCT_MARGIN * size))
    photo = decode_photo(content, size=size)
    expected = pillow.convert("RGB").resize((size, size), box=box)
    np.testing.assert_array_equal(photo.pixels, np.asarray(expected))
    assert (photo.width, photo.height) == (width, height)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(640, 480), (643, 489), (129, 130)])
def test_a_reduced_jpeg_keeps_its_size_and_its_turn(width: int, height: int, turn: int) -> None:
    """Width and height are the whole photo's, as it is seen; the pixels are nearly the same."""
    image = photo_of(width, height)
    turned = {"exif": exif(turn)}
    photo = decode_photo(encoded(image, "JPEG", quality=95, **turned), size=16)
    assert (photo.width, photo.height) == ((height, width) if turn > 4 else (width, height))
    whole = decode_photo(encoded(image, "PNG", **turned), size=16)
    np.testing.assert_allclose(photo.pixels, whole.pixels.astype(int), atol=12)


def test_a_jpeg_is_reduced_only_where_enough_is_left() -> None:
    """At half the scale its shorter side must still be DCT_MARGIN times the input."""
    least = 2 * DCT_MARGIN * 16
    for side, is_reduced in ((least - 1, False), (least, True)):
        content = encoded(photo_of(side, 300), "JPEG", quality=90)
        whole = Image.open(io.BytesIO(content)).resize((16, 16))
        is_whole = np.array_equal(decode_photo(content, size=16).pixels, np.asarray(whole))
        assert is_whole != is_reduced


# ---- Pillow's one switch -------------------------------------------------------------------


@pytest.fixture
def lenient_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some notebook has told Pillow to take photos that were cut off."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


@pytest.mark.usefixtures("lenient_process")
def test_no_switch_of_the_process_lets_a_cut_photo_pass() -> None:
    """Photos are judged alike in a process that has set LOAD_TRUNCATED_IMAGES, which stays set."""
    assert error_of(LARGE[:-200]).reason is Reason.TRUNCATED
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("content", [JPEG, LARGE[:-200], JPEG[:100], b"text"])
def test_the_switch_is_put_back(content: bytes) -> None:
    """Accepting a cut photo leaves Pillow as it was, whether it decodes or not."""
    with suppress(DecodeError):
        decode_photo(content, size=8, accept_truncated=True)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_threads_do_not_share_the_switch() -> None:
    """A cut photo is rejected in one thread while another one accepts it."""
    cut = LARGE[:-200]
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            decode_photo(cut, size=8, accept_truncated=True)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        assert {error_of(cut).reason for _ in range(300)} == {Reason.TRUNCATED}
    finally:
        stop.set()
        thread.join()


# ---- bombs ---------------------------------------------------------------------------------


def run_measured(program: str, *paths: Path) -> list[str]:
    """Run a program that asks for its ``peak_kb()``; return what it prints.

    Not by ``ru_maxrss``, which a program inherits from the one that started it.
    """
    head = """
        import re, sys, time
        from pathlib import Path
        def peak_kb():
            return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    command = [sys.executable, "-c", text, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def patched(content: bytes, mark: bytes, offset: int, packed: bytes) -> bytes:
    at = content.index(mark) + offset
    return content[:at] + packed + content[at + len(packed) :]


def tiled_tiff(side: int, tile_side: int, data: bytes) -> bytes:
    """Write a grey TIFF of deflated tiles by hand."""
    entries = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, tile_side),
        (323, tile_side),
        (324, 8 + 2 + 12 * 10 + 4),
        (325, len(data)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data


SIDE = 20_000
LITTLE_16, BIG_16 = struct.pack("<HH", SIDE, SIDE), struct.pack(">HH", SIDE, SIDE)
LITTLE_32, BIG_32 = struct.pack("<II", SIDE, SIDE), struct.pack(">II", SIDE, SIDE)
WIDTH_TAG, HEIGHT_TAG = (struct.pack("<HHI", tag, 4, 1) for tag in (256, 257))
LITTLE_24 = (SIDE - 1).to_bytes(3, "little") * 2


def deflated_zeros(n_bytes: int) -> bytes:
    deflate = zlib.compressobj(1)
    parts = [deflate.compress(bytes(1 << 20)) for _ in range(n_bytes >> 20)]
    return b"".join((*parts, deflate.flush()))


def whole_png_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", deflated_zeros(SIDE * (SIDE + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    gif, tiff = ZOO["GIF P"].content, ZOO["TIFF L"].content
    cleared = patched(ZOO["GIF P, transparency"].content, b"!\xf9\x04", 3, b"\x09")
    return {
        "PNG": whole_png_bomb(),
        "GIF": patched(gif, b"GIF", 6, LITTLE_16),
        "GIF frame": patched(gif, b",\0\0\0\0", 5, LITTLE_16),
        # Pillow makes the picture that follows such a frame when it opens the file.
        "GIF frame that is cleared": patched(cleared, b",\0\0\0\0", 5, b"\xff" * 4),
        "TIFF": patched(patched(tiff, WIDTH_TAG, 8, LITTLE_16[:2]), HEIGHT_TAG, 8, LITTLE_16[:2]),
        "TIFF tile": tiled_tiff(16, SIDE, deflated_zeros(1 << 20)),
        "WEBP": patched(ZOO["WEBP animated"].content, b"VP8X", 12, LITTLE_24),
        "JPEG": patched(JPEG, b"\xff\xc0", 5, BIG_16),
        "BMP": patched(ZOO["BMP RGB"].content, b"BM", 18, LITTLE_32),
        "PPM": ZOO["PPM RGB"].content.replace(b"48 32", b"20000 20000"),
        "AVIF": patched(ZOO["AVIF RGB"].content, b"ispe", 8, BIG_32),
    }


def test_bombs_are_refused_by_their_headers_in_no_memory(tmp_path: Path) -> None:
    """20000x20000 in any format, or in one tile, is 'too many pixels' before it is decoded."""
    contents = bombs()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    program = """
        from verger.features.preprocess import DecodeError, decode_photo, register_formats
        register_formats()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            content = path.read_bytes()
            before_kb = peak_kb()
            try:
                decode_photo(content, size=8, accept_truncated=True)
            except DecodeError as err:
                reason = err.reason
            grown_kb = peak_kb() - before_kb
            print(path.name, reason, int(grown_kb < 20_000), sep=",")
    """
    lines = run_measured(program, tmp_path)
    assert lines == [f"{name},too many pixels,1" for name in sorted(contents)]


@pytest.mark.parametrize(
    ("form", "least", "most"),
    [("RGB PNG", 0.9, 1.5), ("turned RGBA PNG", 0.9, 2.5), ("turned JPEG", 0, 0.2)],
)
def test_no_more_than_two_copies_of_a_photo_are_in_memory(
    form: str, least: float, most: float, tmp_path: Path
) -> None:
    """Decoding takes at most two rasters of 4 bytes a pixel, and a few MB; of a JPEG, less."""
    width, height = 4000, 3000
    image = Image.new("RGBA" if "RGBA" in form else "RGB", (width, height), (10, 20, 30, 40))
    turn = {"exif": exif(6)} if "turned" in form else {}
    more = {"compress_level": 1} if "PNG" in form else {}
    path = tmp_path / "photo"
    path.write_bytes(encoded(image, form.split()[-1], **turn, **more))
    program = """
        from verger.features.preprocess import decode_photo
        content = Path(sys.argv[1]).read_bytes()
        decode_photo(Path(sys.argv[2]).read_bytes(), size=224)
        before_kb = peak_kb()
        decode_photo(content, size=224)
        print(peak_kb() - before_kb)
    """
    small = tmp_path / "small"
    small.write_bytes(ZOO["PNG RGBA" if "RGBA" in form else "JPEG baseline"].content)
    n_copies = int(run_measured(program, path, small)[0]) * 1024 / (4 * width * height)
    assert least < n_copies < most


# ---- HEIC ----------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let a test say anew what this process can decode."""
    register_formats()  # Pillow's own plug-ins stay
    for registry in ("OPEN", "SAVE", "MIME", "EXTENSION", "DECODERS"):
        monkeypatch.setattr(Image, registry, dict(getattr(Image, registry)))
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    Image.OPEN.pop("HEIF", None)
    register_formats.cache_clear()
    yield monkeypatch
    register_formats.cache_clear()


def test_heic_without_its_package_is_unsupported(formats: pytest.MonkeyPatch) -> None:
    """Where pillow_heif is not installed a HEIC is 'unsupported format', and told what reads it."""
    formats.setitem(sys.modules, "pillow_heif", None)
    assert "HEIF" not in register_formats()
    for content in (HEIC + bytes(range(200)), HEIC):
        assert error_of(content).reason is Reason.UNSUPPORTED_FORMAT
        assert "pip install pillow-heif" in error_of(content).detail
    assert "heif" not in error_of(b"no photo").detail


def test_heic_decodes_with_its_package(formats: pytest.MonkeyPatch) -> None:
    """Where pillow_heif is installed its opener is registered, once, and asked."""
    registered = []

    class HeifFile(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (WIDTH, HEIGHT), "RGB"
            assert self.fp is not None
            if len(self.fp.read()) < 100:
                raise SyntaxError("cut off")
            self.tile = []

        def load(self) -> Any:
            if self._im is None:
                self.im = quarters().im
            return Image.Image.load(self)

    def register(**options: Any) -> None:
        registered.append(options)
        Image.register_open("HEIF", HeifFile, lambda prefix: prefix[4:12] == b"ftypheic")

    package = types.ModuleType("pillow_heif")
    package.register_heif_opener = register  # type: ignore[attr-defined]
    formats.setitem(sys.modules, "pillow_heif", package)
    for _ in range(2):
        assert_colors(HEIC + bytes(200), Specimen(b""))
    assert registered == [{"thumbnails": False, "decode_threads": 1}]
    assert error_of(HEIC).reason is Reason.TRUNCATED
    assert error_of(HEIC.replace(b"ftypheic", b"ftypisom")).reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("codec", [b"vvc1", b"avc1", b"j2k1", b"unci"])
def test_heic_of_another_codec_is_unsupported(codec: bytes) -> None:
    """A HEIC whose pictures are not in HEVC is 'unsupported format', whole or cut."""
    item = b"\0\0\0\x15infe\x02\0\0\0\0\x01\0\0" + codec + b"\0"
    assert error_of(HEIC + item + bytes(200)).reason is Reason.UNSUPPORTED_FORMAT


def test_real_heic_decodes() -> None:
    """A HEIC has its colours and its turn, and is never whole where it was cut."""
    pytest.importorskip("pillow_heif", reason="needs the extra 'heif'")
    register_formats()
    content = encoded(quarters(), "HEIF", quality=100, exif=exif(6))
    assert_colors(content, Specimen(b"", (BLUE, RED, GREY, GREEN), 20, (HEIGHT, WIDTH)))
    for cut in sixteenths(content):
        assert error_of(cut).reason is Reason.TRUNCATED
        assert error_of(cut, accept_truncated=True).reason is Reason.TRUNCATED


# ---- any bytes -----------------------------------------------------------------------------

CLOSED_LIST = {
    Reason.EMPTY,
    Reason.TRUNCATED,
    Reason.NOT_AN_IMAGE,
    Reason.UNSUPPORTED_FORMAT,
    Reason.TOO_MANY_PIXELS,
}


def assert_photo_or_reason(content: bytes, accept_truncated: bool) -> None:
    options = {"size": 8, "max_pixels": 100_000}
    strict: Photo | Reason
    try:
        strict = decode_photo(content, **options)
    except DecodeError as err:
        strict = err.reason
        assert 0 < len(err.detail) <= 200  # noqa: PT017 - either is right
        assert err.reason in CLOSED_LIST  # noqa: PT017 - either is right
    else:
        assert not strict.truncated
        assert strict.width * strict.height <= 100_000
    if not accept_truncated:
        return
    try:
        lenient = decode_photo(content, accept_truncated=True, **options)
    except DecodeError as err:
        assert err.reason is strict  # noqa: PT017 - either is right
        return
    if isinstance(strict, Photo):
        np.testing.assert_array_equal(lenient.pixels, strict.pixels)
    assert lenient.truncated == (strict is Reason.TRUNCATED)
    assert lenient.pixels.shape == (8, 8, 3)


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(ZOO)),
    other=st.sampled_from(sorted(ZOO)),
    data=st.data(),
    accept=st.booleans(),
)
def test_any_mutation_gives_a_photo_or_a_reason(
    name: str, other: str, data: st.DataObject, accept: bool
) -> None:
    """Any photo with bits turned, cut off or spliced with another gives a Photo or a reason."""
    content = bytearray(ZOO[name].content)
    for at, bit in data.draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)))):
        content[at % len(content)] ^= 1 << bit
    cut = data.draw(st.integers(1, len(content)))
    tail = data.draw(st.sampled_from([b"", bytes(20), ZOO[other].content[cut:]]))
    assert_photo_or_reason(bytes(content[:cut]) + tail, accept)


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(ZOO)), noise=st.binary(max_size=300), accept=st.booleans())
def test_noise_behind_any_header_gives_a_photo_or_a_reason(
    name: str, noise: bytes, accept: bool
) -> None:
    """Arbitrary bytes, bare or behind the first bytes of a photo, give a Photo or a reason."""
    assert_photo_or_reason(noise, accept)
    assert_photo_or_reason(ZOO[name].content[:40] + noise, accept)


def test_no_bound_of_the_process_refuses_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own bound on the pixels, which some notebook has set, is neither asked nor lost."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert_colors(PNG, ZOO["PNG RGB"])
    assert Image.MAX_IMAGE_PIXELS == 10


PILLOWS_SETTINGS = [
    (Image, "MAX_IMAGE_PIXELS"),
    (ImageFile, "LOAD_TRUNCATED_IMAGES"),
    (AvifImagePlugin, "DEFAULT_MAX_THREADS"),
]


def test_decoding_leaves_pillow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a process has set Pillow to, a photo is decoded alike and the settings are kept."""
    for number, (module, name) in enumerate(PILLOWS_SETTINGS):
        monkeypatch.setattr(module, name, 10 + number)
    filters = list(warnings.filters)
    for name in ("PNG RGB", "AVIF RGB", "JPEG baseline"):
        assert_colors(ZOO[name].content, ZOO[name])
        error_of(ZOO[name].content[:-30], accept_truncated=False)
    assert [getattr(module, name) for module, name in PILLOWS_SETTINGS] == [10, 11, 12]
    assert warnings.filters == filters


def test_without_segment_takes_out_the_whole_segment() -> None:
    """The photo that is to be without an Adobe marker has one less, and is whole."""
    assert len(without_segment(ZOO["JPEG CMYK, Adobe"].content, 0xEE)) == len(
        ZOO["JPEG CMYK, no Adobe"].content
    )
    assert WHITE not in COLORS
    assert grey_16("<u2").mode == "I;16"
