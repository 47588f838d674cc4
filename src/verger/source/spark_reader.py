"""DataFrames of photos: from a listing, or read by Spark's own ``binaryFile``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from verger.config import IMAGE_SUFFIXES, check_label_rule
from verger.engine.spark import n_slots
from verger.errors import SourceNotFoundError
from verger.files.paths import normalize_source
from verger.files.reading import MAX_FILE_BYTES
from verger.schema import IMAGES
from verger.source.cut import cut_listing
from verger.source.listing import Listing, list_photos, make_listing
from verger.source.patterns import several_excludes, several_globs
from verger.source.stored import StoredFile, check_circles, check_folder

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession


def read_images(
    spark: SparkSession,
    source: str | Path | Listing,
    *,
    glob: Sequence[str] = (),
    recursive: bool = True,
    label_from: str = "parent",
    ignore: bool = True,
    exclude: Sequence[str] = (),
    labels: str | Path | None = None,
    reader: str = "arrow",
    partitions: int | None = None,
) -> DataFrame:
    """Make the DataFrame of images.

    Parameters
    ----------
    spark : SparkSession
    source : path or Listing
        What to list, or what was listed already.
    glob, recursive, label_from, ignore, exclude, labels
        As in :func:`list_photos`; ``glob`` also tells Spark's reader what not to open.
    reader : {"arrow", "spark"}
        With ``arrow`` the DataFrame holds no content: :func:`verger.featurize` reads the files
        where they are used. With ``spark`` it has ``content``, read by ``binaryFile``.
    partitions : int, optional
        Number of partitions; by default by count and bytes. The ``spark`` reader repartitions
        nothing unless asked: it would move the photos' bytes.

    Returns
    -------
    DataFrame
        ``path``, ``modification_time``, ``length``, ``label`` [, ``content``].

    Examples
    --------
    >>> verger.read_images(verger.get_session(), "photos/").columns
    ['path', 'modification_time', 'length', 'label']
    """
    patterns = several_globs(glob)
    if not isinstance(source, Listing):
        how: Any = {"glob": patterns, "recursive": recursive, "label_from": label_from}
        how |= {"ignore": ignore, "exclude": exclude, "labels": labels}
        if reader == "spark":
            source = list_with_spark(spark, source, **how)
        else:
            source = list_photos(source, **how)
    if reader == "spark":
        return _read_binary_files(spark, source, patterns, partitions)
    return plan_images(spark, *cut_listing(source.photos, n_slots(spark), partitions))


def plan_images(spark: SparkSession, photos: pa.Table, n_partitions: int) -> DataFrame:
    """Turn a listing into a DataFrame of exactly ``n_partitions`` partitions, without a shuffle.

    The partitions come from ``range``; a broadcast join brings every partition its rows.

    Parameters
    ----------
    spark : SparkSession
    photos : pyarrow.Table
        A listing, its column ``partition``, and any others, which the DataFrame has too.
    n_partitions : int
    """
    from pyspark.sql import functions as F

    listing = _listing_frame(spark, photos)
    slots = spark.range(0, n_partitions, 1, n_partitions).withColumnRenamed("id", "partition")
    columns = [name for name in photos.schema.names if name != "partition"]
    return slots.join(F.broadcast(listing), "partition").select(*columns)


def _listing_frame(spark: SparkSession, photos: pa.Table) -> DataFrame:
    """Make a DataFrame of a listing and of what stands beside it."""
    from pyspark.sql import functions as F

    # Milliseconds, not timestamps: no time zone of any session can touch them on the way.
    millis = photos["modification_time"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
    place = photos.schema.get_field_index("modification_time")
    frame = photos.set_column(place, "modification_time", millis).to_pandas()
    texts = {field.name for field in photos.schema if pa.types.is_string(field.type)}
    kinds = {name: "string" if name in texts else "long" for name in frame.columns}
    schema = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    listing = spark.createDataFrame(frame, schema)
    return listing.withColumn("modification_time", F.timestamp_millis("modification_time"))


def _binary_files(spark: SparkSession, root: str, **options: str) -> DataFrame:
    """Load the files of a folder as Spark's ``binaryFile`` does, with paths as we store them."""
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    check_folder(root)
    loader = spark.read.format("binaryFile").options(**options)
    try:
        files = loader.load(hadoop_path(root))
        _ = files.columns  # over Spark Connect only this looks for the folder
    except AnalysisException as err:
        raise SourceNotFoundError(f"source {root}: {str(err).splitlines()[0]}") from err
    path = F.regexp_replace(F.regexp_replace("path", "^file:/+", "/"), "^s3[an]://", "s3://")
    return files.withColumn("path", path)


