"""The vectors of labelled photos, where they are: in files that Spark's tasks read by themselves.

Which photo is in which part of a split is known on the driver, by path alone; vectors stay in the
tasks, but for samples of bounded size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from verger.errors import ClassifierError, OutputError
from verger.files.tables import in_tasks, read_part, reading
from verger.pca.fit import FittedPCA
from verger.pca.moments import Moments, vectors_of
from verger.result.output import PCA_NPZ, Output

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

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
        Sorted.
    n_unlabelled : int
        Photos that were left out: they have no label.
    names : pyarrow.Array of string
        The label of each photo.
    """

    paths: pa.Array = field(repr=False)
    targets: Ints = field(repr=False)
    labels: tuple[str, ...]
    n_unlabelled: int
    names: pa.Array = field(repr=False)

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def path_list(self) -> list[str]:
        """The paths as Python's strings."""
        return self.paths.to_pylist()  # type: ignore[no-any-return]


def read_labelled(output: Output, labels: Sequence[str] | None = None) -> Labelled:
    """Read which photos there are, and their labels.

    Parameters
    ----------
    output : Output
    labels : sequence of str, optional
        By default those of the table.

    Raises
    ------
    ClassifierError
        If no photo has a label.
    """
    names = output.part_names("features")
    rows = pa.concat_tables([read_part(output.folder, name, ["path", "label"]) for name in names])
    labelled = rows.filter(pc.is_valid(rows["label"])).sort_by("path")
    if not len(labelled):
        raise ClassifierError(
            f"OUT={output.root}: none of its {len(rows)} photos has a label; verger run "
            "--label-from parent takes it from the folder"
        )
    classes = sorted(pc.unique(labelled["label"]).to_pylist()) if labels is None else list(labels)
    index = pc.index_in(labelled["label"], value_set=pa.array(classes, pa.string()))
    targets = pc.fill_null(index, -1).combine_chunks().to_numpy().astype(np.int64)
    paths, names = labelled["path"].combine_chunks(), labelled["label"].combine_chunks()
    return Labelled(paths, targets, tuple(classes), len(rows) - len(labelled), names)


def only_labels(labelled: Labelled, rows: Ints) -> Labelled:
    """Return the photos with the classes that some rows have; all others have target -1."""
    present = np.unique(labelled.targets[rows])
    number = np.full(len(labelled.labels) + 1, -1)  # the last one is for targets of -1
    number[present] = np.arange(len(present))
    labels = tuple(labelled.labels[i] for i in present)
    return replace(labelled, targets=number[labelled.targets], labels=labels)


@dataclass(frozen=True)
class Projection:
    """From features to the scores that a classifier takes: ``(features - mean) @ components.T``.

    Attributes
    ----------
    components : ndarray of shape (k, n_features), float64
    mean : ndarray of shape (n_features,), float64
        Zeros where the scores are not centred.
    """

    components: Array = field(repr=False)
    mean: Array = field(repr=False)

    def __call__(self, features: npt.NDArray[Any]) -> Array:
        """Project vectors of shape (n, n_features); returns (n, k)."""
        scores: Array = (features.astype(np.float64) - self.mean) @ self.components.T
        return scores

    @classmethod
    def of(cls, pca: FittedPCA) -> Projection:
        """Take over the kept components of a PCA."""
        mean = pca.mean if pca.center else np.zeros_like(pca.mean)
        return cls(pca.projection.T, mean)


def stored_projection(output: Output) -> Projection:
    """Read the PCA of a result.

    Raises
    ------
    OutputError
        If it has none.
    """
    try:
        content = output.folder.read(PCA_NPZ)
    except FileNotFoundError as err:
        raise OutputError(
            f"OUT={output.root}: has no PCA, which on=pca needs; verger reduce fits one"
        ) from err
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        mean = file["mean"] if file["center"] else np.zeros_like(file["mean"])
        return Projection(file["components"] / file["scale"], mean)


# LabelledVectors, where they are: in the tasks

VectorBatches = Iterator[tuple[Ints, npt.NDArray[Any]]]


