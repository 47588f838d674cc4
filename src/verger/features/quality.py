"""How bright, how contrasted and how sharp a decoded photo is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Red, green and blue of 0 to 255 to luma of 0 to 1 (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
#: Side that all photos are measured at, about, and the shorter side that a tiny one counts with.
_MOST_SIDE, _LEAST_SIDE = 224, 32


def measure_quality(pixels: npt.NDArray[np.uint8], shorter_side: int) -> tuple[float, float, float]:
    """Measure a photo on the pixels that the model sees.

    Of a photo that was enlarged, or is larger than 224 pixels, only every n-th pixel counts, so
    that enlarging is no blur and models of all input sizes measure about alike.

    Parameters
    ----------
    pixels : ndarray of shape (size, size, 3), uint8
        RGB, as :class:`verger.features.preprocess.Photo` has them: where the preprocessing cuts
        out the middle, what lies around it does not count. Transparent pixels are white.
    shorter_side : int
        Of the photo in its file, in pixels.

    Returns
    -------
    brightness : float
        Mean of the luma, 0 to 1.
    contrast : float
        Standard deviation of the luma, 0 to 0.5.
    sharpness : float
        Standard deviation of the Laplacian of the luma (Pech-Pacheco et al. 2000), 0 to 4: the
        four pixels around less four times the pixel. 0 if there are fewer than 3 x 3 pixels.
    """
    seen = min(max(shorter_side, _LEAST_SIDE), _MOST_SIDE)
    step = max(1, round(len(pixels) / seen))
    luma: npt.NDArray[np.float32] = pixels[::step].astype(np.float32)[:, ::step] @ _LUMA
    brightness = _mean(luma)
    luma -= np.float32(brightness)  # or float32 has too few digits for the squares
    laplacian: npt.NDArray[np.float32] = luma[:-2, 1:-1] + luma[2:, 1:-1]
    laplacian += luma[1:-1, :-2]
    laplacian += luma[1:-1, 2:]
    laplacian -= 4 * luma[1:-1, 1:-1]
    # Deviations from a mean of 0: that of a Laplacian is, but for the rim of the photo.
    return brightness, _mean(luma * luma) ** 0.5, _mean(laplacian * laplacian) ** 0.5


def _mean(values: npt.NDArray[np.float32]) -> float:
    """Return a mean; beside a model, ``mean`` and ``std`` take three times as long."""
    return float(np.add.reduce(values.ravel())) / max(values.size, 1)
