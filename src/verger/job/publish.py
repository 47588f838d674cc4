"""Batches to files of the result: joined to a good size, then moved into place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from verger.engine.session import settings_for_block
from verger.engine.spark import SparkEngine
from verger.engine.tasks import Engine, run_pieces
from verger.features.contract import FeatureContract
from verger.features.precision import model_file
from verger.files.folder import Folder
from verger.files.tables import (
    Part,
    Piece,
    group_pieces,
    join_pieces,
    part_name,
    part_of,
    stored_schema,
    write_part,
)
from verger.result.ledger import Composition
from verger.result.output import EXTRACTOR, MOMENTS_NPZ, STAGED, Output
from verger.result.record import RunRecord
from verger.schema import GROUPS, REJECTED, arrow_schema, features_columns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def publish_features(
    engine: Engine,
    output: Output,
    found: Composition,
    record: RunRecord,
    *,
    groups: pa.Table | None,
    added: bool,
    legacy: bool,
) -> RunRecord:
    """Join the batches to files of the result, and let them take their place in it.

    Parameters
    ----------
    engine, output
    found : Composition
    record : RunRecord
        Without files.
    groups : pyarrow.Table or None
    added : bool
        Whether the result is added to; else it is a new one, and all of an old one goes.
    legacy : bool
        Whether for old readers.
    """
    output.folder.remove_tree(STAGED)
    files: dict[str, tuple[Part, ...]] = {}
    moves: list[tuple[str, str]] = []
    for table, columns in (("features", features_columns(record.contract)), ("rejected", REJECTED)):
        kept, joined = found.kept[table], group_pieces(found.pieces[table])
        if not kept:
            joined = joined or [[]]  # a table without a row is still a table
        work = [(part_name(table), pieces) for pieces in joined]
        new = _join(engine, output, work, stored_schema(columns, record.contract_hash))
        if legacy and isinstance(engine, SparkEngine):
            new = [_as_legacy(engine.session, output, part) for part in new]
        moves += [(f"{STAGED}/{part.name}", part.name) for part in new]
        files[table] = (*kept, *new)
    if groups is not None:
        part = _stage_groups(output, groups)
        files["groups"] = (part,)
        moves.append((f"{STAGED}/{part.name}", part.name))
    record = replace(record, files=files)
    old = found.removed if added else [*_own_parts(output), *_old_models(output, record)]
    # The sums over files that stay are good for those that come.
    stale = [name for name in output.derived_files() if not added or name != MOMENTS_NPZ]
    remove = [*stale, *old, *output.own_files("groups")]
    output.publish(record, add=moves, remove=remove, attempts=True)
    return record


def _own_parts(output: Output) -> list[str]:
    """List all files of the tables, known to ``run.json`` or not."""
    return [name for table in ("features", "rejected") for name in output.own_files(table)]


def _old_models(output: Output, record: RunRecord) -> list[str]:
    """List kept models of other contracts than this one's."""
    ours = model_file(FeatureContract.from_dict(record.contract))
    return [name for name in output.own_files(EXTRACTOR) if name != ours]


def _stage_groups(output: Output, groups: pa.Table) -> Part:
    name = part_name("groups")
    part = write_part(output.folder, f"{STAGED}/{name}", groups, arrow_schema(GROUPS))
    return replace(part, name=name)


def _join(
    engine: Engine, output: Output, work: Sequence[tuple[str, list[Piece]]], schema: pa.Schema
) -> list[Part]:
    """Write new files of a table into staging; named as they will be in the result."""
    return run_pieces(engine, _join_share, work, (output.folder, schema), light=True)


def _join_share(
    share: Iterator[tuple[str, list[Piece]]], carry: tuple[Folder, pa.Schema]
) -> Iterator[Part]:
    folder, schema = carry
    for name, pieces in share:
        yield replace(join_pieces(folder, pieces, f"{STAGED}/{name}", schema), name=name)


def _as_legacy(spark: SparkSession, output: Output, part: Part) -> Part:
    """Let Spark write a staged file anew, for old readers."""
    place = f"{STAGED}/legacy/{part.name}"
    with settings_for_block(spark, _LEGACY):
        rows = spark.read.parquet(Path(output.address(f"{STAGED}/{part.name}")).as_uri())
        rows.coalesce(1).write.parquet(Path(output.address(place)).as_uri())
    written = [e.name for e in output.folder.files(place) if e.name.endswith(".parquet")]
    content = output.folder.read(written[0])
    output.folder.write(f"{STAGED}/{part.name}", content)
    return part_of(part.name, part.rows, content)


#: As Spark 1.4 and Hive wrote lists; times as Parquet's own UTC type, not as Spark's old INT96.
_LEGACY = {
    "spark.sql.parquet.writeLegacyFormat": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
