"""Count, mean and scatter of vectors, summed in tasks and kept beside the PCA."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.engine.spark import RESULT, SparkEngine, current_task, n_slots, pack, unpack
from verger.engine.tasks import Engine, run_pieces
from verger.errors import ReduceError, SchemaError
from verger.features.columns import find_vectors
from verger.files.folder import Folder
from verger.files.npz import UNREADABLE, read_npz
from verger.files.vectors import VectorReader, iter_vectors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


Array = npt.NDArray[np.float64]
_LOG = logging.getLogger("verger")


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of a set of vectors; may be added.

    Attributes
    ----------
    n : int
        Number of vectors.
    mean : ndarray of shape (n_features,), float64
    scatter : ndarray of shape (n_features, n_features), float64
        ``sum((x - mean) (x - mean)^T)``.
    """

    n: int
    mean: Array = field(repr=False)
    scatter: Array = field(repr=False)

    @classmethod
    def of(cls, vectors: npt.NDArray[Any]) -> Moments:
        """Sum one batch, centred on its own mean.

        Parameters
        ----------
        vectors : ndarray of shape (n, n_features)
        """
        if len(vectors) == 0:
            raise ReduceError("n_samples=0 must be at least 1 for sums")
        values = vectors.astype(np.float64)
        mean = values.mean(axis=0)
        values -= mean
        return cls(len(values), mean, values.T @ values)

    @property
    def deviation(self) -> Array:
        """Standard deviations, ``n - 1`` in the denominator; 0 for a feature that never varies."""
        deviation = np.sqrt(np.diag(self.scatter) / max(self.n - 1, 1))
        # Relative to the mean: the variance of equal float32 values is rounding, not zero.
        return np.where(deviation > 1e-7 * np.abs(self.mean), deviation, 0.0)

    def __add__(self, other: Moments) -> Moments:
        """Join two sets: Chan, Golub, LeVeque 1979, "Updating formulae", eq. 2.1.

        Raises
        ------
        SchemaError
            If their vectors differ in length.
        """
        if len(self.mean) != len(other.mean):
            raise SchemaError(
                f"vectors must have one length: {self.n} rows have {len(self.mean)} numbers, and "
                f"{other.n} rows have {len(other.mean)}"
            )
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), scatter)


@dataclass(frozen=True)
class StoredMoments:
    """Sums, and which files of the table ``features`` they are over.

    Attributes
    ----------
    sums : Moments
    parts : tuple of str
        Names of files, which never change what they hold.
    """

    sums: Moments
    parts: tuple[str, ...]

    def to_npz(self, *, contract: str) -> bytes:
        """Write the sums, to which those of later files can be added."""
        sums = self.sums
        return npz_bytes(
            n=sums.n,
            mean=sums.mean,
            scatter=sums.scatter,
            parts=np.array(self.parts, np.str_),
            contract=contract,
        )


def load_moments(folder: Folder, name: str, *, contract: str) -> StoredMoments | None:
    """Read sums back; None where there are none, or none of this contract that can be read."""
    try:
        file = read_npz(folder.read(name))
        if str(file["contract"]) != contract:
            return None
        sums = Moments(int(file["n"]), file["mean"], file["scatter"])
        return StoredMoments(sums, tuple(map(str, file["parts"])))
    except UNREADABLE:
        return None


def npz_bytes(**arrays: Any) -> bytes:
    """Return the bytes of an uncompressed npz file of named arrays."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # compressed, it would be smaller by 4 %
    return stream.getvalue()


# The same on Spark


def sum_moments(features: DataFrame, column: str = "features") -> Moments:
    """Sum the moments of a DataFrame's vectors in one pass.

    Rows without a vector are left out; the logger ``verger`` warns of them, with their number.

    Parameters
    ----------
    features : DataFrame
    column : str
        Holds vectors, or arrays of numbers.

    Raises
    ------
    SchemaError
        If there is no such column, or its vectors differ in length, or hold null, NaN or
        infinity.
    ReduceError
        If no row has a vector.

    Examples
    --------
    >>> spark = verger.get_session()
    >>> table = spark.createDataFrame([([1.0, 2.0],), ([3.0, 4.0],)], ["features"])
    >>> verger.sum_moments(table).mean
    array([2., 3.])
    """
    if features.isStreaming:
        raise SchemaError(f"column {column!r} is of a stream, which has no end: sum a table")
    session = features.sparkSession
    parallelism = n_slots(session)
    # A partial sum is 13 MB whatever its rows are: one a core, not one a partition.
    arrays = find_vectors(features, column, f"column {column!r}")
    named = ["path"] if features.dtypes.count(("path", "string")) == 1 else []
    vectors = features.select(arrays.alias("features"), *named)  # errors name the path
    partial = vectors.coalesce(parallelism).mapInArrow(_sum_batches, RESULT)
    if parallelism > PARTIAL_SUMS:
        partial = partial.repartition(round(parallelism**0.5)).mapInArrow(_join_sums, RESULT)
    partials: list[_PartialSums] = SparkEngine(session).collect(partial)
    moments = add_up([sums for each in partials for sums in each.sums])
    n_missing = sum(each.n_missing for each in partials)
    if n_missing:
        _LOG.warning(
            "column %r: %d of %d rows have no vector, and are left out of the sums",
            column,
            n_missing,
            n_missing + moments.n,
        )
    return moments


def sum_stored_moments(engine: Engine, folder: Folder, names: Sequence[str]) -> Moments:
    """Sum the moments of stored files, as :func:`sum_moments` does, several times faster.

    The workers read the files by themselves: on the way through Spark's rows every single
    number of a vector would be handled by the JVM.

    Parameters
    ----------
    engine : Engine
    folder : Folder
        OUT.
    names : sequence of str
        Files of the table ``features``.

    Raises
    ------
    ReduceError
        If they are empty.
    """
    n_tasks = min(engine.n_cores, PARTIAL_SUMS)
    return add_up(run_pieces(engine, _sum_files, names, folder, n_tasks=n_tasks, light=True))


def _sum_files(names: Iterator[str], folder: Folder) -> Iterator[Moments]:
    return iter_sums(block.x for block in iter_vectors(folder, names, ["features"]))


#: Partial sums that the driver receives; more of them are added in tasks first.
PARTIAL_SUMS = 16


def add_up(sums: Sequence[Moments]) -> Moments:
    """Add the sums of tasks.

    Raises
    ------
    ReduceError
        If there are none: no task had a vector.
    """
    if not sums:
        raise ReduceError("n_samples=0 must be at least 2 for a PCA: no photo has features")
    return sum(sums[1:], start=sums[0])


def iter_sums(vectors: Iterable[npt.NDArray[Any]]) -> Iterator[Moments]:
    """Sum the moments of batches of vectors; yields one sum, or none if all batches are empty."""
    total: Moments | None = None
    for x in vectors:
        if len(x):
            total = Moments.of(x) if total is None else total + Moments.of(x)
    if total is not None:
        yield total


@dataclass(frozen=True)
class _PartialSums:
    """What a task sends: the sums of its vectors, if it has any, and its rows without one."""

    sums: list[Moments]
    n_missing: int


def _sum_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    reader = VectorReader(f"partition {current_task().number}")
    sums = list(iter_sums(reader.read(*batch.columns)[1] for batch in batches))
    yield pack(_PartialSums(sums, reader.n_missing))


def _join_sums(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    partials = [unpack(result) for batch in batches for result in batch.column(0).to_pylist()]
    sums = [sums for each in partials for sums in each.sums]
    joined = [add_up(sums)] if sums else []
    yield pack(_PartialSums(joined, sum(each.n_missing for each in partials)))
