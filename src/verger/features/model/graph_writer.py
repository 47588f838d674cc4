"""A small writer of ONNX graphs for convolutional networks with BatchNorm folded in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from verger.features.model.graph import Layer

#: Opset and IR that onnxruntime has read since 1.15, so that older workers can run the graph.
OPSET = 17
IR_VERSION = 8

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class BatchNorm:
    """Parameters of one BatchNorm, each of shape (channels,)."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float

    def fold_into(self, kernel: Array) -> tuple[Array, Array]:
        """Fold this BatchNorm into the convolution before it.

        ``gamma * (K x - mean) / sqrt(variance + epsilon) + beta`` is a convolution with kernel
        ``K * s`` and bias ``beta - mean * s``, where ``s = gamma / sqrt(variance + epsilon)``.

        Parameters
        ----------
        kernel : ndarray of shape (out_channels, in_channels / groups, height, width)

        Returns
        -------
        kernel : ndarray of the same shape
        bias : ndarray of shape (out_channels,)
        """
        scale = self.gamma / np.sqrt(self.variance + self.epsilon)
        return kernel * scale[:, None, None, None], self.beta - self.mean * scale


@dataclass(repr=False)
class GraphWriter:
    """Collects nodes, weights and the summary; values inside are NCHW, named by their layer.

    The graph's input ``image`` is (n, size, size, 3) float32, normalised; its output
    ``features`` is (n, n_features) float32.
    """

    size: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)

    def input(self, name: str) -> str:
        """Start from the image, channels last."""
        self.layers.append(Layer(name, "InputLayer", (self.size, self.size, 3)))
        self._node("Transpose", ["image"], "image_nchw", perm=[0, 3, 1, 2])
        self.weights.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
        self.weights.append(numpy_helper.from_array(np.array(6, np.float32), "six"))
        return "image_nchw"

    def conv_bn(
        self,
        x: str,
        name: str,
        kernel: Array,
        batch_norm: BatchNorm,
        *,
        bn_name: str,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        depthwise: bool = False,
    ) -> str:
        """Add a convolution without bias and the BatchNorm behind it, as one node.

        Parameters
        ----------
        kernel : ndarray of shape (out_channels, in_channels / groups, height, width)
        pads : (before, after)
            Pixels added on both axes; TensorFlow pads more after than before.
        """
        folded, bias = batch_norm.fold_into(kernel)
        out_channels, k = kernel.shape[0], kernel.shape[2]
        self.weights.append(numpy_helper.from_array(folded.astype(np.float32), f"{name}/kernel"))
        self.weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}/bias"))
        self._node(
            "Conv",
            [x, f"{name}/kernel", f"{name}/bias"],
            bn_name,
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=[pads[0], pads[0], pads[1], pads[1]],
            group=out_channels if depthwise else 1,
        )
        shape = self._conv_shape(out_channels, k, stride, sum(pads))
        kind = "DepthwiseConv2D" if depthwise else "Conv2D"
        self.layers.append(Layer(name, kind, shape, kernel.size))
        self.layers.append(Layer(bn_name, "BatchNormalization", shape, 4 * out_channels))
        return bn_name

    def relu6(self, x: str, name: str) -> str:
        """Clip to [0, 6]."""
        self.layers.append(Layer(name, "ReLU", self.layers[-1].shape))
        return self._node("Clip", [x, "zero", "six"], name)

    def add(self, x: str, y: str, name: str) -> str:
        """Add two values of the same shape."""
        self.layers.append(Layer(name, "Add", self.layers[-1].shape))
        return self._node("Add", [x, y], name)

    def average_pool(self, x: str, name: str) -> None:
        """Average over height and width: the graph's output."""
        n_features = self.layers[-1].shape[-1]
        pooled = self._node("GlobalAveragePool", [x], name)  # (n, c, h, w) -> (n, c, 1, 1)
        self._node("Flatten", [pooled], "features")  # (n, c, 1, 1) -> (n, c)
        self.layers.append(Layer(name, "GlobalAveragePooling2D", (n_features,)))

    def dense(self, name: str, kernel: Array, bias: Array, output: str) -> None:
        """Add a second output: ``features @ kernel + bias``; for proofs with a top.

        Parameters
        ----------
        kernel : ndarray of shape (n_features, n_classes)
        bias : ndarray of shape (n_classes,)
        """
        self.weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{name}/kernel"))
        self.weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}/bias"))
        self._node("Gemm", ["features", f"{name}/kernel", f"{name}/bias"], output)

    def to_bytes(self, outputs: dict[str, int] | None = None) -> bytes:
        """Finish, check and serialise the graph.

        Parameters
        ----------
        outputs : dict of str to int
            Name and width of every output; by default ``features`` alone.
        """
        outputs = outputs or {"features": self.layers[-1].shape[0]}
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["n", self.size, self.size, 3]
        )
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
            for name, width in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "verger", [image], values, self.weights)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _conv_shape(self, channels: int, k: int, stride: int, pad: int) -> tuple[int, ...]:
        height, width, _ = self.layers[-1].shape
        return ((height + pad - k) // stride + 1, (width + pad - k) // stride + 1, channels)


def same_pads(kernel: int, stride: int, size: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding along one axis: the odd pixel goes after.

    Keras' MobileNetV2 pads its stride-2 convolutions by hand (``correct_pad``), to the same
    numbers.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
