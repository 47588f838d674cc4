"""What ``inspection/inspection.json`` and ``index/index.json`` hold, as they are read.

The first is shown on a page, and may come from somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from verger.files.records import OMIT_NONE
from verger.files.tables import Part


@dataclass(frozen=True)
class GroupCount:
    """Groups of photos that are alike, and the photos in them."""

    groups: int
    photos: int


@dataclass(frozen=True)
class GroupCounts:
    """Groups by what they lie across; see :class:`verger.similar.inspection.groups.Across`."""

    labels: GroupCount
    folders: GroupCount
    photos: GroupCount
    film: GroupCount
    frames: GroupCount


@dataclass(frozen=True)
class InspectionCounts:
    """How many groups and photos an inspection lists."""

    exact: GroupCounts
    near: GroupCounts
    mislabelled: int
    outliers: int
    quality: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AlikePhotos:
    """A group of copies, or of nearly the same pictures, with some of its photos."""

    across: Literal["labels", "folders", "photos", "film", "frames"]
    size: int
    photos: tuple[str, ...]
    labels: tuple[str | None, ...]


@dataclass(frozen=True)
class DoubtfulPhoto:
    """A photo whose nearest ones carry another label, with some of them and usual ones."""

    label: str | None
    suggestion: str | None
    n_votes: int
    n_against: int
    photos: tuple[str, ...]
    like: tuple[str, ...]
    typical: tuple[str, ...]


@dataclass(frozen=True)
class FarPhotos:
    """Photos of a class that are far from the rest of it, with usual ones."""

    label: str
    n: int
    score: float
    photos: tuple[str, ...]
    typical: tuple[str, ...]


@dataclass(frozen=True)
class Galleries:
    """What a page shows of an inspection."""

    exact: tuple[AlikePhotos, ...]
    near: tuple[AlikePhotos, ...]
    film: tuple[AlikePhotos, ...]
    mislabelled: tuple[DoubtfulPhoto, ...]
    outliers: tuple[FarPhotos, ...]

    def paths(self) -> Iterable[str]:
        """Return the paths of all photos, in the order of the page."""
        for alike in (*self.exact, *self.near, *self.film):
            yield from alike.photos
        for doubt in self.mislabelled:
            yield from (*doubt.photos, *doubt.like, *doubt.typical)
        for far in self.outliers:
            yield from (*far.photos, *far.typical)


@dataclass(frozen=True)
class InspectionCriteria:
    """What was looked for."""

    k: int
    near: float
    frames: str | None
    approximate: bool
    outlying: float


@dataclass(frozen=True)
class Index:
    """What ``index/index.json`` says of an index.

    Attributes
    ----------
    file : str
        Its file below OUT.
    size_bytes : int
    features : str
        Which files of which contract it was made of; of others it knows nothing.
    n_photos, n_features, n_lists : int
    n_probe : int
        Lists that a search looks into.
    recall : float
        Share of the true nearest ``k`` that were found, of ``n_tried`` photos of the table.
    k, n_tried : int
    faiss : str
        Version of the library.
    seconds : float
        That it took to make.
    """

    file: str
    size_bytes: int
    features: str
    n_photos: int
    n_features: int
    n_lists: int
    n_probe: int
    recall: float
    k: int
    n_tried: int
    faiss: str
    seconds: float


@dataclass(frozen=True)
class SearchRecord:
    """How nearest photos were found: exactly, or by an index."""

    exact: bool
    index: Index | None

    def __post_init__(self) -> None:
        if self.exact == (self.index is not None):
            raise ValueError(f"exact={self.exact} and index must not both be there, or neither")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``verger inspect`` writes beside its tables."""

    verger: str
    created: str
    contract_hash: str
    criteria: InspectionCriteria
    search: SearchRecord
    n_photos: int
    n_labels: int
    n_unlabelled: int
    n_without_features: int | None = field(default=None, metadata=OMIT_NONE)
    n_measured: int = 0
    too_small: tuple[str, ...]
    counts: InspectionCounts
    galleries: Galleries
    seconds: Mapping[str, float]
    files: Mapping[str, tuple[Part, ...]]
