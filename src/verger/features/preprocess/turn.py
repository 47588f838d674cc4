"""How a photo is turned upright, and where it lies in its pixels then.

The mark is EXIF's orientation where the format keeps EXIF: JPEG, PNG (``eXIf`` before the pixels,
as PNG's third edition requires) and WebP. TIFF has a tag of its own, which Pillow applies; AVIF and
HEIC have boxes (``irot``, ``imir``), and their EXIF does not count (ISO/IEC 23000-22, 7.3.10.1).
What an editor wrote into XMP or a text counts nowhere, as in browsers: Chromium 156 and Firefox
153 turn the same JPEG, PNG and AVIF files. They leave WebP as it is; phones turn it.
"""

from __future__ import annotations

from PIL import ExifTags, Image

from verger.features.preprocess.jpeg import Jpeg

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A turn mirrors either axis, both or none, and may exchange the two axes after that.
_MIRRORS_X = tuple(_TURNS[turn] for turn in (2, 3, 7, 8))
_MIRRORS_Y = tuple(_TURNS[turn] for turn in (3, 4, 6, 7))
_EXCHANGES_AXES = tuple(_TURNS[turn] for turn in (5, 6, 7, 8))


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how a photo is turned upright; EXIF that cannot be read turns nothing.

    Only the one tag is read: Pillow's ``exif_transpose`` writes the whole block again, and fails
    if any other tag is odd.

    Parameters
    ----------
    image : Image
        Opened and not yet loaded: a PNG may have another block behind its pixels.
    """
    exif = Image.Exif()  # not image.getexif(), which asks XMP and texts besides
    try:
        exif.load(image.info.get("exif", b""))
        return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a block of noise raises anything
        return None


def turned_size(image: Image.Image, turn: Image.Transpose | None) -> tuple[int, int]:
    """Return (width, height) of the turned photo in its file, not at a JPEG's reduced scale."""
    width, height = getattr(image, "full_size", None) or image.size
    return (height, width) if turn in _EXCHANGES_AXES else (width, height)


def turned_box(
    image: Image.Image, turn: Image.Transpose | None
) -> tuple[float, float, float, float] | None:
    """Return the part of its turned pixels that a reduced photo fills; None for all of them."""
    if not isinstance(image, Jpeg) or image.extent is None:
        return None
    width, height = image.extent
    left = image.width - width if turn in _MIRRORS_X else 0.0
    top = image.height - height if turn in _MIRRORS_Y else 0.0
    if turn in _EXCHANGES_AXES:
        return top, left, top + height, left + width
    return left, top, left + width, top + height
