"""Project features onto a fitted PCA: the table ``pca``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from verger.files.folder import Folder
from verger.files.tables import (
    PART_COLUMNS,
    Part,
    iter_part,
    part_name,
    run_in_tasks,
    stored_schema,
    write_part,
)
from verger.pca.fit import FittedPCA
from verger.pca.moments import vectors_of
from verger.schema import CONTRACT_KEY, PCA, arrow_schema, spark_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
