"""Which tensor of a graph the features are, and how it becomes one vector a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from verger.errors import ConfigError, WeightsError
from verger.features.model.session import import_onnxruntime

#: Ways to one vector: the first token, or the mean of all tokens or of all places of a map.
POOLS = ("cls", "mean")
# What exports of transformers call one vector a photo, and what is of labels.
_VECTORS, _LABELS = ("image_embeds", "pooler_output"), "logits"


def describe_output(
    path: Path, model: onnx.ModelProto, output: str | None, pool: str | None
) -> dict[str, str]:
    """Return the keys of a card that say which of a graph's tensors the features are.

    Raises
    ------
    ConfigError
        If only logits are there, which are of the labels that the model was trained on, or several
        outputs, none of which is known.
    """
    names = [value.name for value in model.graph.output]
    chosen = output or next((name for name in _VECTORS if name in names), None)
    if chosen is None:
        others = [name for name in names if name != _LABELS]
        if not others:
            raise ConfigError(
                f"{path.name}: gives logits alone, of the labels that it was trained on; name the "
                "tensor before them: verger models fetch NAME --output TENSOR"
            )
        if len(others) > 1:
            raise ConfigError(
                f"{path.name}: has the outputs {others}; name the one that the features are: "
                "verger models fetch NAME --output TENSOR"
            )
        chosen = others[0]
    return {"output": chosen} | ({"pool": pool} if pool else {})


def dims_of(value: onnx.ValueInfoProto) -> list[int | None]:
    """Sizes of a value, None where the graph leaves one open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def take_vector(
    path: Path, model: onnx.ModelProto, declared: str | None, pool: str | None
) -> tuple[str, int]:
    """Make ``features`` (n, d) the output; return the name of what they are, and d.

    It may be (n, d), (n, d, 1, 1), tokens (n, t, d) or maps (n, d, h, w).
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    inner = {value.name: dims_of(value) for value in (*graph.value_info, *graph.output)}
    named = {name for node in graph.node for name in node.output}
    outputs = [value.name for value in graph.output]
    name = declared or (outputs[0] if len(outputs) == 1 else None)
    if name is None or name not in named:
        raise ConfigError(
            f"{path.with_suffix('.toml')}: output = {declared!r} must be one of {outputs}"
        )
    dims = inner.get(name) or []
    if pool is None and (len(dims) < 2 or sum(d != 1 for d in dims[1:]) > 1):
        raise WeightsError(
            f"{path}: output {name!r} of shape {dims} is not one vector a photo; of tokens "
            'say pool = "cls" or "mean" (verger models fetch NAME --pool cls)'
        )
    pooled = _pool(path, model, name, dims, pool) if pool else name
    width = _width(dims, pool)
    del model.graph.output[:]
    model.graph.node.append(onnx.helper.make_node("Flatten", [pooled], ["verger/features"]))
    make = onnx.helper.make_tensor_value_info
    model.graph.output.append(make("verger/features", onnx.TensorProto.FLOAT, ["n", None]))
    return name, width or _computed_width(path, model)


def _width(dims: list[int | None], pool: str | None) -> int | None:
    """Return the length of the vector, None where the graph does not say."""
    if pool:
        return dims[2] if len(dims) == 3 else dims[1]
    wide = [d for d in dims[1:] if d != 1]
    return wide[0] if len(wide) == 1 else 1 if dims[1:] and not wide else None


def _pool(path: Path, model: onnx.ModelProto, name: str, dims: list[int | None], pool: str) -> str:
    """Add what makes one vector of tokens (n, t, d), or of maps (n, d, h, w)."""
    if len(dims) not in (3, 4) or (pool == "cls" and len(dims) == 4):
        raise ConfigError(f"{path}: output {name!r} of shape {dims} has no pool = {pool!r}")
    first, axes = "verger/first", "verger/axes"
    if pool == "cls":
        model.graph.initializer.append(
            onnx.helper.make_tensor(first, onnx.TensorProto.INT64, [], [0])
        )
        model.graph.node.append(
            onnx.helper.make_node("Gather", [name, first], ["verger/row"], axis=1)
        )
        return "verger/row"
    over = [1] if len(dims) == 3 else [2, 3]
    opset = next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
    if opset < 18:
        node = onnx.helper.make_node("ReduceMean", [name], ["verger/row"], axes=over, keepdims=0)
    else:
        tensor = onnx.helper.make_tensor(axes, onnx.TensorProto.INT64, [len(over)], over)
        model.graph.initializer.append(tensor)
        node = onnx.helper.make_node("ReduceMean", [name, axes], ["verger/row"], keepdims=0)
    model.graph.node.append(node)
    return "verger/row"


def _computed_width(path: Path, model: onnx.ModelProto) -> int:
    """Compute the features of one black photo, where the graph does not say how many they are."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    shape = [d or 1 for d in dims_of(model.graph.input[0])]
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        found = session.run(None, {"verger/image": np.zeros(shape, np.float32)})[0]
    except Exception as err:  # onnxruntime's errors share no public base
        raise WeightsError(f"{path}: onnxruntime refuses it: {first_line(err)}") from err
    return int(found.shape[1])


def first_line(err: Exception) -> str:
    """Return the first line of what a library of C++ says."""
    return (str(err).splitlines() or [type(err).__name__])[0]
