"""Brightness, contrast and sharpness of photos whose measures are known, or can be compared."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from verger.features.preprocess import decode_photo
from verger.features.quality import measure_quality


def measure(image: Image.Image, size: int = 224) -> tuple[float, float, float]:
    """Measure a picture as a run does: decoded for a model's input."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    photo = decode_photo(stream.getvalue(), size=size)
    return measure_quality(photo.pixels, min(photo.width, photo.height))


@pytest.fixture(scope="module")
def leaves() -> Image.Image:
    """Return a picture of 600 x 600 with detail of many sizes, of a middling brightness."""
    rng, layers = np.random.default_rng(0), []
    for n in (6, 20, 75, 150):
        spots = Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8))
        layers.append(np.asarray(spots.resize((600, 600), Image.Resampling.BICUBIC), float))
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def test_the_measures_are_those_of_their_formulas() -> None:
    """Of random pixels, against float64; of one colour, and of too few pixels, exactly."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    luma = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    expected = luma.mean(), luma.std(), (around - 4 * luma[1:-1, 1:-1]).std()
    assert measure_quality(pixels, 64) == pytest.approx(expected, rel=1e-3)
    white = np.full((2, 2, 3), 255, np.uint8)
    assert measure_quality(white, 1) == pytest.approx((1, 0, 0), abs=1e-6)


def test_a_darker_lighter_or_blurred_photo_measures_so(leaves: Image.Image) -> None:
    brightness, contrast, sharpness = measure(leaves)
    assert 0.4 < brightness < 0.6
    assert measure(leaves.point(lambda v: v // 5))[0] == pytest.approx(brightness / 5, abs=0.01)
    light = measure(leaves.point(lambda v: 255 - (255 - v) // 20))
    assert light[0] > 0.95
    assert light[1] < contrast / 10
    assert measure(leaves.filter(ImageFilter.GaussianBlur(9)))[2] < sharpness / 5


@pytest.mark.parametrize("size", [224, 448])
def test_enlarging_is_no_blur(leaves: Image.Image, size: int) -> None:
    """A small photo that the model's input enlarges measures about as at its own size."""
    for side in (112, 75, 40):
        small = leaves.resize((side, side), Image.Resampling.LANCZOS)
        own = measure_quality(np.asarray(small), side)
        assert measure(small, size)[:2] == pytest.approx(own[:2], rel=0.1)
        assert own[2] / 1.6 < measure(small, size)[2] < own[2] * 1.6
