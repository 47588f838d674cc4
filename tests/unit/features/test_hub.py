"""What must hold of ``hf:ORG/NAME``: the encoder that was named, to the bit, and its own pixels."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from PIL import Image

from support.encoder import N_FEATURES, PROCESSOR, SIZE, write_encoder
from support.hub import FIRST, NAME, SECOND, Hub, open_hub
from verger.engine.home import cache_folders
from verger.errors import ConfigError, UnknownModelError, WeightsError, WeightsNotFoundError
from verger.features.contract import FeatureContract
from verger.features.model import download as downloads
from verger.features.model import hub as hub_module
from verger.features.model import load_model
from verger.features.model.hub import Choice, HubName, fetch_from_hub, is_fetched
from verger.features.model.hub_card import translate
from verger.features.model.output import describe_output


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with open_hub(tmp_path, monkeypatch) as hub:
        yield hub


def test_an_encoder_is_fetched_by_name(hub: Hub, tmp_path: Path) -> None:
    """Graph and pixels are the hub's; the contract names commit, file, sum, resize and crop."""
    model = load_model(NAME)
    contract = model.contract
    assert contract.model == f"{NAME}@{FIRST}:onnx/model.onnx"
    assert contract.weights_sha256 == hashlib.sha256(hub.files["onnx/model.onnx"]).hexdigest()
    assert (contract.n_features, contract.input_size) == (N_FEATURES, SIZE)
    assert (contract.resize_rule, contract.resize_size, contract.crop) == (
        "shortest_edge",
        40,
        "center",
    )
    assert contract.graph == "output pooler_output"
    assert FeatureContract.from_dict(contract.as_dict()).hash == contract.hash
    photo = np.random.default_rng(1).integers(0, 256, (50, 90, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    plain = Image.fromarray(photo).resize((72, 40), Image.Resampling.BICUBIC)
    pixels = np.asarray(plain.crop((20, 4, 52, 36)))
    expected = model.open().predict(pixels[None])[0]
    assert np.array_equal(model.predict(tmp_path / "photo.png"), expected)
    card = Path(model.weights_path).with_suffix(".toml").read_text()
    assert f"{NAME}@{FIRST}:onnx/model.onnx" in card
    assert hashlib.sha256(hub.files["preprocessor_config.json"]).hexdigest() in card


def test_a_branch_that_moved_is_not_followed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was resolved needs the hub no more, and a commit stays what it was."""
    first = load_model(NAME).contract
    hub.commit, before = SECOND, len(hub.seen)
    assert load_model(first.model).contract == first
    home = cache_folders()
    monkeypatch.setattr(hub_module, "cache_folders", lambda: [tmp_path / "empty", *home])
    assert is_fetched(first.model)
    assert load_model(first.model).contract == first
    assert len(hub.seen) == before
    assert load_model(NAME).contract.model == f"{NAME}@{SECOND}:onnx/model.onnx"
    with pytest.raises(WeightsError, match=f"answers with commit {SECOND}"):
        load_model(f"{NAME}@{'c' * 40}")


def test_a_broken_transfer_is_resumed(hub: Hub) -> None:
    """What came is kept, and the rest is asked for."""
    hub.cut_at = 500
    fetch_from_hub(NAME)
    assert len([path for path in hub.seen if path.endswith("model.onnx")]) == 2


@pytest.mark.parametrize("name", ["onnx/model.onnx", "preprocessor_config.json"])
def test_a_wrong_sum_is_refused(hub: Hub, name: str) -> None:
    """Bytes that are not what the hub lists are deleted."""
    hub.wrong = name
    with pytest.raises(WeightsError, match="instead of"):
        fetch_from_hub(NAME)


def test_a_token_is_for_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the hub's 401 is explained; with it the storage behind a redirect sees none."""
    hub.token = "secret"
    with pytest.raises(WeightsNotFoundError, match=r"the hub answers 401.*HF_TOKEN"):
        fetch_from_hub(NAME)
    monkeypatch.setenv("HF_TOKEN", "secret")
    fetch_from_hub(NAME)
    assert not hub.leaked


def test_no_token_leaves_https(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to the same host keeps the token, but not to plain http."""
    handlers: list[Any] = []
    monkeypatch.setattr(
        urllib.request, "build_opener", lambda handler: handlers.append(handler) or MagicMock()
    )
    downloads.open_url("https://hub/a", {"Authorization": "Bearer secret"}, 1)
    asked = urllib.request.Request("https://hub/a")
    asked.add_unredirected_header("Authorization", "Bearer secret")
    for address, is_sent in (("https://hub/b", True), ("http://hub/b", False)):
        then = handlers[0]().redirect_request(asked, None, 302, "", {}, address)
        assert then.has_header("Authorization") is is_sent


def test_licences_that_are_not_open_are_asked_about(hub: Hub) -> None:
    """Nothing is downloaded before; once accepted, a run needs no word more."""
    hub.license, hub.gated = "cc-by-nc-4.0", True
    with pytest.raises(ConfigError, match=r"licence is cc-by-nc-4.0.*--accept-license"):
        load_model(NAME)
    assert len(hub.seen) == 1
    fetch_from_hub(NAME, Choice(accept_license=True))
    assert load_model(NAME).license == "cc-by-nc-4.0"


def test_offline_only_the_cache_is_looked_into(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hub's own cache layout is read and written."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE is set"):
        fetch_from_hub(NAME)
    cache = tmp_path / "hf" / "hub" / "models--org--encoder"
    for name, content in hub.files.items():
        path = cache / "snapshots" / FIRST / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(FIRST)
    with pytest.raises(ConfigError, match="licence is not known offline"):
        fetch_from_hub(NAME)
    path = fetch_from_hub(NAME, Choice(accept_license=True))
    assert load_model(str(path)).contract.model.endswith(f"@{FIRST}:onnx/model.onnx")
    assert not hub.seen


def test_external_data_are_part_of_the_sum(hub: Hub, tmp_path: Path) -> None:
    """Weights beside the graph give the same features, and no other data pass for them."""
    inside = load_model(NAME)
    path = write_encoder(tmp_path / "external" / "model.onnx", external=True)
    hub.files["onnx/model.onnx"] = path.read_bytes()
    hub.files["onnx/model.onnx_data"] = path.with_name("model.onnx_data").read_bytes()
    hub.commit = SECOND
    outside = load_model(NAME)
    assert np.array_equal(inside.golden, outside.golden)
    assert outside.contract.weights_sha256 != inside.contract.weights_sha256
    data = Path(outside.weights_path).with_name("model.onnx_data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.unlink()
    data.write_bytes(content)
    with pytest.raises(WeightsError, match="another sha256 than the card says"):
        load_model(outside.contract.model)


@pytest.mark.parametrize(
    ("output", "pool", "column"),
    [(None, None, None), ("last_hidden_state", "cls", 0), ("last_hidden_state", "mean", None)],
)
def test_tokens_are_pooled(hub: Hub, output: str | None, pool: str | None, column: Any) -> None:
    """``cls`` is the first token, ``mean`` of all of them is what this graph's pooler computes."""
    model = load_model(str(fetch_from_hub(NAME, Choice(output=output, pool=pool))))
    assert model.golden.shape == (N_FEATURES,)
    pooler = load_model(str(fetch_from_hub(NAME, Choice()))).golden
    assert np.allclose(model.golden, pooler, atol=1e-5) == (column is None)


def test_what_is_no_vector_is_refused(hub: Hub) -> None:
    """Tokens need a pool, and logits a word; an unknown tensor or file is named."""
    with pytest.raises(WeightsError, match='say pool = "cls" or "mean"'):
        load_model(str(fetch_from_hub(NAME, Choice(output="last_hidden_state"))))
    with pytest.raises(UnknownModelError, match=r"has no onnx/other.onnx"):
        fetch_from_hub(f"{NAME}:onnx/other.onnx")
    for name in ("hf:name", f"{NAME}@{FIRST}:/etc/model.onnx", f"{NAME}@/etc:model.onnx"):
        with pytest.raises(UnknownModelError, match=r"must be hf:ORG/NAME"):
            HubName.parse(name)
    with pytest.raises(ConfigError, match=r"has the outputs \['a', 'b'\]; name the one"):
        describe_output(Path("model.onnx"), graph_of("a", "b", "logits"), None, None)


def graph_of(*outputs: str) -> onnx.ModelProto:
    """Return a graph that does nothing but to have these outputs."""
    infos = [onnx.helper.make_tensor_value_info(name, 1, ["n", 4]) for name in outputs]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], infos))


