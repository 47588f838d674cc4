"""The photos of a result as an inspection sees them: by path, with label, length and film."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from verger.errors import InspectionError
from verger.result.output import Output
from verger.schema import normal_labels
from verger.similar.rows import StoredRows, read_stored_rows
from verger.source.films import FRAMES, NEIGHBOUR_FRAMES, Films, find_films

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Photos:
    """The photos with features, sorted by path.

    Attributes
    ----------
    rows : StoredRows
        Where their vectors are.
    paths : list of str
    labels : tuple of str
        Sorted.
    targets : ndarray of shape (n,), int64
        Index into ``labels``; -1 of a photo without a label.
    lengths : ndarray of shape (n,), int64
        Bytes of the files.
    films : Films
        Which are frames of one film, by their names.
    n_without_features : int
        Rows of the table that have no vector, and were left out.
    """

    rows: StoredRows
    paths: list[str] = field(repr=False)
    labels: tuple[str, ...]
    targets: Ints = field(repr=False)
    lengths: Ints = field(repr=False)
    films: Films
    n_without_features: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def label_of(self, row: int) -> str | None:
        """Return the label of a photo."""
        target = self.targets[row]
        return self.labels[target] if target >= 0 else None

    def are_neighbouring_frames(self, rows: Ints) -> bool:
        """Whether photos of one film follow one another, with no gap above NEIGHBOUR_FRAMES.

        Parameters
        ----------
        rows : ndarray of shape (m,), int64
            Of one film.
        """
        around = rows[np.argsort(self.films.frame[rows], kind="stable")]
        gaps = self.films.frames_apart(around, np.roll(around, -1))
        # A film is a turn: an arc of it has one gap, which is what lies outside.
        return int((gaps > NEIGHBOUR_FRAMES).sum()) <= 1


def read_photos(output: Output, frames: str | None = None) -> Photos:
    """Read which photos there are.

    Parameters
    ----------
    output : Output
    frames : str, optional
        As for :func:`verger.source.films.find_films`.

    Raises
    ------
    InspectionError
        If there are fewer than two.
    """
    rows, table = read_stored_rows(output, ["label", "length"])
    if len(rows) < 2:
        raise InspectionError(
            f"OUT={output.root}: n_photos={len(rows)} with features must be at least 2 to compare"
        )
    paths = table["path"].to_pylist()
    names = normal_labels(table["label"])
    labels = sorted(pc.unique(names.drop_null()).to_pylist())
    targets = pc.index_in(names, value_set=pa.array(labels, pa.string()))
    return Photos(
        rows=rows,
        paths=paths,
        labels=tuple(labels),
        targets=pc.fill_null(targets, -1).to_numpy().astype(np.int64),
        lengths=pc.fill_null(table["length"], -1).to_numpy().astype(np.int64),
        films=find_films(paths, frames or FRAMES),
        n_without_features=sum(part.rows for part in output.parts("features")) - len(rows),
    )
