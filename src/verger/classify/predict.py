"""Predict the labels of single photos, without Spark or Java, by the pipeline's own code.

A :class:`Predictor` is loaded once and may be used from several threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verger.classify.bundle import read_bundle
from verger.classify.classifier import Array, Classifier
from verger.classify.label_map import Merged, merge_labels
from verger.errors import ConfigError, ContractError, SourceNotFoundError
from verger.features.extractor import load_extractor
from verger.features.model import Model, open_cached
from verger.features.model.weights import OnProgress
from verger.features.outcomes import Decoding, Outcome, featurize_rows
from verger.files.reading import Unread
from verger.result.classifiers import ClassifierFiles
from verger.result.output import Output
from verger.schema import VIEWS
from verger.source.listing import list_photos

#: Labels and known photos that a prediction has at most.
N_TOP = 5
N_NEAREST = 3
#: What stands for the photo on standard input.
STDIN = "-"

# Photos in a call of the model, and of the classifier.
_MICRO_BATCH = 8


@dataclass(frozen=True)
class Score:
    """A label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Neighbor:
    """A known photo; the distance is Euclidean, of features scaled to length 1."""

    path: str
    label: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one photo, or why there is none.

    Attributes
    ----------
    path : str
    prediction : str or None
        The most probable label; None where its probability is below the classifier's threshold
        ("unknown"), and where there is an error.
    probability : float or None
        Of the most probable label; None where there is an error.
    top : tuple of Score
        The most probable labels, by falling probability; empty where there is an error.
    nearest : tuple of Neighbor
        Known photos that are most like it, the nearest first.
    unlike : bool or None
        Whether it is unlike every known photo: farther from the nearest than 95 % of the known
        photos were that were held out. None where that was not measured, or there is an error.
    error : str or None
        Why there are no features: a value of :class:`verger.schema.Reason`, as in ``rejected``.
    detail : str or None
        The decoder's message.
    """

    path: str
    prediction: str | None = None
    probability: float | None = None
    top: tuple[Score, ...] = ()
    nearest: tuple[Neighbor, ...] = ()
    unlike: bool | None = None
    error: str | None = None
    detail: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A result's classifier together with the model that made its features.

    Attributes
    ----------
    classifier : Classifier
    model : Model
    decoding : Decoding
        Bounds of the decoder, for photos of strangers.
    n_top, n_nearest : int
        How many labels and known photos a prediction has at most.
    label_map : mapping of str to str
        Other names for labels, by which their probabilities are summed. Known photos keep their
        labels.

    Examples
    --------
    >>> predictor = verger.Predictor.load("trained/")
    >>> [prediction] = predictor.predict([Path("apple.jpg").read_bytes()], ["apple.jpg"])
    >>> prediction.path, len(prediction.top), len(prediction.nearest)
    ('apple.jpg', 5, 3)
    """

    classifier: Classifier
    model: Model
    decoding: Decoding = field(default_factory=Decoding)
    n_top: int = N_TOP
    n_nearest: int = N_NEAREST
    label_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.classifier.contract_hash != self.model.contract.hash:
            raise ContractError(
                f"the classifier was trained on contract {self.classifier.contract_hash[:12]}, "
                f"and the features are of {self.model.contract.short_hash}; "
                "train it again with verger classify train"
            )
        merge_labels(
            self.classifier.labels, self.label_map, self.classifier.others
        )  # refuses the map of other labels

    def _repr_html_(self) -> str:
        classifier = self.classifier
        facts = {
            "method": f"{classifier.method} on {classifier.on}",
            "labels": f"{len(classifier.labels)}: {', '.join(classifier.labels)}",
            "known photos": str(len(classifier.references)),
            "model": self.model.contract.model,
            "contract": self.model.contract.short_hash,
        }
        rows = (f"<tr><th>{name}</th><td>{escape(v)}</td></tr>" for name, v in facts.items())
        return f"<table><caption>Predictor</caption>{''.join(rows)}</table>"

    @classmethod
    def load(
        cls,
        out: str | Path,
        weights: str | Path | None = None,
        model: str | Path | None = None,
        *,
        name: str = "",
        on_progress: OnProgress | None = None,
    ) -> Predictor:
        """Load what a result needs to predict, or a bundle of it.

        Parameters
        ----------
        out : path
            The folder of a result with a classifier, or ``s3://bucket/prefix``; or a file that
            ``verger classify save`` has written, which needs nothing else.
        name : str
            Of the classifier, where a result has several.
        weights, model, on_progress
            As for :func:`verger.features.extractor.load_extractor`.

        Raises
        ------
        ConfigError
            If a file is given with a name, weights or a model.
        OutputError
            If OUT is no result, or has no classifier.
        ContractError
            If classifier, weights and features do not belong together.
        """
        files = ClassifierFiles(name)
        if "://" not in str(out) and Path(out).is_file():
            _refuse_with_bundle(out, name=name, weights=weights, extractor=model)
            bundled, extractor = read_bundle(out)
            return cls(classifier=bundled, model=extractor)
        output = Output.at(out)
        record = output.read_run()  # first, for the clearer message if OUT is no result
        classifier = Classifier.load(
            output, record, files.npz
        )  # before weights are downloaded for nothing
        extractor = load_extractor(output, weights=weights, model=model, on_progress=on_progress)
        return cls(classifier=classifier, model=extractor)

    def predict(self, photos: Iterable[bytes | Unread], paths: Iterable[str]) -> list[Prediction]:
        """Predict the labels of photos; one that cannot be decoded has an ``error``.

        Parameters
        ----------
        photos : iterable of bytes
            Files as they are. A photo that could not be read may be given as the reason why.
        paths : iterable of str
            A name for each.
        """
        return list(self.iter_predictions(photos, paths))

    def iter_predictions(
        self, photos: Iterable[bytes | Unread], paths: Iterable[str]
    ) -> Iterator[Prediction]:
        """Predict like :meth:`predict`, a few photos at a time, so that memory stays bounded."""
        outcomes = featurize_rows(
            (({}, photo) for photo in photos),
            open_cached(self.model),
            micro_batch=_MICRO_BATCH,
            decoding=self.decoding,
        )
        rows = zip(paths, outcomes, strict=True)
        while some := list(islice(rows, _MICRO_BATCH)):
            yield from self._decide(some)

    def _decide(self, rows: Sequence[tuple[str, Outcome]]) -> Iterator[Prediction]:
        vectors = [outcome["features"] for _, outcome in rows if "features" in outcome]
        shape = len(vectors), self.classifier.n_features
        features = np.array(vectors, np.float32).reshape(shape)
        crops = [outcome[VIEWS] for _, outcome in rows if VIEWS in outcome]
        views = np.concatenate([features, crops], axis=1) if crops else features
        views = views.reshape(len(vectors), self.model.contract.n_views, shape[1])
        probabilities = iter(self._merged.sum(self.classifier.probabilities(views)))
        nearest = iter(self._nearest(features))
        for path, outcome in rows:
            if "features" in outcome:
                yield self._prediction(path, next(probabilities), next(nearest))
            else:
                yield Prediction(path=path, error=outcome["reason"], detail=outcome["detail"])

    def _prediction(
        self, path: str, probabilities: Array, nearest: tuple[Neighbor, ...]
    ) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")[: self.n_top]
        labels = self._merged.names
        top = tuple(Score(labels[j], float(probabilities[j])) for j in order)
        known = top[0].probability >= self.classifier.threshold
        is_measured = len(nearest) > 0 and np.isfinite(self.classifier.alarm)
        return Prediction(
            path=path,
            prediction=top[0].label if known else None,
            probability=top[0].probability,
            top=top,
            nearest=nearest,
            unlike=nearest[0].distance > self.classifier.alarm if is_measured else None,
        )

    @cached_property
    def _merged(self) -> Merged:
        return merge_labels(self.classifier.labels, self.label_map, self.classifier.others)

    def _nearest(self, features: npt.NDArray[np.float32]) -> list[tuple[Neighbor, ...]]:
        classifier = self.classifier
        k = min(self.n_nearest, len(classifier.references))
        if not k:
            return [()] * len(features)
        distances, indices = classifier.nearest(features, k)
        return [
            tuple(
                Neighbor(
                    classifier.reference_paths[i],
                    classifier.names[classifier.reference_labels[i]],
                    d,
                )
                for i, d in zip(row, far, strict=True)
            )
            for row, far in zip(indices, distances.tolist(), strict=True)
        ]