@dataclass(frozen=True)
class LabelledVectors:
    """The vectors of some photos of a result.

    Attributes
    ----------
    spark : SparkSession
    output : Output
    labelled : Labelled
    projection : Projection or None
        What is done to the features first.
    """

    spark: SparkSession
    output: Output
    labelled: Labelled = field(repr=False)
    projection: Projection | None = None

    def scan(
        self, rows: Ints, function: Callable[[VectorBatches], Iterator[pa.RecordBatch]], schema: str
    ) -> DataFrame:
        """Apply a function to some rows: it gets pairs of row numbers (n,) and vectors (n, d)."""
        shared = self.spark.sparkContext.broadcast((self.labelled.paths.take(pa.array(rows)), rows))
        projection = self.projection

        def choose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            yield from function(_choose(batches, *shared.value, projection))

        names = self.output.part_names("features")
        n_tasks = max(1, min(len(names), self.spark.sparkContext.defaultParallelism))
        read = reading(self.output.folder, ["path", "features"], choose)
        return in_tasks(self.spark, names, read, schema, n_tasks=n_tasks)

    def collect(self, rows: Ints) -> npt.NDArray[np.float32]:
        """Bring vectors to the driver, in the order of the rows: (n, d)."""

        def pack(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
            for row, x in chosen:
                values = x.astype(np.float32).tobytes()
                yield pa.RecordBatch.from_pylist([{"row": row.tobytes(), "x": values}])

        blocks = self.scan(rows, pack, "row binary, x binary").collect()
        row = np.concatenate([np.frombuffer(block.row, np.int64) for block in blocks])
        x = np.concatenate(
            [
                np.frombuffer(block.x, np.float32).reshape(len(block.row) // 8, -1)
                for block in blocks
            ]
        )
        place = np.argsort(row)[np.argsort(np.argsort(rows))]
        return x[place]

    def moments(self, rows: Ints) -> Moments:
        """Sum count, mean and scatter."""

        def add(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
            total: Moments | None = None
            for _, x in chosen:
                total = Moments.of(x) if total is None else total + Moments.of(x)
            if total is not None:
                yield pa.RecordBatch.from_pylist(
                    [
                        {
                            "n": total.n,
                            "mean": total.mean.tobytes(),
                            "scatter": total.scatter.tobytes(),
                        }
                    ]
                )

        partial = self.scan(rows, add, "n long, mean binary, scatter binary").collect()
        mean = [np.frombuffer(f.mean) for f in partial]
        parts = [
            Moments(f.n, m, np.frombuffer(f.scatter).reshape(len(m), -1))
            for f, m in zip(partial, mean, strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    def class_means(self, rows: Ints) -> Array:
        """Return the mean vector of every class, (n_labels, d); zeros for one without photos."""
        targets, n_labels = self.labelled.targets, len(self.labelled.labels)

        def add(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
            sums = None
            for row, x in chosen:
                sums = np.zeros((n_labels, x.shape[1])) if sums is None else sums
                np.add.at(sums, targets[row], x)
            if sums is not None:
                yield pa.RecordBatch.from_pylist([{"sums": sums.tobytes()}])

        partial = self.scan(rows, add, "sums binary").collect()
        total: Array = np.sum(
            [np.frombuffer(part.sums).reshape(n_labels, -1) for part in partial], axis=0
        )
        counts = np.bincount(targets[rows], minlength=n_labels)
        return total / np.maximum(counts, 1)[:, None]

    def frame(self, rows: Ints, fold: npt.NDArray[Any] | None = None) -> DataFrame:
        """Return the DataFrame that Spark ML is fitted to: ``target``, ``fold`` and the vector.

        ``target`` names its classes in its metadata, so that every model knows all of them.
        """
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import functions as F

        targets, folds = self.labelled.targets, np.zeros(len(self.labelled), np.int32)
        if fold is not None:
            folds[rows] = fold

        def write(chosen: VectorBatches) -> Iterator[pa.RecordBatch]:
            for row, x in chosen:
                starts = pa.array(np.arange(0, x.size + 1, x.shape[1], dtype=np.int32))
                vector = pa.ListArray.from_arrays(starts, pa.array(x.astype(np.float64).ravel()))
                columns = [targets[row].astype(np.float64), folds[row], vector]
                yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), _FRAME)

        schema = "target double, fold int, x array<double>"
        attribute = {"type": "nominal", "vals": list(self.labelled.labels)}
        column = vector_column(self.projection is not None)
        return (
            self.scan(rows, write, schema)
            .select("target", "fold", array_to_vector(F.col("x")).alias(column))
            .withMetadata("target", {"ml_attr": attribute})
        )


_FRAME = ["target", "fold", "x"]


def vector_column(reduced: bool) -> str:
    """Return the column that a saved model reads: the input or the output of the PCAModel."""
    return "features_pca" if reduced else "features_vec"


def _choose(
    batches: Iterator[pa.RecordBatch], paths: pa.Array, rows: Ints, projection: Projection | None
) -> VectorBatches:
    for batch in batches:
        index = pc.index_in(batch.column("path"), value_set=paths)
        there = np.flatnonzero(index.is_valid().to_numpy(zero_copy_only=False))
        if len(there):
            x = vectors_of(batch.column("features"))[there]
            row = rows[index.drop_null().to_numpy()]
            yield row, x if projection is None else projection(x)
