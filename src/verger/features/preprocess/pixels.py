"""Any picture to the RGB pixels that a model takes: colours, size and range."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.features.preprocess.layout import PLAIN, Box, Layout
from verger.features.preprocess.samples import UINT16, Scale, flattened, is_flat, to_8_bits

#: Pixels that are converted at a time: a few copies of them are 12 to 24 MB.
STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image, layout: Layout = PLAIN) -> Image.Image:
    """Convert any mode to RGB, transparent pixels onto white.

    Samples of other than 8 bits go by the rule of :mod:`verger.features.preprocess.samples`. Inks
    of a JPEG are read as Adobe writes them (0 is full), whether the file says so or not, as
    browsers do.

    Raises
    ------
    DecodeError
        'unsupported format', if samples are outside of their range, or if all pixels would become
        one colour though the samples differ.
    """
    level = image.info.get("transparency")
    if image.mode in ("RGB", "L", "1") and level is None and layout == PLAIN:
        return image if image.mode == "RGB" else image.convert("RGB")
    scale = layout.scale or (UINT16 if image.mode.startswith("I;16") else None)
    low = layout.low_bytes() if layout.low_bytes and (scale or level) else None
    shown = _scaled(image, scale, low) if scale else image
    if not layout.is_alpha_sure and _is_clear(shown):
        shown = shown.convert("RGB")
    if level is not None and (scale or low):
        rgb = _hidden(shown.convert("RGB"), image, low, level)
    elif shown.has_transparency_data:
        rgb = _in_strips(shown, _onto_white)
    else:
        rgb = shown.convert("RGB")
    if is_flat(rgb) and not _is_all_flat(image, layout):
        raise flattened(rgb)
    return rgb if layout.drawn is None else _on_canvas(rgb, layout.drawn)


def _is_clear(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema() == (0, 0)


def _is_all_flat(image: Image.Image, layout: Layout) -> bool:
    return is_flat(image) and (layout.low_bytes is None or is_flat(layout.low_bytes()))


def _strips(image: Image.Image) -> Iterator[Box]:
    """Yield the boxes of a few rows each, so that only source and result are in memory whole."""
    n_rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, n_rows):
        yield 0, top, image.width, min(top + n_rows, image.height)


def _scaled(image: Image.Image, scale: Scale, low: Image.Image | None) -> Image.Image:
    scaled = Image.new("L" if len(image.getbands()) == 1 else image.mode, image.size)
    for box in _strips(image):
        scaled.paste(to_8_bits(image.crop(box), scale, low and low.crop(box)), box)
    return scaled


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for box in _strips(image):
        rgb.paste(convert(image.crop(box)), box)
    return rgb


def _onto_white(image: Image.Image) -> Image.Image:
    # Pillow converts a grey with a premultiplied alpha to nothing else.
    seen = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(white, seen).convert("RGB")


def _hidden(
    rgb: Image.Image, image: Image.Image, low: Image.Image | None, level: int | tuple[int, ...]
) -> Image.Image:
    """Paint white over the pixels whose samples of 16 bits are the transparent ones."""
    for box in _strips(image):
        samples = np.asarray(image.crop(box)).astype(np.uint16)
        if low is not None:
            samples = samples << 8 | np.asarray(low.crop(box))
        is_hidden = (samples.reshape(*samples.shape[:2], -1) == level).all(axis=-1)
        rgb.paste((255, 255, 255), box, Image.fromarray(is_hidden.astype(np.uint8) * 255))
    return rgb


def _on_canvas(rgb: Image.Image, drawn: Box) -> Image.Image:
    """Make white what lies outside of the first frame of an animation."""
    canvas = Image.new("RGB", rgb.size, "white")
    canvas.paste(rgb.crop(drawn), drawn)
    return canvas


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
    shift = np.asarray(mean, dtype=np.float32) / spread
    scaled = pixels.astype(np.float32, order="C")  # or rows would be a copy
    n, height, width, _ = pixels.shape
    rows = scaled.reshape(n, height, 3 * width)
    # Three numbers are repeated along a row: numpy would take eight times as long for each pixel.
    rows /= spread if len(spread) == 1 else np.tile(spread, width)
    rows -= shift if len(shift) == 1 else np.tile(shift, width)
    return scaled
