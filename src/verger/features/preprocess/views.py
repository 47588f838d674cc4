"""Views of a photo: the whole of it, and crops that a classifier looks at beside it."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.features.preprocess.layout import Box
from verger.features.preprocess.resizing import SQUARE, Extent, Resizing, resize_image

#: Of every choice, the share of width and height that its crops keep, as numerator and
#: denominator, and where each stands: in halves of what is left, from the left and from the top.
#: Whole numbers, so that an exported graph rounds alike.
CROPS: dict[str, tuple[int, int, tuple[tuple[int, int], ...]]] = {
    "whole": (1, 1, ()),
    "center": (3, 4, ((1, 1),)),
    "five": (3, 5, ((0, 0), (2, 0), (0, 2), (2, 2))),
}


def n_views(views: str) -> int:
    """Return how many pictures a choice of views has: the whole photo, and each crop."""
    return 1 + len(CROPS[views][-1])


def crop_boxes(width: int, height: int, views: str) -> list[Box]:
    """Return what the crops of a photo cover: (left, top, right, bottom) in pixels.

    Parameters
    ----------
    width, height : int
        Of the photo.
    views : {"whole", "center", "five"}
    """
    numerator, denominator, places = CROPS[views]
    across, down = (
        (2 * side * numerator + denominator) // (2 * denominator) for side in (width, height)
    )
    boxes = []
    for x, y in places:
        left, top = x * (width - across) // 2, y * (height - down) // 2
        boxes.append((left, top, left + across, top + down))
    return boxes


def cut_views(
    image: Image.Image,
    size: int,
    views: str,
    seen: tuple[int, int] | None = None,
    extent: Extent | None = None,
    resizing: Resizing = SQUARE,
) -> npt.NDArray[np.uint8]:
    """Cut the crops out of a photo, each resized as the whole photo is.

    Parameters
    ----------
    image : Image
        RGB, upright.
    size : int
        Height and width of the result in pixels.
    views : {"whole", "center", "five"}
    seen : (width, height), optional
        Of the photo in its file, where the image is at a reduced scale.
    extent : (left, top, right, bottom), optional
        The part of the image that the photo fills, as for
        :func:`verger.features.preprocess.resizing.resize_image`.
    resizing : Resizing
        How each crop becomes a square.

    Returns
    -------
    ndarray of shape (n_crops, size, size, 3), uint8
    """
    width, height = seen or image.size
    left, top, right, bottom = extent or (0.0, 0.0, *image.size)
    across, down = (right - left) / width, (bottom - top) / height
    crops = [np.empty((0, size, size, 3), np.uint8)]
    for box in crop_boxes(width, height, views):
        x0, y0 = left + box[0] * across, top + box[1] * down
        x1 = min(left + box[2] * across, image.width)
        y1 = min(top + box[3] * down, image.height)
        # Cut out first: Pillow would look at pixels around a box.
        part = image.crop((floor(x0), floor(y0), ceil(x1), ceil(y1)))
        inside = x0 - floor(x0), y0 - floor(y0), x1 - floor(x0), y1 - floor(y0)
        crops.append(np.asarray(resize_image(part, size, inside, resizing))[None])
    return np.concatenate(crops)
