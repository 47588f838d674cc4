"""What must hold of every way to a square: the pixels are those of plain Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from verger.features.isolate import decode_apart
from verger.features.preprocess import Resizing, decode_photo, resize_image

METHODS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("resample", METHODS)
@pytest.mark.parametrize("crop", ["center", "center_even"])
@pytest.mark.parametrize("size", [(91, 53), (53, 91), (40, 41), (41, 40), (20, 10)])
def test_shortest_edge_and_crop_are_pillows(
    size: tuple[int, int], crop: str, resample: str
) -> None:
    """Resize the shorter edge, round down as torchvision does, and cut out of the middle."""
    image, short = picture(*size), min(size)
    whole = tuple(int(37 * side / short) for side in size)
    left, top = (
        round((side - 32) / 2) if crop == "center_even" else (side - 32) // 2 for side in whole
    )
    plain = image.resize(whole, METHODS[resample]).crop((left, top, left + 32, top + 32))
    resizing = Resizing("shortest_edge", 37, resample, crop)
    pixels = decode_photo(png(image), size=32, resizing=resizing).pixels
    assert np.array_equal(pixels, np.asarray(plain))


def test_squeezed_and_cropped_is_pillows() -> None:
    image = picture(91, 53)
    plain = image.resize((40, 40), Image.Resampling.LANCZOS).crop((4, 4, 36, 36))
    resizing = Resizing("square", 40, "lanczos", "center")
    assert np.array_equal(np.asarray(resize_image(image, 32, resizing=resizing)), np.asarray(plain))


def test_a_very_long_photo_takes_no_more_memory() -> None:
    """Of a photo 100 times as long as high only the middle is resized, to the same pixels."""
    image = picture(2000, 20)
    plain = image.resize((4000, 40), Image.Resampling.BICUBIC).crop((1984, 4, 2016, 36))
    resizing = Resizing("shortest_edge", 40, "bicubic", "center")
    pixels = np.asarray(resize_image(image, 32, resizing=resizing)).astype(int)
    assert np.abs(pixels - np.asarray(plain)).max() <= 1


def test_jpegs_are_reduced_by_the_resized_side_and_decoded_apart_alike() -> None:
    """A JPEG keeps twice the resized side, not twice the crop, in this process and in another."""
    stream = io.BytesIO()
    picture(400, 300).save(stream, "JPEG")
    reduced = Image.open(io.BytesIO(stream.getvalue()))
    reduced.draft(None, (140, 140))
    assert reduced.size == (200, 150)
    plain = reduced.resize((93, 70), Image.Resampling.BICUBIC).crop((30, 19, 62, 51))
    resizing = Resizing("shortest_edge", 70, "bicubic", "center")
    for decode in (decode_photo, decode_apart):
        pixels = decode(stream.getvalue(), size=32, resizing=resizing).pixels
        assert np.array_equal(pixels, np.asarray(plain))


@pytest.mark.parametrize(
    ("values", "match"),
    [(("longest",), "resize='longest' must be one of"), (("shortest_edge", 40), "crop='none'")],
)
def test_unknown_rules_are_refused(values: tuple[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Resizing(*values)
