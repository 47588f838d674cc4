"""A result's classifier for an app: one ONNX file, checked against the pipeline before it is kept.

The file takes a photo's pixels as an app has them and does the rest by itself; see
:mod:`verger.classify.export.graph`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from verger.classify.export.check import ExportCheck, LabelledPhoto, check_app, promise_of
from verger.classify.export.graph import in_half, write_app_graph
from verger.classify.predict import Predictor
from verger.errors import ConfigError, ValidationError
from verger.features.contract import FeatureContract
from verger.features.model.int8 import N_CALIBRATION, graph_digest, quantize
from verger.features.model.weights import OnProgress
from verger.features.preprocess import DecodeError, decode_photo
from verger.files.folder import Folder, check_target
from verger.files.paths import is_below
from verger.files.reading import Unread, read_ahead
from verger.files.tables import read_part
from verger.result.output import Output

#: What may be given up for a smaller file; by default nothing is.
PRECISIONS = ("fp16", "int8")
#: Photos that a file is checked on.
N_CHECKED = 100

# Some of the photos that are drawn may be gone by now.
_N_SPARE = 100


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Attributes
    ----------
    path : str
    size_bytes : int
    precision : str or None
        One of :data:`PRECISIONS`, or None for that of the result.
    n_labels : int
    check : ExportCheck
    """

    path: str
    size_bytes: int
    precision: str | None
    n_labels: int
    check: ExportCheck

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def export_app(
    out: str | Path,
    path: str | Path,
    *,
    precision: str | None = None,
    weights: str | Path | None = None,
    model: str | Path | None = None,
    name: str = "",
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Write one ONNX file that takes a photo's pixels and gives its probabilities and features.

    It is checked on :data:`N_CHECKED` photos of the result; nothing is written that breaks its
    promise.

    Parameters
    ----------
    out : path
        The folder of a result with a classifier, or ``s3://bucket/prefix``.
    path : path
        Of the new file.
    precision : str, optional
        One of :data:`PRECISIONS`.
    weights, model, name, on_progress
        As for :meth:`verger.classify.predict.Predictor.load`.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    ConfigError, OutputExistsError
        If there is no such precision, or there is a file.
    OutputError, ContractError
        As from :meth:`verger.classify.predict.Predictor.load`.
    SourceError, ValidationError
        If no photo of the result can be read any more, or the file does not give what the pipeline
        gives.
    """
    _check_precision(precision)
    target = check_target(path, "app.onnx", overwrite=overwrite)
    predictor = Predictor.load(out, weights, model, name=name, on_progress=on_progress)
    graph, check = checked_graph(predictor, out, precision)
    Folder(str(target.parent)).write(target.name, graph)
    n_labels, size = len(predictor.classifier.labels), len(graph)
    return Exported(
        path=str(target), size_bytes=size, precision=precision, n_labels=n_labels, check=check
    )


def checked_graph(
    predictor: Predictor, out: str | Path, precision: str | None = None
) -> tuple[bytes, ExportCheck]:
    """Return a classifier as the bytes of one ONNX file, and how that file did on photos.

    Parameters
    ----------
    predictor : Predictor
    out : path
        The result that it comes from, on whose photos the file is checked.
    precision : str, optional
        One of :data:`PRECISIONS`.

    Raises
    ------
    ConfigError
        If there is no such precision.
    SourceError, ValidationError
        As from :func:`export_app`.
    """
    _check_precision(precision)
    if precision is not None and graph_digest(predictor.model.contract):
        raise ConfigError(f"precision={precision!r}: the model of OUT is in int8 already")
    photos = _draw(Output.at(out))
    graph = _write(predictor, precision, photos)
    check = check_app(graph, predictor, list(islice(photos, N_CHECKED)))
    if broken := check.broken(promise_of(precision, predictor)):
        raise ValidationError(
            f"the exported file is not written: on {check.n_photos} photos {broken}, "
            "against the pipeline"
        )
    return graph, check


def _check_precision(precision: str | None) -> None:
    if precision not in (None, *PRECISIONS):
        raise ConfigError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")


def _draw(output: Output) -> Iterator[LabelledPhoto]:
    """Draw photos of a result that can still be read, with a fixed seed."""
    record = output.read_run()
    parts = output.parts("features")
    rows = pa.concat_tables(read_part(output.folder, p.name, ["path", "label"]) for p in parts)
    here = [is_below(path, record.source) for path in rows["path"].to_pylist()]
    rows = rows.filter(pa.array(here, pa.bool_()))
    order = np.random.default_rng(0).permutation(len(rows))
    drawn = rows.take(order[: N_CALIBRATION + N_CHECKED + _N_SPARE])
    contract = FeatureContract.from_dict(record.contract)
    size, views, resizing = contract.input_size, contract.views, contract.resizing
    labels = drawn["label"].to_pylist()
    contents = read_ahead(drawn["path"].to_pylist())
    for label, content in zip(labels, contents, strict=True):
        if isinstance(content, Unread):
            continue
        try:
            photo = decode_photo(content, size=size, views=views, resizing=resizing)
            yield LabelledPhoto(label, content, photo.views)
        except DecodeError:  # changed since, or accepted though it was cut off
            continue


def _write(predictor: Predictor, precision: str | None, photos: Iterator[LabelledPhoto]) -> bytes:
    model = predictor.model
    if precision == "int8":
        model = quantize(model, [photo.views[0] for photo in islice(photos, N_CALIBRATION)])
    graph = write_app_graph(model, predictor.classifier)
    if precision == "fp16":
        graph = in_half(graph)
    return bytes(graph.SerializeToString())
