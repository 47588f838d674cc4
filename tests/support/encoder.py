"""A tiny encoder as a hub has them: an ONNX export with open sizes, and what says its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

N_FEATURES, SIZE = 384, 32
#: As dinov2 has it: the shorter edge to 40, and 32 out of the middle.
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 40},
    "do_center_crop": True,
    "crop_size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "do_flip_channel_order": False,
    "processor_class": None,
}


def write_encoder(path: Path, *, external: bool = False) -> Path:
    """Write a graph: 16 patches, of which each gives a token of 384 numbers.

    Its outputs are ``last_hidden_state``, (n, 16, 384), ``pooler_output``, (n, 384), their mean,
    and ``logits``, (n, 2).
    """
    rng = np.random.default_rng(0)
    weights = {
        "patches": rng.normal(size=(N_FEATURES, 3, 8, 8)).astype(np.float32) / 8,
        "tokens": np.array([0, N_FEATURES, -1]),
        "head": rng.normal(size=(N_FEATURES, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "patches"], ["maps"], strides=[8, 8]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("Reshape", ["active", "tokens"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["last_hidden_state"], perm=[0, 2, 1]),
        helper.make_node(
            "ReduceMean", ["last_hidden_state"], ["pooler_output"], axes=[1], keepdims=0
        ),
        helper.make_node("MatMul", ["pooler_output", "head"], ["logits"]),
    ]
    value, real = helper.make_tensor_value_info, TensorProto.FLOAT
    dims = ["batch_size", "num_channels", "height", "width"]
    outputs = {
        "last_hidden_state": ["batch_size", "sequence_length", N_FEATURES],
        "pooler_output": ["batch_size", N_FEATURES],
        "logits": ["batch_size", 2],
    }
    graph = helper.make_graph(
        nodes,
        "encoder",
        [value("pixel_values", real, dims)],
        [value(name, real, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.name}_data", size_threshold=0
    )
    return path
