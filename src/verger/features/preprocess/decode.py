"""One photo's bytes to pixels, or the reason why there are none."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from verger.config import MAX_PIXELS
from verger.features.preprocess.jpeg import JPEG_MAGIC, Jpeg, open_jpeg, without_cut_segment
from verger.features.preprocess.layout import Layout, read_layout
from verger.features.preprocess.pillow import pillow_settings, register_formats
from verger.features.preprocess.pixels import to_rgb
from verger.features.preprocess.png import PNG_MAGIC, pixels_of_png
from verger.features.preprocess.reasons import (
    PHOTO_MAGIC,
    DecodeError,
    decode_errors,
    unidentified_detail,
    unidentified_reason,
)
from verger.features.preprocess.resizing import SQUARE, Extent, Resizing, resize_image
from verger.features.preprocess.samples import is_flat
from verger.features.preprocess.turn import turn_of, turned_box, turned_size
from verger.features.preprocess.views import cut_views
from verger.schema import Reason

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

#: Raised by one whenever the same bytes would give other pixels; part of the contract.
PREPROCESS_VERSION = 3

#: How many times the resized photo the shorter side of a JPEG must still measure where it is
#: decoded at a reduced scale; benchmarks/LARGE_PHOTOS.md compares 1 to 4.
DCT_MARGIN = 2


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes
    ----------
    pixels : ndarray of shape (size, size, 3), uint8
        RGB, already resized to the model's input.
    width, height : int
        Pixels of the photo as it is seen, after the EXIF turn and before the resize.
    truncated : bool
        The file was cut off or broken: a part of the pixels is Pillow's filling, grey or black.
    crops : ndarray of shape (n_crops, size, size, 3), uint8, or None
        Its other views; see :mod:`verger.features.preprocess.views`.
    """

    pixels: npt.NDArray[np.uint8] = field(repr=False)
    width: int
    height: int
    truncated: bool = False
    crops: npt.NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def views(self) -> npt.NDArray[np.uint8]:
        """The whole photo and its crops, (n_views, size, size, 3)."""
        whole = self.pixels[None]
        return whole if self.crops is None else np.concatenate([whole, self.crops])


class _Form(NamedTuple):
    """What a photo is to become."""

    size: int
    views: str
    resizing: Resizing

    @property
    def least(self) -> int:
        """Pixels that the shorter side of a JPEG must still have."""
        return DCT_MARGIN * (self.resizing.side or self.size)


def decode_photo(
    content: bytes,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    accept_truncated: bool = False,
    views: str = "whole",
    resizing: Resizing = SQUARE,
) -> Photo:
    """Decode, turn and resize one photo.

    Parameters
    ----------
    content : bytes
        The file as it is: any format that Pillow reads, the first frame of an animation.
    size, max_pixels : int
        Height and width of the result, and the largest width x height that is decoded.
    accept_truncated : bool
        Decode what there is of a photo that was cut off or is broken, and mark it. Whole photos
        give the same pixels either way.
    views : {"whole", "center", "five"}
        Which crops are cut out besides.
    resizing : Resizing
        How the photo, and each crop, becomes a square.

    Returns
    -------
    Photo

    Raises
    ------
    DecodeError
        With a reason of the closed list, whatever the bytes are. With ``accept_truncated`` too,
        where no pixel came: WebP, AVIF, HEIC and compressed TIFF come whole or not at all.
    """
    content = _prepared(content)
    form = _Form(size, views, resizing)
    try:
        return _decode(content, form, max_pixels)
    except DecodeError as err:
        if not accept_truncated or err.reason is not Reason.TRUNCATED:
            raise
        reason, detail = err.reason, err.detail
    # Outside the handler, whose traceback holds the pixels of the first try.
    with suppress(DecodeError):
        photo = _decode_part(content, form, max_pixels)
        if photo is not None:
            return photo
    raise DecodeError(reason, detail)


def _prepared(content: bytes) -> bytes:
    """Return what of a photo counts, and register the plug-ins that it needs.

    They have settings of their own, and so come before Pillow's settings are set.
    """
    if not content.startswith(JPEG_MAGIC):
        register_formats()
    return pixels_of_png(content) if content.startswith(PNG_MAGIC) else content


