"""What a stored table looks like: schema, counts, first rows, dimension of the vectors.

Read by pyarrow, as any other program would read it: no Spark is needed to look.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from verger.files.tables import VECTORS, iter_part, read_part
from verger.result.journal import latest_attempt
from verger.result.output import RUN, Output
from verger.schema import clamp_times


@dataclass(frozen=True)
class TableView:
    """A look at a table.

    Attributes
    ----------
    name : str
    columns : dict of str to str
        Name to type.
    n_rows, n_files : int
    dimensions : list of int
        Lengths of vector that occur in the first rows; empty without a vector.
    labels : dict of str to int
        Rows by label.
    rows : list of dict
        The first rows.
    """

    name: str
    columns: dict[str, str]
    n_rows: int
    n_files: int
    dimensions: list[int]
    labels: dict[str | None, int]
    rows: list[dict[str, Any]]


def view_table(output: Output, name: str, *, n_rows: int = 5) -> TableView:
    """Look at a table; of a run that is not finished, at what is committed.

    Raises
    ------
    OutputError
        If OUT has no such table.
    SchemaError
        If its files cannot be read.
    """
    folder = output.folder
    names = _part_names(output, name)
    labels, first = Counter[str | None](), read_part(folder, names[0]).slice(0, n_rows)
    for part in names:
        if len(first) < n_rows and part != names[0]:
            more = read_part(folder, part, first.schema.names).slice(0, n_rows - len(first))
            first = pa.concat_tables([first, more])
        for batch in iter_part(folder, part, ["label"]):
            labels.update(
                {e["values"]: e["counts"] for e in batch["label"].value_counts().to_pylist()}
            )
    vector = next((column for column in VECTORS if column in first.schema.names), None)
    lengths = pa.compute.list_value_length(first[vector]).unique().to_pylist() if vector else []
    return TableView(
        name=name,
        columns={field.name: str(field.type) for field in first.schema},
        n_rows=labels.total(),
        n_files=len(names),
        dimensions=sorted(n for n in lengths if n is not None),
        labels=dict(labels),
        rows=_printable(first).to_pylist(),
    )


def _printable(rows: pa.Table) -> pa.Table:
    """Return rows whose times Python's datetime can hold: others may have written the table."""
    place = rows.schema.get_field_index("modification_time")
    if place < 0 or not pa.types.is_timestamp(rows.field(place).type):
        return rows
    return rows.set_column(place, "modification_time", clamp_times(rows.column(place)))


def _part_names(output: Output, name: str) -> list[str]:
    if output.folder.exists(RUN):
        return output.part_names(name)
    attempt = latest_attempt(output)
    batches = attempt.batches() if attempt else []
    names = [batch.parts[name].name for batch in batches if name in batch.parts]
    return names or output.part_names(name)  # which says what is missing
