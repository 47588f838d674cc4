"""What must hold of a model of the user's own: any ONNX file with a card that says its pixels.

Every model here averages each channel, or something as simple, so that its features can be
computed by hand from the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from verger.errors import ConfigError, UnknownModelError, WeightsError
from verger.features.model import golden, golden_pixels, load_model, open_cached
from verger.features.model.custom import read_custom

Pixels = npt.NDArray[np.uint8]
Dim = int | str | None

SIZE = 8
NCHW: list[Dim] = ["n", 3, SIZE, SIZE]
NHWC: list[Dim] = ["n", SIZE, SIZE, 3]
MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
CARD = f"mean = {list(MEAN)}\nstd = {list(STD)}\n"

node = helper.make_node


def average_of(value: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Average each channel of a value: the output ``y``."""
    pool = node("GlobalAveragePool", [value], ["pooled"])
    return pool, node("Flatten", ["pooled"], ["y"])


AVERAGE = average_of("x")
WITH_NEGATIVE = (*AVERAGE, node("Neg", ["y"], ["z"]))
NEEDED = r"needs exactly one float32 input of shape \(n, 3, size, size\) or \(n, size, size, 3\)"


def write_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto] = AVERAGE,
    *,
    inputs: dict[str, list[Dim]] | None = None,
    outputs: dict[str, list[Dim]] | None = None,
    card: str | None = CARD,
    weights: dict[str, Any] | None = None,
    dtypes: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    opset: int = 17,
    ir: int = 8,
) -> Path:
    """Write an ONNX file and its card; ``dtypes`` are those of inputs and outputs."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "own",
        [value(name, dtypes[0], dims) for name, dims in (inputs or {"x": NCHW}).items()],
        [value(name, dtypes[1], dims) for name, dims in (outputs or {"y": ["n", 3]}).items()],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), path)
    if card is not None:
        path.with_suffix(".toml").write_text(card)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.onnx"


def photos(n: int, size: int = SIZE) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def averages(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Compute by hand what the models here give: (n, 3)."""
    found: npt.NDArray[np.float64] = ((pixels.astype(np.float64) - MEAN) / STD).mean(axis=(1, 2))
    return found


# ---- features by hand ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
def test_channels_first_model_averages_channels(path: Path, n: int) -> None:
    """A model of (n, 3, size, size) gives the averages of the normalised channels."""
    model = load_model(str(write_model(path)))
    features = model.open().predict(photos(n))
    assert features.shape == (n, 3)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, averages(photos(n)), atol=1e-4)


def test_channels_last_model_averages_channels(path: Path) -> None:
    """A model of (n, size, size, 3) gives the averages of the normalised channels."""
    nodes = [node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)]
    model = load_model(str(write_model(path, nodes, inputs={"x": NHWC})))
    np.testing.assert_allclose(model.open().predict(photos(4)), averages(photos(4)), atol=1e-4)


def test_height_and_width_are_not_swapped(path: Path) -> None:
    """Rows stay rows: a model that takes the top row gives the top row, in either layout."""
    top = {"starts": np.array([0]), "ends": np.array([1])}
    expected = ((photos(2)[:, 0].astype(np.float64) - MEAN) / STD).mean(axis=1)
    for dims, axis, space in ((NCHW, 2, [2, 3]), (NHWC, 1, [1, 2])):
        nodes = [
            node("Slice", ["x", "starts", "ends", "axes"], ["row"]),
            node("ReduceMean", ["row"], ["y"], axes=space, keepdims=0),
        ]
        weights = {**top, "axes": np.array([axis])}
        model = load_model(str(write_model(path, nodes, inputs={"x": dims}, weights=weights)))
        np.testing.assert_allclose(model.open().predict(photos(2)), expected, atol=1e-4)


def test_vector_may_come_as_a_map_of_one_pixel(path: Path) -> None:
    """An output of (n, d, 1, 1) is taken as (n, d)."""
    nodes = [node("GlobalAveragePool", ["x"], ["y"])]
    model = load_model(str(write_model(path, nodes, outputs={"y": ["n", 3, 1, 1]})))
    assert model.contract.n_features == 3
    np.testing.assert_allclose(model.open().predict(photos(4)), averages(photos(4)), atol=1e-4)


