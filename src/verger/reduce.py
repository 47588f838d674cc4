"""PCA of the features: one exact fit of the whole spectrum; any k is a slice of it.

Count, mean and scatter matrix are summed in one pass over the table, in float64, one partial
sum a task; the driver takes the eigenvectors of one n_features x n_features matrix. Sums can be
added, so new photos update a model without a second look at the old ones.

Variances are those of the sample (divided by n - 1), as in Spark's ``PCA`` and in scikit-learn.
"""

from __future__ import annotations

import io
import numbers
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.config import check_components
from verger.errors import ReduceError
from verger.schema import CONTRACT_KEY, PCA, arrow_schema, spark_schema
from verger.storage import Folder
from verger.tables import (
    PART_COLUMNS,
    Part,
    in_tasks,
    iter_part,
    part_name,
    reading,
    run_in_tasks,
    stored_schema,
    write_part,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Array = npt.NDArray[np.float64]

#: Shares of the variance whose k is always reported.
SHARES = (0.80, 0.90, 0.95)

# A ratio below this is rounding noise: float64 resolves 1e-16 of the largest variance, summed
# over a thousand columns.
_RANK_TOLERANCE = 1e-12


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
    mean: Array
    scatter: Array

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
        """Join two sets: Chan, Golub, LeVeque 1979, "Updating formulae", eq. 2.1."""
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), scatter)


