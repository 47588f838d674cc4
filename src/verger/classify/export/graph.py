"""One ONNX graph from a photo's pixels to probabilities: resize, normalise, model, PCA, classifier.

The parts are written in ONNX's own text form. Operators are those of the standard set, which
onnxruntime's web and mobile builds have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, numpy_helper, parser, version_converter

from verger.classify.classifier import Array, Classifier
from verger.errors import ConfigError, WeightsError
from verger.features.contract import FeatureContract
from verger.features.model import Model
from verger.features.preprocess import CROPS, Resizing

#: The first opset whose ``Resize`` averages over what it makes smaller.
OPSET = 18
IR_VERSION = 8

# Vectors and tensors of fewer values stay in float32: they weigh nothing, and constants of the
# resize and of the standardisation are among them.
_LEAST_HALVED = 1024


def write_app_graph(model: Model, classifier: Classifier) -> onnx.ModelProto:
    """Write the graph of an app.

    Parameters
    ----------
    model : Model
    classifier : Classifier

    Returns
    -------
    onnx.ModelProto
        Input ``image``, (height, width, 3) uint8, RGB and upright. Outputs ``probabilities``,
        (n_labels,) float32, averaged over the views of the contract, with less than 1 in all
        where the classifier knows other things, and ``features``,
        (n_features,) float32, of the whole photo. Labels, contract and threshold are in its
        metadata.

    Raises
    ------
    ConfigError
        If ONNX does not have the model's way to resize.
    WeightsError
        If a model of the user's own cannot be brought to :data:`OPSET`.
    """
    extractor = _at_opset(model)
    taken, given = extractor.graph.input[0].name, extractor.graph.output[0].name
    versions_of = extractor.opset_import[0].version, extractor.ir_version
    head = _part(_head(model.contract), *versions_of, _head_constants(model.contract))
    sizes = _sizes(classifier) | {"n_views": model.contract.n_views}
    if classifier.method == "knn":
        tail = _part(_VOTES, *versions_of, _vote_constants(classifier), **sizes)
    else:
        tail = _part(_LINEAR, *versions_of, _linear_constants(classifier), **sizes)
    graph = compose.merge_models(
        head, extractor, [("normalised", taken)], prefix1="image/", prefix2="model/"
    )
    graph = compose.merge_models(graph, tail, [(f"model/{given}", "row")], prefix2="classifier/")
    _name_ends(graph)
    versions = {entry.domain: entry.version for entry in graph.opset_import}  # one for each part
    del graph.opset_import[:]
    graph.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in versions.items())
    graph.producer_name, graph.producer_version = "verger", version("verger")
    onnx.helper.set_model_props(graph, _metadata(model.contract, classifier))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def write_nearest_graph(classifier: Classifier, k: int) -> onnx.ModelProto:
    """Write a graph that finds the known photos that are nearest, for an app that has features.

    Parameters
    ----------
    classifier : Classifier
    k : int
        Between 1 and the number of its references.

    Returns
    -------
    onnx.ModelProto
        Input ``features``, (n_features,) float32, as :func:`write_app_graph`'s gives them. Output
        ``known``, (k,) int32: rows of the references, the nearest first.
    """
    sizes = _sizes(classifier) | {"n_neighbors": k}
    return _part(_KNOWN, OPSET, IR_VERSION, _reference_constants(classifier), **sizes)


def in_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the weights in float16, half the size; they are computed with in float32.

    A runtime turns them back once, when it opens the file: as fast as before on processors
    without half-precision arithmetic (onnxruntime's web build), and no value inside overflows.
    """
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    for tensor in small.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2 or values.size < _LEAST_HALVED:
            continue
        name = tensor.name
        largest = np.finfo(np.float16).max
        halved = np.clip(values, -largest, largest).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}/float16"))
        cast = onnx.helper.make_node(
            "Cast", [f"{name}/float16"], [name], name=f"{name}/cast", to=onnx.TensorProto.FLOAT
        )
        small.graph.node.insert(0, cast)
    return small


def _at_opset(model: Model) -> onnx.ModelProto:
    graph = onnx.load_from_string(model.onnx)
    del graph.metadata_props[:]
    if graph.opset_import[0].version < OPSET:
        try:
            graph = version_converter.convert_version(graph, OPSET)
        except Exception as err:  # the converter is C++, and raises what it likes
            raise WeightsError(
                f"model {model.contract.model}: cannot be brought to opset {OPSET}: {err}"
            ) from err
    graph.ir_version = max(graph.ir_version, IR_VERSION)
    return graph


