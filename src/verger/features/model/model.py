"""A loaded model, and the sessions that run models in this process."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from verger.errors import ContractError
from verger.features.contract import FeatureContract
from verger.features.model.golden import FIRST_CALL_S, GOLDEN_TOLERANCE, golden_pixels
from verger.features.model.graph import Layer
from verger.features.model.session import ModelSession, Vector
from verger.features.preprocess import decode_photo

#: Sessions that a process keeps: a float32 model and its int8 one are compared with each other.
#: Each takes some 30 MB.
N_SESSIONS = 2


#: A photo: where it is, its bytes, or its pixels.
AnyPhoto = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.uint8]
_ONE_PHOTO = (str, Path, bytes, bytearray, memoryview, Image.Image)
#: Modes of Pillow whose pixels a PNG holds as they are.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model:
    """A loaded model: an ONNX graph and its contract, ready to be sent to other processes.

    Attributes
    ----------
    contract : FeatureContract
    onnx : bytes
        Input (n, size, size, 3) float32 normalised; output (n, n_features) float32.
    golden : ndarray of shape (n_features,), float32
        Features of :func:`golden_pixels` as the driver computed them. Every process compares
        its own with them before its first photo.
    published : bool or None
        Whether the features of the golden photo are those of the published ImageNet weights;
        None for a model that Verger does not know.
    license, weights_path : str
    layers : tuple of Layer
        The summary, in Keras' terms for the built-in models.

    Examples
    --------
    >>> model = verger.load_model("efficientnet_lite0")
    >>> model.predict("apple.jpg").shape
    (1280,)
    """

    contract: FeatureContract
    onnx: bytes
    golden: Vector
    published: bool | None
    license: str
    weights_path: str
    layers: tuple[Layer, ...] = ()

    def open(self) -> ModelSession:
        """Start an inference session in this process and compare it with the golden vector.

        Raises
        ------
        ContractError
            If this process computes other features than the driver did.
        WeightsError
            If they take too long.
        """
        session = ModelSession(self.contract, self.onnx)
        pixels = golden_pixels(self.contract.input_size)[None]
        features = session.predict_within(pixels, FIRST_CALL_S)[0]
        difference = float(np.abs(features - self.golden).max())
        if not difference <= GOLDEN_TOLERANCE:  # NaN is no match either
            raise ContractError(
                f"contract {self.contract.short_hash}: this process computes features that "
                f"differ by {difference:.2g} (at most {GOLDEN_TOLERANCE}) on the golden photo"
            )
        return session

    def predict(self, photos: AnyPhoto | Sequence[AnyPhoto]) -> Vector:
        """Compute the features of one photo or of several, with neither Spark nor Java.

        Parameters
        ----------
        photos : path, bytes, image or array, or a sequence of them
            Files in any format that Pillow reads, or their bytes; Spark's rows hold these as
            ``bytearray``. Pixels may be a ``PIL.Image.Image``, or an ndarray of shape
            (height, width, 3), uint8, RGB: of a large JPEG these differ a little from its file's,
            which is decoded at a reduced scale.

        Returns
        -------
        ndarray of shape (n_features,) for one photo, (n, n_features) for a sequence, float32

        Raises
        ------
        verger.features.preprocess.DecodeError
            If a photo cannot be decoded.
        FileNotFoundError
            If a path does not exist.
        TypeError
            If something is none of these.
        """
        is_array = isinstance(photos, np.ndarray) and photos.ndim == 3
        if is_array or isinstance(photos, _ONE_PHOTO):
            one: Vector = self.predict([cast("AnyPhoto", photos)])[0]
            return one
        if not isinstance(photos, Iterable):
            raise _no_photo(photos)
        size, resizing = self.contract.input_size, self.contract.resizing
        session = open_cached(self)
        rows = [
            session.predict(decode_photo(content, size=size, resizing=resizing).pixels[None])[0]
            for content in map(_content_of, photos)
        ]
        return np.array(rows, np.float32).reshape(len(rows), self.contract.n_features)

    def __repr__(self) -> str:
        return f"Model({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{name}</th><td>{escape(v)}</td></tr>" for name, v in self._facts().items()
        )
        return f"<table><caption>Model</caption>{''.join(rows)}</table>"

    def _facts(self) -> dict[str, str]:
        contract = self.contract
        weights = {True: "published", False: "not the published ones", None: "the user's own"}
        return {
            "name": contract.model,
            "input": f"{contract.input_size}x{contract.input_size}",
            "features": str(contract.n_features),
            "contract": contract.short_hash,
            "weights": weights[self.published],
            "graph": f"{len(self.onnx) / 1e6:.1f} MB",
        }


def _content_of(photo: Any) -> bytes:
    """Return the bytes of a photo; pixels become a PNG, so that they are decoded as files are."""
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | Path):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise _no_photo(photo)
        photo = Image.fromarray(photo)
    if not isinstance(photo, Image.Image):
        raise _no_photo(photo)
    image = ImageOps.exif_transpose(photo)
    image = image if image.mode in _PNG_MODES else image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


def _no_photo(given: object) -> TypeError:
    kind = type(given).__name__
    if isinstance(given, np.ndarray):
        kind = f"ndarray of shape {given.shape}, {given.dtype}"
    return TypeError(
        f"{kind} is no photo: must be a path, bytes, a PIL image, an ndarray of shape "
        "(height, width, 3), uint8, or a sequence of these"
    )


class _Sessions:
    """The last few sessions of this process, shared by its threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_key: OrderedDict[tuple[str, bytes], ModelSession] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, model: Model) -> ModelSession:
        # A session counts as compared with its own golden vector only.
        key = (model.contract.hash, model.golden.tobytes())
        with self._lock:
            session = self._by_key.get(key) or model.open()
            self._by_key[key] = session
            self._by_key.move_to_end(key)
            while len(self._by_key) > self._limit:
                self._by_key.popitem(last=False)
        return session


_sessions = _Sessions(N_SESSIONS)


def open_cached(model: Model) -> ModelSession:
    """Return this process' session of the model, starting it if it is not among the last few.

    Raises
    ------
    ContractError
        If this process computes other features than the driver did.
    """
    return _sessions.get(model)
