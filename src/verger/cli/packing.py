"""Writes a pack: ``verger pack SRC DST``; what a pack is stands in :mod:`verger.source.pack`.

The driver lists the photos and deals them to row groups and files; each task writes one file,
a row group at a time, while the next photos are read. Nothing is compressed: photos are already.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verger.config import Config
from verger.engine.session import check_environment, get_session
from verger.errors import ConfigError, ErrorRateError, OutputExistsError
from verger.files.folder import Folder
from verger.files.paths import normalize_source
from verger.files.reading import Unread, read_ahead
from verger.files.tables import Part, part_name, write_part
from verger.job.context import Run, Watch
from verger.result.output import JOURNAL, Output, as_json, lie_apart
from verger.schema import IMAGES, arrow_schema
from verger.source.cut import count_partitions, cut_partitions
from verger.source.listing import Listing, list_photos
from verger.source.pack import COLUMNS, LISTING, MANIFEST, PART_NAME, PHOTOS, VERSION, is_pack
from verger.source.spark_reader import plan_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Photos' bytes in a row group, about: what a task holds of a pack, twice with the one ahead.
ROW_GROUP_BYTES = 16 * 10**6
#: Photos' bytes in a file, about: few files to list, and enough of them for all cores.
FILE_BYTES = 192 * 10**6
#: Photos that could not be packed and that an error names.
_FIRST = 3

_SCHEMA = arrow_schema((*IMAGES, "content"))
_TEXTS = ["path", "label"]


def pack_photos(
    source: str, target: str | Path, config: Config, *, watch: Watch | None = None
) -> dict[str, Any]:
    """Write the photos of a folder or a bucket into a pack.

    Parameters
    ----------
    source : str
        As for :func:`verger.job.pipeline.run`.
    target : path
        A folder, or ``s3://bucket/prefix``: empty, or with ``overwrite`` a pack, which stays until
        the new one is whole.
    config : Config
        ``glob``, ``recursive``, ``label_from``, ``partitions`` (the number of files),
        ``max_error_rate``, ``overwrite`` and the options of Spark.
    watch : Watch, optional
        Shows progress.

    Returns
    -------
    dict
        What ``pack.json`` says.

    Raises
    ------
    ErrorRateError
        If more photos than ``max_error_rate`` could not be read; the pack is whole all the same.
    VergerError
        See :mod:`verger.errors`.
    """
    run = Run(Output.at(target), config, watch) if watch else Run(Output.at(target), config)
    listing = _check_and_list(run, source)
    check_environment()
    with run.locked():
        with run.stage("start Spark"):
            spark = get_session(config, brief=True)
        photos, n_files = _deal(listing, spark.sparkContext.defaultParallelism, config.partitions)
        with run.stage("pack", len(photos), spark):
            reports = _write_photos(spark, run.output.folder, photos, n_files)
        with run.stage("write"):
            placed = _place(photos, reports)
            manifest = _describe(listing, placed, reports, config)
            manifest["listing"] = _write_listing(run.output.folder, placed).as_dict()
            manifest["seconds"] = run.seconds
            run.check_lock()
            run.output.folder.write(MANIFEST, as_json(manifest))
            _sweep(run.output.folder, manifest)
    _check_error_rate(run.output, manifest, config)
    return manifest


def describe_pack(source: str, target: str | Path, config: Config) -> dict[str, Any]:
    """Return the resolved configuration and what packing would do; writes nothing."""
    run = Run(Output.at(target), config)
    listing = _check_and_list(run, source)
    n_labels = len(listing.photos["label"].unique())
    replaces = run.output.folder.exists(MANIFEST)
    steps = [
        f"read {len(listing.photos):,} photos ({listing.n_bytes / 1e6:,.1f} MB, "
        f"{n_labels:,} labels) of {listing.source}",
        f"{'replace the pack in' if replaces else 'write a pack to'} {run.output.root}",
    ]
    return {"config": config.as_dict(), "steps": steps}


# Before Spark


def _check_and_list(run: Run, source: str) -> Listing:
    config, root = run.config, normalize_source(source)
    if config.reader != "arrow":
        raise ConfigError(f"reader={config.reader!r}: verger pack lists and reads by itself")
    if is_pack(root):
        raise ConfigError(f"SRC={source}: is a pack already")
    _check_target(run.output, root, overwrite=config.overwrite)
    with run.stage("list"):
        return list_photos(
            source, glob=config.glob, recursive=config.recursive, label_from=config.label_from
        )


def _check_target(output: Output, source: str, *, overwrite: bool) -> None:
    """Refuse a target that may not be written; what is no pack is never touched."""
    if not lie_apart(output.root, source):
        raise ConfigError(f"DST={output.root}: must lie outside SRC={source}, and not around it")
    output.check_folder()
    if is_pack(output.root):
        if not overwrite:
            raise OutputExistsError(
                f"DST={output.root}: holds a pack already; --overwrite replaces it"
            )
        return
    foreign = [
        entry.name
        for entry in output.folder.files(recursive=True)
        if not PART_NAME.fullmatch(entry.name) and not entry.name.startswith(f"{JOURNAL}/")
    ]
    if foreign:
        raise OutputExistsError(
            f"DST={output.root}: is not empty ({foreign[0]}), and holds no pack; choose another "
            "folder"
        )


# What goes where


def _deal(listing: Listing, parallelism: int, n_files: int | None) -> tuple[pa.Table, int]:
    """Deal photos to row groups, which are the partitions of a run, and row groups to files."""
    photos, n_bytes = listing.photos, listing.n_bytes
    n = min(
        len(photos), max(count_partitions(len(photos), parallelism), -(-n_bytes // ROW_GROUP_BYTES))
    )
    group = cut_partitions(photos["length"].to_numpy(), n)
    n_files = min(n, n_files or max(-(-n_bytes // FILE_BYTES), parallelism))
    photos = photos.append_column("row_group", pa.array(group))
    photos = photos.append_column("partition", pa.array(group * n_files // n))
    return photos.sort_by([("row_group", "ascending"), ("path", "ascending")]), n_files


@dataclass(frozen=True)
class _Report:
    """What a task has written: a file, and where in it the row groups of the pack are."""

    part: Part
    row_groups: dict[int, int]
    unread: dict[str, dict[str, str]]


def _place(photos: pa.Table, reports: list[_Report]) -> pa.Table:
    """Make the listing: where every photo is, or why it is nowhere."""
    at = {
        group: (report.part.name, place)
        for report in reports
        for group, place in report.row_groups.items()
    }
    unread = {path: why for report in reports for path, why in report.unread.items()}
    rows = zip(photos["path"].to_pylist(), photos["row_group"].to_pylist(), strict=True)
    places = [(None, None) if path in unread else at[group] for path, group in rows]
    whys = [unread.get(path, {}) for path in photos["path"].to_pylist()]
    columns = [
        [file for file, _ in places],
        [place for _, place in places],
        [why.get("reason") for why in whys],
        [why.get("detail") for why in whys],
    ]
    packed = [
        pa.array(c, arrow_schema((n,))[0].type)
        for n, c in zip(COLUMNS[len(IMAGES) :], columns, strict=True)
    ]
    arrays = [*(photos[name] for name in IMAGES), *packed]
    return pa.table(arrays, schema=arrow_schema(COLUMNS)).sort_by("path")


def _describe(
    listing: Listing, placed: pa.Table, reports: list[_Report], config: Config
) -> dict[str, Any]:
    """Return what ``pack.json`` says, but for the listing and the seconds."""
    unread = placed.filter(pc.is_null(placed["file"])).drop_columns(["file", "row_group"])
    rows = unread.to_pylist()
    return {
        "pack": VERSION,
        "verger": version("verger"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": listing.source,
        "glob": list(config.glob),
        "recursive": config.recursive,
        "label_from": config.label_from,
        "counts": {
            "listed": len(placed),
            "packed": len(placed) - len(rows),
            "unreadable": len(rows),
            "bytes": listing.n_bytes,
            "ignored": listing.ignored,
            "reasons": dict(Counter(row["reason"] for row in rows).most_common()),
        },
        "unreadable": [
            row | {"modification_time": row["modification_time"].isoformat()} for row in rows
        ],
        "files": [report.part.as_dict() for report in reports],
    }


def _write_listing(folder: Folder, placed: pa.Table) -> Part:
    return write_part(folder, part_name(LISTING), placed, arrow_schema(COLUMNS))


def _sweep(folder: Folder, manifest: dict[str, Any]) -> None:
    """Remove the files of an older pack, and of tasks that died."""
    named = {part["name"] for part in (*manifest["files"], manifest["listing"])}
    for entry in (*folder.files(PHOTOS), *folder.files(LISTING)):
        if PART_NAME.fullmatch(entry.name) and entry.name not in named:
            folder.remove(entry.name)
    for below in (PHOTOS, LISTING):
        folder.sweep(below)


def _check_error_rate(output: Output, manifest: dict[str, Any], config: Config) -> None:
    counts = manifest["counts"]
    if counts["unreadable"] <= config.max_error_rate * counts["listed"]:
        return
    first = "; ".join(
        f"{row['path']}: {row['reason']} ({row['detail']})"
        for row in manifest["unreadable"][:_FIRST]
    )
    raise ErrorRateError(
        f"{counts['unreadable']} of {counts['listed']} photos could not be packed: more than "
        f"max_error_rate={config.max_error_rate}; first {first}; the pack is in {output.root} and "
        "names them all"
    )


# In the tasks


def _write_photos(
    spark: SparkSession, folder: Folder, photos: pa.Table, n_files: int
) -> list[_Report]:
    """Let every task write a file."""
    images = plan_images(spark, photos, n_files)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        name = f"{PHOTOS}/part-{uuid.uuid4().hex}.parquet"
        report = _write_file(folder, name, _read_rows(batches))
        yield pa.RecordBatch.from_pydict({"report": [json.dumps(report)]})

    rows = images.mapInArrow(write, "report string").collect()
    found = [json.loads(row["report"]) for row in rows]
    return [
        _Report(
            Part(**one["part"]),
            {group: i for i, group in enumerate(one["row_groups"])},
            one["unread"],
        )
        for one in sorted(found, key=lambda one: one["row_groups"])
    ]


def _read_rows(
    batches: Iterable[pa.RecordBatch],
) -> Iterator[tuple[dict[str, Any], bytes | Unread]]:
    for batch in batches:
        rows = batch.to_pylist()
        contents = read_ahead([row["path"] for row in rows], [row["length"] for row in rows])
        yield from zip(rows, contents, strict=True)


def _write_file(
    folder: Folder, name: str, rows: Iterator[tuple[dict[str, Any], bytes | Unread]]
) -> dict[str, Any]:
    """Write one file, a row group at a time."""
    unread: dict[str, dict[str, str]] = {}
    row_groups: list[int] = []
    n_rows = 0
    with folder.writing(name) as file:
        sink = _Sink(file)
        with _writer(sink) as writer:
            for group, found in groupby(rows, lambda pair: int(pair[0]["row_group"])):
                table = _table(found, unread)
                if len(table):
                    writer.write_table(table, row_group_size=len(table))
                    row_groups.append(group)
                    n_rows += len(table)
                del table  # the next one grows beside it
    part = Part(name, n_rows, sink.size, sink.sha256.hexdigest())
    return {"part": part.as_dict(), "row_groups": row_groups, "unread": unread}


def _table(
    found: Iterable[tuple[dict[str, Any], bytes | Unread]], unread: dict[str, dict[str, str]]
) -> pa.Table:
    """Make the table of a row group; what could not be read goes into ``unread``."""
    rows = []
    for row, content in found:
        if isinstance(content, Unread):
            unread[row["path"]] = {"reason": content.reason.value, "detail": content.detail}
        else:
            rows.append({name: row[name] for name in IMAGES} | {"content": content})
    return pa.Table.from_pylist(rows, _SCHEMA)


def _writer(sink: _Sink) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        _SCHEMA,
        compression={name: "NONE" if name == "content" else "ZSTD" for name in _SCHEMA.names},
        use_dictionary=["label"],
        write_statistics=list(IMAGES),
        write_page_checksum=True,
    )


class _Sink:
    """A file that sums up what goes into it."""

    closed = False

    def __init__(self, file: IO[bytes] | pa.NativeFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes) -> int:
        self._file.write(content)
        self.sha256.update(content)
        self.size += len(content)
        return len(content)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Leave it to the file's end."""

    def close(self) -> None:
        """Leave it to whoever opened the file."""
