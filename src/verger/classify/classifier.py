"""A trained classifier as plain arrays: features to probabilities, and the known photos near them.

Training writes it, and whoever predicts reads it, without Spark and Java.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.classify.nearest import Euclidean, NearestRows, squared_lengths, unit
from verger.classify.probabilities import count_votes, softmax, squared_distances
from verger.errors import ConfigError, OutputError
from verger.files.folder import Folder
from verger.files.npz import UNREADABLE, read_npz
from verger.result.classifiers import no_classifier
from verger.result.output import CLASSIFIER_NPZ, Output
from verger.result.record import RunRecord

Array = npt.NDArray[np.float64]

METHODS = ("logistic", "knn", "centroid")
INPUTS = ("features", "pca")

#: Known photos that a classifier keeps at most, of one result or of several; ``knn`` votes by them.
MOST_REFERENCES = 20_000

# Raised by one when the files change their meaning.
_VERSION = 4
_REFERENCES = "models/references*.npy"
# Rows whose distances to all references are in memory at once: 256 x 20,000 float32 are 20 MB.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A classifier of features, and a sample of the photos that it was trained on.

    With ``x`` the features or their PCA scores, it works on ``z = (x - mean) / scale``. Known
    photos are compared by ``x`` scaled to length 1.

    Attributes
    ----------
    method : str
        ``logistic``: scores are ``z @ coefficients.T + intercepts``; ``centroid``: scores are minus
        the squared distances to ``coefficients``; ``knn``: the nearest references vote.
    on : str
        ``features`` or ``pca``: what ``x`` is.
    labels : tuple of str
        Sorted; column j of all probabilities is ``labels[j]``.
    others : tuple of str
        Sorted labels of other things: their probability is what is missing to 1.
    contract_hash : str
        Of the features that it takes.
    mean, scale : ndarray of shape (d,), float64
        ``scale`` is never 0; a constant column has 1.
    coefficients : ndarray of shape (n_labels + n_others, d), float64
    intercepts : ndarray of shape (n_labels + n_others,), float64
        Zeros for ``centroid`` and ``knn``.
    temperature : float
        Probabilities are ``softmax(scores / temperature)``.
    threshold : float
        A prediction of a lower probability is "unknown"; 0 for never.
    n_neighbors : int
        Of ``knn``, whose probabilities are shares of the votes.
    references : ndarray of shape (m, d), float32
        Known photos: ``x``, scaled to length 1.
    reference_labels : ndarray of shape (m,), int32
        Indices into :attr:`names`.
    reference_paths : tuple of str
    alarm : float
        A photo farther from every reference is unlike every known photo; infinite for never.
    components : ndarray of shape (k, n_features), float64, or None
        With ``on="pca"``: ``x = (features - pca_mean) @ components.T``.
    pca_mean : ndarray of shape (n_features,), float64, or None
        Zeros where the scores are not centred.

    Raises
    ------
    ConfigError
        If the parts do not fit one another.
    """

    method: str
    on: str
    labels: tuple[str, ...] = field(repr=False)
    contract_hash: str
    mean: Array = field(repr=False)
    scale: Array = field(repr=False)
    coefficients: Array = field(repr=False)
    intercepts: Array = field(repr=False)
    temperature: float
    threshold: float
    n_neighbors: int
    references: npt.NDArray[np.float32] = field(repr=False)
    reference_labels: npt.NDArray[np.int32] = field(repr=False)
    reference_paths: tuple[str, ...] = field(repr=False)
    others: tuple[str, ...] = ()
    alarm: float = np.inf
    components: Array | None = field(default=None, repr=False)
    pca_mean: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_words(self)
        _check_arrays(self)

    @property
    def names(self) -> tuple[str, ...]:
        """All labels that photos were trained under, those of other things last."""
        return (*self.labels, *self.others)

    @property
    def n_features(self) -> int:
        """Length of the feature vectors that it takes."""
        return len(self.mean) if self.components is None else self.components.shape[1]

    def standardized(self, features: npt.NDArray[Any]) -> Array:
        """Return what the classifier works on: ``z`` of shape (n, d), float64.

        Raises
        ------
        ConfigError
            If the features are not ``n_features`` long.
        """
        return (self._projected(features) - self.mean) / self.scale

    def _projected(self, features: npt.NDArray[Any]) -> Array:
        x: Array = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ConfigError(f"features of shape {x.shape} must be (n, {self.n_features})")
        if self.components is not None and self.pca_mean is not None:
            x = (x - self.pca_mean) @ self.components.T  # (n, n_features) -> (n, k)
        return x

    def probabilities(self, features: npt.NDArray[Any]) -> Array:
        """Compute the probability of every label.

        Parameters
        ----------
        features : ndarray of shape (n, n_features), or (n, n_views, n_features), float32
            With several views, their probabilities are averaged.

        Returns
        -------
        ndarray of shape (n, n_labels), float64
            Rows sum to 1; with ``others`` to less, by the probability of these.
        """
        if features.ndim == 3:
            n, n_views, n_features = features.shape
            of_views = self.probabilities(features.reshape(n * n_views, n_features))
            averaged: Array = of_views.reshape(n, n_views, of_views.shape[-1]).mean(axis=1)
            return averaged
        if self.method == "knn":
            return self._votes(features)
        z = self.standardized(features)
        if self.method == "logistic":
            scores = z @ self.coefficients.T + self.intercepts
        else:
            scores = -squared_distances(z, self.coefficients)
        return softmax(scores / self.temperature)[:, : len(self.labels)]

    def nearest(self, features: npt.NDArray[Any], k: int) -> tuple[Array, npt.NDArray[np.int64]]:
        """Find the references that are nearest, exactly; of equal ones the first.

        Parameters
        ----------
        features : ndarray of shape (n, n_features), float32
        k : int
            Between 1 and the number of references.

        Returns
        -------
        distances : ndarray of shape (n, k), float64
            Euclidean, of vectors of length 1, rising: ``sqrt(2 - 2 cosine)``.
        indices : ndarray of shape (n, k), int64

        Raises
        ------
        ConfigError
            If ``k`` is out of bounds.
        """
        m = len(self.references)
        if not 1 <= k <= m:
            raise ConfigError(f"k={k} must be between 1 and n_references={m}")
        z, numbers = unit(self._projected(features)), np.arange(m, dtype=np.int32)
        blocks = [np.empty((0, k))], [np.empty((0, k), np.int64)]
        for start in range(0, len(z), _ROWS_AT_ONCE):
            nearest = NearestRows(Euclidean(z[start : start + _ROWS_AT_ONCE]), k)
            nearest.add(self.references, numbers, self._reference_norms)
            blocks[0].append(np.sqrt(-nearest.likeness))
            blocks[1].append(nearest.row.astype(np.int64))
        return np.concatenate(blocks[0]), np.concatenate(blocks[1])

    def unlike(self, features: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Say which photos are unlike every known one: features (n, n_features) to (n,)."""
        if not len(self.references) or np.isinf(self.alarm):
            return np.full(len(features), False)
        return np.asarray(self.nearest(features, 1)[0][:, 0] > self.alarm)

    @cached_property
    def _reference_norms(self) -> npt.NDArray[np.float32]:
        """Squared lengths, (m,): computed once, when the references are checked."""
        return squared_lengths(self.references)

    def _votes(self, features: npt.NDArray[Any]) -> Array:
        _, indices = self.nearest(features, self.n_neighbors)
        votes = count_votes(self.reference_labels[indices], len(self.names))
        return votes[:, : len(self.labels)]

    def to_arrays(self) -> dict[str, Any]:
        """Return all but the vectors of the known photos as plain arrays, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "references"}
        values |= {name: np.array(values[name], np.str_) for name in _TEXTS}
        stored = {name: np.asarray(v) for name, v in values.items() if v is not None}
        return stored | {"version": np.array(_VERSION)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], references: npt.NDArray[np.float32]
    ) -> Classifier:
        """Return a classifier of what :meth:`to_arrays` gave.

        Raises
        ------
        ValueError, ConfigError
            If it is of another version, or the parts do not fit one another.
        """
        version = int(arrays["version"])
        if version != _VERSION:
            raise ValueError(f"version={version} must be {_VERSION}")
        values: dict[str, Any] = {}
        for name, array in arrays.items():
            if name in _TEXTS:
                values[name] = tuple(map(str, array))
            elif name != "version":
                values[name] = array if name in _ARRAYS else array.item()
        return cls(references=references, **values)

    def save(self, folder: Folder, npz: str = CLASSIFIER_NPZ) -> list[str]:
        """Write it below a folder; whatever happens, a classifier that was there stays whole.

        The vectors of its known photos get a file of their own, named after their sha256, since
        they are mapped into memory: 20,000 of 1,280 features are 102 MB. So no classifier can be
        read with the vectors of another one.

        Parameters
        ----------
        folder : Folder
            OUT, or where the files wait to be moved there.
        npz : str
            Name of the file below it; see :mod:`verger.result.classifiers`.

        Returns
        -------
        list of str
            Names of the files in the order in which they may be moved: the classifier is the last.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with io.BytesIO() as stream:
            np.save(stream, self.references)
            vectors = stream.getvalue()
        references = f"models/references-{hashlib.sha256(vectors).hexdigest()}.npy"
        folder.write(references, vectors)
        with io.BytesIO() as stream:
            np.savez(stream, references_file=references, **self.to_arrays())
            folder.write(npz, stream.getvalue())
        return [references, npz]

    @classmethod
    def load(
        cls, output: Output, record: RunRecord | None = None, npz: str = CLASSIFIER_NPZ
    ) -> Classifier:
        """Read a classifier of a result.

        Parameters
        ----------
        output : Output
        record : RunRecord, optional
            What ``run.json`` says: a classifier cannot have more labels than the result has photos.
        npz : str
            Its file below OUT.

        Raises
        ------
        OutputError
            If there is none, or it is damaged or of another version of Verger.
        """
        try:
            most = None if record is None else _most_shapes(record)
            arrays = read_npz(output.folder.read(npz), most)
            references = references_named(arrays)
        except FileNotFoundError as err:
            raise no_classifier(output, npz) from err
        except UNREADABLE as err:
            raise _damaged(output, npz, err) from err
        arrays.pop("references_file", None)
        try:
            vectors = _read_references(output.folder, references)
        except UNREADABLE as err:
            raise _damaged(output, references, err) from err
        try:
            return cls.from_arrays(arrays, vectors)
        except UNREADABLE as err:
            raise _damaged(output, npz, err) from err


_TEXTS = ("labels", "others", "reference_paths")
_ARRAYS = {
    "mean": np.float64,
    "scale": np.float64,
    "coefficients": np.float64,
    "intercepts": np.float64,
    "references": np.float32,
    "reference_labels": np.int32,
    "components": np.float64,
    "pca_mean": np.float64,
}


def _damaged(output: Output, name: str, err: Exception) -> OutputError:
    place = output.address(name)
    return OutputError(f"{place}: cannot be used: {err}; train it again with verger classify train")


def _read_references(folder: Folder, name: str) -> npt.NDArray[np.float32]:
    """Map the vectors of a disk's file into memory; of a bucket's, read them."""
    if not folder.is_local:
        with io.BytesIO(folder.read(name)) as file:
            return np.load(file, allow_pickle=False)  # type: ignore[no-any-return]
    if not folder.exists(name):  # a pipe would be waited for
        raise ValueError("is no file")
    mapped = np.load(folder.address(name), mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)  # type: ignore[no-any-return]


def is_references(name: str) -> bool:
    """Whether a file below OUT holds the vectors of a classifier's known photos."""
    return fnmatch(name, _REFERENCES)


