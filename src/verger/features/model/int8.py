"""A cheaper model: the convolutions of a built-in graph in 8-bit integers.

Static quantisation: the range of every value is found on some photos, and belongs to the graph
from then on. Activations are unsigned, weights signed and scaled by output channel. Kernels for
integers differ between machines: where a processor adds products of bytes in 16 bits (AVX2), large
ones saturate, elsewhere (VNNI, ARM) they do not. Features of the two are as far from each other
as from float32's, so that the golden photo keeps them apart.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from verger.config import check_quantizable
from verger.engine.scratch import scratch_folder
from verger.errors import ConfigError, ContractError
from verger.features.contract import FeatureContract
from verger.features.model.golden import golden_vector
from verger.features.model.model import Model
from verger.features.model.session import Pixels, Vector, import_onnxruntime
from verger.features.preprocess import normalize

#: Raised by one whenever the same photos would give another graph.
INT8_VERSION = 1

#: Photos whose activations give the ranges.
N_CALIBRATION = 64

#: First convolutions that stay in float32: few channels, wide ranges, and little to gain.
_N_FLOAT = 3

_MARK = f", int8 {INT8_VERSION} "


def float32_contract(contract: FeatureContract) -> FeatureContract:
    """Return the contract of the model that an int8 one was made of; any other as it is."""
    return replace(contract, graph=contract.graph.partition(_MARK)[0])


def graph_digest(contract: FeatureContract) -> str | None:
    """Return the sha256 of an int8 model's graph, and None for any other contract."""
    return contract.graph.partition(_MARK)[2] or None


def quantize(model: Model, photos: Sequence[Pixels]) -> Model:
    """Compute a model's convolutions in 8-bit integers: faster, and with other features.

    The same photos in the same order give the same graph.

    Parameters
    ----------
    model : Model
        A built-in one.
    photos : sequence of ndarray of shape (size, size, 3), uint8
        Photos like those that the model will see, some :data:`N_CALIBRATION` of them.

    Returns
    -------
    Model
        Its contract names the new graph by its sha256.

    Raises
    ------
    ConfigError
        If there is no photo, or the model is one of a user's own.

    Examples
    --------
    >>> model = verger.load_model("efficientnet_lite0")
    >>> pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    >>> verger.quantize(model, pixels).contract.hash == model.contract.hash
    False
    """
    check_quantizable(model.contract.model)
    if not len(photos):
        raise ConfigError("precision='int8' needs a photo that can be decoded to find its ranges")
    graph = _quantized(model, photos)
    contract = replace(model.contract, graph=_graph_name(model.contract, graph))
    return replace(model, contract=contract, onnx=graph, golden=golden_vector(contract, graph))


def restore(model: Model, graph: bytes, golden: Vector) -> Model:
    """Return the quantised model that another process has made of this one.

    Parameters
    ----------
    model : Model
        In float32.
    graph, golden
        The ``onnx`` and ``golden`` of what :func:`quantize` returned then.

    Raises
    ------
    ContractError
        If this machine computes other features with the graph.
    """
    contract = replace(model.contract, graph=_graph_name(model.contract, graph))
    restored = replace(model, contract=contract, onnx=graph, golden=golden)
    try:
        restored.open()
    except ContractError as err:
        raise ContractError(
            f"{err}; int8 features of two kinds of processor differ and never mix: go on where "
            "the run was begun, or choose another folder"
        ) from err
    return restored


def _graph_name(base: FeatureContract, graph: bytes) -> str:
    return f"{base.graph}{_MARK}{hashlib.sha256(graph).hexdigest()}"


def _quantized(model: Model, photos: Sequence[Pixels]) -> bytes:
    import_onnxruntime()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load_from_string(model.onnx)
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    # BatchNorm is folded and the shapes are known: there is nothing to prepare, and without
    # this mark onnxruntime says so through the root logger.
    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            str(target),
            _Reader(model, photos),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            # The ReLU6 behind a convolution goes into its range.
            op_types_to_quantize=["Conv", "Clip"],
            nodes_to_exclude=convolutions[:_N_FLOAT],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


class _Reader:
    """Photos as onnxruntime's calibration asks for them, one by one."""

    def __init__(self, model: Model, photos: Sequence[Pixels]) -> None:
        contract = model.contract
        self._images: Iterator[Any] = (
            normalize(np.asarray(pixels)[None], mean=contract.mean, std=contract.std)
            for pixels in photos
        )

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)
