"""The vectors of labelled photos, where they are: in files that tasks read by themselves.

Which photo is in which part of a split is known on the driver, by path alone; vectors stay in the
tasks, but for samples of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from verger.classify.label_map import merge_labels
from verger.classify.projection import Projection
from verger.engine.tasks import Engine, run_pieces
from verger.errors import ClassifierError
from verger.features.contract import count_views
from verger.files.folder import Folder
from verger.files.tables import read_part
from verger.files.vectors import VectorRows, iter_vectors, parts_with_vectors, vectors_of
from verger.pca.moments import Moments, add_up, iter_sums
from verger.result.output import Output
from verger.schema import VIEWS, normal_labels
from verger.source.films import Films, find_films

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """The photos of a result that carry a label, sorted by path.

    Attributes
    ----------
    paths : pyarrow.Array of string
    targets : ndarray of shape (n,), int64
        Index into ``labels``; -1 for a label that is not among them.
    labels : tuple of str
        Sorted, those of other things last.
    n_unlabelled : int
        Photos that were left out: they have no label.
    names : pyarrow.Array of string
        The label of each photo.
    n_without_features : int
        Photos that were left out: they have no vector.
    groups : ndarray of shape (n,), int64, or None
        Group of each photo by the list that named them; one without a group is one of its own.
    films : Films or None
        What numbered names are films by their features; None where that was not measured.
    n_others : int
        How many of ``labels`` are of other things.
    near : float or None
        Distance within which photos are of one group, where groups are of near copies.
    """

    paths: pa.Array = field(repr=False)
    targets: Ints = field(repr=False)
    labels: tuple[str, ...]
    n_unlabelled: int
    names: pa.Array = field(repr=False)
    n_without_features: int = 0
    groups: Ints | None = field(default=None, repr=False)
    films: Films | None = field(default=None, repr=False)
    n_others: int = 0
    near: float | None = None

    @property
    def n_names(self) -> int:
        """How many of ``labels`` may be given as names."""
        return len(self.labels) - self.n_others

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def path_list(self) -> list[str]:
        """The paths as Python's strings."""
        return self.paths.to_pylist()  # type: ignore[no-any-return]

    def weigh(self, rows: Ints) -> Array:
        """Return what each of some photos counts, so that every group counts as one photo: (n,)."""
        if self.groups is None:
            return np.ones(len(rows))
        _, group, size = np.unique(self.groups[rows], return_inverse=True, return_counts=True)
        return np.asarray(1 / size[group])

    def find_films(self, frames: str) -> Films:
        """Return the films that were measured, or else those that names tell."""
        return self.films or find_films(self.path_list, frames)


def read_labelled(
    output: Output, labels: Sequence[str] | None = None, label_map: Mapping[str, str] | None = None
) -> Labelled:
    """Read which photos there are, and their labels.

    Parameters
    ----------
    output : Output
    labels : sequence of str, optional
        By default those of the table.
    label_map : mapping of str to str, optional
        Other names for labels.

    Raises
    ------
    ClassifierError
        If no photo has a label.
    ConfigError
        If the map has none of the labels.
    """
    parts, dimension = output.parts("features"), output.read_run().model.n_features or None
    rows = pa.concat_tables(
        [
            read_part(output.folder, part.name, ["path", "label"]).take(pa.array(places))
            for part, places in parts_with_vectors(output.folder, parts, dimension)
        ]
    )
    n_without = sum(part.rows for part in parts) - len(rows)
    rows = rows.set_column(1, "label", normal_labels(rows["label"]))  # an older result's may differ
    labelled = rows.filter(pc.is_valid(rows["label"])).sort_by("path")
    if not len(labelled):
        raise ClassifierError(
            f"OUT={output.root}: none of its {len(rows)} photos has a label; verger run "
            "--label-from parent takes it from the folder"
        )
    labelled = labelled.set_column(1, "label", _named(labelled["label"], label_map or {}))
    classes = sorted(pc.unique(labelled["label"]).to_pylist()) if labels is None else list(labels)
    known = normal_labels(pa.array(classes, pa.string()))
    index = pc.index_in(labelled["label"], value_set=known)
    targets = pc.fill_null(index, -1).combine_chunks().to_numpy().astype(np.int64)
    paths, names = labelled["path"].combine_chunks(), labelled["label"].combine_chunks()
    n_unlabelled = len(rows) - len(labelled)
    groups = _groups_of(paths, output.read_groups())
    return Labelled(paths, targets, tuple(classes), n_unlabelled, names, n_without, groups)