def test_vector_of_one_number(path: Path) -> None:
    """An output of (n, 1) is a vector of one feature."""
    nodes = [
        node("ReduceMean", ["x"], ["s"], axes=[1, 2, 3], keepdims=0),
        node("Unsqueeze", ["s", "last"], ["y"]),
    ]
    weights = {"last": np.array([1])}
    model = load_model(str(write_model(path, nodes, outputs={"y": ["n", 1]}, weights=weights)))
    expected = averages(photos(3)).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(model.open().predict(photos(3)), expected, atol=1e-4)


@pytest.mark.parametrize(("output", "sign"), [("y", 1), ("z", -1)])
def test_card_chooses_among_several_outputs(path: Path, output: str, sign: int) -> None:
    """Of several outputs the one is computed that the card names."""
    outputs: dict[str, list[Dim]] = {"y": ["n", 3], "z": ["n", 3]}
    card = f"{CARD}output = '{output}'\n"
    model = load_model(str(write_model(path, WITH_NEGATIVE, outputs=outputs, card=card)))
    np.testing.assert_allclose(
        model.open().predict(photos(4)), sign * averages(photos(4)), atol=1e-4
    )


def test_card_gives_the_size_that_the_graph_leaves_open(path: Path) -> None:
    """A graph for any size runs at the card's input_size."""
    card = CARD + "input_size = 20\n"
    model = load_model(str(write_model(path, inputs={"x": ["n", 3, "h", "w"]}, card=card)))
    assert model.contract.input_size == 20
    np.testing.assert_allclose(
        model.open().predict(photos(2, 20)), averages(photos(2, 20)), atol=1e-4
    )


@pytest.mark.parametrize("dims", [["n", 3, SIZE, "w"], ["n", 3, "h", SIZE], [None, 3, SIZE, SIZE]])
def test_half_open_sizes_are_square(path: Path, dims: list[Dim]) -> None:
    """Where the graph says one side, or names no batch, the other side is the same."""
    assert read_custom(write_model(path, inputs={"x": dims})).size == SIZE


def test_width_is_inferred_where_the_output_leaves_it_open(path: Path) -> None:
    """The number of features is found by shape inference."""
    assert read_custom(write_model(path, outputs={"y": ["n", "d"]})).n_features == 3


def test_one_number_in_the_card_holds_for_all_channels(path: Path) -> None:
    """Mean and std may be one number, whole or not, or a list of one."""
    custom = read_custom(write_model(path, card="mean = 127\nstd = [128.0]\n"))
    assert (custom.mean, custom.std) == ((127.0,), (128.0,))


def test_contract_and_summary_say_what_was_read(path: Path) -> None:
    """Contract, licence and summary of a model of one's own are the file's and the card's."""
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [node("Conv", ["x", "kernel"], ["c"], name="first"), *average_of("c")]
    model = load_model(
        str(write_model(path, nodes, weights={"kernel": kernel}, card=CARD + "license = 'MIT'\n"))
    )
    contract = model.contract
    assert (contract.model, contract.input_size, contract.n_features) == ("own.onnx", SIZE, 3)
    assert (contract.mean, contract.std) == (MEAN, STD)
    assert (model.license, model.published, model.weights_path) == ("MIT", None, str(path))
    assert sum(layer.n_params for layer in model.layers) == 9
    assert {layer.name: layer.n_params for layer in model.layers}["first"] == 9
    assert model.layers[-1].shape == (3,)


def test_weights_listed_among_the_inputs_are_no_inputs(path: Path) -> None:
    """An initializer that is listed as an input, is not taken for the image."""
    nodes = [node("Mul", ["x", "two"], ["x2"]), *average_of("x2")]
    inputs: dict[str, list[Dim]] = {"two": [1], "x": NCHW}
    weights = {"two": np.array([2], np.float32)}
    model = load_model(str(write_model(path, nodes, inputs=inputs, weights=weights)))
    np.testing.assert_allclose(model.open().predict(photos(2)), 2 * averages(photos(2)), atol=1e-4)


def test_old_onnx_files_are_read(path: Path) -> None:
    """A file of IR version 3, as in ONNX' own model zoo, is read."""
    nodes = [node("Mul", ["x", "two"], ["x2"]), *average_of("x2")]
    inputs: dict[str, list[Dim]] = {"x": NCHW, "two": [1]}
    weights = {"two": np.array([2], np.float32)}
    write_model(path, nodes, inputs=inputs, weights=weights, ir=3, opset=7)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert read_custom(path).n_features == 3


# ---- the contract --------------------------------------------------------------------------


def test_card_is_part_of_the_contract(path: Path) -> None:
    """Another mean or std is another contract."""
    one = load_model(str(write_model(path))).contract
    other = load_model(str(write_model(path, card="mean = 0\nstd = 255\n"))).contract
    assert one.weights_sha256 == other.weights_sha256
    assert one.hash != other.hash


