"""What the samples of an opened file are, and what Pillow reads otherwise than its format says.

Every function here takes a photo that is opened and not yet loaded, and may change how it will be
loaded: each of them undoes something that Pillow does.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageFile, ImagePalette

from verger.features.preprocess.pillow import register_formats
from verger.features.preprocess.reasons import DecodeError
from verger.features.preprocess.samples import UINT16, UNIT_FLOAT, Scale
from verger.schema import Reason

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile


Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Layout:
    """What an opened file's samples are, beyond what Pillow's mode says.

    Attributes
    ----------
    scale : Scale or None
        None where Pillow's 8 bits are the pixels already.
    low_bytes : callable or None
        Of colours of 16 bits, of which Pillow keeps the high bytes: decodes the low ones.
    is_alpha_sure : bool
        Whether the fourth band is said to be an alpha. If not, one that is 0 everywhere is none.
    drawn : Box or None
        What the first frame covers; the rest is transparent. None for all.
    """

    scale: Scale | None = None
    low_bytes: Callable[[], Image.Image] | None = None
    is_alpha_sure: bool = True
    drawn: Box | None = None


PLAIN = Layout()


def read_layout(image: Image.Image, content: bytes) -> Layout:
    """Tell what the samples of an opened file are, and let Pillow load them as its format says.

    Raises
    ------
    DecodeError
        'unsupported format', where it is not known what they mean.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return PLAIN
    if image.format == "WEBP":
        return _webp(image, content)
    if not image.tile:  # nothing to load
        return PLAIN
    match image.format:
        case "PNG":
            return _png(image, content)
        case "TIFF":
            from verger.features.preprocess.tiff import tiff_layout  # a JPEG needs none of it

            return tiff_layout(cast("TiffImageFile", image), content)
        case "BMP" | "DIB":
            return _bmp(image, content)
        case "GIF":
            return _gif(image)
        case "PPM":
            return _ppm(image, content)
    return PLAIN


_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def low_bytes(content: bytes) -> Image.Image:
    """Decode 16-bit colours by the other byte order: Pillow keeps one byte of each."""
    image = Image.open(io.BytesIO(content), formats=register_formats())
    image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
    if rawmodes(image)[0] == "LA;16B":  # which has no other: both bytes of both as one integer
        image._mode = "I"
        set_rawmodes(image, {"LA;16B": "I;32B"})
    else:
        set_rawmodes(image, {mode: mode[:-1] + _OTHER_BYTE[mode[-1]] for mode in rawmodes(image)})
    image.load()
    return image


def rawmodes(image: ImageFile.ImageFile) -> list[str]:
    """Return by what Pillow unpacks each tile of an opened file."""
    return [_args(tile)[0] for tile in image.tile]


def set_rawmodes(image: ImageFile.ImageFile, others: dict[str, str]) -> None:
    """Let the tiles of an opened file be unpacked by other raw modes."""
    for number, tile in enumerate(image.tile):
        mode, *rest = _args(tile)
        mode = others.get(mode, mode)
        image.tile[number] = tile._replace(args=(mode, *rest) if rest else mode)


def _args(tile: Any) -> tuple[Any, ...]:
    """Return what a tile's decoder is given, the raw mode first; Pillow allows it to be alone."""
    return tile.args if isinstance(tile.args, tuple) else (tile.args,)