def _named(labels: pa.ChunkedArray, label_map: Mapping[str, str]) -> pa.ChunkedArray:
    if not label_map:
        return labels
    known = sorted(pc.unique(labels).to_pylist())
    merged = merge_labels(known, label_map)
    place = merged.place[pc.index_in(labels, value_set=pa.array(known)).to_numpy()]
    return pa.chunked_array([pa.array(merged.names).take(pa.array(place))])


def _groups_of(paths: pa.Array, groups: pa.Table | None) -> Ints | None:
    """Return the group of each photo, numbered from 0; one that is in none gets a number."""
    if groups is None:
        return None
    index = pc.index_in(paths, value_set=groups["path"].combine_chunks())
    found = groups["group"].combine_chunks().take(index).fill_null(-1).to_numpy()
    own = -1 - np.arange(len(paths))
    numbers = np.unique(np.where(found < 0, own, found), return_inverse=True)[1]
    return numbers.astype(np.int64)


def only_labels(labelled: Labelled, rows: Ints) -> Labelled:
    """Return the photos with the classes that some rows have; all others have target -1."""
    present = np.unique(labelled.targets[rows])
    number = np.full(len(labelled.labels) + 1, -1)  # the last one is for targets of -1
    number[present] = np.arange(len(present))
    labels = tuple(labelled.labels[i] for i in present)
    n_others = int((present >= labelled.n_names).sum())
    return replace(labelled, targets=number[labelled.targets], labels=labels, n_others=n_others)


def put_last(labelled: Labelled, others: Sequence[str]) -> Labelled:
    """Say which labels are of other things, and put them last.

    Raises
    ------
    ClassifierError
        If no photo has such a label, or all have.
    """
    wanted = {normalize("NFC", label) for label in others}
    missing = sorted(wanted - set(labelled.labels))
    if missing:
        raise ClassifierError(
            f"other={missing[0]!r}: no photo has this label; labels are "
            f"{', '.join(map(repr, labelled.labels[:8]))}"
        )
    if len(wanted) == len(labelled.labels):
        raise ClassifierError(f"other={sorted(wanted)}: are all labels; none is left to name")
    order = np.argsort([label in wanted for label in labelled.labels], kind="stable")
    number = np.append(np.argsort(order), -1)  # the last one is for targets of -1
    labels = tuple(labelled.labels[i] for i in order)
    return replace(labelled, targets=number[labelled.targets], labels=labels, n_others=len(wanted))


# Vectors, where they are: in the tasks

#: Pairs of row numbers (n,) and vectors (n, d), or where all views are asked for (n, n_views, d).
VectorBatches = Iterator[tuple[Ints, npt.NDArray[Any]]]
#: A file of vectors: the folder of its result, and its name there.
_File = tuple[Folder, str]

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class _Selection:
    """Rows that a task looks for in the files that it reads."""

    paths: pa.Array = field(repr=False)
    rows: Ints = field(repr=False)
    projection: Projection | None
    views: bool

    def read(self, files: Iterable[_File]) -> VectorBatches:
        for block in self._blocks(files):
            index = pc.index_in(block.rows.column("path"), value_set=self.paths)
            there = np.flatnonzero(index.is_valid().to_numpy(zero_copy_only=False))
            if len(there):
                row, x = self.rows[index.drop_null().to_numpy()], block.x[there]
                if self.views:
                    crops = vectors_of(block.rows.column(VIEWS).take(pa.array(there)))
                    x = np.concatenate([x, crops], axis=1).reshape(len(x), -1, x.shape[1])
                yield row, x if self.projection is None else self.projection(x)

    def _blocks(self, files: Iterable[_File]) -> Iterator[VectorRows]:
        columns, dimension = ["path", *([VIEWS] if self.views else []), "features"], None
        for folder, name in files:
            for block in iter_vectors(folder, [name], columns, dimension=dimension):
                dimension = block.x.shape[1]
                yield block


