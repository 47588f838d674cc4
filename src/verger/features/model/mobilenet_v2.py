"""MobileNetV2 1.0 without its top, from Keras' HDF5 weights.

Architecture: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
table 2; layer names, paddings and the epsilon of BatchNorm as in ``keras.applications``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from verger.errors import WeightsError
from verger.features.model.graph_writer import Array, BatchNorm, GraphWriter, same_pads

EPSILON = 1e-3  # keras.applications.mobilenet_v2

#: (expansion, channels, repeats, stride of the first) of each stage: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def write_graph(weights: Path, *, size: int) -> GraphWriter:
    """Read the weights and write the network.

    Parameters
    ----------
    weights : Path
        Keras' legacy ``.h5`` (old or new dataset names) or Keras 3's ``.weights.h5``.
    size : int
        Height and width of the input, a multiple of 32.

    Raises
    ------
    WeightsError
        If the file is no HDF5, or not the weights of this network.
    """
    tensors = _TensorReader(weights)
    try:
        graph = _write(tensors, size)
        tensors.check_empty()
    finally:
        tensors.file.close()
    return graph


def _write(tensors: _TensorReader, size: int) -> GraphWriter:
    graph = GraphWriter(size)
    x = graph.input("input_layer")
    x = _conv(graph, tensors, x, "Conv1", "bn_Conv1", (32, 3, 3, 3), stride=2)
    x = graph.relu6(x, "Conv1_relu")
    channels, block = 32, 0
    for expansion, out_channels, repeats, first_stride in STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _block(graph, tensors, x, block, (channels, out_channels), expansion, stride=stride)
            channels, block = out_channels, block + 1
    x = _conv(graph, tensors, x, "Conv_1", "Conv_1_bn", (1280, channels, 1, 1))
    graph.average_pool(graph.relu6(x, "out_relu"), "global_average_pooling2d")
    return graph


def _block(
    graph: GraphWriter,
    tensors: _TensorReader,
    x: str,
    block: int,
    channels: tuple[int, int],
    expansion: int,
    *,
    stride: int,
) -> str:
    """Add one inverted residual: expand 1x1, depthwise 3x3, project 1x1, and the shortcut."""
    name = f"block_{block}" if block else "expanded_conv"
    inner, shortcut = channels[0] * expansion, x
    if block:
        x = _conv(
            graph, tensors, x, f"{name}_expand", f"{name}_expand_BN", (inner, channels[0], 1, 1)
        )
        x = graph.relu6(x, f"{name}_expand_relu")
    depthwise = f"{name}_depthwise"
    x = _conv(graph, tensors, x, depthwise, f"{depthwise}_BN", (inner, 1, 3, 3), stride=stride)
    x = graph.relu6(x, f"{depthwise}_relu")
    project = f"{name}_project"
    x = _conv(graph, tensors, x, project, f"{project}_BN", (channels[1], inner, 1, 1))
    if stride == 1 and channels[0] == channels[1]:
        x = graph.add(shortcut, x, f"{name}_add")
    return x


def _conv(
    graph: GraphWriter,
    tensors: _TensorReader,
    x: str,
    name: str,
    bn_name: str,
    shape: tuple[int, int, int, int],
    *,
    stride: int = 1,
) -> str:
    """Add convolution and BatchNorm; ``shape`` is ONNX' (out, in / groups, height, width)."""
    depthwise = name.endswith("_depthwise")
    out_channels, in_channels, k, _ = shape
    # Keras: (h, w, in, out); depthwise (h, w, channels, 1). ONNX: (out, in / groups, h, w).
    keras_shape = (k, k, out_channels, 1) if depthwise else (k, k, in_channels, out_channels)
    kind = "depthwise_conv2d" if depthwise else "conv2d"
    (kernel,) = tensors.take(kind, name, (keras_shape,))
    order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    gamma, beta, mean, variance = tensors.take(
        "batch_normalization", bn_name, ((out_channels,),) * 4
    )
    batch_norm = BatchNorm(gamma, beta, mean, variance, EPSILON)
    return graph.conv_bn(
        x,
        name,
        kernel.transpose(order),
        batch_norm,
        bn_name=bn_name,
        stride=stride,
        pads=same_pads(k, stride, graph.layers[-1].shape[0]),
        depthwise=depthwise,
    )