_WIDENED = {"L;2": 255 // 3, "L;4": 255 // 15}


def _png(image: ImageFile.ImageFile, content: bytes) -> Layout:
    """Widen a transparent level as the levels of 2 and 4 bits are widened."""
    rawmode = rawmodes(image)[0]
    if rawmode in _WIDENED and "transparency" in image.info:
        image.info["transparency"] *= _WIDENED[rawmode]
    is_deep = rawmode.endswith(";16B") and image.mode != "I;16"
    return Layout(low_bytes=partial(low_bytes, content)) if is_deep else PLAIN


#: Sizes of headers: the only one without 32-bit numbers, and the first with a mask of the alpha.
_OS2_HEADER, _ALPHA_HEADER = 12, 56


def _bmp(image: ImageFile.ImageFile, content: bytes) -> Layout:
    """Read samples of 4 and 8 bits as such, where the palette is of greys; and a 1-bit alpha.

    Pillow drops a palette of greys, and then unpacks two greys as 1 bit and others as 8. An alpha
    of which only 0 was ever written is unused: image editors write it so.
    """
    header = content[14:] if image.format == "BMP" else content
    place = 10 if header[0] == _OS2_HEADER else 14
    bits, alpha = int.from_bytes(header[place : place + 2], "little"), header[52:56]
    if (bits, image.mode) in ((4, "1"), (4, "L"), (8, "1")):
        greys = (0, 255) if image.mode == "1" else range(256)
        image.palette = ImagePalette.raw("RGB", bytes(grey for grey in greys for _ in range(3)))
        set_rawmodes(image, {image.mode: "P;4" if bits == 4 else "P"})
        image._mode = "P"
    if header[0] >= _ALPHA_HEADER and rawmodes(image)[0] == "BGR;15" and alpha == b"\0\x80\0\0":
        set_rawmodes(image, {"BGR;15": "BGRA;15"})
        image._mode = "RGBA"
    return Layout(is_alpha_sure=image.mode != "RGBA")


def _webp(image: Any, content: bytes) -> Layout:
    """Keep the alpha of an animation that says it has none: around its first frame it is 0."""
    is_animated = content[12:16] == b"VP8X" and content[20] & 2
    if is_animated and image.rawmode == "RGBX":
        image.rawmode = image._mode = "RGBA"
    return PLAIN


def _gif(image: ImageFile.ImageFile) -> Layout:
    drawn = image.tile[0].extents
    covers_all = drawn == (0, 0, *image.size)
    return PLAIN if covers_all or "transparency" in image.info else Layout(drawn=drawn)


def _ppm(image: ImageFile.ImageFile, content: bytes) -> Layout:
    if not re.match(rb"P[1-6f]\s", content):
        raise DecodeError(Reason.UNSUPPORTED_FORMAT, "a form of PPM that only Pillow knows")
    if image.mode == "F":
        if image.info["scale"] != 1:
            detail = f"floats with scale={image.info['scale']:g}, and only 1 has one meaning"
            raise DecodeError(Reason.UNSUPPORTED_FORMAT, detail)
        return Layout(UNIT_FLOAT)
    tile = image.tile[0]
    top = tile.args[1] if isinstance(tile.args, tuple) else 255
    if tile.codec_name == "ppm" and _highest(content, tile.offset, top, image) > top:
        raise DecodeError(Reason.UNSUPPORTED_FORMAT, f"a sample is over its maxval={top}")
    if image.mode == "I":
        return Layout(UINT16)
    if image.mode == "RGB" and top > 255:
        return Layout(low_bytes=partial(_ppm_low_bytes, content, tile.offset, image.size))
    return PLAIN


def _highest(content: bytes, offset: int, top: int, image: Image.Image) -> int:
    """Return the highest sample of a PPM of bytes; Pillow takes what is over maxval for it."""
    dtype = np.dtype(np.uint8 if top < 256 else ">u2")
    n_samples = image.width * image.height * len(image.getbands())
    n_there = min(n_samples, (len(content) - offset) // dtype.itemsize)
    return int(np.frombuffer(content, dtype, n_there, offset).max(initial=0))


def _ppm_low_bytes(content: bytes, offset: int, size: tuple[int, int]) -> Image.Image:
    n_samples = 3 * size[0] * size[1]
    if content.startswith(b"P6"):
        low = content[offset + 1 : offset + 2 * n_samples : 2]
    else:
        levels = re.sub(rb"#[^\r\n]*", b"", content[offset:]).split()
        low = bytes(int(level) & 255 for level in levels[:n_samples])
    return Image.frombytes("RGB", size, low)
