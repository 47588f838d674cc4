"""What a server says of a photo: the prediction, a line about it, and known photos to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import PurePosixPath

from PIL import Image

from verger.classify.predict import Neighbor, Prediction, Predictor
from verger.features.outcomes import Decoding
from verger.features.preprocess import DecodeError
from verger.files.paths import is_below
from verger.files.reading import Unread, read_photo

#: Longer side of a known photo's picture, in pixels.
THUMBNAIL = 144

# Pictures that are kept, of about 5 kB each: as many as a page that does the work may ask for.
_N_KEPT = 2048


@dataclass(frozen=True)
class SimilarPhoto(Neighbor):
    """A known photo that is like the one asked about.

    Attributes
    ----------
    thumbnail : str or None
        A small JPEG as a data address; None where the photo can no longer be read.
    """

    thumbnail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer(Prediction):
    """A prediction and what is shown beside it.

    Attributes
    ----------
    nearest : tuple of SimilarPhoto
        Their paths are told from the folder of the source on, never from the root of the disk.
    fact : str or None
        The line about the predicted label.
    threshold : float or None
        Probability from which on a label is predicted.
    """

    nearest: tuple[SimilarPhoto, ...] = ()
    fact: str | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Answers for photos; may be asked from several threads.

    Attributes
    ----------
    predictor : Predictor
    source : str
        Where the known photos are.
    facts : mapping of str to str
    """

    predictor: Predictor
    source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def answer(self, photo: bytes) -> Answer:
        """Say what is on a photo."""
        (found,) = self.predictor.predict([photo], ["photo"])
        values = {each.name: getattr(found, each.name) for each in fields(found)}
        values["nearest"] = tuple(self._similar(known) for known in found.nearest)
        fact = self.facts.get(found.prediction) if found.prediction is not None else None
        return Answer(**values, fact=fact, threshold=self.predictor.classifier.threshold)

    def _similar(self, known: Neighbor) -> SimilarPhoto:
        path = PurePosixPath(known.path)
        inside = self.source and path.is_relative_to(self.source)
        told = str(path.relative_to(self.source)) if inside else path.name
        picture = thumbnail_of(known.path, self.source, self.predictor.decoding)
        address = (
            f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" if picture else None
        )
        return SimilarPhoto(told, known.label, known.distance, address)


@lru_cache(maxsize=_N_KEPT)
def thumbnail_of(path: str, source: str, decoding: Decoding) -> bytes | None:
    """Return the picture of a known photo; None if it cannot be decoded, or is not below SRC.

    Parameters
    ----------
    path : str
        As the classifier names it: whoever wrote the file may have named any file.
    source : str
        Where the known photos are.
    decoding : Decoding
    """
    return draw_thumbnail(read_photo(path), decoding) if is_below(path, source) else None


def draw_thumbnail(content: bytes | Unread, decoding: Decoding) -> bytes | None:
    """Return a photo's picture as a small JPEG; None if it cannot be read or decoded."""
    if isinstance(content, Unread):
        return None
    try:
        photo = decoding.decode(content, THUMBNAIL)
    except DecodeError:
        return None
    scale = THUMBNAIL / max(photo.width, photo.height)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    stream = io.BytesIO()
    Image.fromarray(photo.pixels).resize(size).save(stream, "JPEG", quality=80)
    return stream.getvalue()
