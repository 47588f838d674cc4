"""What an exported file must keep, and whether it does: the same photos to it and the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.classify.predict import Predictor
from verger.errors import SourceError, WeightsError
from verger.features.model import Vector, import_onnxruntime, open_cached
from verger.features.model.int8 import graph_digest
from verger.features.preprocess import cut_views, decode_full_size, resize_image


class Promise(NamedTuple):
    """What an exported file must keep on the photos that it is checked on.

    Attributes
    ----------
    probability : float
        Largest difference of a probability; with ``knn`` one vote more.
    features : float
        Largest difference of a feature, as a share of the largest feature.
    agreement : float
        Smallest share of photos with the same most probable label.
    """

    probability: float
    features: float
    agreement: float


#: The resize differs by one of 255 levels in few pixels; all else is float32 on both sides.
EXACT = Promise(0.02, 0.01, 0.99)
#: Weights in float16; or the same integers on both sides, which such a pixel may push to the next.
NEAR = Promise(0.10, 0.05, 0.97)
#: Integers on one side: labels only.
ROUGH = Promise(1.0, 1.0, 0.80)


def promise_of(precision: str | None, predictor: Predictor) -> Promise:
    """Return what a file of this precision must keep.

    Parameters
    ----------
    precision : str or None
        None for that of the result.
    predictor : Predictor
    """
    own = NEAR if graph_digest(predictor.model.contract) else EXACT
    promise = {None: own, "fp16": NEAR, "int8": ROUGH}[precision]
    if predictor.classifier.method != "knn":
        return promise
    vote = 1 / predictor.classifier.n_neighbors
    return promise._replace(probability=promise.probability + vote)


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """What came out where a file and the pipeline were given the same photos.

    Attributes
    ----------
    n_photos : int
    probability_difference : float
        Largest on the same pixels.
    features_difference : float
        Largest on the same pixels, as a share of the largest feature.
    agreement : float
        Share of photos with the same most probable label, on the same pixels.
    agreement_on_files : float
        The same against the run's own features of the files: it decodes large JPEGs at a reduced
        scale, an app decodes them whole.
    accuracy, accuracy_of_run : float or None
        Share of photos whose most probable label is theirs, by the file and by the pipeline;
        None if the photos have no labels. They were trained on: compare the two, and no more.
    """

    n_photos: int
    probability_difference: float
    features_difference: float
    agreement: float
    agreement_on_files: float
    accuracy: float | None
    accuracy_of_run: float | None

    def broken(self, promise: Promise) -> str | None:
        """Say what of a promise does not hold; None if all does."""
        measured = {
            "probabilities differ by": (self.probability_difference, promise.probability),
            "features differ by": (self.features_difference, promise.features),
            "labels that differ:": (1 - self.agreement, 1 - promise.agreement),
        }
        said = [
            f"{what} {value:.3g} (at most {bound:.3g})"
            for what, (value, bound) in measured.items()
            if not value <= bound + 1e-9  # NaN keeps no promise
        ]
        return ", ".join(said) or None


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo of a result.

    Attributes
    ----------
    label : str or None
    content : bytes
        Its file.
    views : ndarray of shape (n_views, size, size, 3), uint8
        What the model was given of it, the whole photo first.
    """

    label: str | None
    content: bytes = field(repr=False)
    views: npt.NDArray[np.uint8] = field(repr=False)


def check_app(graph: bytes, predictor: Predictor, photos: Sequence[LabelledPhoto]) -> ExportCheck:
    """Give an exported file and the pipeline the same photos.

    Parameters
    ----------
    graph : bytes
        The exported file.
    predictor : Predictor
    photos : sequence of LabelledPhoto

    Raises
    ------
    SourceError
        If there is no photo.
    WeightsError
        If onnxruntime refuses the file.
    """
    if not photos:
        raise SourceError("export: no photo of OUT can be read any more, to check the file on")
    session = open_cached(predictor.model)
    contract = predictor.model.contract
    size, app = contract.input_size, _open(graph)
    given, vectors, resized = [], [], []
    for photo in photos:
        image = decode_full_size(photo.content)
        probabilities, features = app.run(["probabilities", "features"], {"image": image})
        given.append(probabilities)
        vectors.append(features)
        picture = Image.fromarray(image)
        whole = np.asarray(resize_image(picture, size, resizing=contract.resizing))[None]
        crops = cut_views(picture, size, contract.views, resizing=contract.resizing)
        resized.append(np.concatenate([whole, crops]))
    shape = len(photos), contract.n_views, contract.n_features
    expected = session.predict(np.concatenate(resized)).reshape(shape)
    own = session.predict(np.concatenate([photo.views for photo in photos])).reshape(shape)
    return _compare(
        predictor,
        np.array(given),
        np.array(vectors),
        expected,
        own,
        [photo.label for photo in photos],
    )


def _compare(
    predictor: Predictor,
    given: Vector,
    vectors: Vector,
    expected: Vector,
    own: Vector,
    labels: list[str | None],
) -> ExportCheck:
    classifier = predictor.classifier
    wanted, whole = classifier.probabilities(expected), expected[:, 0]
    best, best_of_run = given.argmax(axis=1), wanted.argmax(axis=1)
    best_of_files = classifier.probabilities(own).argmax(axis=1)
    truth = np.array([classifier.labels.index(x) if x in classifier.labels else -1 for x in labels])
    known = truth >= 0
    return ExportCheck(
        n_photos=len(labels),
        probability_difference=float(np.abs(given - wanted).max()),
        features_difference=float(np.abs(vectors - whole).max() / np.abs(whole).max()),
        agreement=float((best == best_of_run).mean()),
        agreement_on_files=float((best == best_of_files).mean()),
        accuracy=float((best == truth)[known].mean()) if known.any() else None,
        accuracy_of_run=float((best_of_run == truth)[known].mean()) if known.any() else None,
    )


def _open(graph: bytes) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, ["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime's errors share no public base
        raise WeightsError(f"export: onnxruntime refuses the graph: {err}") from err