def test_output_is_part_of_the_contract(path: Path) -> None:
    """Two outputs of one file give other features, and so have other contracts."""
    outputs: dict[str, list[Dim]] = {"y": ["n", 3], "z": ["n", 3]}
    models = [
        load_model(
            str(
                write_model(path, WITH_NEGATIVE, outputs=outputs, card=f"{CARD}output = '{name}'\n")
            )
        )
        for name in outputs
    ]
    assert models[0].contract.hash != models[1].contract.hash


def test_cached_session_is_the_models_own(path: Path) -> None:
    """A process that has run one output of a file does not go on with it for the other."""
    outputs: dict[str, list[Dim]] = {"y": ["n", 3], "z": ["n", 3]}
    for name, sign in (("y", 1), ("z", -1)):
        write_model(path, WITH_NEGATIVE, outputs=outputs, card=f"{CARD}output = '{name}'\n")
        found = open_cached(load_model(str(path))).predict(photos(2))
        np.testing.assert_allclose(found, sign * averages(photos(2)), atol=1e-4)


def test_other_graph_is_another_contract(path: Path) -> None:
    """Another ONNX file under the same name is another contract."""
    one = load_model(str(write_model(path))).contract
    nodes = (node("Neg", ["x"], ["x2"]), *average_of("x2"))
    assert load_model(str(write_model(path, nodes))).contract.hash != one.hash


# ---- cards that are refused ----------------------------------------------------------------


def test_model_without_a_card_is_refused(path: Path) -> None:
    """Without a card nothing is guessed; the text says what the card must hold."""
    with pytest.raises(
        ConfigError, match=r"own\.toml: missing.*mean = \[0.0\] and std = \[255.0\]"
    ):
        read_custom(write_model(path, card=None))


CARDS = {
    "unknown key": (CARD + "size = 3\n", "unknown key 'size'; known keys: .*input_size"),
    "no mean": ("std = 1\n", "mean = None must be one finite number or a list of 1 or 3"),
    "no std": ("mean = 1\n", "std = None must be one finite number"),
    "two means": ("mean = [1, 2]\nstd = 1\n", r"mean = \[1, 2\] must be one finite number"),
    "empty mean": ("mean = []\nstd = 1\n", r"mean = \[\] must be one finite number"),
    "mean is text": ("mean = 'imagenet'\nstd = 1\n", "mean = 'imagenet' must be one finite"),
    "mean is true": ("mean = true\nstd = 1\n", "mean = True must be one finite number"),
    "nested mean": ("mean = [[1, 2, 3]]\nstd = 1\n", r"mean = \[\[1, 2, 3\]\] must be one fin"),
    "std 0": ("mean = 0\nstd = [1, 0, 1]\n", r"std = \[1, 0, 1\] must be above 0"),
    "std below 0": ("mean = 0\nstd = -1\n", "std = -1 must be above 0"),
    "std is nan": ("mean = 0\nstd = nan\n", "std = nan must be one finite number"),
    "not TOML": ("mean: 0\n", r"own\.toml: cannot be read as TOML"),
    "size against the graph": (CARD + "input_size = 9\n", r"input_size = 9 does not fit.*\(8, 8\)"),
    "unknown output": (CARD + "output = 'w'\n", r"output = 'w' must be one of \['y'\]"),
    "output is a number": (CARD + "output = 5\n", "output = 5 must be str"),
    "size 7": (CARD + "input_size = 7\n", "input_size = 7 must be from 8 to 2048"),
    "size 1000000": (CARD + "input_size = 1000000\n", "= 1000000 must be from 8 to 2048"),
    "nested": ("mean = " + "[" * 5000 + "]" * 5000 + "\n", "cannot be read as TOML"),
    "nested just so": ("mean = " + "[" * 100 + "]" * 100 + "\n", "cannot be read as TOML"),
    "number of 5000 digits": ("mean = " + "9" * 5000 + "\nstd = 1\n", "cannot be read as TOML"),
    "number of 20000 bits": (f"mean = 0x{'f' * 5000}\nstd = 1\n", "cannot be read as TOML"),
    "size 0": (CARD + "input_size = 0\n", "input_size = 0 must be from 8 to 2048"),
}


