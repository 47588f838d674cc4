"""Project features onto a fitted PCA: the table ``pca``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from verger.engine.tasks import Engine, run_pieces
from verger.files.folder import Folder
from verger.files.tables import Part, part_name, stored_schema, write_part
from verger.files.vectors import VectorRows, iter_vectors
from verger.pca.fit import FittedPCA
from verger.schema import PCA, arrow_schema


def write_scores(
    engine: Engine,
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
    engine : Engine
    folder : Folder
        OUT.
    features : sequence of Part
        Files of the table ``features``.
    pca : FittedPCA
    contract : str
    below : str
        Where the new files are written, below OUT; they are named as they will be in OUT.
    """
    groups = [
        features[i : i + _FILES_PER_SCORES] for i in range(0, len(features), _FILES_PER_SCORES)
    ]
    work = [(part_name("pca"), [part.name for part in group]) for group in groups]
    carry = folder, below, stored_schema(PCA, contract), _kept(pca)
    return run_pieces(engine, _write_share, work, carry, light=True)


def _write_share(
    share: Iterator[tuple[str, list[str]]], carry: tuple[Folder, str, pa.Schema, FittedPCA]
) -> Iterator[Part]:
    folder, below, schema, pca = carry
    for name, files in share:
        blocks = iter_vectors(folder, files, _SCORED, dimension=len(pca.mean))
        scores = [_project(vectors, pca) for vectors in blocks]
        table = pa.Table.from_batches(scores, arrow_schema(PCA))
        yield replace(write_part(folder, f"{below}/{name}", table, schema), name=name)


_SCORED = ("path", "label", "features")


#: Files of features whose scores share a file: they are several times shorter.
_FILES_PER_SCORES = 4


def _kept(pca: FittedPCA) -> FittedPCA:
    return replace(pca, components=pca.components[: pca.n_components])


def _project(vectors: VectorRows, pca: FittedPCA) -> pa.RecordBatch:
    scores = pca.transform(vectors.x)
    offsets = np.arange(0, scores.size + 1, max(scores.shape[1], 1), dtype=np.int32)
    column = pa.ListArray.from_arrays(offsets, scores.ravel())
    columns = [vectors.rows.column("path"), vectors.rows.column("label"), column]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema(PCA))