def _refuse_with_bundle(path: str | Path, **given: str | Path | None) -> None:
    """Refuse what would do nothing: a bundle has one classifier, and its model."""
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"{name}={value}: goes with a result; {path} is one file, with one classifier and "
                "its model"
            )


def list_named(photos: Iterable[str]) -> list[str]:
    """List the photos that a user names: files as they are, folders by their images.

    Parameters
    ----------
    photos : iterable of str
        Files and folders of this machine, and :data:`STDIN`, at most once.

    Raises
    ------
    ConfigError
        If one is an address: nothing is downloaded; or if standard input is named twice.
    SourceNotFoundError
        If there is no such file or folder.
    EmptySourceError
        If a folder holds no image.
    """
    paths: list[str] = []
    for name in photos:
        if "://" in name:
            raise ConfigError(
                f"PHOTO={name}: must be a file or a folder of this machine, or - for standard "
                "input; download it first"
            )
        if name == STDIN and STDIN in paths:
            raise ConfigError("PHOTO=-: standard input can be read only once")
        if name == STDIN or Path(name).is_file():
            paths.append(name)
        elif Path(name).is_dir():
            paths += list_photos(name, label_from="none").photos["path"].to_pylist()
        else:
            raise SourceNotFoundError(f"PHOTO={name}: no such file or folder")
    return paths