@pytest.mark.parametrize(("card", "match"), CARDS.values(), ids=CARDS)
def test_wrong_cards_are_refused(path: Path, card: str, match: str) -> None:
    """A card that cannot be meant is a ConfigError that names key, value and bound."""
    with pytest.raises(ConfigError, match=match):
        read_custom(write_model(path, card=card))


def test_card_that_is_not_utf_8_is_refused(path: Path) -> None:
    """A card in another encoding is refused as unreadable."""
    write_model(path)
    path.with_suffix(".toml").write_bytes(b"license = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_custom(path)


@pytest.mark.parametrize("card", ["mean = 0\nstd = inf\n", "mean = nan\nstd = 1\n"])
def test_mean_and_std_must_be_finite(path: Path, card: str) -> None:
    """A std of infinity, which makes every photo the same, is refused."""
    with pytest.raises(ConfigError, match=r"own\.toml: .* must be one finite number"):
        read_custom(write_model(path, card=card))


@pytest.mark.parametrize(
    "line",
    [
        "input_size = 'large'",
        "input_size = '8'",
        "input_size = 8.5",
        "input_size = true",
        "input_size = -8",
        "input_size = 8\noutput = ['y']",
        "input_size = 8\nlicense = 5",
    ],
)
def test_card_of_wrong_types_is_refused(path: Path, line: str) -> None:
    """A value of the wrong type or sign is a ConfigError, not an accident of Python's."""
    write_model(path, inputs={"x": ["n", 3, "h", "w"]}, card=f"{CARD}{line}\n")
    key = line.split("\n")[-1].partition(" ")[0]
    wrong = r"must be (int|str|from 8 to 2048)$"
    with pytest.raises(ConfigError, match=rf"own\.toml: {key} = .* {wrong}"):
        read_custom(path)


# ---- graphs that are refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": NCHW, "w": NCHW},
        {"x": ["n", 1, SIZE, SIZE]},
        {"x": ["n", SIZE, SIZE, 4]},
        {"x": ["n", 3, SIZE]},
        {"x": ["n", "c", SIZE, SIZE]},
    ],
    ids=["two inputs", "one channel", "four channels", "three axes", "open channels"],
)
def test_input_must_be_one_colour_image(path: Path, inputs: dict[str, list[Dim]]) -> None:
    """Anything but one image of three channels is refused, with what the file has."""
    nodes = [node("ReduceMean", ["x"], ["s"], axes=[2], keepdims=1), node("Flatten", ["s"], ["y"])]
    with pytest.raises(WeightsError, match=NEEDED + r"; it has \[\('x'"):
        read_custom(write_model(path, nodes, inputs=inputs, outputs={"y": ["n", "d"]}))


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_input_must_be_float32(path: Path, dtype: int) -> None:
    """A graph that wants other numbers than float32 is refused."""
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), *average_of("f")]
    with pytest.raises(WeightsError, match=NEEDED):
        read_custom(write_model(path, nodes, dtypes=(dtype, TensorProto.FLOAT)))


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.DOUBLE])
def test_output_must_be_float32(path: Path, dtype: int) -> None:
    """A graph that gives other numbers than float32 is refused."""
    nodes = [*AVERAGE[:1], node("Flatten", ["pooled"], ["f"]), node("Cast", ["f"], ["y"], to=dtype)]
    with pytest.raises(WeightsError, match=r"not a valid ONNX graph: .*elem type"):
        read_custom(write_model(path, nodes, dtypes=(TensorProto.FLOAT, dtype)))


def test_fixed_batch_is_refused(path: Path) -> None:
    """A graph for four photos at a time is refused, and the text says how to export it."""
    inputs: dict[str, list[Dim]] = {"x": [4, 3, SIZE, SIZE]}
    with pytest.raises(WeightsError, match="batch is fixed to 4; export it with a dynamic first"):
        read_custom(write_model(path, inputs=inputs, outputs={"y": [4, 3]}))


def test_batch_fixed_inside_the_graph_is_refused(path: Path) -> None:
    """A graph that takes any batch but reshapes to one photo is refused before Spark starts."""
    nodes = [*AVERAGE[:1], node("Reshape", ["pooled", "shape"], ["y"])]
    weights = {"shape": np.array([1, 3])}
    write_model(path, nodes, weights=weights, outputs={"y": [1, 3]})
    with pytest.raises(WeightsError, match=r"model own\.onnx: takes no two photos: "):
        load_model(str(path))


