"""A table of a result in an Iceberg catalogue: the very files of OUT, not a copy of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from verger.errors import ConfigError, OutputError, SchemaError, missing_extra
from verger.files.tables import stored_schema
from verger.result.output import Output
from verger.schema import MEASURES, table_columns


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What was changed in a catalogue.

    Attributes
    ----------
    table : str
        Its full name.
    added, removed : int
        Files of OUT that the table has now, and has no more.
    rows, rows_elsewhere : int
        Of OUT's table, and of files from elsewhere that the table has too.
    snapshot : int or None
        That the table is at.
    """

    table: str
    added: int
    removed: int
    rows: int
    rows_elsewhere: int
    snapshot: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def register(out: str | Path, name: str, *, table: str = "features") -> Registered:
    """Make an Iceberg table the same as a table of a result, in one snapshot.

    Files that OUT has and the table does not are added as they are; files of OUT that a later run
    has replaced are removed in the same commit, so that no row is there twice. Files from elsewhere
    stay.

    Parameters
    ----------
    out : path
        The folder of a result, or ``s3://bucket/prefix``.
    name : str
        ``CATALOG.NAMESPACE.TABLE``; the catalogue is one of PyIceberg's configuration.
    table : {"features", "rejected", "pca"}

    Raises
    ------
    EnvironmentNotReadyError
        Without PyIceberg.
    ConfigError
        If there is no such catalogue, or the name has no namespace.
    OutputError, SchemaError
        If OUT has no such table, or the catalogue's is of other columns.
    """
    output = Output.at(out)
    record, parts = output.read_run(), output.parts(table)
    columns = table_columns(record.contract)
    # No address with %20 and the like: PyIceberg takes a path as it is spelled.
    root = output.root if output.root.startswith("s3://") else f"file://{output.root}"
    addresses = dict.fromkeys(f"{root}/{part.name}" for part in parts)
    held = _load(name, stored_schema(columns[table], record.contract_hash), record.contract_hash)
    files = {task.file.file_path: task.file for task in held.scan().plan_files()}
    ours = {path: file for path, file in files.items() if path.startswith(f"{root}/")}
    new = [address for address in addresses if address not in ours]
    gone = [file for path, file in ours.items() if path not in addresses]
    if new or gone:
        _commit(held, new, gone, record.contract_hash)
    snapshot = held.current_snapshot()
    return Registered(
        table=name,
        added=len(new),
        removed=len(gone),
        rows=sum(part.rows for part in parts),
        rows_elsewhere=sum(files[path].record_count for path in files.keys() - ours.keys()),
        snapshot=snapshot.snapshot_id if snapshot else None,
    )


def _load(name: str, schema: Any, contract: str) -> Any:
    """Load a table from a catalogue, or create it with the ids that our files have.

    The measures of photos are added to a table that lacks them, so that their ids are the last.
    """
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.exceptions import NoSuchTableError
        from pyiceberg.io.pyarrow import pyarrow_to_schema
    except ModuleNotFoundError as err:
        raise missing_extra(err.name, "verger register --iceberg", "iceberg") from err
    catalog_name, _, identifier = name.partition(".")
    if "." not in identifier:
        raise ConfigError(f"--iceberg {name}: must be CATALOG.NAMESPACE.TABLE")
    try:
        catalog = load_catalog(catalog_name)
    except ValueError as err:
        raise ConfigError(
            f"--iceberg {name}: PyIceberg knows no catalog {catalog_name} ({err}); name it in "
            f"~/.pyiceberg.yaml or PYICEBERG_CATALOG__{catalog_name.upper()}__URI"
        ) from err
    wanted = pyarrow_to_schema(schema)
    older = pyarrow_to_schema(
        pa.schema([column for column in schema if column.name not in MEASURES])
    )
    try:
        held = catalog.load_table(identifier)
    except NoSuchTableError:
        catalog.create_namespace_if_not_exists(identifier.rpartition(".")[0])
        # Its files are OUT's: a catalogue that cleans up must not delete them.
        properties = {"gc.enabled": "false", "verger.contract": contract}
        held = catalog.create_table(identifier, schema=older, properties=properties)
    if held.schema().as_struct() == older.as_struct() != wanted.as_struct():
        with held.update_schema() as update:
            update.union_by_name(schema)
    if sorted(held.schema().fields, key=str) != sorted(wanted.fields, key=str):
        raise SchemaError(f"--iceberg {name}: the table there has other columns or ids than OUT's")
    if held.properties.get("verger.contract", contract) != contract:
        raise SchemaError(f"--iceberg {name}: the table there has features of another contract")
    return held


def _commit(held: Any, new: list[str], gone: list[Any], contract: str) -> None:
    """Add and remove files in one snapshot, or change nothing."""
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    try:
        with held.transaction() as transaction:
            update = transaction.update_snapshot({"verger.contract": contract})
            metadata = transaction.table_metadata
            with update.overwrite() if gone else update.fast_append() as files:
                for file in parquet_files_to_data_files(held.io, metadata, iter(new)):
                    files.append_data_file(file)
                for file in gone:
                    files.delete_data_file(file)
    except CommitFailedException as err:
        raise OutputError(f"--iceberg: the table has just been changed; try again: {err}") from err
    except ValueError as err:  # from before Verger's files had ids, or with other ones
        raise SchemaError(f"--iceberg: a file does not fit the table: {err}") from err
