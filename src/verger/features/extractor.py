"""The model that made the features of a result, found again for photos that come later."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from verger.config import HUB
from verger.errors import ConfigError, ContractError
from verger.features.contract import FeatureContract
from verger.features.model import CARDS, Model, load_model
from verger.features.model.checksum import sha256_of
from verger.features.model.int8 import graph_digest, restore
from verger.features.model.weights import OnProgress
from verger.result.output import Output


def load_extractor(
    output: Output,
    *,
    weights: str | Path | None = None,
    model: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> Model:
    """Load the model that a result was made with.

    Parameters
    ----------
    output : Output
    weights : path, optional
        Where the weights of a built-in model are now; by default where the run found them, if
        they are still the same there, else where they are looked for in any run.
    model : path, optional
        Where the ONNX file of a model of one's own is now.
    on_progress : callable, optional
        Told (bytes so far, bytes in all) while weights are downloaded.

    Returns
    -------
    Model
        Of exactly the result's contract.

    Raises
    ------
    ContractError
        If the weights or the code are not those that made the features.
    OutputError, SchemaError
        If OUT is no finished result, or has lost the int8 model that it kept.
    WeightsError, UnknownModelError
        As from :func:`verger.load_model`.
    """
    record = output.read_run()
    contract = FeatureContract.from_dict(record.contract)
    loaded = _load_base(contract, record.model.weights_path, weights, model, on_progress)
    if graph_digest(contract):
        from verger.features.precision import (
            read_kept_model,  # a command for float32 need not import it
        )

        loaded = restore(loaded, *read_kept_model(output, contract))
    _check_same(output, contract, loaded.contract)
    return loaded


def _load_base(
    contract: FeatureContract,
    recorded: str | None,
    weights: str | Path | None,
    model: str | Path | None,
    on_progress: OnProgress | None,
) -> Model:
    """Load the model in float32, which an int8 one is made of."""
    place = Path(recorded or "")
    if contract.model not in CARDS:
        digest = None if model else contract.weights_sha256
        named = str(model or place)
        if model is None and contract.model.startswith(HUB) and not place.is_file():
            named = contract.model  # another machine: the commit is fetched again
        return load_model(named, weights=weights, weights_sha256=digest, views=contract.views)
    if model is not None:
        raise ConfigError(f"model={str(model)!r}: OUT was made with the built-in {contract.model}")
    # A result may name any file: it is parsed only if it is the one that the contract names.
    if weights is None and place.is_file() and sha256_of(place) == contract.weights_sha256:
        weights = place
    return load_model(
        contract.model,
        weights=weights,
        input_size=contract.input_size,
        views=contract.views,
        on_progress=on_progress,
    )


def _check_same(output: Output, wanted: FeatureContract, made: FeatureContract) -> None:
    if made == wanted:
        return
    pairs = {f.name: (getattr(wanted, f.name), getattr(made, f.name)) for f in fields(wanted)}
    name, (theirs, ours) = next(item for item in pairs.items() if item[1][0] != item[1][1])
    raise ContractError(
        f"OUT={output.root}: its features were made with {name}={theirs!r}, and here it is "
        f"{ours!r}; name the same weights or model, or run verger run again"
    )