@dataclass(frozen=True, repr=False)
class _Held:
    """Vectors of all views in memory, (n, n_views, d) float32, and each photo's place, or -1."""

    x: npt.NDArray[np.float32]
    place: Ints

    def read(self, rows: Ints, *, views: bool) -> VectorBatches:
        x = self.x if views else self.x[:, 0]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            yield some, x[self.place[some]]


#: Rows that a function is handed at once: 1024 of 1,280 features are 5 MB.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class LabelledVectors:
    """The vectors of some photos of a result, and of others that were read with it.

    Attributes
    ----------
    engine : Engine
    output : Output
    labelled : Labelled
    projection : Projection or None
        What is done to the features first.
    held : _Held or None
        Rows that are in the memory of this process.
    also : tuple of Output
        Other results that have some of the photos.
    """

    engine: Engine
    output: Output
    labelled: Labelled = field(repr=False)
    projection: Projection | None = None
    held: _Held | None = field(default=None, repr=False)
    also: tuple[Output, ...] = ()

    def scan(
        self,
        rows: Ints,
        function: Callable[[VectorBatches, C], Iterable[R]],
        carry: C,
        *,
        views: bool = False,
    ) -> list[R]:
        """Apply a function to some rows in tasks, and return what it yields.

        Rows that are held are handed to it here, without tasks.

        Parameters
        ----------
        rows : ndarray of shape (n,), int64
        function : callable
            Takes a task's batches of vectors and ``carry``. Of a module.
        carry : any
        views : bool
            Whether the vectors are those of all views.
        """
        if self.held is not None:
            return list(function(self.held.read(rows, views=views), carry))
        files = self._files()
        work = function, self._select(rows, views=views), carry
        return run_pieces(self.engine, _scan_share, files, work, n_tasks=self._n_tasks(files))

    def hold(self, rows: Ints) -> LabelledVectors:
        """Read some rows into the memory of this process, and return the vectors that hold them."""
        place = np.full(len(self.labelled), -1)
        place[rows] = np.arange(len(rows))
        x = np.empty((0, 0, 0), np.float32)
        for row, some in self._select(rows, views=True).read(self._files()):
            some = some.reshape(len(row), -1, some.shape[-1])
            if not len(x):
                x = np.empty((len(rows), *some.shape[1:]), np.float32)
            x[place[row]] = some
        return replace(self, held=_Held(x, place))

    @property
    def n_views(self) -> int:
        """Vectors of a photo."""
        return count_views(self.output.read_run().contract)

    @property
    def n_features(self) -> int:
        """Length of the vectors."""
        if self.projection is not None:
            return len(self.projection.components)
        return self.output.read_run().model.n_features

    def _select(self, rows: Ints, *, views: bool) -> _Selection:
        paths = self.labelled.paths.take(pa.array(rows))
        views = views and self.n_views > 1
        return _Selection(paths, rows, self.projection, views)

    def _files(self) -> list[_File]:
        outputs = self.output, *self.also
        return [(each.folder, name) for each in outputs for name in each.part_names("features")]

    def _n_tasks(self, files: Sequence[_File]) -> int:
        return max(1, min(len(files), self.engine.n_cores))

    def collect(self, rows: Ints) -> npt.NDArray[np.float32]:
        """Bring vectors to the driver, in the order of the rows: (n, d)."""
        return self.collect_views(rows, views=False)

    def collect_views(self, rows: Ints, *, views: bool = True) -> npt.NDArray[np.float32]:
        """Bring the vectors of all views to the driver, in the order of the rows.

        Returns
        -------
        ndarray of shape (n, n_views, d), float32
            Without crops (n, d).
        """
        batches = self.scan(rows, _in_float32, None, views=views)
        row = np.concatenate([row for row, _ in batches])
        place = np.argsort(row)[np.argsort(np.argsort(rows))]
        vectors: npt.NDArray[np.float32] = np.concatenate([x for _, x in batches])[place]
        return vectors

    def moments(self, rows: Ints) -> Moments:
        """Sum count, mean and scatter."""
        return add_up(self.scan(rows, _sum_moments, None))

    def class_means(self, rows: Ints) -> Array:
        """Return the mean vector of every class, (n_labels, d); zeros for one without photos."""
        targets, n_labels = self.labelled.targets, len(self.labelled.labels)
        total: Array = np.sum(self.scan(rows, _sum_by_class, (targets, n_labels)), axis=0)
        counts = np.bincount(targets[rows], minlength=n_labels)
        return total / np.maximum(counts, 1)[:, None]

    @property
    def column(self) -> str:
        """The column that a model of Spark's reads: the input or the output of the PCAModel."""
        return vector_column(self.projection is not None)

    def frame(self, rows: Ints) -> DataFrame:
        """Return the DataFrame that Spark ML is fitted to: ``target`` and :attr:`column`.

        It is of the active session, which must be there.

        ``target`` names its classes in its metadata, so that every model knows all of them.
        """
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import SparkSession
        from pyspark.sql import functions as F

        files = self._files()
        n_tasks = self._n_tasks(files)
        shares = [files[task::n_tasks] for task in range(n_tasks)]
        selection = self._select(rows, views=True)
        write = partial(_write_frame, selection, shares, self.labelled.targets)
        tasks = SparkSession.active().range(0, n_tasks, 1, n_tasks)
        table = tasks.mapInArrow(write, "target double, x array<double>")
        attribute = {"type": "nominal", "vals": list(self.labelled.labels)}
        return table.select("target", array_to_vector(F.col("x")).alias(self.column)).withMetadata(
            "target", {"ml_attr": attribute}
        )


