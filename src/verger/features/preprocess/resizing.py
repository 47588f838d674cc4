"""How a photo becomes the square that a model takes: the rule, the resample filter and the crop."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

Extent = tuple[float, float, float, float]  # left, top, right, bottom

#: ``square`` squeezes the photo to a square, ``shortest_edge`` keeps its shape.
RULES = ("square", "shortest_edge")
#: Filters of Pillow that encoders are trained with.
RESAMPLES = ("bicubic", "bilinear", "lanczos")
#: Where an odd pixel goes that is left over around a crop in the middle: ``center`` rounds down, as
#: the image processors of transformers do, ``center_even`` to the next even number, as torchvision
#: and timm do.
MIDDLES = ("none", "center", "center_even")

# Where a photo is longer than this many times its width, only what is kept of it is resized: all
# of it would take as much more memory.
_LONGEST = 32


@dataclass(frozen=True)
class Resizing:
    """How a photo becomes a square.

    Attributes
    ----------
    rule : {"square", "shortest_edge"}
    side : int or None
        Of the resized photo in pixels, or of its shorter edge; None for the side of the square.
    resample : {"bicubic", "bilinear", "lanczos"}
    crop : {"none", "center", "center_even"}
        How the square is cut out of the resized photo.
    """

    rule: str = "square"
    side: int | None = None
    resample: str = "bicubic"
    crop: str = "none"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("resize", self.rule, RULES),
            ("resample", self.resample, RESAMPLES),
            ("crop", self.crop, MIDDLES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")
        if self.crop == "none" and (self.rule, self.side) != ("square", None):
            raise ValueError("crop='none': only a photo that is squeezed to the input needs none")

    def target(self, width: float, height: float, size: int) -> tuple[int, int]:
        """Return (width, height) of a resized photo, before the crop, as torchvision rounds."""
        side = self.side or size
        if self.rule == "square":
            return side, side
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def numbers(self) -> tuple[int, int, int, int]:
        """Return it as whole numbers, for another process."""
        places = RULES.index(self.rule), RESAMPLES.index(self.resample), MIDDLES.index(self.crop)
        return (*places, self.side or 0)

    @classmethod
    def from_numbers(cls, rule: int, resample: int, crop: int, side: int) -> Resizing:
        """Read it back from :meth:`numbers`."""
        return cls(RULES[rule], side or None, RESAMPLES[resample], MIDDLES[crop])


#: The rule of the built-in models.
SQUARE = Resizing()


def resize_image(
    image: Image.Image, size: int, box: Extent | None = None, resizing: Resizing = SQUARE
) -> Image.Image:
    """Resize an RGB image, and cut (size, size) out of its middle where the rule says so.

    Parameters
    ----------
    image : Image
    size : int
    box : (left, top, right, bottom), optional
        The part of the image that the photo fills: at 1/8 of 1001 pixels, 125.125 of 126. Without
        it features of large photos differ, by a cosine of down to 0.989.
    resizing : Resizing
        By default squeezed, as Pillow's ``resize`` does by default: bicubic.
    """
    method = Image.Resampling[resizing.resample.upper()]
    left, top, right, bottom = box or (0, 0, *image.size)
    target = resizing.target(right - left, bottom - top, size)
    if target == (size, size):
        return image.resize(target, method, box)
    x, y = (
        round((side - size) / 2) if resizing.crop == "center_even" else (side - size) // 2
        for side in target
    )
    if max(target) <= _LONGEST * size:
        return image.resize(target, method, box).crop((x, y, x + size, y + size))
    across, down = (right - left) / target[0], (bottom - top) / target[1]
    part = (left + x * across, top + y * down, left + (x + size) * across, top + (y + size) * down)
    return image.resize((size, size), method, part)
