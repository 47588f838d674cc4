"""Any ONNX model with one image input and one vector output, and the card that declares it.

What is done to the pixels cannot be read off an ONNX file, so a TOML card beside it says it::

    # my_model.toml, beside my_model.onnx
    mean = [123.675, 116.28, 103.53]   # (pixel - mean) / std, in units of a pixel, 0 to 255
    std = [58.395, 57.12, 57.375]
    input_size = 224                   # only where the graph leaves it open
    output = "features"                # only where the graph has several outputs
    license = "Apache-2.0"

    resize = "shortest_edge"           # "square" squeezes the photo to the input
    resize_size = 256                  # side of the resized photo, or of its shorter edge
    crop = "center"                    # "center_even" rounds as torchvision and timm do
    resample = "bilinear"              # "bicubic" if it is not named, or "lanczos"
    pool = "cls"                       # or "mean": of an output that is tokens

    [sha256]                           # only where weights lie in files beside the graph
    "my_model.onnx" = "..."
    "my_model.onnx_data" = "..."
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from verger.config.toml import parse_toml
from verger.errors import ConfigError, WeightsError
from verger.features.model.checksum import check_sha256, sha256_of
from verger.features.model.graph import Layer
from verger.features.model.output import POOLS, dims_of, first_line, take_vector
from verger.features.preprocess import SQUARE, Resizing

#: Sides of an input in pixels. A photo of the largest takes 50 MB as float32.
MIN_SIZE, MAX_SIZE = 8, 2048

_TYPES: dict[str, type] = {
    "input_size": int,
    "output": str,
    "license": str,
    "source": str,
    "resize": str,
    "resize_size": int,
    "resample": str,
    "crop": str,
    "pool": str,
    "sha256": dict,
}
_KEYS = {"mean", "std", *_TYPES}
#: Most bytes of a graph with its weights: protobuf's own bound.
_MOST_BYTES = 2**31 - 1


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
    resizing : Resizing
    pool : {"cls", "mean"} or None
    source : str or None
        Where it comes from, ``hf:ORG/NAME@COMMIT:FILE``.
    license : str
    layers : tuple of Layer
    """

    onnx: bytes = field(repr=False)
    output: str
    size: int
    n_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resizing: Resizing
    pool: str | None
    source: str | None
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
    model = load_graph(path)
    _read_data(path, model, listed_sums(path))
    size, channels_last = _input_form(path, model, card.get("input_size"))
    resizing = _resizing(path.with_suffix(".toml"), card, size)
    _normalise_input(model, size, channels_last)
    output, n_features = take_vector(path, model, card.get("output"), card.get("pool"))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise WeightsError(f"{path}: not a valid ONNX graph: {first_line(err)}") from err
    return CustomGraph(
        onnx=bytes(model.SerializeToString()),
        output=output,
        size=size,
        n_features=n_features,
        mean=card["mean"],
        std=card["std"],
        resizing=resizing,
        pool=card.get("pool"),
        source=card.get("source"),
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
    for name, kind in _TYPES.items():
        if name in card and type(card[name]) is not kind:
            raise ConfigError(f"{path}: {name} = {card[name]!r} must be {kind.__name__}")
    if not MIN_SIZE <= card.get("input_size", MIN_SIZE) <= MAX_SIZE:
        size = card["input_size"]
        raise ConfigError(f"{path}: input_size = {size} must be from {MIN_SIZE} to {MAX_SIZE}")
    if card.get("pool") not in (None, *POOLS):
        raise ConfigError(f"{path}: pool = {card['pool']!r} must be one of {', '.join(POOLS)}")
    return card | {name: _per_channel(path, name, card.get(name)) for name in ("mean", "std")}


def _resizing(path: Path, card: dict[str, Any], size: int) -> Resizing:
    """Return how a photo becomes a square of this size by a card."""
    side = card.get("resize_size")
    if side is not None and not size <= side <= MAX_SIZE:
        raise ConfigError(
            f"{path}: resize_size = {side} must be from input_size={size} to {MAX_SIZE}"
        )
    try:
        return Resizing(
            card.get("resize", SQUARE.rule),
            side,
            card.get("resample", SQUARE.resample),
            card.get("crop", SQUARE.crop),
        )
    except ValueError as err:
        raise ConfigError(f"{path}: {err}") from err


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


def load_graph(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, without the weights that lie beside it.

    Raises
    ------
    WeightsError
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as err:
        raise WeightsError(f"{path}: cannot be read: {err.strerror or err}") from err
    except Exception as err:  # protobuf's DecodeError has no public home
        raise WeightsError(f"{path}: not an ONNX file: {first_line(err)}") from err
    # Before version 4 every weight had to be an input too.
    model.ir_version = max(model.ir_version, 4)
    return model


def data_files(path: Path, model: onnx.ModelProto) -> list[str]:
    """Return the names of the files beside an ONNX file that its weights lie in.

    Raises
    ------
    WeightsError
        If they lie in another folder.
    """
    return sorted({_data_place(path, tensor)[0] for tensor in _data_tensors(model)})


def listed_sums(path: Path) -> dict[str, str]:
    """Return what the card beside an ONNX file lists: the names of the graph and its data to sums.

    Raises
    ------
    ConfigError
        If the card cannot be used. Without a card nothing is listed.
    """
    card = path.with_suffix(".toml")
    sums = _read_card(card).get("sha256", {}) if card.is_file() else {}
    return {name: str(s) for name, s in sums.items() if not name.endswith(".json")}


def digest_of(path: Path) -> str:
    """Return the sha256 that names a model's weights: of the file, or of the list of its files.

    A card lists files where there are several, and each is checked as it is read.
    """
    parts = sorted((s, name) for name, s in listed_sums(path).items())
    if len(parts) < 2:
        return sha256_of(path)
    listed = "".join(f"{s}  {name}\n" for s, name in parts)
    return hashlib.sha256(listed.encode()).hexdigest()


def _data_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    external = onnx.TensorProto.EXTERNAL
    return [t for t in _tensors(model.graph) if t.data_location == external]


def _data_place(path: Path, tensor: onnx.TensorProto) -> tuple[str, int, int | None]:
    """Return file, offset and bytes of weights that lie beside the graph."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "").removeprefix("./")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as err:
        raise WeightsError(f"{path}: its data have no place: {entries}") from err
    if not name or name != Path(name).name or name == ".." or offset < 0 or (length or 0) < 0:
        raise WeightsError(f"{path}: keeps its weights in {name!r}, which is not beside it")
    return name, offset, length


def _read_data(path: Path, model: onnx.ModelProto, sums: dict[str, str]) -> None:
    """Bring weights that lie in files beside the graph into it; the card has their sums."""
    contents: dict[str, bytes] = {}
    for tensor in _data_tensors(model):
        name, offset, length = _data_place(path, tensor)
        if not {name, path.name} <= set(sums):
            raise WeightsError(
                f"{path}: keeps its weights in files beside it, which no sum covers; "
                "save it as one: onnx.save(onnx.load(path), new_path), or list the sha256 of both "
                "in the card, under [sha256]"
            )
        if name not in contents:
            contents[name] = _checked(path.with_name(name), sums[name])
        end = len(contents[name]) if length is None else offset + length
        tensor.raw_data = contents[name][offset:end]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    if not sums:
        return
    # The sums name the weights in the contract: one too many would be anybody's invention.
    if differing := sorted(set(sums) ^ {path.name, *contents}):
        raise WeightsError(
            f"{path}: the card and the graph differ about {differing[0]!r}: [sha256] lists the "
            "graph and the files that its weights lie in, and no other"
        )
    check_sha256(path, sums[path.name])


def _checked(path: Path, sha256: str) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise WeightsError(f"{path}: over 2 GB, the most that a graph may have")
        content = path.read_bytes()
    except OSError as err:
        raise WeightsError(f"{path}: cannot be read: {err.strerror}") from err
    if hashlib.sha256(content).hexdigest() != sha256.lower():
        raise WeightsError(f"{path}: has another sha256 than the card says; fetch it again")
    return content


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph: weights, constants, and those of its inner graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _input_form(path: Path, model: onnx.ModelProto, declared: int | None) -> tuple[int, bool]:
    """Return (input size, whether channels come last)."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    dims = dims_of(inputs[0]) if len(inputs) == 1 else []
    elem = inputs[0].type.tensor_type.elem_type if inputs else 0
    # Exports of transformers leave all four open; channels come first there.
    are_open = len(dims) == 4 and dims[1] is None and dims[3] != 3 and declared is not None
    if (
        len(dims) != 4
        or not (are_open or 3 in (dims[1], dims[3]))
        or elem != onnx.TensorProto.FLOAT
    ):
        raise WeightsError(
            f"{path}: needs exactly one float32 input of shape (n, 3, size, size) or "
            f"(n, size, size, 3); it has {[(v.name, dims_of(v)) for v in inputs]}"
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


def _normalise_input(model: onnx.ModelProto, size: int, channels_last: bool) -> None:
    """Make ``image`` (n, size, size, 3) the input."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    old = next(value for value in graph.input if value.name not in constants)
    perm = [0, 1, 2, 3] if channels_last else [0, 3, 1, 2]
    first = onnx.helper.make_node("Transpose", ["verger/image"], [old.name], perm=perm)
    nodes = [first, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    make = onnx.helper.make_tensor_value_info
    graph.input.append(make("verger/image", onnx.TensorProto.FLOAT, ["n", size, size, 3]))


def _summary(model: onnx.ModelProto, n_features: int) -> tuple[Layer, ...]:
    """One row a node; weights are counted where they are first used."""
    sizes = {t.name: int(onnx.numpy_helper.to_array(t).size) for t in model.graph.initializer}
    rows = []
    for node in model.graph.node:
        n_params = sum(sizes.pop(name, 0) for name in node.input)
        rows.append(Layer(node.name or node.output[0], node.op_type, (), n_params))
    return (*rows[:-1], Layer("features", "Flatten", (n_features,), rows[-1].n_params))