def test_model_that_mixes_photos_is_refused(path: Path) -> None:
    """A graph whose features of one photo depend on the others in its batch is refused."""
    nodes = [
        *AVERAGE,
        node("ReduceMean", ["y"], ["mean"], axes=[0], keepdims=1),
        node("Sub", ["y", "mean"], ["z"]),
    ]
    write_model(path, nodes, outputs={"z": ["n", 3]})
    with pytest.raises(WeightsError, match=r"own\.onnx: features of a photo depend on the photos"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("dims", "line"),
    [(["n", 3, 8, 9], ""), (["n", 3, 8, "w"], "input_size = 9"), (["n", 3, "h", "w"], "")],
    ids=["not square", "card against one side", "nobody says"],
)
def test_size_must_be_one_square(path: Path, dims: list[Dim], line: str) -> None:
    """Graph and card must agree on one square size."""
    with pytest.raises(ConfigError, match=r"input_size = .* does not fit.*must be one square size"):
        read_custom(write_model(path, inputs={"x": dims}, card=f"{CARD}{line}\n"))


def test_several_outputs_need_the_cards_word(path: Path) -> None:
    """Where a graph has several outputs and the card names none, nothing is guessed."""
    outputs: dict[str, list[Dim]] = {"y": ["n", 3], "z": ["n", 3]}
    with pytest.raises(ConfigError, match=r"output = None must be one of \['y', 'z'\]"):
        read_custom(write_model(path, WITH_NEGATIVE, outputs=outputs))


@pytest.mark.parametrize(
    ("nodes", "dims"),
    [
        ([node("Relu", ["x"], ["y"])], ["n", 3, SIZE, SIZE]),
        ([node("ReduceMean", ["x"], ["y"], axes=[3], keepdims=0)], ["n", 3, SIZE]),
        ([node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)], ["n"]),
    ],
    ids=["map", "rows", "number"],
)
def test_output_must_be_a_vector(path: Path, nodes: list[Any], dims: list[Dim]) -> None:
    """A map of features, or a bare number, is not one vector a photo."""
    with pytest.raises(WeightsError, match=r"output 'y' of shape .* is not one vector a photo"):
        read_custom(write_model(path, nodes, outputs={"y": dims}))


def test_square_map_is_not_a_vector(path: Path) -> None:
    """A map of (n, 8, 8) is no vector of 8."""
    nodes = [node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]
    write_model(path, nodes, outputs={"y": ["n", SIZE, SIZE]})
    with pytest.raises(WeightsError, match="is not one vector a photo"):
        read_custom(path)


def test_vector_of_another_width_than_declared_is_refused(path: Path) -> None:
    """A graph that declares 7 features and gives 3 is refused, in one way or the other."""
    write_model(path, outputs={"y": ["n", 7]})
    with pytest.raises(WeightsError, match=r"gives shape \(3,\) .*not \(7,\)|not a valid ONNX"):
        load_model(str(path))


def test_features_that_are_not_finite_are_refused(path: Path) -> None:
    """A graph that gives NaN on the golden photo is refused."""
    nodes = [
        node("Sub", ["x", "x"], ["zero"]),
        node("Div", ["zero", "zero"], ["nan"]),
        *average_of("nan"),
    ]
    with pytest.raises(WeightsError, match="3 values not finite"):
        load_model(str(write_model(path, nodes)))


@pytest.mark.parametrize(
    "nodes",
    [
        (node("Foo", ["x"], ["y"]),),
        AVERAGE[::-1],
        (*AVERAGE, AVERAGE[0]),
        (node("Flatten", ["nowhere"], ["y"]),),
    ],
    ids=["unknown operator", "wrong order", "value made twice", "value from nowhere"],
)
def test_invalid_graphs_are_refused(path: Path, nodes: tuple[Any, ...]) -> None:
    """A graph that ONNX' own checker refuses is refused with its words."""
    with pytest.raises(WeightsError, match=r"own\.onnx: not a valid ONNX graph: ."):
        read_custom(write_model(path, nodes))


@pytest.mark.parametrize("content", [b"", b"not an ONNX file at all, but text", bytes(range(256))])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    """A file that is no ONNX is refused by its name, not with a trace of protobuf's."""
    write_model(path)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"own\.onnx: (not an ONNX file|needs exactly one)"):
        read_custom(path)


def test_truncated_onnx_is_refused(path: Path) -> None:
    """An ONNX file that was cut off is refused."""
    content = write_model(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"own\.onnx: not an ONNX file"):
        read_custom(path)


FACTORS = np.full((1, 3, SIZE, SIZE), 2, np.float32)
BY_FACTORS = (node("Mul", ["x", "factors"], ["x2"]), *average_of("x2"))
BESIDE = r"own\.onnx: keeps its weights in files beside it"


