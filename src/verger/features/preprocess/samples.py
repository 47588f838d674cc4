"""Samples of any depth and kind to the 8 bits of a pixel, by one rule.

- integers of n bits go from 0 (black) to 2^n - 1 (white), signed ones from -2^(n-1) to 2^(n-1) - 1;
  their high 8 bits are the pixel, and less than 8 bits are widened;
- floats go from 0 to 1, and are rounded;
- in grey and RGB TIFFs, SMinSampleValue and SMaxSampleValue replace these ends.

Black and white change places where the file says that its lowest sample is white. A sample
outside of its range, or one that is no number, makes the photo an 'unsupported format', as does a
photo that has several samples and would come out in one colour: what it shows is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.features.preprocess.reasons import DecodeError
from verger.schema import Reason


@dataclass(frozen=True)
class Scale:
    """Which samples of a file are black and white.

    Attributes
    ----------
    low, high : tuple of float
        The lowest and the highest sample: one for all bands, or one a band.
    dtype : str
        What the samples are; Pillow may hold them as another type of as many bits.
    widened : int
        What Pillow has multiplied samples of less than 8 bits by: 255 / (2^n - 1).
    white_is_low : bool
        Whether the lowest sample is white.
    is_inverted : bool
        Whether Pillow has inverted the samples for that reason already.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str
    widened: int = 1
    white_is_low: bool = False
    is_inverted: bool = False


UINT16 = Scale((0,), (65535,), "uint16")
UNIT_FLOAT = Scale((0,), (1,), "float32")


def to_8_bits(
    image: Image.Image, scale: Scale, low_bytes: Image.Image | None = None
) -> Image.Image:
    """Bring samples to 8 bits.

    Parameters
    ----------
    image : Image
        Of a mode with one band, or of 8 bits a band.
    scale : Scale
    low_bytes : Image, optional
        The low bytes of 16-bit colours, of which Pillow keeps the high ones.

    Returns
    -------
    Image
        L, where ``image`` has one band, or else of its mode.

    Raises
    ------
    DecodeError
        'unsupported format', if a sample is outside of its range.
    """
    mode = "L" if len(image.getbands()) == 1 else image.mode
    return Image.fromarray(_pixels(_values(image, scale, low_bytes), scale), mode)


def _values(image: Image.Image, scale: Scale, low_bytes: Image.Image | None) -> npt.NDArray[Any]:
    """Return samples as they are in the file: (height, width) or (height, width, bands)."""
    values = np.asarray(image)
    if scale.is_inverted:
        values = 255 - values
    if scale.widened > 1:
        values = values // scale.widened
    if low_bytes is not None:
        values = values.astype(np.uint16) << 8 | np.asarray(low_bytes)
    if values.dtype.itemsize == np.dtype(scale.dtype).itemsize:
        values = values.astype(values.dtype.newbyteorder("="), copy=False).view(scale.dtype)
    return values


def _pixels(values: npt.NDArray[Any], scale: Scale) -> npt.NDArray[np.uint8]:
    low, high = np.asarray(scale.low), np.asarray(scale.high)
    outside = ~((values >= low) & (values <= high))
    if outside.any():
        detail = (
            f"a sample is {values[outside][0]:g}, outside of its range from {min(scale.low):g} to "
            f"{max(scale.high):g}"
        )
        raise DecodeError(Reason.UNSUPPORTED_FORMAT, detail)
    if np.issubdtype(values.dtype, np.integer):
        n_levels = high - low + 1
        dtype = np.int32 if n_levels.max() <= 1 << 22 else np.int64  # which holds 256 times as much
        pixels = (values - low.astype(dtype)) * 256 // n_levels.astype(dtype)
    else:
        pixels = np.rint((values - low) * (255 / (high - low)))
    grey: npt.NDArray[np.uint8] = pixels.astype(np.uint8)
    return 255 - grey if scale.white_is_low else grey


def is_flat(image: Image.Image) -> bool:
    """Whether all samples of an image are the same, those of transparent pixels too."""
    if image.mode.startswith("I;16"):  # of which Pillow does not always know the extremes
        return not np.ptp(np.asarray(image))
    colors = image.convert("RGBA") if image.mode == "P" else image
    middle = colors.crop((0, image.height // 2, image.width, image.height // 2 + 1))
    # The middle row tells it of nearly every photo.
    parts = (np.reshape(part.getextrema(), (-1, 2)) for part in (middle, colors))
    return not any(np.ptp(ends, axis=1).any() for ends in parts)


def flattened(rgb: Image.Image) -> DecodeError:
    """Return the error of a photo of several samples that would come out in one colour."""
    detail = f"its samples differ, but every pixel would be {rgb.getpixel((0, 0))}"
    return DecodeError(Reason.UNSUPPORTED_FORMAT, detail)