@dataclass(frozen=True)
class FittedPCA:
    """A fitted PCA: the whole spectrum, and how many components are kept.

    Attributes
    ----------
    n_samples : int
    mean : ndarray of shape (n_features,), float64
    scale : ndarray of shape (n_features,), float64
        What every feature was divided by: ones, or the standard deviations. A constant feature
        has scale infinity, so that it contributes nothing.
    components : ndarray of shape (n_features, n_features), float64
        Rows are the principal axes, of unit length, by falling variance; in each the entry of
        the largest magnitude is positive.
    explained_variance : ndarray of shape (n_features,), float64
    n_components : int
        How many are kept by :meth:`transform`.
    center : bool
        Whether the scores have the mean subtracted.
    """

    n_samples: int
    mean: Array
    scale: Array
    components: Array
    explained_variance: Array
    n_components: int
    center: bool = False

    @property
    def explained_variance_ratio(self) -> Array:
        """Share of the total variance by component, of shape (n_features,)."""
        ratio: Array = self.explained_variance / self.explained_variance.sum()
        return ratio

    @property
    def cumulative_ratio(self) -> Array:
        """Running sum of the ratios, of shape (n_features,)."""
        return np.cumsum(self.explained_variance_ratio)

    def k_for(self, share: float) -> int:
        """Return the smallest number of components that keeps this share of the variance."""
        # The last sum may fall short of 1.0 by rounding.
        reached = self.cumulative_ratio >= share - 1e-12
        return int(np.argmax(reached)) + 1 if reached.any() else len(reached)

    @property
    def projection(self) -> Array:
        """Matrix (n_features, n_components) that takes raw features to scores, not centred.

        The division by ``scale`` is folded in, so that Spark's ``PCAModel`` with this matrix
        takes raw features too.
        """
        projection: Array = self.components[: self.n_components].T / self.scale[:, None]
        return projection

    def transform(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Project features on the kept components.

        Parameters
        ----------
        features : ndarray of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_components), float32
            As Spark's ``PCAModel`` gives them; with ``center``, as scikit-learn does.
        """
        values = features.astype(np.float64)
        if self.center:
            values -= self.mean
        scores: npt.NDArray[np.float32] = (values @ self.projection).astype(np.float32)
        return scores

    def to_npz(self, *, contract: str) -> bytes:
        """Write ``pca.npz``: all that is needed to use the model with numpy alone."""
        return _npz(
            mean=self.mean,
            scale=self.scale,
            components=self.components[: self.n_components],
            explained_variance=self.explained_variance,
            explained_variance_ratio=self.explained_variance_ratio,
            n_samples=self.n_samples,
            center=self.center,
            contract=contract,
        )


def fit_pca(
    moments: Moments,
    components: int | float = 0.90,
    *,
    standardize: bool = False,
    center: bool = False,
) -> FittedPCA:
    """Fit a PCA to summed features.

    Parameters
    ----------
    moments : Moments
    components : int or float
        A number, or a share of the variance above 0 and up to 1.
    standardize : bool
        Divide every feature by its standard deviation first.
    center : bool
        Subtract the mean from the scores.

    Raises
    ------
    ConfigError
        If ``components`` is out of bounds for any table.
    ReduceError
        With fewer than two photos, features that are no finite numbers or do not vary, or more
        components than the features have independent directions.
    """
    check_components(components)
    if moments.n < 2:
        raise ReduceError(f"n_samples={moments.n} must be at least 2 for a PCA")
    if not np.isfinite(moments.scatter).all():
        raise ReduceError(
            "features: hold values that are not finite; verger validate OUT says how many"
        )
    covariance = moments.scatter / (moments.n - 1)
    deviation = moments.deviation
    if not deviation.any():
        raise ReduceError(f"n_samples={moments.n}: all photos have the same features; no PCA")
    scale = np.ones_like(deviation)
    if standardize:
        scale = np.where(deviation > 0, deviation, np.inf)
    variance, axes = np.linalg.eigh(covariance / scale[:, None] / scale)
    variance = np.maximum(variance[::-1], 0.0)  # eigh rises; rounding may go below zero
    axes = _fix_signs(axes[:, ::-1].T)
    pca = FittedPCA(moments.n, moments.mean, scale, axes, variance, 0, center)
    return _keep(pca, components)


def _fix_signs(components: Array) -> Array:
    """Make each row's entry of the largest magnitude positive, as scikit-learn's svd_flip."""
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    fixed: Array = components * signs[:, None]
    return fixed


def _keep(pca: FittedPCA, components: int | float) -> FittedPCA:
    n_features = len(pca.mean)
    ratio = pca.explained_variance_ratio
    rank = int((ratio > _RANK_TOLERANCE).sum())
    if not isinstance(components, numbers.Integral):
        return replace(pca, n_components=min(pca.k_for(components), rank))
    if not 1 <= components <= rank:
        limit = (
            f"n_features={n_features}"
            if rank == n_features
            else f"{rank}, the number of directions in which n_samples={pca.n_samples} photos vary"
        )
        raise ReduceError(f"components={components} must be between 1 and {limit}")
    return replace(pca, n_components=components)


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
        return _npz(
            n=sums.n,
            mean=sums.mean,
            scatter=sums.scatter,
            parts=np.array(self.parts, np.str_),
            contract=contract,
        )


def load_moments(folder: Folder, name: str, *, contract: str) -> StoredMoments | None:
    """Read sums back; None where there are none, or none of this contract that can be read."""
    try:
        with np.load(io.BytesIO(folder.read(name)), allow_pickle=False) as file:
            if str(file["contract"]) != contract:
                return None
            sums = Moments(int(file["n"]), file["mean"], file["scatter"])
            return StoredMoments(sums, tuple(map(str, file["parts"])))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # compressed, it would be smaller by 4 %
    return stream.getvalue()


# The same on Spark


def sum_moments(features: DataFrame) -> Moments:
    """Sum the moments of a DataFrame's column ``features`` in one pass.

    Raises
    ------
    ReduceError
        If it is empty.
    """
    parallelism = features.sparkSession.sparkContext.defaultParallelism
    # A partial sum is 13 MB whatever its rows are: one a core, not one a partition.
    vectors = features.select("features").coalesce(parallelism)
    return _add_up(vectors.mapInArrow(_sum_batches, _MOMENTS), parallelism)


def sum_stored_moments(spark: SparkSession, folder: Folder, names: Sequence[str]) -> Moments:
    """Sum the moments of stored files, as :func:`sum_moments` does, several times faster.

    The workers read the files by themselves: on the way through Spark's rows every single
    number of a vector would be handled by the JVM.

    Parameters
    ----------
    spark : SparkSession
    folder : Folder
        OUT.
    names : sequence of str
        Files of the table ``features``.

    Raises
    ------
    ReduceError
        If they are empty.
    """
    n_tasks = min(len(names), spark.sparkContext.defaultParallelism)
    add_up = reading(folder, ["features"], _sum_batches)
    if n_tasks > _PARTIAL_SUMS:
        return _add_up(in_tasks(spark, names, add_up, _MOMENTS, n_tasks=n_tasks), n_tasks)
    return _total(run_in_tasks(spark, names, add_up, _MOMENTS, n_tasks=n_tasks))


#: Partial sums that the driver receives; more of them are added in tasks first.
_PARTIAL_SUMS = 16


def _add_up(partial: DataFrame, n_partial: int) -> Moments:
    if n_partial > _PARTIAL_SUMS:
        partial = partial.repartition(round(n_partial**0.5)).mapInArrow(_join_sums, _MOMENTS)
    return _total([row.asDict() for row in partial.collect()])


def _total(rows: Sequence[dict[str, Any]]) -> Moments:
    if not rows:
        raise ReduceError("n_samples=0 must be at least 2 for a PCA: no photo has features")
    sums = [_unpack(**row) for row in rows]
    return sum(sums[1:], start=sums[0])


# Vectors that are centred and multiplied at once: 8,192 x 1280 float64 are 84 MB.
_ROWS_PER_SUM = 8192
_MOMENTS = "n long, mean binary, scatter binary"


def _sum_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total: Moments | None = None
    for batch in batches:
        if batch.num_rows:
            moments = Moments.of(vectors_of(batch.column(0)))
            total = moments if total is None else total + moments
    if total is not None:
        yield _pack(total)


def _join_sums(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total: Moments | None = None
    for batch in batches:
        for row in batch.to_pylist():
            moments = _unpack(**row)
            total = moments if total is None else total + moments
    if total is not None:
        yield _pack(total)


def _pack(moments: Moments) -> pa.RecordBatch:
    sums = {"n": moments.n, "mean": moments.mean.tobytes(), "scatter": moments.scatter.tobytes()}
    return pa.RecordBatch.from_pylist([sums])


def _unpack(n: int, mean: bytes, scatter: bytes) -> Moments:
    centre = np.frombuffer(mean, np.float64)
    return Moments(n, centre, np.frombuffer(scatter, np.float64).reshape(len(centre), -1))


def vectors_of(column: pa.Array) -> npt.NDArray[np.float32]:
    """View an Arrow column of equally long vectors as a matrix of shape (n, n_features)."""
    values: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def transform_features(features: DataFrame, pca: FittedPCA, *, contract: str) -> DataFrame:
    """Make the table ``pca`` of a DataFrame with the columns of the table ``features``.

    Returns
    -------
    DataFrame
        ``path``, ``label``, ``features_pca`` array<float> (n_components long); the metadata of
        the vector names the contract.
    """
    shared = features.sparkSession.sparkContext.broadcast(_kept(pca))

    def project(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return (_project(batch, shared.value) for batch in batches)

    scored = features.select("path", "label", "features").mapInArrow(project, spark_schema(PCA))
    return scored.withMetadata("features_pca", {CONTRACT_KEY: contract})


def write_scores(
    spark: SparkSession,
    folder: Folder,
    features: Sequence[Part],
    pca: FittedPCA,
    *,
    contract: str,
    below: str,
) -> list[Part]:
    """Write the table ``pca`` of stored features, in the tasks.

    Parameters
    ----------
    spark : SparkSession
    folder : Folder
        OUT.
    features : sequence of Part
        Files of the table ``features``.
    pca : FittedPCA
    contract : str
    below : str
        Where the new files are written, below OUT; they are named as they will be in OUT.
    """
    schema, shared = stored_schema(PCA, contract), spark.sparkContext.broadcast(_kept(pca))
    groups = [
        features[i : i + _FILES_PER_SCORES] for i in range(0, len(features), _FILES_PER_SCORES)
    ]
    work = [(part_name("pca"), [part.name for part in group]) for group in groups]

    def write(pieces: Iterator[tuple[str, list[str]]]) -> Iterator[pa.RecordBatch]:
        for name, files in pieces:
            batches = (b for file in files for b in iter_part(folder, file, _SCORED))
            scores = [_project(batch, shared.value) for batch in batches]
            table = pa.Table.from_batches(scores, arrow_schema(PCA))
            part = write_part(folder, f"{below}/{name}", table, schema)
            yield pa.RecordBatch.from_pylist([part.as_dict() | {"name": name}])

    return [Part(**row) for row in run_in_tasks(spark, work, write, PART_COLUMNS)]


_SCORED = ("path", "label", "features")
#: Files of features whose scores share a file: they are several times shorter.
_FILES_PER_SCORES = 4


def _kept(pca: FittedPCA) -> FittedPCA:
    return replace(pca, components=pca.components[: pca.n_components])


def _project(batch: pa.RecordBatch, pca: FittedPCA) -> pa.RecordBatch:
    scores = pca.transform(vectors_of(batch.column("features")))
    offsets = np.arange(0, scores.size + 1, max(scores.shape[1], 1), dtype=np.int32)
    vectors = pa.ListArray.from_arrays(offsets, scores.ravel())
    columns = [batch.column("path"), batch.column("label"), vectors]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema(PCA))