def _most_shapes(record: RunRecord) -> dict[str, tuple[int, ...]]:
    """Return the largest shapes of a classifier of a result.

    There are no more labels and known photos than photos, of this result and of others that were
    learnt with it, and no more dimensions than features.
    """
    n, d = max(record.counts.featurized, MOST_REFERENCES), record.model.n_features
    return {
        "mean": (d,),
        "scale": (d,),
        "coefficients": (n, d),
        "intercepts": (n,),
        "labels": (n,),
        "others": (n,),
        "reference_labels": (n,),
        "reference_paths": (n,),
        "components": (d, d),
        "pca_mean": (d,),
    }


def references_named(arrays: Mapping[str, Any]) -> str:
    """Return the file below OUT that holds the vectors of a stored classifier's known photos.

    Raises
    ------
    ValueError
        If it could be no such file.
    """
    name = str(arrays.get("references_file"))
    if not is_references(name):
        raise ValueError(f"references_file={name!r} must be {_REFERENCES}")
    return name


def _check_words(classifier: Classifier) -> None:
    for name, value, allowed in (
        ("method", classifier.method, METHODS),
        ("on", classifier.on, INPUTS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} must be one of {', '.join(allowed)}")
    if not classifier.labels or list(classifier.labels) != sorted(set(classifier.labels)):
        raise ConfigError(
            f"labels: {len(classifier.labels)} must be at least 1, sorted, none twice"
        )
    if len(set(classifier.names)) < len(classifier.names):
        raise ConfigError(f"others={classifier.others} must not be labels, and none twice")
    if not 0 < classifier.temperature < np.inf:
        raise ConfigError(f"temperature={classifier.temperature} must be above 0 and finite")
    if not classifier.alarm >= 0:
        raise ConfigError(f"alarm={classifier.alarm} must be at least 0")
    if not 0 <= classifier.threshold <= 1:
        raise ConfigError(f"threshold={classifier.threshold} must be between 0 and 1")
    m = len(classifier.reference_paths)
    if classifier.method == "knn" and not 1 <= classifier.n_neighbors <= m:
        raise ConfigError(
            f"n_neighbors={classifier.n_neighbors} must be between 1 and {m} references"
        )
    if (classifier.on == "pca") != (
        classifier.components is not None and classifier.pca_mean is not None
    ):
        raise ConfigError(
            f"on={classifier.on!r}: components and pca_mean go with on='pca', and only so"
        )


def _check_arrays(classifier: Classifier) -> None:
    d, m = np.size(classifier.mean), len(classifier.reference_paths)
    n_labels = len(classifier.names)
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (d,),
        "scale": (d,),
        "coefficients": (n_labels, d),
        "intercepts": (n_labels,),
        "references": (m, d),
        "reference_labels": (m,),
    }
    if classifier.components is not None:
        shapes |= {"components": (d, classifier.n_features), "pca_mean": (classifier.n_features,)}
    for name, shape in shapes.items():
        array = getattr(classifier, name)
        if array.shape != shape or array.dtype != _ARRAYS[name]:
            raise ConfigError(
                f"{name}: shape {array.shape} {array.dtype} must be {shape} "
                f"{np.dtype(_ARRAYS[name])}"
            )
        # Of references their lengths are looked at, which are needed anyway: half the time.
        if not np.isfinite(classifier._reference_norms if name == "references" else array).all():
            raise ConfigError(f"{name}: holds values that are not finite")
    if not classifier.scale.all():
        raise ConfigError("scale: holds 0; a constant column has 1")
    numbers = classifier.reference_labels
    if m and not 0 <= numbers.min() <= numbers.max() < n_labels:
        raise ConfigError(f"reference_labels: must be between 0 and {n_labels - 1}")
