"""A file of weights to a model, on the driver.

Of a built-in model: :func:`find_card`, :func:`find_weights`, the graph from the cache or from its
writer, the golden vector. Of a user's ONNX file: :func:`read_custom`, the golden vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from verger.config import HUB, check_input_size, is_built_in
from verger.errors import ConfigError, UnknownModelError
from verger.features.contract import DECODER_OF_RESIZED, FeatureContract
from verger.features.model.card import ModelCard, find_card
from verger.features.model.checksum import check_digest, check_sha256, sha256_of
from verger.features.model.golden import golden_vector, is_published
from verger.features.model.graph import Graph
from verger.features.model.graph_cache import cached_graph, graph_key
from verger.features.model.model import Model
from verger.features.model.weights import OnProgress, copy_model, find_weights
from verger.features.preprocess import SQUARE

if TYPE_CHECKING:
    from verger.features.model.graph_writer import GraphWriter

#: Raised by one whenever the writers of the built-in graphs would compute other features.
GRAPH_VERSION = 1


def load_model(
    name: str | Path = "mobilenet_v2",
    *,
    weights: str | Path | None = None,
    weights_sha256: str | None = None,
    input_size: int | None = None,
    views: str = "whole",
    on_progress: OnProgress | None = None,
) -> Model:
    """Load a model on the driver.

    Parameters
    ----------
    name : str or Path
        A key of :data:`CARDS`, the path of an ONNX file with a card beside it, or its address
        in a bucket
        (:mod:`verger.features.model.custom`), or ``hf:ORG/NAME[@REV][:FILE]``
        (:mod:`verger.features.model.hub`).
    weights : path, optional
        File of weights instead of the published ones, or its address ``s3://bucket/file``.
    weights_sha256 : str, optional
        Refuse weights whose sha256 is another.
    input_size : int, optional
        One of :data:`verger.config.INPUT_SIZES`, by default the model's own: the side in pixels
        that photos are resized to. A smaller one is cheaper and gives other features.
    views : {"whole", "center", "five"}
        Which crops of a photo have features beside the whole of it.
    on_progress : callable, optional
        Told (bytes so far, bytes in all) while weights are downloaded.

    Raises
    ------
    UnknownModelError
        If there is no such model.
    WeightsNotFoundError
        If the weights are not on this machine and cannot be fetched.
    WeightsError
        If they are damaged or not this model's.

    Examples
    --------
    >>> verger.load_model("efficientnet_lite0").contract.n_features
    1280
    """
    model = _load_whole(os.fspath(name), weights, weights_sha256, input_size, on_progress)
    return replace(model, contract=replace(model.contract, views=views))


def model_files(name: str, weights: Path | None) -> tuple[Path | None, list[Path]]:
    """Return the file of a model's weights, and those that belong beside it.

    Parameters
    ----------
    name : str
        As for :func:`load_model`.
    weights : Path, optional
        Of a built-in model.

    Returns
    -------
    weights : Path or None
        None where a Python package carries them.
    beside : list of Path
        The card of a model of one's own, and its data.

    Raises
    ------
    ConfigError, WeightsError
    """
    if is_built_in(name):
        source = find_card(name).weights
        if weights is None and source.package is None:
            weights = source.fetch()
        return weights, []
    if weights is not None:
        raise ConfigError(f"weights={str(weights)!r}: model={name!r} has its weights inside")
    from verger.features.model.custom import listed_sums  # imports onnx

    path = Path(load_model(name).weights_path)  # which checks the file, its card and its data
    data = [path.with_name(other) for other in listed_sums(path) if other != path.name]
    return path, [path.with_suffix(".toml"), *data]


def _load_whole(
    name: str,
    weights: str | Path | None,
    weights_sha256: str | None,
    input_size: int | None,
    on_progress: OnProgress | None,
) -> Model:
    if not is_built_in(name):
        if weights is not None:
            raise ConfigError(f"weights={str(weights)!r}: model={name!r} has its weights inside")
        if input_size is not None:
            raise ConfigError(f"input_size={input_size}: model={name!r} has a size of its own")
        if name.startswith(HUB):
            from verger.features.model.hub import fetch_from_hub  # a file needs none of it

            return _load_custom(fetch_from_hub(name, on_progress=on_progress), weights_sha256)
        if name.startswith(("s3://", "s3a://")):
            return _load_custom(copy_model(name), weights_sha256)
        return _load_custom(Path(name), weights_sha256)
    if input_size is not None:
        check_input_size(input_size)
    card = find_card(name)
    path = find_weights(card.weights, weights, on_progress)
    digest = check_sha256(path, weights_sha256) if weights_sha256 else sha256_of(path)
    return _load_built_in(card, path, digest, input_size or card.input_size)


def _load_built_in(card: ModelCard, path: Path, digest: str, size: int) -> Model:
    model = _at_size(card, path, digest, card.input_size)
    if size == card.input_size:
        return model
    # What the published weights compute is recorded for the model's own size alone.
    return replace(_at_size(card, path, digest, size), published=model.published)


def _at_size(card: ModelCard, path: Path, digest: str, size: int) -> Model:
    key = graph_key(card.name, digest, size)
    graph = cached_graph(key, partial(_write_graph, card.name, path, size))
    contract = FeatureContract(
        model=card.name,
        weights_sha256=digest,
        graph=f"{card.name} {GRAPH_VERSION}",
        input_size=size,
        n_features=card.n_features,
        mean=card.mean,
        std=card.std,
    )
    golden = golden_vector(contract, graph.onnx)
    return Model(
        contract=contract,
        onnx=graph.onnx,
        golden=golden,
        license=card.license,
        published=is_published(card.name, golden),
        weights_path=str(path),
        layers=graph.layers,
    )


def _write_graph(name: str, path: Path, size: int) -> Graph:
    # onnx and h5py take a third of a second to import: only where a graph is written.
    from verger.features.model import efficientnet_lite0, mobilenet_v2

    writers: dict[str, Callable[..., GraphWriter]] = {
        "mobilenet_v2": mobilenet_v2.write_graph,
        "efficientnet_lite0": efficientnet_lite0.write_graph,
    }
    graph = writers[name](path, size=size)
    return Graph(graph.to_bytes(), tuple(graph.layers))


def _load_custom(path: Path, weights_sha256: str | None) -> Model:
    from verger.features.model.custom import digest_of, read_custom

    if not path.is_file():
        raise UnknownModelError(f"model={str(path)!r}: no such file")
    digest = digest_of(path)
    if weights_sha256:
        check_digest(path, digest, weights_sha256)
    custom = read_custom(path)
    resizing = custom.resizing
    contract = FeatureContract(
        model=custom.source or path.name,
        weights_sha256=digest,
        graph=f"output {custom.output}" + (f", pool {custom.pool}" if custom.pool else ""),
        input_size=custom.size,
        n_features=custom.n_features,
        mean=custom.mean,
        std=custom.std,
        resize_rule=resizing.rule,
        resize_size=resizing.side,
        resample=resizing.resample,
        crop=resizing.crop,
    )
    if resizing != SQUARE:  # whose texts are the default
        resize = f"pillow {resizing.resample}"
        contract = replace(contract, decoder=DECODER_OF_RESIZED, resize=resize)
    return Model(
        contract=contract,
        onnx=custom.onnx,
        golden=golden_vector(contract, custom.onnx),
        published=None,
        license=custom.license,
        weights_path=str(path),
        layers=custom.layers,
    )