def list_with_spark(
    spark: SparkSession,
    source: str | Path,
    *,
    glob: Sequence[str] = (),
    recursive: bool = True,
    label_from: str = "parent",
    ignore: bool = True,
    exclude: Sequence[str] = (),
    labels: str | Path | None = None,
) -> Listing:
    """List the photos of a source that only Hadoop may reach; see :func:`list_photos`.

    Hadoop itself leaves out what begins with a dot or an underscore.
    """
    check_label_rule(label_from)
    source = os.fspath(source)
    labels = None if labels is None else os.fspath(labels)
    root = normalize_source(source)
    if recursive:
        check_circles(root)
    files = _binary_files(spark, root, recursiveFileLookup=str(recursive).lower())
    listed = _local_files(files) if root.startswith("/") else _hadoop_files(files)
    how: dict[str, Any] = {"recursive": recursive, "ignore": ignore}
    how |= {"exclude": several_excludes(exclude), "labels": labels}
    return make_listing(listed, root, source, several_globs(glob), label_from, **how)


def _local_files(files: DataFrame) -> Iterator[StoredFile]:
    """Return Spark's files with the times that the arrow reader gives.

    Java wraps a time of more than 64 bits of milliseconds round, and Spark fails on one of more
    than 64 bits of microseconds, whatever becomes of it.
    """
    rows: pd.DataFrame = files.select("path", "length").toPandas()
    for path, length in zip(rows["path"], rows["length"], strict=True):
        try:
            modified_ns = Path(path).stat().st_mtime_ns
        except OSError:  # gone since, or Java has read its name otherwise: Spark's read will tell
            modified_ns = 0
        yield StoredFile(path, length, modified_ns)


def _hadoop_files(files: DataFrame) -> Iterator[StoredFile]:
    from pyspark.sql import functions as F

    millis = F.unix_millis("modificationTime").alias("ms")
    rows: pd.DataFrame = files.select("path", "length", millis).toPandas()
    for path, length, ms in zip(rows["path"], rows["length"], rows["ms"], strict=True):
        yield StoredFile(path, length, ms * 1_000_000)


def _read_binary_files(
    spark: SparkSession, listing: Listing, glob: tuple[str, ...], partitions: int | None
) -> DataFrame:
    """Let Spark read the photos of a listing; all that is known of them is the listing's."""
    from pyspark.sql import functions as F

    options = {"recursiveFileLookup": str(listing.recursive).lower(), "ignoreMissingFiles": "true"}
    pattern = hadoop_glob(glob)
    if pattern:
        options["pathGlobFilter"] = pattern
    files = _binary_files(spark, listing.source, **options)
    # Spark looks at the size before it reads.
    files = files.where(F.col("length") <= MAX_FILE_BYTES).select("path", "content")
    images = files.join(F.broadcast(_listing_frame(spark, listing.photos)), "path")
    if partitions is not None:
        images = images.repartition(partitions)
    return images.select(*IMAGES, "content")


def hadoop_glob(glob: tuple[str, ...]) -> str | None:
    """Return the patterns as one of Hadoop's, or None where it would read them otherwise.

    It has no switch for the case, and signs of its own in patterns.
    """
    if any(re.search(r"[\\{}\[\],^!/]", pattern) for pattern in glob):
        return None
    if glob:
        return glob[0] if len(glob) == 1 else "{" + ",".join(glob) + "}"
    any_case = [
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix.lstrip("."))
        for suffix in IMAGE_SUFFIXES
    ]
    return "*.{" + ",".join(any_case) + "}"


def hadoop_path(path: str) -> str:
    """Return a stored path as Spark must be told it: Hadoop reads globs in paths."""
    escaped = re.sub(r"([\\{}\[\]*?,])", r"\\\1", path)
    return "file://" + escaped if path.startswith("/") else re.sub("^s3:", "s3a:", escaped)
