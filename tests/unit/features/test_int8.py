"""A model in integers: another contract, features that are near, and no difference unnoticed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from verger import Config, quantize
from verger.errors import ConfigError, ContractError
from verger.features.model import Model, Pixels, load_model
from verger.features.model.int8 import float32_contract, graph_digest, restore
from verger.features.preprocess import decode_photo


def pixels_of(photos: Path, size: int = 224) -> list[Pixels]:
    files = sorted(photos.rglob("*.jpg"))
    return [decode_photo(file.read_bytes(), size=size).pixels for file in files[::2]]


@pytest.fixture(scope="module")
def pixels(photos: Path) -> list[Pixels]:
    return pixels_of(photos)


@pytest.fixture(scope="module")
def int8(model: Model, pixels: list[Pixels]) -> Model:
    return quantize(model, pixels)


def cosines(one: Model, other: Model, pixels: list[Pixels]) -> np.ndarray:
    a, b = (m.open().predict(np.stack(pixels)) for m in (one, other))
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def test_its_features_are_near_and_its_contract_is_its_own(
    model: Model, int8: Model, pixels: list[Pixels]
) -> None:
    """Real weights on photos that it was calibrated on: near float32, and never taken for it."""
    found = cosines(model, int8, pixels)
    assert found.min() > 0.9
    assert found.max() < 0.99999
    assert int8.contract.hash != model.contract.hash
    assert float32_contract(int8.contract) == model.contract
    assert graph_digest(model.contract) is None
    assert (int8.published, int8.layers) == (model.published, model.layers)
    assert len(int8.onnx) < len(model.onnx) / 2


def test_the_same_photos_give_the_same_graph(
    model: Model, int8: Model, pixels: list[Pixels]
) -> None:
    """A killed run that begins anew meets what it had; other photos give another contract."""
    again, other = quantize(model, pixels), quantize(model, pixels[:3])
    assert again.onnx == int8.onnx
    assert again.contract == int8.contract
    assert other.contract.hash != int8.contract.hash


def test_it_is_restored_from_its_graph(model: Model, int8: Model) -> None:
    """What was kept gives the contract and the features that it gave then."""
    found = restore(model, int8.onnx, int8.golden)
    assert found.contract == int8.contract
    np.testing.assert_array_equal(found.golden, int8.golden)


def test_a_machine_that_computes_other_features_is_refused(model: Model, int8: Model) -> None:
    """Another kind of processor gives other integers: the golden photo shows it."""
    with pytest.raises(ContractError, match=r"differ by 0.5.*int8 features of two kinds"):
        restore(model, int8.onnx, int8.golden + np.float32(0.5))


def test_a_small_input_can_be_quantised_too(photos: Path) -> None:
    small = load_model("efficientnet_lite0", input_size=96)
    found = quantize(small, pixels_of(photos, 96)[:4])
    assert found.contract.input_size == 96
    assert found.golden.shape == (1280,)


def test_it_says_nothing_by_the_way(
    model: Model, pixels: list[Pixels], capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime's tools log through the root logger; a user of a library expects silence."""
    before = list(logging.getLogger().handlers)
    quantize(model, pixels[:1])
    assert logging.getLogger().handlers == before
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_quantised_is_refused(model: Model) -> None:
    own = dataclasses.replace(model, contract=dataclasses.replace(model.contract, model="own.onnx"))
    with pytest.raises(ConfigError, match="only built-in models are quantised"):
        quantize(own, [np.zeros((224, 224, 3), np.uint8)])
    with pytest.raises(ConfigError, match="needs a photo that can be decoded"):
        quantize(model, [])


def test_options_that_do_not_go_with_it_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs reader='arrow'"):
        Config(precision="int8", reader="spark")
    with pytest.raises(ConfigError, match="only built-in models are quantised"):
        Config(precision="int8", model="own.onnx")
    with pytest.raises(ConfigError, match="precision='fp16' must be one of float32, int8"):
        Config(precision="fp16")  # type: ignore[arg-type]
