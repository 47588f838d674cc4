"""The command ``show``: a stored table's schema, counts and first rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from verger.cli.options import json_option
from verger.cli.terminal import print_json, say
from verger.schema import INSPECTED


@click.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--table",
    type=click.Choice(["features", "pca", "rejected", *INSPECTED]),
    default="features",
    show_default=True,
    help="Which table.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many rows to print.",
)
@json_option()
def show(out: str, table: str, rows: int, as_json: bool) -> None:
    """Show a table's schema, counts, first rows and the dimension of its vectors."""
    from verger.cli.show import view_table
    from verger.result.output import Output

    view = view_table(Output.at(out), table, n_rows=rows)
    if as_json:
        print_json(
            {
                "table": view.name,
                "columns": view.columns,
                "n_rows": view.n_rows,
                "n_files": view.n_files,
                "dimensions": view.dimensions,
                "labels": {"null" if k is None else k: n for k, n in view.labels.items()},
                "rows": view.rows,
            }
        )
        return
    files = "1 file" if view.n_files == 1 else f"{view.n_files} files"
    say(f"{view.name}: {view.n_rows:,} rows in {files}")
    for name, kind in view.columns.items():
        say(f"  {name}: {kind}")
    if view.dimensions:
        say(f"dimension of the vectors: {', '.join(map(str, view.dimensions))}")
    print_labels(view.labels)
    for row in view.rows:
        say()
        for key, value in row.items():
            say(f"  {key}: {_short(value)}")


def print_labels(labels: Mapping[str | None, int], most: int = 10) -> None:
    """Print how many labels there are, and the most frequent of them."""
    if not labels:
        return
    shown = sorted(labels.items(), key=lambda item: (-item[1], str(item[0])))
    text = ", ".join(f"{label} {n:,}" for label, n in shown[:most])
    more = f", and {len(shown) - most} more" if len(shown) > most else ""
    say(f"labels: {len(shown)} ({text}{more})")


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    head = ", ".join(f"{number:.4f}" for number in value[:6])
    return f"[{head}{', ...' if len(value) > 6 else ''}]"