def _part(
    text: str, opset: int, ir_version: int, constants: Mapping[str, npt.NDArray[Any]], **words: Any
) -> onnx.ModelProto:
    """Read a part of a graph, and give it its constants."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}]>'
    part = parser.parse_model(header + Template(text).substitute(words))
    for node in part.graph.node:  # an input left out has no name, which older parsers refuse
        node.input[:] = ["" if name == "none" else name for name in node.input]
    tensors = (numpy_helper.from_array(value, name) for name, value in constants.items())
    part.graph.initializer.extend(tensors)
    used = {name for node in part.graph.node for name in node.input}
    for tensor in list(part.graph.initializer):
        if tensor.name not in used:  # by this model's resize; onnxruntime would warn of it
            part.graph.initializer.remove(tensor)
    return part


# Pillow's resize (src/libImaging/Resample.c), on uint8 like there: bicubic has a = -0.5, its
# support scaled where the photo is made smaller, weights of pixels outside dropped, and rounded
# between the two passes. Width goes first, unless the photo loses more than twice as many rows as
# columns: then one resize of the height alone precedes, which else changes nothing.
_HEAD = """
head (uint8[height, width, 3] image) => (float[$n_views, $size, $size, 3] normalised)
<int64[1] size = {$size}, int64[1] side = {$side}, int64[1] first = {0}, int64[1] two = {2},
 int64[1] even = {$even}, int64[2] sides = {2, 3}, $of_crops int64[2] n_whole = {1, 3}>
{
    rows_whole = Shape <start=0, end=1> (image)
    columns_whole = Shape <start=1, end=2> (image)
    planes = Transpose <perm=[2, 0, 1]> (image)
    whole = Unsqueeze (planes, first)
    $resized
    pixels = Transpose <perm=[0, 2, 3, 1]> (resized)
    wide = Cast <to=1> (pixels)
    scaled = Div (wide, std)
    normalised = Sub (scaled, shift)
}
"""

# $the are the whole photo or its crops, which have one size.
_SQUARE = """
    rows_to_$the = Identity (side)
    columns_to_$the = Identity (side)
"""
_SHORTEST = """
    shortest_$the = Min (rows_$the, columns_$the)
    rows_wide_$the = Mul (rows_$the, side)
    columns_wide_$the = Mul (columns_$the, side)
    rows_to_$the = Div (rows_wide_$the, shortest_$the)
    columns_to_$the = Div (columns_wide_$the, shortest_$the)
"""
_RESIZE = """
    rows_lost_$the = Sub (rows_$the, rows_to_$the)
    columns_lost_$the = Sub (columns_$the, columns_to_$the)
    twice_$the = Mul (columns_lost_$the, two)
    bound_$the = Max (twice_$the, first)
    height_first_$the = Greater (rows_lost_$the, bound_$the)
    rows_between_$the = Where (height_first_$the, rows_to_$the, rows_$the)
    between_$the = Concat <axis=0> (n_$the, rows_between_$the, columns_$the)
    lower_$the = Resize <$filter, antialias=1, exclude_outside=1> ($the, none, none, between_$the)
    to_$the = Concat <axis=0> (n_$the, rows_to_$the, columns_to_$the)
    full_$the = Resize <$filter, antialias=1, exclude_outside=1> (lower_$the, none, none, to_$the)
"""
_FILTERS = {"bicubic": 'mode="cubic", cubic_coeff_a=-0.5', "bilinear": 'mode="linear"'}

# As verger.features.preprocess.resizing cuts the square out: ``center_even`` adds 1 to what is left
# over before it is halved where the half, rounded down, is odd.
_MIDDLE = """
    over_$the = Concat <axis=0> (rows_to_$the, columns_to_$the)
    left_$the = Sub (over_$the, size)
    half_$the = Div (left_$the, two)
    odd_$the = Mod (half_$the, two)
    add_$the = Mul (odd_$the, even)
    sum_$the = Add (left_$the, add_$the)
    from_$the = Div (sum_$the, two)
    until_$the = Add (from_$the, size)
    resized_$the = Slice (full_$the, from_$the, until_$the, sides)
"""

# As verger.features.preprocess.views cuts them, in whole numbers.
_SIZES = """
    rows_kept = Mul (rows_whole, kept)
    columns_kept = Mul (columns_whole, kept)
    rows_more = Add (rows_kept, half)
    columns_more = Add (columns_kept, half)
    rows_crops = Div (rows_more, of)
    columns_crops = Div (columns_more, of)
    rows_left = Sub (rows_whole, rows_crops)
    columns_left = Sub (columns_whole, columns_crops)
    spare = Concat <axis=0> (rows_left, columns_left)
    extent = Concat <axis=0> (rows_crops, columns_crops)
