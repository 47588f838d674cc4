"""What must hold of MobileNetV2: Keras' numbers, Keras' names, and only Keras' weights.

No photo and no published weight is needed: the weights are random, and the golden features
are those that Keras itself computed from them (``tests/data/make_golden.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.weights import Layout, write_random_weights
from verger.errors import WeightsError
from verger.features.contract import FeatureContract
from verger.features.model import Model, ModelSession, golden_pixels, load_model
from verger.features.model.graph_writer import BatchNorm, GraphWriter, same_pads
from verger.features.model.mobilenet_v2 import write_graph

GOLDEN = Path(__file__).parents[2] / "data" / "golden_random.npz"
LAYOUTS = (*get_args(Layout), "whole model")

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random weights in every layout of Keras; do not write to them."""
    folder = tmp_path_factory.mktemp("mobilenet")
    files = {layout: folder / f"{layout.replace(' ', '-')}.h5" for layout in LAYOUTS}
    for layout in get_args(Layout):
        write_random_weights(files[layout], seed=0, layout=layout)
    with h5py.File(files["legacy"]) as legacy, h5py.File(files["whole model"], "w") as whole:
        whole.attrs["model_config"] = "{}"
        legacy.copy(legacy["/"], whole, "model_weights")
    return files


@pytest.fixture(scope="session")
def random_model(random_weights: dict[str, Path]) -> Model:
    return load_model("mobilenet_v2", weights=random_weights["legacy"])


@pytest.fixture(scope="session")
def session(random_model: Model) -> ModelSession:
    return random_model.open()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights that a test may damage."""
    path = tmp_path / "weights.h5"
    write_random_weights(path)
    return path


def photos(n: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


# ---- Keras' numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_keras_own(random_weights: dict[str, Path], layout: str) -> None:
    """From each of Keras' layouts come, to 1e-4, the features that Keras computes."""
    expected = np.load(GOLDEN)["features"]
    assert expected.std() > 0.1  # a golden vector that could not fail would prove nothing
    model = load_model("mobilenet_v2", weights=random_weights[layout])
    np.testing.assert_allclose(model.golden, expected, atol=1e-4)


def test_other_weights_give_other_features(tmp_path: Path) -> None:
    """The golden features hold of these weights only: another seed is far from them."""
    write_random_weights(tmp_path / "other.h5", seed=1)
    found = load_model("mobilenet_v2", weights=tmp_path / "other.h5").golden
    assert np.abs(found - np.load(GOLDEN)["features"]).max() > 0.1


def test_all_layouts_give_the_same_graph(random_weights: dict[str, Path]) -> None:
    """The graph does not depend on the layout that the weights came in, to the byte."""
    graphs = {write_graph(path, size=224).to_bytes() for path in random_weights.values()}
    assert len(graphs) == 1


def test_features_are_finite_and_between_0_and_6(session: ModelSession) -> None:
    """Features are averages of a ReLU6: (n, 1280) float32 in [0, 6]."""
    features = session.predict(photos(2))
    assert features.shape == (2, 1280)
    assert features.dtype == np.float32
    assert features.min() >= 0
    assert features.max() <= 6


