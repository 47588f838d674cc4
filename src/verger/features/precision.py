"""The int8 model of a result: calibrated once, kept in OUT, and found again by every later run.

Its graph depends on the photos that it was calibrated on. Photos that are added must meet the
same graph, so that OUT keeps it as long as features of it are there.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np

from verger.config import Config
from verger.errors import ContractError, OutputError
from verger.features.contract import FeatureContract
from verger.features.model import Model, Vector
from verger.features.model.int8 import (
    N_CALIBRATION,
    float32_contract,
    graph_digest,
    quantize,
    restore,
)
from verger.features.outcomes import Decoding, decode_rows, read_rows
from verger.features.preprocess import Photo
from verger.files.npz import read_npz
from verger.result.clock import Clock
from verger.result.journal import latest_attempt
from verger.result.output import EXTRACTOR, RUN, Output
from verger.source.listing import Listing


def int8_model(output: Output, listing: Listing, base: Model, config: Config) -> Model:
    """Return the int8 model that OUT is filled with, or calibrate one on the listed photos.

    Parameters
    ----------
    output : Output
    listing : Listing
        At most :data:`verger.features.model.int8.N_CALIBRATION` of its photos are read.
    base : Model
        In float32.
    config : Config
        ``overwrite`` and ``decode_timeout_s`` are used.

    Raises
    ------
    OutputError
        If OUT is filled with an int8 model of this one that it no longer holds.
    ContractError
        If this machine computes other features with it.
    ConfigError
        If not one photo could be decoded.
    """
    held = None if config.overwrite else _held(output)
    if held is not None and graph_digest(held) and float32_contract(held) == base.contract:
        return restore(base, *read_kept_model(output, held))
    drawn = np.random.default_rng(0).permutation(len(listing.photos))[:N_CALIBRATION]
    # A photo may crash or hang its decoder: not in this process.
    decoding = Decoding(apart=True, timeout_s=config.decode_timeout_s)
    photos = listing.photos.take(np.sort(drawn))
    decoded = decode_rows(read_rows(photos), base.contract.input_size, decoding, Clock())
    return quantize(base, [photo.pixels for _, photo in decoded if isinstance(photo, Photo)])


def keep_model(output: Output, model: Model) -> None:
    """Keep an int8 model in OUT; one that comes from its code and weights alone needs no keeping.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    name = model_file(model.contract)
    if name is None or output.folder.exists(name):
        return
    content = io.BytesIO()
    np.savez(content, graph=np.frombuffer(model.onnx, np.uint8), golden=model.golden)
    output.folder.write(name, content.getvalue())


def model_file(contract: FeatureContract) -> str | None:
    """Return the name below OUT of the model of a contract, if it is one that is kept."""
    return f"{EXTRACTOR}/int8-{contract.short_hash}.npz" if graph_digest(contract) else None


def check_kept_model(output: Output, contract: FeatureContract) -> str:
    """Read the model that OUT keeps; return its size in words.

    Raises
    ------
    OutputError
        If it is missing, damaged, or of another contract.
    """
    graph, _ = read_kept_model(output, contract)
    return f"{len(graph) / 1e6:.1f} MB"


def _held(output: Output) -> FeatureContract | None:
    """Return the contract that OUT is being filled with, or is filled with."""
    unfinished = latest_attempt(output)
    if unfinished is None and not output.folder.exists(RUN):
        return None
    contract = unfinished.start.contract if unfinished else output.read_run().contract
    try:
        return FeatureContract.from_dict(contract)
    except ContractError:
        return None  # of another version: refused where the run is planned


def read_kept_model(output: Output, contract: FeatureContract) -> tuple[bytes, Vector]:
    """Read the graph that OUT keeps, and its features of the golden photo.

    Raises
    ------
    OutputError
        If it is missing, damaged, or of another contract.
    """
    name = model_file(contract)
    try:
        held = read_npz(output.folder.read(str(name)))
        graph, golden = held["graph"].tobytes(), held["golden"]
    except FileNotFoundError as err:
        raise _lost(output, name, "is missing") from err
    except (OSError, ValueError, KeyError) as err:
        raise _lost(output, name, f"cannot be read: {err}") from err
    if hashlib.sha256(graph).hexdigest() != graph_digest(contract):
        raise _lost(output, name, f"is not the graph of contract {contract.short_hash}")
    return graph, golden


def _lost(output: Output, name: str | None, what: str) -> OutputError:
    return OutputError(
        f"{output.address(str(name))}: {what}; without it no photo can be added: "
        "bring it back, or --overwrite begins anew"
    )
