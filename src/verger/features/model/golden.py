"""The golden photo: every process must compute the driver's features of it."""

from __future__ import annotations

from importlib import resources

import numpy as np

from verger.errors import WeightsError
from verger.features.contract import FeatureContract
from verger.features.model.session import ModelSession, Pixels, Vector

#: Largest difference of one feature between two machines that run the same contract. Kernels
#: differ between AVX2, AVX-512 and ARM; seen are 2e-5 where features reach 5.5.
GOLDEN_TOLERANCE = 1e-3

#: Seconds that a model may take for the golden photo. The built-in ones take 0.05.
FIRST_CALL_S = 120.0


def golden_pixels(size: int) -> Pixels:
    """Draw the golden photo: ramps and a weave, in integers, so that all machines agree.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
    """
    y, x = np.mgrid[0:size, 0:size]
    red = x * 255 // (size - 1)
    green = y * 255 // (size - 1)
    blue = (x * y // 7 + 13 * (x // 16) + 29 * (y // 16)) % 256
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def golden_vector(contract: FeatureContract, graph: bytes) -> Vector:
    """Compute the features of the golden photo, and check that no other photo changes them.

    Raises
    ------
    WeightsError
        If they take too long, are not as many as the contract says, are not finite, or are
        others beside another photo.
    """
    pixels = golden_pixels(contract.input_size)
    session = ModelSession(contract, graph)
    golden: Vector = session.predict_within(pixels[None], FIRST_CALL_S)[0]
    if golden.shape != (contract.n_features,) or not np.isfinite(golden).all():
        raise WeightsError(
            f"model {contract.model}: the golden photo gives shape {golden.shape} with "
            f"{int((~np.isfinite(golden)).sum())} values not finite, not ({contract.n_features},)"
        )
    _check_batches(session, pixels, golden)
    return golden


def _check_batches(session: ModelSession, pixels: Pixels, alone: Vector) -> None:
    """Refuse a graph whose features of a photo depend on the other photos."""
    try:
        together = session.predict_within(np.stack([255 - pixels, pixels]), FIRST_CALL_S)
    except WeightsError:  # out of time
        raise
    except Exception as err:  # onnxruntime's errors share no public base
        raise WeightsError(f"model {session.contract.model}: takes no two photos: {err}") from err
    if together.shape != (2, len(alone)) or not np.allclose(together[1], alone, 1e-3, 1e-4):
        raise WeightsError(
            f"model {session.contract.model}: features of a photo depend on the photos beside it"
        )


def published_golden(name: str) -> Vector | None:
    """Return the golden vector of a built-in model's published weights.

    Computed from the real ImageNet weights by ``tests/data/make_golden.py``.
    """
    file = resources.files("verger.features.model") / "golden.npz"
    with file.open("rb") as stream:
        vectors = np.load(stream)
        vector: Vector | None = vectors.get(name)
        return vector


def is_published(name: str, golden: Vector) -> bool | None:
    """Whether a golden vector is the published weights'; None for a model that is not built in."""
    expected = published_golden(name)
    if expected is None:
        return None
    return bool(np.abs(golden - expected).max() <= GOLDEN_TOLERANCE)