"""
_CROP_CONSTANTS = """
 int64[2] n_crops = {$n, 3}, int64[2] axes = {2, 3},
 int64[1] kept = {$kept}, int64[1] half = {$half}, int64[1] of = {$of}, $places,
"""
_CROP = """
    start_twice_$i = Mul (spare, place_$i)
    start_$i = Div (start_twice_$i, two)
    end_$i = Add (start_$i, extent)
    crop_$i = Slice (whole, start_$i, end_$i, axes)
"""


def _head(contract: FeatureContract) -> str:
    """Write the part that resizes a photo and its crops, and stacks them."""
    kept, of, places = CROPS[contract.views]
    n, resizing = len(places), contract.resizing
    parts, constants = [_resize("whole", resizing)], ""
    if places:
        stands = (f"int64[2] place_{i} = {{{y}, {x}}}" for i, (x, y) in enumerate(places))
        numbers = {"n": n, "kept": 2 * kept, "half": of, "of": 2 * of}
        constants = Template(_CROP_CONSTANTS).substitute(numbers, places=", ".join(stands))
        parts += [_SIZES, *(Template(_CROP).substitute(i=i) for i in range(n))]
        crops = ", ".join(f"crop_{i}" for i in range(n))
        parts += [f"crops = Concat <axis=0> ({crops})", _resize("crops", resizing)]
        parts.append("resized = Concat <axis=0> (resized_whole, resized_crops)")
    else:
        parts.append("resized = Identity (resized_whole)")
    return Template(_HEAD).substitute(
        size=contract.input_size,
        side=resizing.side or contract.input_size,
        even=int(resizing.crop == "center_even"),
        n_views=contract.n_views,
        of_crops=constants,
        resized="\n".join(parts),
    )


def _resize(the: str, resizing: Resizing) -> str:
    """Write the part that resizes a photo or its crops, and cuts the square out of the middle."""
    if resizing.resample not in _FILTERS:
        raise ConfigError(
            f"export: the model resizes by {resizing.resample}, which ONNX does not have"
        )
    sides = _SQUARE if resizing.rule == "square" else _SHORTEST
    kept = "resized_$the = Identity (full_$the)" if resizing.crop == "none" else _MIDDLE
    text = Template(sides + _RESIZE + kept)
    return text.substitute(the=the, filter=_FILTERS[resizing.resample])


# Logistic regression and centroids alike: standardisation, PCA and slopes are one matrix.
_LINEAR = """
tail (float[$n_views, $n_features] row)
    => (float[$n_labels] probabilities, float[$n_features] features)
<int64[1] first = {0}, int64 whole = {0}, int64[1] n_labels = {$n_labels}>
{
    centred = Sub (row, centre)
    scores = Gemm <transB=1> (centred, slopes, offsets)
    shares = Softmax <axis=1> (scores)
    of_names = ReduceMean <keepdims=0> (shares, first)
    probabilities = Slice (of_names, first, n_labels)
    features = Gather <axis=0> (row, whole)
}
"""

# Squared distances less |z|^2, the same for all. The norms are those of the references as they are
# kept, in half precision too; a runtime computes them once, when it opens the file.
_NEAREST = """
    $projected
    length = ReduceL2 <keepdims=1> (x, features_axis)
    divisor = Max (length, least)
    z = Div (x, divisor)
    products = MatMul (z, references)
    doubled = Mul (products, two)
    norms = ReduceSumSquare (references, first)
    distances = Sub (norms, doubled)
    nearest, indices = TopK <axis=1, largest=0> (distances, k)
"""

_VOTES = """
tail (float[$n_views, $n_features] row)
    => (float[$n_labels] probabilities, float[$n_features] features)
