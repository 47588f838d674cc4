"""The command ``register``: a result's tables in a catalogue."""

from __future__ import annotations

import click

from verger.cli.options import json_option
from verger.cli.terminal import print_json, print_rows


@click.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--iceberg",
    "name",
    required=True,
    metavar="CATALOG.NAMESPACE.TABLE",
    help="The table that takes the files, in a catalogue that PyIceberg's settings name.",
)
@click.option(
    "--table",
    type=click.Choice(["features", "rejected", "pca"]),
    default="features",
    show_default=True,
    help="Whose files.",
)
@json_option("Print what was changed as JSON.")
def register(out: str, name: str, table: str, as_json: bool) -> None:
    """Add a table's files to an Iceberg catalogue as they are; again after a run, replace them."""
    from verger.result.iceberg import register as register_result

    done = register_result(out, name, table=table)
    if as_json:
        print_json(done.as_dict())
        return
    others = f", beside {done.rows_elsewhere:,} of other results" if done.rows_elsewhere else ""
    print_rows(
        [
            ("table", f"{done.table}: the {done.rows:,} rows of {out}{others}"),
            ("files", f"{done.added:,} added, {done.removed:,} removed"),
        ]
    )
