"""Any picture to the RGB pixels that a model takes: colours, size and range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Pixels that are converted at a time: three copies of them are 12 MB.
STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparent pixels onto white.

    16-bit greys keep their high byte: Pillow's own conversion clips them, and every photo
    brighter than 255/65535 would come out white. Mode ``I`` of a PGM is 16 bits too. Inks are
    read as Adobe writes them (0 is full), whether the file says so or not, as browsers do.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _in_strips(image, _grey_16_to_rgb)
    if image.has_transparency_data:
        return _in_strips(image, _onto_white)
    return image.convert("RGB")


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a few rows at a time, so that nothing but source and result is in memory whole."""
    n_rows = max(1, STRIP_PIXELS // image.width)
    if n_rows >= image.height:
        return convert(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, n_rows):
        box = (0, top, image.width, min(top + n_rows, image.height))
        rgb.paste(convert(image.crop(box)), box)
    return rgb


def _grey_16_to_rgb(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)  # (height, width), uint16 or int32
    transparent = image.info.get("transparency")
    high = (grey >> 8).astype(np.uint8)
    if isinstance(transparent, int):
        high[grey == transparent] = 255
    return Image.fromarray(high).convert("RGB")


def _onto_white(image: Image.Image) -> Image.Image:
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(white, seen).convert("RGB")


def resize_image(
    image: Image.Image, size: int, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Resize an RGB image to (size, size) as Pillow's ``resize`` does by default: bicubic.

    Parameters
    ----------
    image : Image
    size : int
    box : (left, top, right, bottom), optional
        The part of the image that the photo fills: at 1/8 of 1001 pixels, 125.125 of 126. Without
        it features of large photos differ, by a cosine of down to 0.989.
    """
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def normalize(
    pixels: npt.NDArray[np.uint8], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Bring pixels to the range that the model was trained on.

    Computed as ``pixels / std - mean / std`` in float32, which for mean = std = 127.5 is to the
    bit what Keras' ``mobilenet_v2.preprocess_input`` computes.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 3), uint8
    mean, std : tuple of 1 or 3 floats
        In units of a pixel, 0 to 255.

    Returns
    -------
    ndarray of shape (n, height, width, 3), float32
    """
    spread = np.asarray(std, dtype=np.float32)
    scaled = pixels.astype(np.float32)
    scaled /= spread
    scaled -= np.asarray(mean, dtype=np.float32) / spread
    return scaled
