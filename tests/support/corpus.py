"""Whole photos in every format and mode, all of them the same four colours.

Top left red, top right green, bottom left blue, bottom right grey: a turn, a flip, a swapped
channel or a negative moves or changes at least one of them.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

WIDTH, HEIGHT = 48, 32
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 200, 200)
WHITE = (255, 255, 255)
COLORS = (RED, GREEN, BLUE, GREY)
#: ITU-R 601 luma of the four.
GREYS = tuple((level,) * 3 for level in (76, 150, 29, 200))
#: The four where everything below half is black.
BITS = tuple((level,) * 3 for level in (0, 255, 0, 255))

ORIENTATION = 0x0112  # EXIF

Colors = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Specimen:
    """A whole photo, the colours of its quarters as they are seen, and how exactly."""

    content: bytes
    colors: Colors = COLORS
    tolerance: int = 0
    size: tuple[int, int] = (WIDTH, HEIGHT)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def quarters(
    colors: Colors = COLORS, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB"
) -> Image.Image:
    """Paint four colours: top left, top right, bottom left, bottom right."""
    width, height = size
    image = Image.new(mode, size)
    for number, color in enumerate(colors):
        left, top = (number % 2) * (width // 2), (number // 2) * (height // 2)
        box = (left, top, left + width - width // 2, top + height - height // 2)
        image.paste(color if len(color) > 1 else color[0], box)
    return image


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(content: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind a PNG's header."""
    return content[:33] + b"".join(chunks) + content[33:]


def without_segment(jpeg: bytes, marker: int) -> bytes:
    start = jpeg.index(bytes([0xFF, marker]))
    length = int.from_bytes(jpeg[start + 2 : start + 4])
    return jpeg[:start] + jpeg[start + 2 + length :]


