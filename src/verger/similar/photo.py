"""The known photos that are most like a photo, in this process, without Spark.

Exactly: the table of features is read batch by batch, and memory does not grow with it. Or by an
index, which a large table is worth; see :mod:`verger.similar.index`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from verger.classify.nearest import Cosine, NearestRows
from verger.errors import ConfigError, SourceError
from verger.features.extractor import load_extractor
from verger.features.model import Model, open_cached
from verger.features.model.weights import OnProgress
from verger.features.outcomes import featurize_rows
from verger.files.reading import Unread
from verger.files.tables import read_part
from verger.files.vectors import VectorRows, iter_vectors
from verger.result.lock import locked
from verger.result.output import Output
from verger.similar.index import current_index, ensure_index, require_faiss, search_index
from verger.similar.rows import stored_vectors

_LOG = logging.getLogger("verger")


@dataclass(frozen=True)
class Match:
    """A known photo, and the cosine of its features to those that were looked for.

    Attributes
    ----------
    path : str
    label : str or None
    similarity : float
    exact : bool
        Whether all photos were compared. If not, one that is more alike may be missing.
    """

    path: str
    label: str | None
    similarity: float
    exact: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def find_similar(
    photo: bytes | Unread,
    out: str | Path,
    *,
    k: int = 10,
    approximate: bool = False,
    weights: str | Path | None = None,
    model: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[Match]:
    """Find the photos of a result that are most like a photo.

    Parameters
    ----------
    photo : bytes
        The file as it is, or the reason why it could not be read.
    out : path
        The folder of a result, or ``s3://bucket/prefix``.
    k : int
        How many to find; a smaller table gives all it has.
    approximate : bool
        Look them up in the result's index, which is made first where there is none of these
        features.
    weights, model, on_progress
        As for :func:`verger.features.extractor.load_extractor`.

    Returns
    -------
    list of Match
        By falling similarity, then by path.

    Raises
    ------
    ConfigError
        If ``k`` is not at least 1.
    SourceError
        If the photo cannot be decoded.
    EnvironmentNotReadyError
        If ``approximate`` is asked for and faiss is not installed.
    OutputError, ContractError
        As from :func:`verger.features.extractor.load_extractor`.
    """
    if k < 1:
        raise ConfigError(f"k={k} must be at least 1")
    if approximate:
        require_faiss()
    output = Output.at(out)
    extractor = load_extractor(output, weights=weights, model=model, on_progress=on_progress)
    features = _featurize(photo, extractor)
    return search_by_index(output, features, k) if approximate else search(output, features, k)


def _featurize(photo: bytes | Unread, extractor: Model) -> npt.NDArray[np.float32]:
    (outcome,) = featurize_rows([({}, photo)], open_cached(extractor))
    if "features" not in outcome:
        raise SourceError(f"PHOTO: {outcome['reason']}: {outcome['detail']}")
    features: npt.NDArray[np.float32] = outcome["features"]
    return features


def search_by_index(output: Output, features: npt.NDArray[np.float32], k: int) -> list[Match]:
    """Find nearly all of what :func:`search` finds; make the index where there is none.

    Parameters
    ----------
    output : Output
    features : ndarray of shape (n_features,), float32
    k : int
    """
    index = current_index(output)
    if index is None:
        with locked(output):
            index = ensure_index(output)
    (similarity,), (near,) = search_index(output.folder, index, features[None], k)
    known = dict(zip(near.tolist(), similarity.tolist(), strict=True))
    known.pop(-1, None)
    matches, first = [], 0
    _tell_missing(output, index.n_photos)
    for part, places in stored_vectors(output, index.n_photos):
        rows = [place - first for place in known if first <= place < first + part.rows]
        if rows:
            table = read_part(output.folder, part.name, ["path", "label"]).take(places[rows])
            matches += [
                Match(row["path"], row["label"], known[first + at], exact=False)
                for at, row in zip(rows, table.to_pylist(), strict=True)
            ]
        first += part.rows
    return sorted(matches, key=_by_likeness)


def search(output: Output, features: npt.NDArray[np.float32], k: int) -> list[Match]:
    """Find the rows of a result whose features have the largest cosine to these.

    Parameters
    ----------
    output : Output
    features : ndarray of shape (n_features,), float32
    k : int
    """
    metric = Cosine(features[None])
    matches: list[Match] = []
    names, columns, n_compared = output.part_names("features"), ["path", "label", "features"], 0
    for block in iter_vectors(output.folder, names, columns, dimension=len(features)):
        matches += _nearest(metric, block, k)
        matches = sorted(matches, key=_by_likeness)[:k]
        n_compared += len(block.x)
    _tell_missing(output, n_compared)
    return matches


def _tell_missing(output: Output, n_compared: int) -> None:
    n_missing = sum(part.rows for part in output.parts("features")) - n_compared
    if n_missing:
        _LOG.warning("%d rows of the table features have no vector and are left out", n_missing)


def _nearest(metric: Cosine, block: VectorRows, k: int) -> list[Match]:
    """Return the k of some rows that are most like a photo; equal ones by their paths."""
    batch = block.rows
    by_path = pc.sort_indices(batch.column("path")).to_numpy()
    rank = np.empty(len(by_path), np.int32)
    rank[by_path] = np.arange(len(by_path), dtype=np.int32)
    nearest = NearestRows(metric, min(k, len(by_path)))
    nearest.add(block.x, rank)
    rows = pa.array(by_path[nearest.row[0]])
    paths, labels = (batch.column(name).take(rows) for name in ("path", "label"))
    likeness = nearest.likeness[0].tolist()
    return list(map(Match, paths.to_pylist(), labels.to_pylist(), likeness))


def _by_likeness(match: Match) -> tuple[float, str]:
    return -match.similarity, match.path
