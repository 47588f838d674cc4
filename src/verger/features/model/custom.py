"""Any ONNX model with one image input and one vector output, and the card that declares it.

What is done to the pixels cannot be read off an ONNX file, so a TOML card beside it says it::

    # my_model.toml, beside my_model.onnx
    mean = [123.675, 116.28, 103.53]   # (pixel - mean) / std, in units of a pixel, 0 to 255
    std = [58.395, 57.12, 57.375]
    input_size = 224                   # only where the graph leaves it open
    output = "features"                # only where the graph has several outputs
    license = "Apache-2.0"
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from verger.config import parse_toml
from verger.errors import ConfigError, WeightsError
from verger.features.model.graph import Layer

#: Sides of an input in pixels. A photo of the largest takes 50 MB as float32.
MIN_SIZE, MAX_SIZE = 8, 2048

_KEYS = {"mean", "std", "input_size", "output", "license"}


@dataclass(frozen=True)
class CustomGraph:
    """A model of the user's own, brought to the form that Verger's workers run.

    Attributes
    ----------
    onnx : bytes
        Input ``image`` (n, size, size, 3) float32, first output (n, n_features).
    output : str
        Which of the graph's outputs the features are.
    size, n_features : int
    mean, std : tuple of float
        In units of a pixel.
    license : str
    layers : tuple of Layer
    """

    onnx: bytes = field(repr=False)
    output: str
    size: int
    n_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str
    layers: tuple[Layer, ...] = field(repr=False)


def read_custom(path: Path) -> CustomGraph:
    """Read an ONNX file and its card, and bring its input to channels last.

    Raises
    ------
    ConfigError
        If there is no card, or the card lacks a key, has an unknown one or a wrong value.
    WeightsError
        If the file is no valid ONNX, or its input or output is not of the needed form.
    """
    card = _read_card(path.with_suffix(".toml"))
    model = _load(path)
    size, channels_last = _input_form(path, model, card.get("input_size"))
    output, n_features = _vector_output(path, model, card.get("output"))
    _normalise_ends(model, size, output, channels_last)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise WeightsError(f"{path}: not a valid ONNX graph: {_first_line(err)}") from err
    return CustomGraph(
        onnx=bytes(model.SerializeToString()),
        output=output,
        size=size,
        n_features=n_features,
        mean=card["mean"],
        std=card["std"],
        license=card.get("license", "not declared"),
        layers=_summary(model, n_features),
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = parse_toml(path.read_text("utf-8"))
    except FileNotFoundError as err:
        raise ConfigError(
            f"{path}: missing; a model of your own needs this card, at least with "
            "mean = [0.0] and std = [255.0] (pixel - mean) / std"
        ) from err
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path}: cannot be read as TOML: {err}") from err
    unknown = sorted(set(card) - _KEYS)
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; known keys: {sorted(_KEYS)}")
    for name, kind in (("input_size", int), ("output", str), ("license", str)):
        if name in card and type(card[name]) is not kind:
            raise ConfigError(f"{path}: {name} = {card[name]!r} must be {kind.__name__}")
    if not MIN_SIZE <= card.get("input_size", MIN_SIZE) <= MAX_SIZE:
        size = card["input_size"]
        raise ConfigError(f"{path}: input_size = {size} must be from {MIN_SIZE} to {MAX_SIZE}")
    return card | {name: _per_channel(path, name, card.get(name)) for name in ("mean", "std")}


def _per_channel(path: Path, name: str, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, 3) or not all(
        type(v) in (int, float) and math.isfinite(v) for v in values
    ):
        raise ConfigError(
            f"{path}: {name} = {value!r} must be one finite number or a list of 1 or 3"
        )
    if name == "std" and not all(v > 0 for v in values):
        raise ConfigError(f"{path}: std = {value!r} must be above 0")
    return tuple(float(v) for v in values)


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as err:
        raise WeightsError(f"{path}: cannot be read: {err.strerror or err}") from err
    except Exception as err:  # protobuf's DecodeError has no public home
        raise WeightsError(f"{path}: not an ONNX file: {_first_line(err)}") from err
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model.graph)):
        raise WeightsError(
            f"{path}: keeps its weights in files beside it, which no sum covers; "
            "save it as one: onnx.save(onnx.load(path), new_path)"
        )
    # Before version 4 every weight had to be an input too.
    model.ir_version = max(model.ir_version, 4)
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph: weights, constants, and those of its inner graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """Sizes of a value, None where the graph leaves one open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _input_form(path: Path, model: onnx.ModelProto, declared: int | None) -> tuple[int, bool]:
    """Return (input size, whether channels come last)."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    dims = _dims(inputs[0]) if len(inputs) == 1 else []
    elem = inputs[0].type.tensor_type.elem_type if inputs else 0
    if len(dims) != 4 or 3 not in (dims[1], dims[3]) or elem != onnx.TensorProto.FLOAT:
        raise WeightsError(
            f"{path}: needs exactly one float32 input of shape (n, 3, size, size) or "
            f"(n, size, size, 3); it has {[(v.name, _dims(v)) for v in inputs]}"
        )
    if dims[0] is not None and dims[0] != 0:
        raise WeightsError(
            f"{path}: its batch is fixed to {dims[0]}; export it with a dynamic first axis"
        )
    channels_last = dims[3] == 3
    height, width = dims[1:3] if channels_last else dims[2:4]
    size = height or width or declared
    if not size or {height or size, width or size, declared or size} != {size}:
        raise ConfigError(
            f"{path.with_suffix('.toml')}: input_size = {declared} does not fit the graph's "
            f"(height, width) = ({height}, {width}); it must be one square size"
        )
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise WeightsError(f"{path}: input size {size} must be from {MIN_SIZE} to {MAX_SIZE}")
    return int(size), channels_last


def _vector_output(path: Path, model: onnx.ModelProto, declared: str | None) -> tuple[str, int]:
    """Return the output's name and width; it may be (n, d) or (n, d, 1, 1)."""
    inferred = onnx.shape_inference.infer_shapes(model)
    outputs = {value.name: _dims(value) for value in inferred.graph.output}
    name = declared or (next(iter(outputs)) if len(outputs) == 1 else None)
    if name not in outputs:
        raise ConfigError(
            f"{path.with_suffix('.toml')}: output = {declared!r} must be one of {list(outputs)}"
        )
    dims = outputs[str(name)]
    wide = [d for d in dims[1:] if d != 1]
    width = wide[0] if len(wide) == 1 else 1 if dims[1:] and not wide else None
    if not width:
        raise WeightsError(f"{path}: output {name!r} of shape {dims} is not one vector a photo")
    return str(name), int(width)