<int64[1] first = {0}, int64 whole = {0}, int64[1] k = {$n_neighbors},
 int64[1] n_labels = {$n_labels}, int64[1] n_names = {$n_names},
 int64[1] features_axis = {1}, float least = {1e-30}, float two = {2.0},
 float[2] off_on = {0.0, 1.0}>
{
    $nearest
    labels = Gather <axis=0> (reference_labels, indices)
    votes = OneHot <axis=1> (labels, n_names, off_on)
    of_names = ReduceMean <keepdims=0> (votes, voters)
    probabilities = Slice (of_names, first, n_labels)
    features = Gather <axis=0> (row, whole)
}
"""

_KNOWN = """
known (float[$n_features] features) => (int32[$n_neighbors] known)
<int64[1] first = {0}, int64[1] k = {$n_neighbors}, float two = {2.0},
 int64[1] features_axis = {1}, float least = {1e-30}>
{
    row = Unsqueeze (features, first)
    $nearest
    numbers = Cast <to=6> (indices)
    known = Squeeze (numbers, first)
}
"""


def _sizes(classifier: Classifier) -> dict[str, Any]:
    return {
        "n_features": classifier.n_features,
        "n_labels": len(classifier.labels),
        "n_neighbors": classifier.n_neighbors,
        "n_names": len(classifier.names),
        "nearest": Template(_NEAREST).substitute(
            projected="x = Identity (row)"
            if classifier.components is None
            else "centred = Sub (row, centre)\nx = MatMul (centred, projection)"
        ),
    }


def _head_constants(contract: FeatureContract) -> dict[str, npt.NDArray[np.float32]]:
    """Return what :func:`verger.features.preprocess.normalize` divides by and subtracts."""
    std = np.asarray(contract.std, np.float32)
    return {"std": std, "shift": np.asarray(contract.mean, np.float32) / std}


def _linear_constants(classifier: Classifier) -> dict[str, npt.NDArray[np.float32]]:
    """Fold everything behind the features into ``(f - centre) @ slopes.T + offsets``.

    In float64. Of the squared distance to a centroid c, ``|z|^2 - 2 z c + |c|^2``, the first term
    is the same for all labels, and softmax does not see it. Subtracting a centre first, where z
    is 0, keeps float32 from cancelling; ``offsets`` make up for whatever it is.
    """
    slopes, offsets = classifier.coefficients, classifier.intercepts
    if classifier.method == "centroid":
        slopes, offsets = 2 * slopes, -np.square(slopes).sum(axis=1)
    slopes, offsets = slopes / classifier.temperature, offsets / classifier.temperature
    scaling, shift, centre = _standardisation(classifier)
    folded = slopes * scaling if scaling.ndim == 1 else slopes @ scaling.T
    values = {"centre": centre, "slopes": folded, "offsets": slopes @ shift + offsets}
    return {name: value.astype(np.float32) for name, value in values.items()}


def _reference_constants(classifier: Classifier) -> dict[str, npt.NDArray[np.float32]]:
    values: dict[str, npt.NDArray[Any]] = {"references": classifier.references.T}
    if classifier.components is not None and classifier.pca_mean is not None:
        values |= {"centre": classifier.pca_mean, "projection": classifier.components.T}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def _vote_constants(classifier: Classifier) -> dict[str, npt.NDArray[Any]]:
    return _reference_constants(classifier) | {
        "reference_labels": classifier.reference_labels.astype(np.int64),
        "voters": np.array([0, 2], np.int64),  # views, and the neighbours of each
    }


def _standardisation(classifier: Classifier) -> tuple[Array, Array, Array]:
    """Return scaling, shift and centre of ``z = scaling(f - centre) + shift``.

    Returns
    -------
    scaling : ndarray of shape (n_features,), or with a PCA (n_features, d)
    shift : ndarray of shape (d,)
    centre : ndarray of shape (n_features,)
        Where z is about 0, already rounded to float32.
    """
    mean, scale = classifier.mean, classifier.scale
    if classifier.components is None or classifier.pca_mean is None:
        centre = mean.astype(np.float32).astype(np.float64)
        return 1 / scale, (centre - mean) / scale, centre
    components = classifier.components  # (d, n_features)
    centre = classifier.pca_mean + np.linalg.pinv(components) @ mean
    centre = centre.astype(np.float32).astype(np.float64)
    x = (centre - classifier.pca_mean) @ components.T
    return components.T / scale, (x - mean) / scale, centre


def _name_ends(graph: onnx.ModelProto) -> None:
    """Give input and outputs their plain names; the parts' prefixes are on all other values."""
    plain = {
        "image/image": "image",
        "classifier/probabilities": "probabilities",
        "classifier/features": "features",
    }
    for value in (*graph.graph.input, *graph.graph.output):
        value.name = plain[value.name]
    for node in graph.graph.node:
        node.input[:] = [plain.get(name, name) for name in node.input]
        node.output[:] = [plain.get(name, name) for name in node.output]
    graph.graph.name = "verger"


def _metadata(contract: FeatureContract, classifier: Classifier) -> dict[str, str]:
    return {
        "labels": json.dumps(classifier.labels, ensure_ascii=False),
        "threshold": repr(classifier.threshold),
        "contract": json.dumps(contract.as_dict()),
        "contract_hash": contract.hash,
        "verger": version("verger"),
    }
