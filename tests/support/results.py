"""A finished result with a classifier, made without Spark: where predicting and exporting start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verger.classify.classifier import Classifier
from verger.classify.nearest import unit
from verger.features.model import Model
from verger.files.tables import part_name, read_part, stored_schema, write_part
from verger.files.vectors import vectors_of
from verger.result.output import Output
from verger.result.record import Counts, ModelRecord, RunRecord
from verger.schema import FEATURES, arrow_schema


def vectors_and_labels(output: Output) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read features (n, 1280), classes and paths, sorted by path."""
    tables = [pq.ParquetFile(output.address(n)).read() for n in output.part_names("features")]
    table = pa.concat_tables(tables).sort_by("path")
    labels = sorted(set(table["label"].to_pylist()))
    target = np.array([labels.index(label) for label in table["label"].to_pylist()])
    return np.array(table["features"].to_pylist()), target, table["path"].to_pylist()


def run_record(**changes: Any) -> RunRecord:
    """Return what run.json says of a result without a table."""
    counts = Counts(listed=0, featurized=0, rejected=0)
    values = {"source": "", "output": "", "contract": {}, "contract_hash": "f00d"}
    values |= {"model": ModelRecord(name="m"), "counts": counts, "seconds": {}, "files": {}}
    return RunRecord(**values | changes)


def write_result(out: str | Path, photos: Path, model: Model) -> Output:
    """Write the features of a folder's photos, and a ``run.json`` that names them."""
    output, contract = Output.at(out), model.contract
    files = sorted(photos.rglob("*.jpg"))
    rows = [
        {
            "path": str(file),
            "label": file.parent.name,
            "features": vector,
            "width": 1,
            "height": 1,
            "length": file.stat().st_size,
            "truncated": False,
            "modification_time": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for file, vector in zip(files, model.predict(files), strict=True)
    ]
    table = pa.Table.from_pylist(rows, arrow_schema(FEATURES))
    schema = stored_schema(FEATURES, contract.hash)
    part = write_part(output.folder, part_name("features"), table, schema)
    record = run_record(
        source=str(photos),
        output=output.root,
        counts=Counts(listed=len(files), featurized=len(files), rejected=0),
        contract=contract.as_dict(),
        contract_hash=contract.hash,
        model=ModelRecord(
            name=contract.model,
            weights_path=model.weights_path,
            n_features=contract.n_features,
            input_size=contract.input_size,
        ),
        files={"features": (part,)},
    )
    output.write_run(record)
    return output


def write_vectors(
    out: str | Path,
    *parts: np.ndarray,
    labels: Sequence[str | None] = (),
    paths: Sequence[str] = (),
    lengths: Sequence[int] = (),
    columns: tuple[str, ...] = FEATURES,
) -> Output:
    """Write features by hand, a file for each matrix; paths are numbered throughout.

    Without :data:`verger.schema.MEASURES` among its columns it is an older result.
    """
    output, vectors, files, first = Output.at(out), [v for part in parts for v in part], [], 0
    rows = [
        {
            "path": paths[i] if len(paths) else f"{i:03}",
            "features": vector,
            "label": labels[i] if len(labels) else None,
            "width": 1,
            "height": 1,
            "length": lengths[i] if len(lengths) else 1,
            "truncated": False,
            "modification_time": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for i, vector in enumerate(vectors)
    ]
    for part in parts:
        table = pa.Table.from_pylist(rows[first : first + len(part)], arrow_schema(columns))
        first += len(part)
        name, schema = part_name("features"), stored_schema(columns, "c0ffee")
        files.append(write_part(output.folder, name, table, schema))
    output.write_run(run_record(contract_hash="c0ffee", files={"features": tuple(files)}))
    return output


def train(output: Output, method: str = "centroid", on: str = "features") -> Classifier:
    """Make a classifier of a result's features by centroids, whatever it is called; save it."""
    table = read_part(output.folder, output.part_names("features")[0])
    x = vectors_of(table["features"].combine_chunks()).astype(np.float64)
    names, values = table["label"].to_pylist(), {}
    if on == "pca":
        centre = x.mean(axis=0)
        axes = np.linalg.svd(x - centre, full_matrices=False)[2][:10]
        x = (x - centre) @ axes.T
        values: dict[str, Any] = {"components": axes, "pca_mean": centre}
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    z, labels = (x - mean) / scale, tuple(sorted(set(names)))
    y = np.array([labels.index(name) for name in names], np.int32)
    centroids = np.stack([z[y == j].mean(axis=0) for j in range(len(labels))])
    found = Classifier(
        method=method,
        on=on,
        labels=labels,
        mean=mean,
        scale=scale,
        temperature=float(x.shape[1]),
        contract_hash=output.read_run().contract_hash,
        coefficients=centroids,
        intercepts=-np.square(centroids).sum(axis=1) / 2,
        threshold=0.0,
        n_neighbors=3,
        references=unit(x),
        reference_labels=y,
        reference_paths=tuple(table["path"].to_pylist()),
        **values,
    )
    found.save(output.folder)
    return found