def test_features_do_not_depend_on_the_batch(session: ModelSession) -> None:
    """A photo has the same features alone, in a batch of 5, and in batches of 2."""
    batch = photos(5)
    together = session.predict(batch)
    alone = np.concatenate([session.predict(photo[None]) for photo in batch])
    in_pairs = np.concatenate([session.predict(batch[i : i + 2]) for i in (0, 2, 4)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(in_pairs, together, atol=1e-5)
    assert np.abs(np.diff(together, axis=0)).max() > 1e-3  # the photos do differ


def test_features_do_not_depend_on_the_other_photos(session: ModelSession) -> None:
    """A photo has the same features whatever shares its batch, and wherever it stands in it."""
    one, others = photos(1), photos(2, seed=1)
    first = session.predict(np.concatenate([one, others]))[0]
    last = session.predict(np.concatenate([others[:1] // 2, one]))[-1]
    np.testing.assert_allclose(first, last, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_no_photo_and_one_photo(session: ModelSession, n: int) -> None:
    """n photos give (n, 1280) float32, for n = 0 too."""
    features = session.predict(photos(n))
    assert features.shape == (n, 1280)
    assert features.dtype == np.float32


@pytest.mark.parametrize("size", [96, 192])
def test_other_input_sizes_are_written_too(random_weights: dict[str, Path], size: int) -> None:
    """A graph for another input size runs, and its summary says the sizes that follow."""
    graph = write_graph(random_weights["legacy"], size=size)
    shapes = {layer.name: layer.shape for layer in graph.layers}
    assert shapes["input_layer"] == (size, size, 3)
    assert shapes["Conv1"] == (size // 2, size // 2, 32)
    assert shapes["out_relu"] == (size // 32, size // 32, 1280)
    contract = contract_for(size)
    features = ModelSession(contract, graph.to_bytes()).predict(golden_pixels(size)[None])
    assert features.shape == (1, 1280)
    assert np.isfinite(features).all()


def contract_for(size: int) -> FeatureContract:
    return FeatureContract(
        model="mobilenet_v2",
        weights_sha256="0" * 64,
        graph="test",
        input_size=size,
        n_features=1280,
        mean=(127.5,),
        std=(127.5,),
    )


# ---- Keras' names --------------------------------------------------------------------------


def test_summary_counts_keras_parameters(random_model: Model) -> None:
    """The summary has the 2,257,984 parameters of Keras' MobileNetV2 without top."""
    assert sum(layer.n_params for layer in random_model.layers) == 2_257_984


def test_summary_has_keras_names_and_shapes(random_model: Model) -> None:
    """The summary's rows are named, typed and shaped as in Keras' own."""
    rows = {layer.name: layer for layer in random_model.layers}
    assert len(rows) == len(random_model.layers), "names repeat"
    for name, kind, shape, n_params in (
        ("Conv1", "Conv2D", (112, 112, 32), 864),
        ("bn_Conv1", "BatchNormalization", (112, 112, 32), 128),
        ("expanded_conv_depthwise", "DepthwiseConv2D", (112, 112, 32), 288),
        ("block_1_expand", "Conv2D", (112, 112, 96), 1536),
        ("block_1_depthwise", "DepthwiseConv2D", (56, 56, 96), 864),
        ("block_2_add", "Add", (56, 56, 24), 0),
        ("block_16_project_BN", "BatchNormalization", (7, 7, 320), 1280),
        ("Conv_1", "Conv2D", (7, 7, 1280), 409_600),
        ("out_relu", "ReLU", (7, 7, 1280), 0),
        ("global_average_pooling2d", "GlobalAveragePooling2D", (1280,), 0),
    ):
        found = rows[name]
        assert (found.kind, found.shape, found.n_params) == (kind, shape, n_params), name
    assert random_model.layers[-1].name == "global_average_pooling2d"


def test_summary_has_ten_shortcuts(random_model: Model) -> None:
    """Shortcuts are where table 2 of the paper repeats a block: ten of them."""
    adds = [layer.name for layer in random_model.layers if layer.kind == "Add"]
    assert adds == [f"block_{i}_add" for i in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]


# ---- only Keras' weights -------------------------------------------------------------------


def first_name(group: h5py.Group) -> str:
    name = group.attrs["weight_names"][0]
    return name.decode() if isinstance(name, bytes) else str(name)


def replace_kernel(path: Path, layer: str, change: Callable[[Any], Any]) -> None:
    with h5py.File(path, "a") as file:
        group = file[layer]
        name = first_name(group)
        kernel = group[name][()]
        del group[name]
        group[name] = change(kernel)


def add_layer(path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(path, "a") as file:
        names = [*file.attrs["layer_names"], "predictions"]
        file.attrs["layer_names"] = [n.encode() if isinstance(n, str) else n for n in names]
        group = file.create_group("predictions")
        group.attrs["weight_names"] = [b"predictions/kernel"]
        group["predictions/kernel"] = np.zeros(shape, np.float32)


def test_weights_with_a_top_are_refused(weights: Path) -> None:
    """A layer too many is named, with the hint at the file without top."""
    add_layer(weights, (1280, 1000))
    with pytest.raises(WeightsError, match=r"1 layers too many, from 'predictions' on.*no_top"):
        write_graph(weights, size=224)


def test_keras3_weights_with_a_top_are_refused(tmp_path: Path) -> None:
    """A layer too many is found in Keras 3's layout as well, where layers are sorted by class."""
    path = tmp_path / "top.weights.h5"
    write_random_weights(path, layout="keras3")
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/0"] = np.zeros((1280, 1000), np.float32)
    with pytest.raises(WeightsError, match="1 layers too many, from 'dense' on"):
        write_graph(path, size=224)


def test_missing_layer_is_refused(weights: Path) -> None:
    """A layer too few shifts the next one into its place, and that one is named."""
    with h5py.File(weights, "a") as file:
        names = [n for n in file.attrs["layer_names"] if n not in ("Conv1", b"Conv1")]
        file.attrs["layer_names"] = names
    with pytest.raises(WeightsError, match=r"layer 'Conv1' needs.*the file has.*in 'bn_Conv1'"):
        write_graph(weights, size=224)


def test_missing_last_layer_is_refused(weights: Path) -> None:
    """A file that ends too early is refused where it ends."""
    with h5py.File(weights, "a") as file:
        file.attrs["layer_names"] = list(file.attrs["layer_names"])[:-1]
    with pytest.raises(WeightsError, match=r"layer 'Conv_1_bn' needs.*the file has \[\] in None"):
        write_graph(weights, size=224)


def test_wrong_shape_is_refused(weights: Path) -> None:
    """A kernel of another width (of MobileNetV2 0.75, say) is refused by its shape."""
    replace_kernel(weights, "Conv1", lambda kernel: kernel[..., :24])
    match = (
        r"not MobileNetV2 1\.0 without top: layer 'Conv1' needs.*\(3, 3, 3, 32\).*\(3, 3, 3, 24\)"
    )
    with pytest.raises(WeightsError, match=match):
        write_graph(weights, size=224)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(weights: Path, value: float) -> None:
    """One NaN or infinity among the weights is found, and its layer named."""

    def spoil(kernel: Any) -> Any:
        kernel[0, 0, 0, 0] = value
        return kernel

    replace_kernel(weights, "block_5_project", spoil)
    with pytest.raises(WeightsError, match="layer 'block_5_project' holds NaN or infinity"):
        write_graph(weights, size=224)


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights at all", b"\x89HDF\r\n\x1a\n" + bytes(100)],
    ids=["empty", "text", "HDF5 magic only"],
)
def test_files_that_are_not_hdf5_are_refused(tmp_path: Path, content: bytes) -> None:
    """Anything but HDF5 is refused as unreadable."""
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable file of Keras weights"):
        write_graph(path, size=224)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_hdf5_is_refused(weights: Path, share: float) -> None:
    """An HDF5 file that was cut off is refused as unreadable."""
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="not a readable file of Keras weights"):
        write_graph(weights, size=224)


def test_hdf5_of_something_else_is_refused(tmp_path: Path) -> None:
    """HDF5 with neither of Keras' layouts is refused as such."""
    path = tmp_path / "measurements.h5"
    with h5py.File(path, "w") as file:
        file["temperature"] = np.arange(10)
    with pytest.raises(WeightsError, match="HDF5, but neither of Keras' layouts"):
        write_graph(path, size=224)


def test_layer_without_weight_names_is_refused(weights: Path) -> None:
    """A layer that does not list its weights is refused as unreadable."""
    with h5py.File(weights, "a") as file:
        del file["Conv1"].attrs["weight_names"]
    with pytest.raises(WeightsError, match="not a readable file of Keras weights"):
        write_graph(weights, size=224)


def layers_as_numbers(file: h5py.File) -> None:
    file["layers"] = np.arange(3)


def layer_as_numbers(file: h5py.File) -> None:
    file["layers/conv2d"] = np.arange(3)


def layer_names_as_number(file: h5py.File) -> None:
    file.attrs["layer_names"] = 5


def kernel_as_group(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"Conv1"]
    file.create_group("Conv1").attrs["weight_names"] = [b"kernel"]
    file["Conv1"].create_group("kernel")


@pytest.mark.parametrize(
    "write", [layers_as_numbers, layer_as_numbers, layer_names_as_number, kernel_as_group]
)
def test_hdf5_of_strange_form_is_refused(tmp_path: Path, write: Callable[[Any], None]) -> None:
    """HDF5 with Keras' names in other places is a WeightsError, not an accident of Python's."""
    path = tmp_path / "strange.h5"
    with h5py.File(path, "w") as file:
        write(file)
    with pytest.raises(WeightsError, match="strange"):
        write_graph(path, size=224)


def test_damaged_tensor_is_refused(weights: Path) -> None:
    """A tensor whose checksum fails is a WeightsError."""
    with h5py.File(weights, "a") as file:
        name = first_name(file["Conv1"])
        kernel = file["Conv1"][name][()]
        del file["Conv1"][name]
        stored = file["Conv1"].create_dataset(
            name, data=kernel, chunks=kernel.shape, fletcher32=True
        )
        place = stored.id.get_chunk_info(0).byte_offset
    content = bytearray(weights.read_bytes())
    content[place] ^= 0xFF
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"weights {weights}: layer 'Conv1' is damaged: "):
        write_graph(weights, size=224)


def test_refused_file_is_closed(weights: Path) -> None:
    """After a refusal the file is free, so that the right weights can be written over it."""
    replace_kernel(weights, "Conv1", lambda kernel: kernel[..., :24])
    with pytest.raises(WeightsError, match="Conv1") as caught:
        write_graph(weights, size=224)
    write_random_weights(weights)
    assert caught.value.args


# ---- the parts of a graph ------------------------------------------------------------------


@pytest.mark.parametrize("depthwise", [False, True])
def test_batch_norm_folds_into_the_convolution(depthwise: bool) -> None:
    """The folded convolution equals gamma * (K x - mean) / sqrt(variance + epsilon) + beta."""
    rng = np.random.default_rng(0)
    out, into, size = 6, 3, 5
    kernel = rng.standard_normal((out, 1 if depthwise else into, 1, 1))
    gamma, beta, mean = rng.standard_normal((3, out))
    variance = rng.uniform(0.1, 2, out)
    norm = BatchNorm(gamma, beta, mean, variance, 1e-3)
    folded, bias = norm.fold_into(kernel)
    assert folded.shape == kernel.shape
    image = rng.standard_normal((size, size, out if depthwise else into))

    def convolve(k: Any) -> Any:
        return image * k[:, 0, 0, 0] if depthwise else image @ k[:, :, 0, 0].T

    expected = gamma * (convolve(kernel) - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(convolve(folded) + bias, expected, atol=1e-12)


def brute_force_pads(kernel: int, stride: int, size: int) -> tuple[int, int]:
    """Pad one pixel at a time, after before before, until ceil(size / stride) windows fit."""
    wanted, before, after = -(-size // stride), 0, 0
    while len(range(0, before + size + after - kernel + 1, stride)) < wanted:
        before, after = (before, after + 1) if after <= before else (before + 1, after)
    return before, after


@given(kernel=st.integers(1, 7), stride=st.integers(1, 4), size=st.integers(1, 64))
def test_same_pads_are_tensorflows(kernel: int, stride: int, size: int) -> None:
    """Padding is the least that gives ceil(size / stride) outputs, the odd pixel after."""
    assert same_pads(kernel, stride, size) == brute_force_pads(kernel, stride, size)


def test_convolution_of_stride_2_pads_after() -> None:
    """A 3x3 convolution of stride 2 on an even size sees the first pixels, and zeros at the end."""
    graph = GraphWriter(4)
    x = graph.input("input")
    kernel = np.zeros((3, 3, 3, 3))
    kernel[range(3), range(3)] = 1  # the sum over each window, channel by channel
    ones, zeros = np.ones(3), np.zeros(3)
    norm = BatchNorm(ones, zeros, zeros, ones, 0.0)
    x = graph.conv_bn(x, "conv", kernel, norm, bn_name="bn", stride=2, pads=same_pads(3, 2, 4))
    assert graph.layers[-1].shape == (2, 2, 3)
    graph.average_pool(x, "pool")
    session = ort.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1).repeat(3, axis=3)
    grid = np.pad(image[0, :, :, 0], (0, 1))
    windows = [grid[y : y + 3, x : x + 3].sum() for y in (0, 2) for x in (0, 2)]
    (found,) = session.run(["features"], {"image": image})
    np.testing.assert_allclose(found, np.full((1, 3), np.mean(windows)), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"chunks": (10_000, 3, 3, 32), "maxshape": (None, 3, 3, 32)},
        {"dtype": "S1000000"},
    ],
    ids=str,
)
def test_tensors_that_may_take_more_memory_than_their_numbers_are_refused(
    weights: Path, options: dict[str, Any]
) -> None:
    """A chunk is decompressed as a whole: 1 MB of gzip may stand for 1 GB."""
    with h5py.File(weights, "a") as file:
        name = first_name(file["Conv1"])
        shape = file["Conv1"][name].shape
        del file["Conv1"][name]
        file["Conv1"].create_dataset(name, shape, **{"dtype": "f4"} | options)
    with pytest.raises(
        WeightsError, match="layer 'Conv1' is compressed, in chunks that are larger"
    ):
        write_graph(weights, size=224)


# ---- weights that lie elsewhere ------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "external storage", "virtual"])
def test_weights_in_another_file_are_refused(way: str, tmp_path: Path) -> None:
    """A recorded sha256 covers one file: what HDF5 reads out of another one is no weights."""
    path, other = tmp_path / "weights.h5", tmp_path / "other.h5"
    write_random_weights(path, seed=1)
    write_random_weights(other, seed=2)
    with h5py.File(path, "a") as file:
        group = file["Conv1"]
        name = first_name(group)
        dataset = group[name]
        shape, kind = dataset.shape, dataset.dtype
        address = f"{group.name}/{name}"
        del group[name]
        if way == "link":
            file[address] = h5py.ExternalLink(other, address)
        elif way == "virtual":
            layout = h5py.VirtualLayout(shape, kind)
            layout[...] = h5py.VirtualSource(other, address, shape)
            file.create_virtual_dataset(address, layout)
        else:
            raw = [(str(other), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(address, shape, kind, external=raw)
    with pytest.raises(WeightsError, match=r"weights\.h5: .*another file, which no sha256 covers"):
        load_model("mobilenet_v2", weights=path)
