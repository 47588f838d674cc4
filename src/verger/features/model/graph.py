"""An ONNX graph as bytes, and its summary in Keras' terms."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One row of a model's summary, in Keras' terms.

    Attributes
    ----------
    name, kind : str
        For instance ``Conv1`` and ``Conv2D``.
    shape : tuple of int
        Output as (height, width, channels), or (n_features,).
    n_params : int
        Numbers that the layer holds, moving averages of BatchNorm included.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_params: int = 0


@dataclass(frozen=True)
class Graph:
    """An ONNX graph as bytes, and its summary."""

    onnx: bytes = field(repr=False)
    layers: tuple[Layer, ...] = field(repr=False)
