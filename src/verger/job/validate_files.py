"""Look into every file of a stored result, each read once, and say what does not hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verger.engine.tasks import Engine, run_pieces
from verger.errors import SchemaError
from verger.files.tables import Part, contract_in, iter_batches, open_parquet
from verger.files.vectors import VectorReader
from verger.result.record import Check
from verger.schema import MEASURES, arrow_schema, type_name

if TYPE_CHECKING:
    from verger.files.folder import Folder
    from verger.result.output import Output


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a file of a table holds, as far as it could be read.

    Attributes
    ----------
    table, name : str
    problem : str or None
        Why it could not be read.
    size : int
    sha256, types, contract : str or None
    n : int
        Rows.
    nulls, wrong, not_finite : int
        Rows without a vector, with one of another length, and values that are no numbers.
    odd : str or None
        The first row with a vector that is none, in words.
    labels, reasons : mapping
        Rows by label and by reason.
    """

    table: str
    name: str
    problem: str | None = None
    size: int = 0
    sha256: str | None = None
    types: str | None = None
    contract: str | None = None
    n: int = 0
    nulls: int = 0
    wrong: int = 0
    not_finite: int = 0
    odd: str | None = None
    labels: Mapping[str | None, int] = field(default_factory=dict)
    reasons: Mapping[str | None, int] = field(default_factory=dict)


def look_at_files(
    engine: Engine, output: Output, tables: dict[str, list[Part]], dimensions: dict[str, int]
) -> dict[str, list[FileFacts]]:
    """Let the tasks read every file whole, and say what is in it.

    Parameters
    ----------
    engine : Engine
    output : Output
    tables : dict of str to list of Part
    dimensions : dict of str to int
        Numbers in a vector, by column.
    """
    work = [(table, part.name) for table, parts in tables.items() for part in parts]
    facts = run_pieces(engine, _look_at_share, work, (output.folder, dimensions), light=True)
    return {table: [file for file in facts if file.table == table] for table in tables}


def _look_at_share(
    share: Iterator[tuple[str, str]], carry: tuple[Folder, dict[str, int]]
) -> Iterator[FileFacts]:
    folder, dimensions = carry
    for table, name in share:
        yield _look_at(folder, FileFacts(table=table, name=name), dimensions)


def _look_at(folder: Folder, file: FileFacts, dimensions: dict[str, int]) -> FileFacts:
    try:
        content = folder.read(file.name)
    except FileNotFoundError:
        return replace(file, problem="is missing")
    except OSError as err:
        return replace(file, problem=f"cannot be read: {err}")
    file = replace(file, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    try:
        parquet, bound = open_parquet(pa.BufferReader(content))
        types = _as_text(parquet.metadata.schema.to_arrow_schema())
        contract = contract_in(parquet.metadata)
        return replace(_count(file, parquet, bound, dimensions), types=types, contract=contract)
    except (OSError, ValueError, pa.ArrowException) as err:
        return replace(file, problem=f"cannot be read: {err}")


def _as_text(schema: pa.Schema) -> str:
    return str([(field.name, type_name(field.type)) for field in schema])


def column_types(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns and types that a file of a table may have, as texts.

    A file of before photos were measured lacks :data:`verger.schema.MEASURES`.
    """
    older = tuple(name for name in columns if name not in MEASURES)
    return _as_text(arrow_schema(columns)), _as_text(arrow_schema(older))


def _count(
    file: FileFacts, parquet: pq.ParquetFile, bound: int, dimensions: dict[str, int]
) -> FileFacts:
    """Count rows by label and reason, null vectors, wrong dimensions, values that are no numbers.

    Every column is read, so that a damaged one is found here, where it is a finding.
    """
    names = parquet.schema_arrow.names
    vectors = [name for name in names if name in dimensions]
    groups: dict[str, Counter[str | None]] = {"label": Counter(), "reason": Counter()}
    n_rows = 0
    for batch in iter_batches(parquet, bound):
        batch.validate(full=True)
        for name in groups.keys() & names:
            for group in batch.column(name).value_counts().to_pylist():
                groups[name][group["values"]] += group["counts"]
        for name in vectors:
            file = _count_vectors(file, batch.column(name), dimensions[name], n_rows)
        n_rows += batch.num_rows
    n = parquet.metadata.num_rows
    return replace(file, n=n, labels=groups["label"], reasons=groups["reason"])


def _count_vectors(file: FileFacts, vectors: pa.Array, dimension: int, n_rows: int) -> FileFacts:
    """Add the vectors that are none of the rows after the first ``n_rows``."""
    lengths = pc.list_value_length(vectors).drop_null().to_numpy()
    values = vectors.flatten()
    finite = int(np.isfinite(values.drop_null().to_numpy()).sum())
    odd, reader = file.odd, VectorReader(file.name, dimension)
    reader.n_rows = n_rows
    try:
        reader.read(vectors)
    except SchemaError as err:
        odd = odd or str(err)
    return replace(
        file,
        nulls=file.nulls + vectors.null_count,
        wrong=file.wrong + int((lengths != dimension).sum()),
        not_finite=file.not_finite + len(values) - finite,
        odd=odd,
    )


def check_files(
    output: Output, name: str, parts: list[Part], files: list[FileFacts], columns: tuple[str, ...]
) -> list[Check]:
    """Check that a table has its files, their bytes, and in each the table's columns."""
    gone = sorted(file.name for file in files if file.problem == "is missing")
    there = {e.name for e in output.folder.files(name) if e.name.endswith(".parquet")}
    unknown = sorted(there - {part.name for part in parts})
    written = {part.name: (part.rows, part.size, part.sha256) for part in parts}
    whole = [file for file in files if file.problem is None]
    changed = sorted(
        file.name
        for file in files
        if file.sha256 is not None and (file.n, file.size, file.sha256) != written[file.name]
    )
    broken = [f"{file.name}: {file.problem}" for file in files if file.problem]
    types = column_types(columns)
    broken += [
        f"{file.name}: {file.types}, not {types[0]}" for file in whole if file.types not in types
    ]
    n_rows = sum(file.n for file in whole)
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


def check_vectors(name: str, files: list[FileFacts], dimension: int) -> list[Check]:
    """Check that every vector of a table has its dimension and only finite numbers."""
    n, nulls = sum(file.n for file in files), sum(file.nulls for file in files)
    wrong, not_finite = sum(f.wrong for f in files), sum(f.not_finite for f in files)
    odd = next((f"; first {file.odd}" for file in files if file.odd), "")
    return [
        Check(
            f"every vector of {name} has {dimension} numbers",
            nulls + wrong == 0,
            f"{n} rows, {nulls} null, {wrong} of another length{odd if wrong else ''}",
        ),
        Check(
            f"no vector of {name} holds null, NaN or infinity",
            not_finite == 0,
            f"{not_finite} such values in {n} rows{'' if wrong else odd}",
        ),
    ]