def ycck(picture: Image.Image | None = None) -> bytes:
    """Write a JPEG in YCCK, as Photoshop does: Pillow only writes CMYK, and says transform 0."""
    # Stored are Adobe's inverted inks; their first three are the colours themselves where there
    # is no black, and YCCK is the YCbCr of the negative of that. Pillow inverts what it writes.
    picture = picture or quarters()
    negative = Image.fromarray(255 - np.asarray(picture)).convert("YCbCr")
    bands = [Image.fromarray(255 - np.asarray(band)) for band in negative.split()]
    image = Image.merge("CMYK", [*bands, Image.new("L", negative.size, 0)])
    content = bytearray(encoded(image, "JPEG", quality=100, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2  # the transform
    return bytes(content)


def palette_with_hole(form: str) -> bytes:
    """Write a palette whose grey is transparent."""
    image = Image.new("P", (WIDTH, HEIGHT))
    image.putpalette([level for color in COLORS for level in color])
    image.paste(quarters(((0,), (1,), (2,), (3,)), mode="L"))
    return encoded(image, form, transparency=3)


def grey_16(dtype: str) -> Image.Image:
    """The greys with 16 bits; their low bytes are noise."""
    high = np.asarray(quarters().convert("L")).astype(np.uint16) << 8
    low = np.random.default_rng(0).integers(0, 256, high.shape).astype(np.uint16)
    return Image.fromarray((high | low).astype(dtype))


def grey_32() -> Image.Image:
    """The greys as signed integers of 32 bits."""
    return Image.fromarray(
        ((np.asarray(quarters().convert("L")).astype(np.int64) << 24) - 2**31).astype(np.int32)
    )


def grey_floats() -> Image.Image:
    """The greys as floats from 0 to 1."""
    return Image.fromarray(np.asarray(quarters().convert("L")).astype(np.float32) / 255)


def plain_ppm() -> bytes:
    levels = " ".join(str(level) for level in np.asarray(quarters()).ravel())
    return f"P3\n{WIDTH} {HEIGHT}\n255\n{levels}\n".encode()


def animated(form: str, **options: Any) -> bytes:
    others = [quarters(COLORS[::-1]), quarters((WHITE,) * 4)]
    return encoded(quarters(), form, save_all=True, append_images=others, **options)


def srgb() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Its date (ICC.1:2022, 7.2.1) is today's; here every day makes the same files.
    return profile[:24] + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + profile[36:]


def _lossy(**options: Any) -> dict[str, Any]:
    return {"quality": 100, "subsampling": 0, **options}


def _jpegs() -> dict[str, Specimen]:
    image, grey, inks = quarters(), quarters().convert("L"), quarters().convert("CMYK")
    cmyk = encoded(inks, "JPEG", quality=100)
    photos = {
        "baseline": encoded(image, "JPEG", **_lossy()),
        "small chroma": encoded(image, "JPEG", quality=90, subsampling=2),
        "progressive": encoded(image, "JPEG", **_lossy(progressive=True)),
        "restart markers": encoded(image, "JPEG", **_lossy(restart_marker_blocks=2)),
        "EXIF and ICC": encoded(image, "JPEG", **_lossy(exif=exif(1), icc_profile=srgb())),
        "CMYK, Adobe": cmyk,
        "CMYK, no Adobe": without_segment(cmyk, 0xEE),
        "CMYK, progressive": encoded(inks, "JPEG", quality=100, progressive=True),
        "YCCK": ycck(),
        "MPO": animated("MPO", **_lossy()),
    }
    zoo = {name: Specimen(content, tolerance=8) for name, content in photos.items()}
    return zoo | {"L": Specimen(encoded(grey, "JPEG", quality=100), GREYS, 4)}


def _pngs() -> dict[str, Specimen]:
    image, grey = quarters(), quarters().convert("L")
    hole = quarters(((*RED, 255), (*GREEN, 128), (*BLUE, 255), (*GREY, 0)), mode="RGBA")
    holed = (RED, (127, 255, 127), BLUE, WHITE)
    grey_hole = grey.convert("LA")
    grey_hole.putalpha(hole.getchannel("A"))
    return {
        "RGB": Specimen(encoded(image, "PNG")),
        "RGBA": Specimen(encoded(hole, "PNG"), holed, 1),
        "L": Specimen(encoded(grey, "PNG"), GREYS),
        "LA": Specimen(encoded(grey_hole, "PNG"), (GREYS[0], (202,) * 3, GREYS[2], WHITE), 1),
        "P": Specimen(encoded(image.quantize(4), "PNG")),
        "P, transparency": Specimen(palette_with_hole("PNG"), (RED, GREEN, BLUE, WHITE)),
        "RGB, transparency": Specimen(
            encoded(image, "PNG", transparency=GREY), (RED, GREEN, BLUE, WHITE)
        ),
        "1": Specimen(encoded(grey.convert("1", dither=Image.Dither.NONE), "PNG"), BITS),
        "I;16": Specimen(encoded(grey_16("<u2"), "PNG"), GREYS),
        "EXIF and ICC": Specimen(encoded(image, "PNG", exif=exif(1), icc_profile=srgb())),
        "animated": Specimen(animated("PNG")),
    }


def _tiffs() -> dict[str, Specimen]:
    image, grey = quarters(), quarters().convert("L")
    hole = quarters(((*RED, 255), (*GREEN, 255), (*BLUE, 255), (*GREY, 0)), mode="RGBA")
    bits = grey.convert("1", dither=Image.Dither.NONE)
    packings = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")
    zoo = {name: Specimen(encoded(image, "TIFF", compression=name)) for name in packings}
    return zoo | {
        "RGB": Specimen(encoded(image, "TIFF")),
        "RGBA": Specimen(encoded(hole, "TIFF"), (RED, GREEN, BLUE, WHITE)),
        "L": Specimen(encoded(grey, "TIFF"), GREYS),
        "1, group 4": Specimen(encoded(bits, "TIFF", compression="group4"), BITS),
        "JPEG": Specimen(encoded(image, "TIFF", compression="jpeg", quality=100), COLORS, 8),
        "CMYK": Specimen(encoded(image.convert("CMYK"), "TIFF"), COLORS, 1),
        "YCbCr": Specimen(encoded(image.convert("YCbCr"), "TIFF"), COLORS, 3),
        "I;16": Specimen(encoded(grey_16("<u2"), "TIFF"), GREYS),
        "I;16B": Specimen(encoded(grey_16(">u2"), "TIFF"), GREYS),
        "I": Specimen(encoded(grey_32(), "TIFF"), GREYS),
        "F": Specimen(encoded(grey_floats(), "TIFF"), GREYS),
        "pages": Specimen(animated("TIFF")),
    }


def _others() -> dict[str, Specimen]:
    image, grey = quarters(), quarters().convert("L")
    hole = quarters(((*RED, 255), (*GREEN, 255), (*BLUE, 255), (*GREY, 0)), mode="RGBA")
    holed = (RED, GREEN, BLUE, WHITE)
    return {
        "GIF P": Specimen(encoded(image.quantize(4), "GIF")),
        "GIF P, transparency": Specimen(palette_with_hole("GIF"), holed),
        "GIF animated": Specimen(animated("GIF")),
        "WEBP lossy": Specimen(encoded(image, "WEBP", quality=100), COLORS, 20),
        "WEBP lossless": Specimen(encoded(image, "WEBP", lossless=True)),
        "WEBP RGBA": Specimen(encoded(hole, "WEBP", lossless=True), holed),
        "WEBP animated": Specimen(animated("WEBP", lossless=True)),
        "AVIF RGB": Specimen(encoded(image, "AVIF", quality=100), COLORS, 8),
        "AVIF RGBA": Specimen(encoded(hole, "AVIF", quality=100), holed, 8),
        "AVIF animated": Specimen(animated("AVIF", quality=100), COLORS, 8),
        "BMP RGB": Specimen(encoded(image, "BMP")),
        "BMP L": Specimen(encoded(grey, "BMP"), GREYS),
        "BMP P": Specimen(encoded(image.quantize(4), "BMP")),
        "DIB RGB": Specimen(encoded(image, "DIB")),
        "PPM RGB": Specimen(encoded(image, "PPM")),
        "PPM L": Specimen(encoded(grey, "PPM"), GREYS),
        "PPM I;16": Specimen(encoded(grey_16("<u2"), "PPM"), GREYS),
        "PPM plain": Specimen(plain_ppm()),
    }


def zoo() -> dict[str, Specimen]:
    """Return a whole photo of every format and mode, by a name that begins with the format."""
    families = {"JPEG": _jpegs(), "PNG": _pngs(), "TIFF": _tiffs()}
    named = {
        f"{form} {name}": specimen
        for form, family in families.items()
        for name, specimen in family.items()
    }
    return named | _others()


def corners(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the middles of the four quarters of pixels (size, size, 3): (4, 3)."""
    low, high = pixels.shape[0] // 4, pixels.shape[0] * 3 // 4
    return pixels[[low, low, high, high], [low, high, low, high]].astype(np.int64)


def slow_jpeg() -> bytes:
    """Return a progressive JPEG of 200 kB whose many scans keep libjpeg busy for minutes."""
    content = encoded(quarters(size=(2000, 2000)), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * 20_000 + content[-2:]