EDGE = {"resize": "shortest_edge", "crop": "center"}
CLIP = {k: v for k, v in PROCESSOR.items() if k != "image_processor_type"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (PROCESSOR, EDGE | {"input_size": 32, "resize_size": 40, "mean": [127.5] * 3}),
        (PROCESSOR | {"do_normalize": False}, {"mean": [0.0], "std": [255.0]}),
        (PROCESSOR | {"do_rescale": False}, {"mean": [0.5] * 3, "std": [0.25] * 3}),
        (CLIP | {"size": 40, "feature_extractor_type": "CLIPFeatureExtractor"}, EDGE),
        (CLIP | {"size": 40, "image_processor_type": "DeiTImageProcessor"}, {"resize": "square"}),
        (
            {**PROCESSOR, "size": {"height": 32, "width": 32}, "do_center_crop": False},
            {"input_size": 32, "resample": "bicubic"},
        ),
        (
            {
                **PROCESSOR,
                "image_processor_type": "ConvNextImageProcessor",
                "crop_pct": 0.875,
                "size": {"shortest_edge": 224},
                "do_center_crop": None,
                "crop_size": None,
            },
            EDGE | {"input_size": 224, "resize_size": 256},
        ),
        (
            {
                "pretrained_cfg": {
                    "input_size": [3, 224, 224],
                    "crop_pct": 0.95,
                    "mean": [0, 0, 0],
                    "std": [1, 1, 1],
                    "interpolation": "bicubic",
                    "crop_mode": "center",
                    "tag": "x",
                }
            },
            {"input_size": 224, "resize_size": 235, "crop": "center_even", "std": [255.0] * 3},
        ),
    ],
)
def test_preprocessing_is_translated(values: dict[str, Any], expected: dict[str, Any]) -> None:
    card = translate(values, "x")
    assert {name: card.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (PROCESSOR | {"do_thumbnail": True}, "do_thumbnail = True is not translated"),
        (PROCESSOR | {"rescale_offset": 1}, "rescale_offset = 1 is not translated"),
        (PROCESSOR | {"resample": 0}, "resample = 0 must be one of"),
        ({k: v for k, v in PROCESSOR.items() if k != "resample"}, "resample = None must be one of"),
        (PROCESSOR | {"crop_size": None}, "do_center_crop without crop_size"),
        (CLIP | {"size": 40}, "may be a square or an edge"),
        (PROCESSOR | {"size": {"longest_edge": 40}}, "must have shortest_edge, or height, width"),
        (PROCESSOR | {"crop_size": 48}, "crop of 48 is larger"),
        ({"size": 32}, "x: "),
        ([], "is no JSON object"),
    ],
)
def test_what_is_not_translated_is_refused_by_name(values: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        translate(values, "x")
