"""Look into every file of a stored result, each read once, and say what does not hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verger.engine.tasks import Engine, run_pieces
from verger.files.tables import VECTORS, Part, contract_in, iter_batches, open_parquet
from verger.result.record import Check
from verger.schema import FEATURES, PCA, REJECTED, arrow_schema, type_name

if TYPE_CHECKING:
    from verger.files.folder import Folder
    from verger.result.output import Output

#: Columns of the tables of a result.
COLUMNS = {"features": FEATURES, "rejected": REJECTED, "pca": PCA}


def look_at_files(
    engine: Engine, output: Output, tables: dict[str, list[Part]], dimensions: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """Let the tasks read every file whole, and say what is in it."""
    work = [(table, part.name) for table, parts in tables.items() for part in parts]
    rows = run_pieces(engine, _look_at_share, work, (output.folder, dimensions), light=True)
    return {table: [row for row in rows if row["table"] == table] for table in tables}


def _look_at_share(
    share: Iterator[tuple[str, str]], carry: tuple[Folder, dict[str, int]]
) -> Iterator[dict[str, Any]]:
    folder, dimensions = carry
    unknown = dict.fromkeys(("problem", "size", "sha256", "types", "contract", "n"))
    for table, name in share:
        looked_at = _look_at(folder, name, dimensions.get(table, 0))
        yield unknown | {"table": table, "name": name} | looked_at


def _look_at(folder: Folder, name: str, dimension: int) -> dict[str, Any]:
    try:
        content = folder.read(name)
    except FileNotFoundError:
        return {"problem": "is missing"}
    except OSError as err:
        return {"problem": f"cannot be read: {err}"}
    found = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        file, bound = open_parquet(pa.BufferReader(content))
        types = _as_text(file.metadata.schema.to_arrow_schema())
        counts = _count(file, bound, dimension)
        return found | counts | {"types": types, "contract": contract_in(file.metadata)}
    except (OSError, ValueError, pa.ArrowException) as err:
        return found | {"problem": f"cannot be read: {err}"}


def _as_text(schema: pa.Schema) -> str:
    return str([(field.name, type_name(field.type)) for field in schema])


def column_types(table: str) -> str:
    """Return the columns and types that a table has to have, as text."""
    return _as_text(arrow_schema(COLUMNS[table]))


def _count(file: pq.ParquetFile, bound: int, dimension: int) -> dict[str, Any]:
    """Count rows by label and reason, null vectors, wrong dimensions, values that are no numbers.

    Every column is read, so that a damaged one is found here, where it is a finding.
    """
    names = file.schema_arrow.names
    column = next((name for name in VECTORS if name in names), None)
    nulls = wrong = not_finite = 0
    groups: dict[str, Counter[str | None]] = {"label": Counter(), "reason": Counter()}
    for batch in iter_batches(file, bound):
        batch.validate(full=True)
        for name in groups.keys() & names:
            for group in batch.column(name).value_counts().to_pylist():
                groups[name][group["values"]] += group["counts"]
        if column is not None:
            vectors = batch.column(column)
            lengths = pc.list_value_length(vectors).drop_null().to_numpy()
            values = vectors.flatten()
            finite = np.isfinite(values.drop_null().to_numpy()).sum()
            nulls += vectors.null_count
            wrong += int((lengths != dimension).sum())
            not_finite += len(values) - int(finite)
    return {
        "n": file.metadata.num_rows,
        "nulls": nulls,
        "wrong": wrong,
        "not_finite": not_finite,
        "labels": json.dumps(list(groups["label"].items())),
        "reasons": json.dumps(list(groups["reason"].items())),
    }


def check_files(
    output: Output, name: str, parts: list[Part], looks: list[dict[str, Any]]
) -> list[Check]:
    """Check that a table has its files, their bytes, and in each the table's columns."""
    gone = sorted(look["name"] for look in looks if look["problem"] == "is missing")
    there = {e.name for e in output.folder.files(name) if e.name.endswith(".parquet")}
    unknown = sorted(there - {part.name for part in parts})
    written = {part.name: (part.rows, part.size, part.sha256) for part in parts}
    whole = [look for look in looks if look["problem"] is None]
    changed = sorted(
        look["name"]
        for look in looks
        if look["sha256"] is not None
        and (look["n"], look["size"], look["sha256"]) != written[look["name"]]
    )
    broken = [f"{look['name']}: {look['problem']}" for look in looks if look["problem"]]
    types = column_types(name)
    broken += [f"{w['name']}: {w['types']}, not {types}" for w in whole if w["types"] != types]
    n_rows = sum(look["n"] for look in whole)
    return [
        Check(
            f"{name}/ has every file that run.json names",
            not gone,
            f"{len(parts)} named" + (f", missing: {', '.join(gone)}" if gone else ""),
        ),
        Check(
            f"{name}/ has no other file",
            not unknown,
            f"{len(unknown)} unknown" + (f": {', '.join(unknown)}" if unknown else ""),
        ),
        Check(
            f"every file of {name}/ has the bytes that were written",
            not changed,
            f"sha256 of {len(whole)} file(s)"
            + (f", changed: {', '.join(changed)}" if changed else ""),
        ),
        Check(
            f"{name}/ has its columns and types",
            not broken,
            broken[0] if broken else f"{n_rows} rows in {len(whole)} file(s)",
        ),
    ]


def check_vectors(name: str, looks: list[dict[str, Any]], dimension: int) -> list[Check]:
    """Check that every vector of a table has its dimension and only finite numbers."""
    found = {key: sum(look[key] for look in looks) for key in ("n", "nulls", "wrong", "not_finite")}
    n, misfits = found["n"], found["nulls"] + found["wrong"]
    return [
        Check(
            f"every vector of {name} has {dimension} numbers",
            misfits == 0,
            f"{n} rows, {found['nulls']} null, {found['wrong']} of another length",
        ),
        Check(
            f"no vector of {name} holds null, NaN or infinity",
            found["not_finite"] == 0,
            f"{found['not_finite']} such values in {n} rows",
        ),
    ]