def move_weights_beside(path: Path) -> Path:
    """Write the model anew, with its weights in a file of their own: ``own.data``."""
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="own.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return path.with_name("own.data")


@pytest.mark.parametrize("there", [True, False])
def test_weights_in_a_file_of_their_own_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Weights beside the file, there or not, are refused: the contract's sum has none of them."""
    beside = move_weights_beside(write_model(path, BY_FACTORS, weights={"factors": FACTORS}))
    if not there:
        beside.unlink()
    monkeypatch.chdir(path.parent)  # where onnxruntime would look for them
    with pytest.raises(WeightsError, match=BESIDE):
        load_model(path.name)


def test_constants_in_a_file_of_their_own_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds of weights that are the graph's constants."""
    constant = node("Constant", [], ["factors"], value=numpy_helper.from_array(FACTORS))
    move_weights_beside(write_model(path, (constant, *BY_FACTORS)))
    monkeypatch.chdir(path.parent)
    with pytest.raises(WeightsError, match=r"own\.onnx"):
        load_model(path.name)


def test_a_card_lists_no_other_sums_than_the_graphs(path: Path) -> None:
    """The sums name the weights in the contract: invented ones would hide which graph it is."""
    invented = '"one.bin" = "11"\n"two.bin" = "22"\n'
    write_model(path, card=f"{CARD}[sha256]\n{invented}")
    with pytest.raises(WeightsError, match=r"card and the graph differ about 'one\.bin'"):
        load_model(str(path))
    path.with_suffix(".toml").write_text(f'{CARD}[sha256]\n"{path.name}" = "{"1" * 64}"\n')
    with pytest.raises(WeightsError, match="is not the expected 1111"):
        load_model(str(path))


def test_missing_model_is_refused(path: Path) -> None:
    """A path of no file is an unknown model."""
    with pytest.raises(UnknownModelError, match=r"own\.onnx': no such file"):
        load_model(str(path))


def test_golden_photo_of_any_size_is_the_same_drawing() -> None:
    """The golden photo exists for the small sizes of own models too, with full ramps."""
    pixels = golden_pixels(SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels[0, :, 0].tolist() == [x * 255 // 7 for x in range(SIZE)]
    assert pixels[:, 0, 1].tolist() == pixels[0, :, 0].tolist()


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_graph_of_an_absurd_size_is_refused(path: Path, size: int) -> None:
    """A size that the graph itself fixes is bounded too, before anything of it is drawn."""
    write_model(path, inputs={"x": ["n", 3, size, size]})
    with pytest.raises(WeightsError, match=f"input size {size} must be from 8 to 2048"):
        load_model(str(path))


def write_loop(path: Path, n_free: int) -> Path:
    """Write a model that runs (n - ``n_free``) x 2^62 rounds for n photos."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["state", "zero"], ["next"])],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, ["n", 3]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, ["n", 3])],
    )
    count = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "first"], ["n_photos"]),
        node("Sub", ["n_photos", "n_free"], ["n_costly"]),
        node("Mul", ["n_costly", "many"], ["rounds"]),
    ]
    flat = node("Flatten", ["pooled"], ["start"])
    loop = node("Loop", ["rounds", "", "start"], ["y"], body=body)
    numbers = {"first": 0, "n_free": n_free, "many": 2**62}
    weights = {name: np.array(number) for name, number in numbers.items()}
    weights["zero"] = np.array(0, np.float32)
    return write_model(path, [AVERAGE[0], flat, *count, loop], weights=weights)


@pytest.mark.parametrize("n_free", [0, 1])
def test_a_graph_that_never_ends_is_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch, n_free: int
) -> None:
    """A loop of 2^62 rounds is an error after a while, for one photo or only for two."""
    monkeypatch.setattr(golden, "FIRST_CALL_S", 0.5)
    with pytest.raises(WeightsError, match=r"^model own\.onnx: takes longer than 0\.5 s"):
        load_model(str(write_loop(path, n_free)))


def test_a_worker_stops_a_graph_that_never_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that comes out of a result has a deadline too: no driver has tried it here."""
    monkeypatch.setattr("verger.features.model.model.FIRST_CALL_S", 0.5)
    model = load_model(str(write_model(path)))
    endless = replace(model, onnx=read_custom(write_loop(path, 0)).onnx)
    with pytest.raises(WeightsError, match=r"takes longer than 0\.5 s"):
        endless.open()
