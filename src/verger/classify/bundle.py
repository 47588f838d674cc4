"""A classifier and its model in one file, which predicts without its result.

The file is an npz without compression: the classifier's arrays with its known photos, the model as
an ONNX graph, and the feature contract of both.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from verger.classify.classifier import Classifier
from verger.errors import ConfigError, ContractError, OutputError
from verger.features.contract import FeatureContract
from verger.features.model import Model
from verger.files.folder import Folder, check_target
from verger.files.npz import MAX_NPZ_BYTES, UNREADABLE, read_npz

_VERSION = 1
#: How the names of the model's arrays begin.
_MODEL = "model_"


def write_bundle(
    path: str | Path, classifier: Classifier, model: Model, *, overwrite: bool = False
) -> Path:
    """Write a classifier and its model into one file.

    Raises
    ------
    ConfigError, OutputExistsError, OutputError
        As from :func:`verger.files.folder.check_target`; or if it would be too large to be read.
    """
    target = check_target(path, "fruit.verger", overwrite=overwrite)
    kept = {
        "contract": model.contract.as_dict(),
        "published": model.published,
        "license": model.license,
    }
    arrays: dict[str, Any] = classifier.to_arrays() | {
        "references": classifier.references,
        "bundle": np.array(_VERSION),
        f"{_MODEL}onnx": np.frombuffer(model.onnx, np.uint8),
        f"{_MODEL}golden": model.golden,
        f"{_MODEL}about": np.array(json.dumps(kept)),
    }
    with io.BytesIO() as stream:
        np.savez(stream, **arrays)
        content = stream.getvalue()
    if len(content) > MAX_NPZ_BYTES:
        raise OutputError(
            f"{target}: not written: it would have {len(content):,} bytes, and bundles have at "
            f"most {MAX_NPZ_BYTES:,}; take a smaller model, or predict with --model OUT"
        )
    Folder(str(target.parent)).write(target.name, content)
    return target


def read_bundle(path: str | Path) -> tuple[Classifier, Model]:
    """Read a classifier and its model from one file.

    Raises
    ------
    OutputError
        If it is no such file, or damaged.
    """
    try:
        if Path(path).stat().st_size > MAX_NPZ_BYTES:
            raise ValueError(f"must be at most {MAX_NPZ_BYTES:,} bytes")
        arrays = read_npz(Path(path).read_bytes())
        if int(arrays.pop("bundle")) != _VERSION:
            raise ValueError(f"must be of version {_VERSION}")
        graph, golden, about = (
            arrays.pop(f"{_MODEL}{name}") for name in ("onnx", "golden", "about")
        )
        kept = json.loads(str(about))
        model = Model(
            contract=FeatureContract.from_dict(kept.pop("contract")),
            onnx=graph.tobytes(),
            golden=golden.astype(np.float32),
            weights_path=str(path),
            **kept,
        )
        references = arrays.pop("references")
        return Classifier.from_arrays(arrays, references), model
    except (*UNREADABLE, ContractError, ConfigError) as err:
        raise OutputError(
            f"{path}: is no bundle that can be used: {err}; verger classify save writes one"
        ) from err