def _decode(content: bytes, form: _Form, max_pixels: int) -> Photo:
    with pillow_settings(max_pixels, load_truncated=False):
        image, layout = _open(content, max_pixels, form.least)
        turn = turn_of(image)
        with decode_errors(is_photo=True):
            _load_whole(image, content, max_pixels)
            seen, box = turned_size(image, turn), turned_box(image, turn)
            # One name for every step, so that no more than two of them are in memory.
            image = to_rgb(image, layout)
            image = image if turn is None else image.transpose(turn)
            return _photo_of(image, form, seen, box)


def _photo_of(image: Image.Image, form: _Form, seen: tuple[int, int], box: Extent | None) -> Photo:
    """Resize a photo, and the crops of it."""
    size, views, resizing = form
    crops = None if views == "whole" else cut_views(image, size, views, seen, box, resizing)
    return Photo(np.asarray(resize_image(image, size, box, resizing)), *seen, crops=crops)


def _load_whole(image: Image.Image, content: bytes, max_pixels: int) -> None:
    if isinstance(image, Jpeg):
        image.load_whole(content)
    elif image.format == "TIFF":
        from verger.features.preprocess.tiff import load_tiff  # a JPEG needs none of it

        load_tiff(cast("TiffImageFile", image), content)
    else:
        image.load()
    _check_pixels(image, max_pixels)  # the size of a HEIC file is known only here


def decode_full_size(
    content: bytes, *, max_pixels: int = MAX_PIXELS, least: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode and turn one photo in its full size, as a viewer shows it.

    Parameters
    ----------
    content : bytes
    max_pixels : int
        Largest width x height that is decoded.
    least : int, optional
        A JPEG may come at 1/2, 1/4 or 1/8 of its size, as long as its shorter side has as many
        pixels: for a picture that is made smaller anyway.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB, transparent pixels onto white.

    Raises
    ------
    DecodeError
        As from :func:`decode_photo`.
    """
    content = _prepared(content)
    with pillow_settings(max_pixels, load_truncated=False):
        image, layout = _open(content, max_pixels, least)
        turn = turn_of(image)
        with decode_errors(is_photo=True):
            _load_whole(image, content, max_pixels)
            image = to_rgb(image, layout)
            return np.asarray(image if turn is None else image.transpose(turn))


def _decode_part(content: bytes, form: _Form, max_pixels: int) -> Photo | None:
    """Decode what there is of a photo; None if that is one colour, as Pillow fills."""
    if content.startswith(JPEG_MAGIC):
        content = without_cut_segment(content)
    with pillow_settings(max_pixels, load_truncated=True):
        image, layout = _open(content, max_pixels, form.least)
        turn = turn_of(image)
        with decode_errors(is_photo=True):
            image.load()
            _check_pixels(image, max_pixels)
            seen, box = turned_size(image, turn), turned_box(image, turn)
            image = to_rgb(image, layout)
            if is_flat(image):
                return None
            image = image if turn is None else image.transpose(turn)
            photo = _photo_of(image, form, seen, box)
            return replace(photo, truncated=True)


def _open(content: bytes, max_pixels: int, least: int | None) -> tuple[Image.Image, Layout]:
    """Read a photo's header, and scale a JPEG to ``least`` pixels or more; None is 1/1."""
    if not content:
        raise DecodeError(Reason.EMPTY, "0 bytes")
    with decode_errors(is_photo=content.startswith(PHOTO_MAGIC)):
        image = _identify(content)
        _check_pixels(image, max_pixels)
        image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
        if isinstance(image, Jpeg) and least is not None:
            image.reduce_scale(least)
        return image, read_layout(image, content)


def _identify(content: bytes) -> Image.Image:
    try:
        if content.startswith(JPEG_MAGIC):
            # Not by Pillow's MPO plug-in, which fails if the list of further frames is broken.
            return open_jpeg(content)
        if content.startswith((b"II", b"MM")):
            from verger.features.preprocess.tiff import open_tiff  # a JPEG needs none of it

            return open_tiff(content)
        return Image.open(io.BytesIO(content), formats=register_formats())
    except (UnidentifiedImageError, SyntaxError) as err:
        raise DecodeError(unidentified_reason(content), unidentified_detail(content)) from err


_TILE = (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        detail = f"{image.width}x{image.height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)
    # A TIFF may lie in tiles much larger than itself, and each is decoded as a whole.
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag) for tag in _TILE)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        detail = f"a tile of {width}x{height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)