class _TensorReader:
    """Hands out the tensors of Keras' layers in the network's order, checking every shape.

    Keras has three layouts of HDF5: ``save_weights`` before Keras 3 (one group a layer, in
    order), a whole model (the same below ``model_weights``), and Keras 3's ``.weights.h5``
    (groups named by class and a running number: ``conv2d``, ``conv2d_1``). The first two are
    read by order, as Keras itself does, because old files name their datasets otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = h5py.File(path, "r")
            elsewhere = self.file.visititems_links(_name_if_external)
            if elsewhere:
                raise WeightsError(
                    f"weights {path}: {elsewhere!r} lies in another file, which no sha256 covers; "
                    "save the weights as one file"
                )
            self.queues = self._queues()
        except (OSError, KeyError, AttributeError, TypeError, ValueError) as err:
            if hasattr(self, "file"):
                self.file.close()
            if isinstance(err, WeightsError):
                raise
            raise WeightsError(
                f"weights {path}: not a readable file of Keras weights: {err}"
            ) from err

    def check_empty(self) -> None:
        """Refuse the file if layers are left that the network does not have."""
        left = [name for queue in self.queues.values() for name, _ in queue]
        if left:
            raise WeightsError(
                f"weights {self.path}: {len(left)} layers too many, from {left[0]!r} on; "
                "if this file has the top, take the one named no_top"
            )

    def take(self, kind: str, layer: str, shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
        """Return the next layer's tensors in float64, refusing any other shape."""
        queue = self.queues.get(kind, self.queues.get("all", []))
        name, datasets = queue.pop(0) if queue else (None, [])
        found = tuple(getattr(dataset, "shape", None) for dataset in datasets)
        if found != shapes:
            raise WeightsError(
                f"weights {self.path}: not MobileNetV2 1.0 without top: layer {layer!r} needs "
                f"shapes {list(shapes)}, the file has {list(found)} in {name!r}"
            )
        if any(dataset.external or dataset.is_virtual for dataset in datasets):
            raise WeightsError(
                f"weights {self.path}: layer {name!r} lies in another file, which no sha256 "
                "covers; save the weights as one file"
            )
        if any(_may_grow(dataset) for dataset in datasets):
            raise WeightsError(
                f"weights {self.path}: layer {name!r} is compressed, in chunks that are larger "
                "than itself, or no floating-point numbers; save the weights as Keras does"
            )
        try:
            tensors = [np.asarray(dataset, dtype=np.float64) for dataset in datasets]
        except (OSError, TypeError, ValueError) as err:
            raise WeightsError(f"weights {self.path}: layer {name!r} is damaged: {err}") from err
        if not all(np.isfinite(tensor).all() for tensor in tensors):
            raise WeightsError(f"weights {self.path}: layer {name!r} holds NaN or infinity")
        return tensors

    def _queues(self) -> dict[str, list[tuple[str, list[Any]]]]:
        root = self.file.get("model_weights", self.file)
        if "layer_names" in root.attrs:
            names = [_text(name) for name in root.attrs["layer_names"]]
            tensors = ((name, _legacy_tensors(root[name])) for name in names)
            return {"all": [(name, found) for name, found in tensors if found]}
        if "layers" not in root:
            raise WeightsError(
                f"weights {self.path}: HDF5, but neither of Keras' layouts (.h5, .weights.h5)"
            )
        return _keras3_queues(root["layers"])


def _name_if_external(name: str, link: Any) -> str | None:
    return name if isinstance(link, h5py.ExternalLink) else None


def _may_grow(dataset: Any) -> bool:
    """Whether reading a dataset may take more memory than its numbers."""
    n_of_chunk = math.prod(dataset.chunks or ())
    is_compressed = dataset.compression is not None
    return is_compressed or n_of_chunk > dataset.size or dataset.dtype.kind != "f"


def _legacy_tensors(group: Any) -> list[Any]:
    return [group[_text(name)] for name in group.attrs["weight_names"]]


# conv2d -> conv2d, 0; conv2d_12 -> conv2d, 12
_KERAS3_NAME = r"^(.+?)(?:_(\d+))?$"


def _keras3_queues(layers: Any) -> dict[str, list[tuple[str, list[Any]]]]:
    queues: dict[str, list[tuple[int, str, list[Any]]]] = {}
    for name, group in layers.items():
        variables = group["vars"]
        if len(variables):
            kind, number = re.findall(_KERAS3_NAME, name)[0]
            tensors = [variables[str(i)] for i in range(len(variables))]
            queues.setdefault(kind, []).append((int(number or 0), name, tensors))
    return {
        kind: [(n, t) for _, n, t in sorted(q, key=lambda e: e[0])] for kind, q in queues.items()
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