def _normalise_ends(model: onnx.ModelProto, size: int, output: str, channels_last: bool) -> None:
    """Rename the input to ``image`` (n, size, size, 3) and make ``features`` (n, d) the output."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    old = next(value for value in graph.input if value.name not in constants)
    perm = [0, 1, 2, 3] if channels_last else [0, 3, 1, 2]
    first = onnx.helper.make_node("Transpose", ["verger/image"], [old.name], perm=perm)
    last = onnx.helper.make_node("Flatten", [output], ["verger/features"])
    nodes = [first, *graph.node, last]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    make = onnx.helper.make_tensor_value_info
    graph.input.append(make("verger/image", onnx.TensorProto.FLOAT, ["n", size, size, 3]))
    graph.output.append(make("verger/features", onnx.TensorProto.FLOAT, ["n", None]))


def _summary(model: onnx.ModelProto, n_features: int) -> tuple[Layer, ...]:
    """One row a node; weights are counted where they are first used."""
    sizes = {t.name: int(onnx.numpy_helper.to_array(t).size) for t in model.graph.initializer}
    rows = []
    for node in model.graph.node:
        n_params = sum(sizes.pop(name, 0) for name in node.input)
        rows.append(Layer(node.name or node.output[0], node.op_type, (), n_params))
    return (*rows[:-1], Layer("features", "Flatten", (n_features,), rows[-1].n_params))


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]