def _scan_share(
    files: Iterator[_File],
    work: tuple[Callable[[VectorBatches, Any], Iterable[Any]], _Selection, Any],
) -> Iterable[Any]:
    function, selection, carry = work
    return function(selection.read(files), carry)


def _in_float32(batches: VectorBatches, _: None) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
    return ((row, x.astype(np.float32)) for row, x in batches)


def _sum_moments(batches: VectorBatches, _: None) -> Iterator[Moments]:
    return iter_sums(x for _, x in batches)


def _sum_by_class(batches: VectorBatches, carry: tuple[Ints, int]) -> Iterator[Array]:
    targets, n_labels = carry
    sums: Array | None = None
    for row, x in batches:
        sums = np.zeros((n_labels, x.shape[1])) if sums is None else sums
        np.add.at(sums, targets[row], x)
    if sums is not None:
        yield sums


def _write_frame(
    selection: _Selection,
    shares: Sequence[Sequence[_File]],
    targets: Ints,
    tasks: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    files = (file for batch in tasks for task in batch[0].to_pylist() for file in shares[task])
    for row, x in selection.read(files):
        starts = pa.array(np.arange(0, x.size + 1, x.shape[-1], dtype=np.int32))
        vector = pa.ListArray.from_arrays(starts, pa.array(x.astype(np.float64).ravel()))
        of_views = np.repeat(targets[row], len(vector) // len(row))
        columns = [of_views.astype(np.float64), vector]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), _FRAME)


_FRAME = ["target", "x"]


def vector_column(reduced: bool) -> str:
    """Return the column that a saved model reads: the input or the output of the PCAModel."""
    return "features_pca" if reduced else "features_vec"
