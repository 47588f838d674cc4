"""What a stored table looks like: schema, counts, first rows, dimension of the vectors.

Read by pyarrow, as any other program would read it: no Spark is needed to look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from verger.errors import SchemaError
from verger.files.paths import filesystem_of
from verger.files.tables import VECTORS
from verger.result.journal import latest_attempt
from verger.result.output import RUN, Output


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
    filesystem, _ = filesystem_of(folder.root)
    places = [filesystem_of(folder.address(part))[1] for part in names]
    try:
        table = ds.dataset(places, format="parquet", filesystem=filesystem)
        rows = table.head(n_rows)
        labels = table.to_table(["label"])["label"].value_counts().to_pylist()
        count = table.count_rows()
    except (OSError, pa.ArrowException) as err:
        raise SchemaError(
            f"{output.address(name)}: cannot be read: {err}; verger validate says more"
        ) from err
    vector = next((column for column in VECTORS if column in table.schema.names), None)
    lengths = pa.compute.list_value_length(rows[vector]).unique().to_pylist() if vector else []
    return TableView(
        name=name,
        columns={field.name: str(field.type) for field in table.schema},
        n_rows=count,
        n_files=len(names),
        dimensions=sorted(n for n in lengths if n is not None),
        labels={entry["values"]: entry["counts"] for entry in labels},
        rows=rows.to_pylist(),
    )


def _part_names(output: Output, name: str) -> list[str]:
    if output.folder.exists(RUN):
        return output.part_names(name)
    attempt = latest_attempt(output)
    batches = attempt.batches() if attempt else []
    names = [batch.parts[name].name for batch in batches if name in batch.parts]
    return names or output.part_names(name)  # which says what is missing
