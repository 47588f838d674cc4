"""The feature contract: everything that must agree for two feature vectors to be comparable.

A laptop, a cluster, EMR and the phone give the same numbers for the same photo exactly when
their contracts are equal. The hash is stored with every table and every model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from verger.errors import ContractError
from verger.features.preprocess import CROPS, DCT_MARGIN, PREPROCESS_VERSION, Resizing, n_views
from verger.files.records import from_plain, to_plain

#: The decoder, where the resized photo has a size of its own.
DECODER_OF_RESIZED = (
    "pillow, first frame; jpeg at 1/2, 1/4 or 1/8 where its shorter side stays "
    f"{DCT_MARGIN} x resize_size"
)


def count_views(contract: Mapping[str, object]) -> int:
    """Return how many vectors a photo has by a contract's JSON values, whoever wrote them."""
    views = str(contract.get("views"))
    return n_views(views if views in CROPS else "whole")


@dataclass(frozen=True, kw_only=True)
class FeatureContract:
    """What was done to a photo between its bytes and its features.

    Attributes
    ----------
    model : str
        Name of the architecture, or the file name of a model of one's own.
    weights_sha256 : str
        Of the file of weights as it was read.
    graph : str
        What is computed with the weights: the version of the code that writes the graph of a
        built-in model, or the output that was chosen of a model of one's own.
    input_size : int
        Height and width of the model's input in pixels.
    n_features : int
        Length of the vector.
    mean, std : tuple of float
        Normalisation ``(pixel - mean) / std`` in units of a pixel, 0 to 255.
    preprocess_version : int
        Version of :mod:`verger.features.preprocess`.
    exif : str
        Turned by the mark of the format: EXIF in JPEG, PNG and WebP, a tag in TIFF, boxes in AVIF
        and HEIC. XMP is not asked (:mod:`verger.features.preprocess.turn`).
    color : str
        What samples of every depth and kind are worth (:mod:`verger.features.preprocess.samples`).
    views : {"whole", "center", "five"}
        Which crops have features beside the whole photo (:mod:`verger.features.preprocess.views`).
    resize_rule, resize_size, resample, crop
        How a photo becomes a square (:class:`verger.features.preprocess.Resizing`).

    Examples
    --------
    >>> contract = verger.load_model("efficientnet_lite0").contract
    >>> contract.input_size, contract.n_features, contract.short_hash
    (224, 1280, '...')
    """

    model: str
    weights_sha256: str
    graph: str
    input_size: int
    n_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocess_version: int = PREPROCESS_VERSION
    decoder: str = (
        "pillow, first frame; jpeg at 1/2, 1/4 or 1/8 where its shorter side stays "
        f"{DCT_MARGIN} x input_size"
    )
    exif: str = "turned upright"
    transparency: str = "onto white; none where an alpha that is not declared is 0 everywhere"
    color: str = (
        "rgb, uint8; integers by their range or tiff's SMinSampleValue and SMaxSampleValue, high 8 "
        "bits; floats 0 to 1; else unsupported"
    )
    resize: str = "pillow bicubic to (input_size, input_size)"
    dtype: str = "float32"
    views: str = "whole"
    resize_rule: str = "square"
    resize_size: int | None = None
    resample: str = "bicubic"
    crop: str = "none"

    def __post_init__(self) -> None:
        if (self.resize_size or self.input_size) < self.input_size:
            raise ValueError(
                f"resize_size={self.resize_size} is below input_size={self.input_size}"
            )
        _ = self.resizing  # which refuses what it does not know
        if self.views not in CROPS:
            raise ValueError(f"views={self.views!r} must be one of {', '.join(CROPS)}")

    @property
    def n_views(self) -> int:
        """Vectors of a photo: of the whole of it, and of each crop."""
        return n_views(self.views)

    @property
    def resizing(self) -> Resizing:
        """How a photo becomes a square."""
        return Resizing(self.resize_rule, self.resize_size, self.resample, self.crop)

    def as_dict(self) -> dict[str, Any]:
        """Return the contract as plain JSON values.

        What came later is named where it is not the default, so that contracts from before have
        their hash.
        """
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        for name, default in _LATER.items():
            if values[name] == default:
                del values[name]
        return values

    @property
    def hash(self) -> str:
        """Hex sha256 of the contract's canonical JSON."""
        canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """First 12 hex digits, for people."""
        return self.hash[:12]

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> FeatureContract:
        """Read a contract back from its JSON values.

        Raises
        ------
        ContractError
            If keys are missing or unknown: written by another version of Verger.
        """
        missing = {f.name for f in fields(cls)} - set(_LATER) - set(values)
        if missing:
            raise ContractError(f"not a whole feature contract: {sorted(missing)[0]!r} is missing")
        unknown = set(values) - {f.name for f in fields(cls)}
        try:
            if unknown:
                raise ValueError(f"{sorted(unknown)[0]!r} is unknown")
            return from_plain(cls, to_plain(values))
        except ValueError as err:
            raise ContractError(f"not a feature contract of this version of Verger: {err}") from err


_LATER = {
    f.name: f.default
    for f in fields(FeatureContract)
    if f.name in ("views", "resize_rule", "resize_size", "resample", "crop")
}
