"""Where photos come from: list them on the driver, and cut the list into partitions.

Two readers give the same table. ``arrow`` lists and reads by itself (local folders and ``s3://``,
through pyarrow's filesystems) and can plan before a byte is read; it also reads packs, which
:mod:`verger.pack` describes. ``spark`` is Spark's own ``binaryFile``, for anything that only Hadoop
reaches.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs

from verger.config import IMAGE_SUFFIXES, Config, check_label_rule
from verger.errors import ConfigError, EmptySourceError, SourceError, SourceNotFoundError
from verger.pack import is_pack, read_listing
from verger.schema import IMAGES, arrow_schema
from verger.storage import MAX_FILE_BYTES, explain, filesystem_of, normalize_source

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

_PHOTOS_PER_PARTITION = (32, 256)
# Row groups of a pack are handed out whole: with ten to a partition, one more or less is 10 %.
_ROW_GROUPS_PER_PARTITION = 10


@dataclass(frozen=True)
class Listing:
    """The photos of a source, as they were when it was listed.

    Attributes
    ----------
    source : str
        As every path in the table begins: an absolute folder, or ``s3://bucket/prefix``. Of a
        pack its own place, while the paths are those of the photos that were packed.
    photos : pyarrow.Table
        Columns ``path``, ``modification_time``, ``length``, ``label``, and of a pack those of
        :data:`verger.schema.PACKED`; sorted by path.
    ignored : dict of str to int
        Suffix to number of files that the glob left out.
    recursive : bool
        Whether subfolders were looked into.
    """

    source: str
    photos: pa.Table
    ignored: dict[str, int]
    recursive: bool = True

    @property
    def n_bytes(self) -> int:
        """Sum of the photos' sizes."""
        return int(pa.compute.sum(self.photos["length"]).as_py() or 0)

    @property
    def is_pack(self) -> bool:
        """Whether the photos are read from a pack."""
        return "row_group" in self.photos.schema.names


def list_photos(
    source: str, *, glob: Sequence[str] = (), recursive: bool = True, label_from: str = "parent"
) -> Listing:
    """List the photos of a folder, a bucket or a pack.

    Parameters
    ----------
    source : str
        A folder, ``file://`` or ``s3://bucket/prefix``.
    glob : sequence of str
        Patterns of file names, case as written; one may be a plain string. Without any, every
        common suffix of an image, in any case.
    recursive : bool
        Look into subfolders.
    label_from : str
        ``parent`` (the folder's name), ``none``, or a regular expression that is searched in
        the path and whose first group is the label. The labels of a pack are those that were
        packed, unless this says otherwise than its default.

    Returns
    -------
    Listing

    Raises
    ------
    SourceNotFoundError, EmptySourceError, SourceError
        If there is no such source, not one photo in it, or it cannot be listed.
    ConfigError
        If ``label_from`` is no usable rule.
    """
    check_label_rule(label_from)
    patterns = (glob,) if isinstance(glob, str) else tuple(glob)
    root = normalize_source(source)
    if is_pack(root):
        return _list_pack(root, source, patterns, label_from, recursive=recursive)
    files = _list_local(root, recursive) if root.startswith("/") else _list_s3(root, recursive)
    return _listing(files, root, source, patterns, label_from, recursive=recursive)


def _listing(
    files: Iterable[_File],
    root: str,
    source: str,
    glob: tuple[str, ...],
    label_from: str,
    *,
    recursive: bool,
) -> Listing:
    """Make the listing of all files that are there."""
    wanted, ignored = _by_glob(files, root, glob)
    _check_any(wanted, source, glob, ignored)
    paths = [file.path for file in wanted]
    # Milliseconds are the finest that both readers give.
    times = pa.array([file.modified_ns // 1_000_000 * 1_000 for file in wanted], pa.int64())
    columns = {
        "path": paths,
        "modification_time": times.cast(pa.timestamp("us", tz="UTC")),
        "length": [file.length for file in wanted],
        "label": labels_of(paths, label_from),
    }
    table = pa.table(columns, schema=arrow_schema(IMAGES)).sort_by("path")
    return Listing(root, table, ignored, recursive)


def _check_any(
    photos: Sequence[Any], source: str, glob: tuple[str, ...], ignored: dict[str, int]
) -> None:
    if len(photos) == 0:
        what = f"no file matches {', '.join(glob)}" if glob else "no photo"
        raise EmptySourceError(f"source {source}: {what} in it{_ignored_text(ignored)}")


def _list_pack(
    root: str, source: str, glob: tuple[str, ...], label_from: str, *, recursive: bool
) -> Listing:
    """List a pack as its folder was listed: what these options leave out is left out here."""
    manifest, photos = read_listing(root)
    origin = str(manifest["source"]).rstrip("/") + "/"
    if not recursive:
        below = pa.compute.utf8_replace_slice(photos["path"], 0, len(origin), "")
        photos = photos.filter(pa.compute.invert(pa.compute.match_substring(below, "/")))
    ignored = Counter(manifest["counts"]["ignored"])
    if glob:
        names = [path.rsplit("/", 1)[-1] for path in photos["path"].to_pylist()]
        wanted = np.array([matches(name, glob) for name in names], bool)
        ignored.update(
            PurePosixPath(name).suffix.lower() or "no suffix"
            for name, is_wanted in zip(names, wanted, strict=True)
            if not is_wanted
        )
        photos = photos.filter(pa.array(wanted))
    _check_any(photos, source, glob, ignored)
    if label_from != Config.label_from:
        labels = pa.array(labels_of(photos["path"].to_pylist(), label_from), pa.string())
        photos = photos.set_column(photos.schema.get_field_index("label"), "label", labels)
    return Listing(root, photos, dict(ignored.most_common()), recursive)


def refuse_pack(source: str) -> None:
    """Refuse a pack as the source of Spark's reader.

    Raises
    ------
    ConfigError
    """
    if is_pack(normalize_source(source)):
        raise ConfigError(
            f"reader='spark' with SRC={source}: is a pack, which only the arrow reader reads; "
            "leave --reader out"
        )


class _File(NamedTuple):
    path: str
    length: int
    modified_ns: int
    is_regular: bool = True


def _list_local(root: str, recursive: bool) -> Iterator[_File]:
    """Walk a folder, through links to folders too, but never in a circle."""
    folder = Path(root)
    if not folder.exists():
        raise SourceNotFoundError(f"source {root}: does not exist")
    if not folder.is_dir():
        raise SourceNotFoundError(f"source {root}: is a file; give the folder of the photos")
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        place, above = waiting.pop()
        try:
            found = Path(place).stat()
            identity = (found.st_dev, found.st_ino)
            if identity in above:  # a link to a folder above: a circle
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is(entry.is_dir):
                        if recursive:
                            waiting.append((entry.path, above | {identity}))
                    elif _is(entry.is_file) or _leads_nowhere(entry):
                        yield _stat(entry)
                    else:
                        yield _File(entry.path, 0, 0, is_regular=False)
        except OSError as err:
            raise SourceError(f"source {place}: cannot be listed: {err.strerror}") from err


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link without a target: listed, and then rejected, never just lost.

    Links to pipes and devices are no photos: they may never end.
    """
    return entry.is_symlink() and not _is(Path(entry.path).exists)


def _stat(entry: os.DirEntry[str]) -> _File:
    try:
        found = entry.stat()
    except OSError:
        return _File(entry.path, 0, 0)
    return _File(entry.path, found.st_size, found.st_mtime_ns)


def _list_s3(root: str, recursive: bool) -> Iterator[_File]:
    filesystem, inner = filesystem_of(root)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=recursive))
    except FileNotFoundError as err:
        is_file = filesystem.get_file_info(inner).type == fs.FileType.File
        what = "is a file; give the folder of the photos" if is_file else "does not exist"
        raise SourceNotFoundError(f"source {root}: {what}") from err
    except (OSError, pa.ArrowInvalid) as err:
        if "NO_SUCH_BUCKET" in str(err):
            raise SourceNotFoundError(f"source {root}: does not exist: no such bucket") from err
        raise SourceError(f"source {root}: cannot be listed: {explain(err)}") from err
    for info in infos:
        if info.type == fs.FileType.File:
            yield _File(f"s3://{info.path}", info.size or 0, info.mtime_ns or 0)


def _by_glob(
    files: Iterable[_File], root: str, glob: tuple[str, ...]
) -> tuple[list[_File], dict[str, int]]:
    wanted: list[_File] = []
    ignored: Counter[str] = Counter()
    for file in files:
        below = file.path.removeprefix(root.rstrip("/"))
        why = _left_out(file.path, below, glob) if file.is_regular else "no file (pipe or device)"
        if why is None:
            wanted.append(file)
        else:
            ignored[why] += 1
    return wanted, dict(ignored.most_common())


def _left_out(path: str, below: str, glob: tuple[str, ...]) -> str | None:
    """Return what a file that is no photo is counted under, or None for a photo.

    ``below`` is the part of the path below the source.
    """
    name = path.rsplit("/", 1)[-1]
    if "/." in below:  # itself, or a folder that it is in
        return "hidden"
    if not matches(name, glob):
        return PurePosixPath(name).suffix.lower() or "no suffix"
    # A name of bytes that are no UTF-8 can stand in no table.
    return None if _is_utf8(path) else "with a name that is not UTF-8"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def matches(name: str, glob: tuple[str, ...]) -> bool:
    """Whether a file name is a photo's: by the patterns, or by its suffix where there are none."""
    if not glob:
        return name.lower().endswith(IMAGE_SUFFIXES)
    return any(fnmatchcase(name, pattern) for pattern in glob)


def _ignored_text(ignored: dict[str, int]) -> str:
    if not ignored:
        return " (it is empty)"
    counts = ", ".join(f"{n} {suffix}" for suffix, n in list(ignored.items())[:5])
    return f" (left out: {counts}); see --glob"


def labels_of(paths: Sequence[str], rule: str) -> list[str | None]:
    """Return the label of every path by the rule of ``label_from``."""
    if rule == "none":
        return [None] * len(paths)
    if rule == "parent":
        return [path.rsplit("/", 2)[-2] or None for path in paths]
    found = (re.search(rule, path) for path in paths)
    return [match.group(1) if match else None for match in found]


# The plan, and its DataFrame


def count_partitions(n_photos: int, parallelism: int) -> int:
    """Return how many tasks to cut the photos into.

    Enough that the cores end together and progress is seen, few enough that a task is worth
    its start: 16 a core, of 32 to 256 photos.
    """
    low, high = _PHOTOS_PER_PARTITION
    per_partition = min(max(n_photos // (16 * parallelism), low), high)
    n = -(-n_photos // per_partition)
    return max(1, min(n_photos, -(-n // parallelism) * parallelism))


def cut_partitions(lengths: npt.NDArray[np.int64], n_partitions: int) -> npt.NDArray[np.int64]:
    """Deal photos to partitions, so that each has the same number and about the same bytes.

    From the largest photo to the smallest, each goes to the partition with the fewest bytes that
    has not its full number yet: beside a huge photo come small ones. Counts differ by one photo
    at most, bytes by the largest photo, and mostly by far less.

    Parameters
    ----------
    lengths : ndarray of shape (n_photos,), int64
        Sizes in bytes.

    Returns
    -------
    ndarray of shape (n_photos,), int64
        Partition of each photo, from 0.
    """
    n_each, n_with_one_more = divmod(len(lengths), n_partitions)
    partition = np.zeros(len(lengths), np.int64)
    counts, sizes = [0] * n_partitions, lengths.tolist()
    lightest = [(0, number) for number in range(n_partitions)]  # a heap: (bytes, partition)
    for photo in np.argsort(-lengths, kind="stable").tolist():
        n_bytes, number = heapq.heappop(lightest)
        while counts[number] == n_each and not n_with_one_more:
            n_bytes, number = heapq.heappop(lightest)
        n_with_one_more -= counts[number] == n_each
        counts[number] += 1
        partition[photo] = number
        if counts[number] <= n_each:
            heapq.heappush(lightest, (n_bytes + sizes[photo], number))
    return partition


def cut_listing(
    photos: pa.Table, parallelism: int, n_partitions: int | None = None
) -> tuple[pa.Table, int]:
    """Cut a listing into partitions; those of a pack are made of whole row groups.

    A row group is a partition of its own, unless partitions of the usual size take ten or more.

    Parameters
    ----------
    photos : pyarrow.Table
        As in :class:`Listing`.
    parallelism : int
        Tasks that run at once.
    n_partitions : int, optional
        By default by count and bytes.

    Returns
    -------
    photos : pyarrow.Table
        With a column ``partition``; the photos of a row group one after the other.
    n_partitions : int
    """
    n = n_partitions or count_partitions(len(photos), parallelism)
    lengths = photos["length"].to_numpy()
    if "row_group" not in photos.schema.names:
        return photos.append_column("partition", pa.array(cut_partitions(lengths, n))), n
    photos = photos.sort_by([("file", "ascending"), ("row_group", "ascending")])
    lengths = photos["length"].to_numpy()
    places = photos.select(["file", "row_group"]).to_pandas()
    group = places.groupby(["file", "row_group"], dropna=False, sort=False).ngroup().to_numpy()
    n_groups = int(group[-1]) + 1 if len(group) else 0
    if n_partitions is None and n_groups < n * _ROW_GROUPS_PER_PARTITION:
        n = max(n_groups, 1)
    n_bytes = np.bincount(group, weights=lengths).astype(np.int64)
    return photos.append_column("partition", pa.array(cut_partitions(n_bytes, n)[group])), n


def read_images(
    spark: SparkSession,
    source: str | Listing,
    *,
    glob: Sequence[str] = (),
    recursive: bool = True,
    label_from: str = "parent",
    reader: str = "arrow",
    partitions: int | None = None,
) -> DataFrame:
    """Make the DataFrame of images.

    Parameters
    ----------
    spark : SparkSession
    source : str or Listing
        What to list, or what was listed already.
    glob, recursive, label_from
        As in :func:`list_photos`; ``glob`` also tells Spark's reader what not to open.
    reader : {"arrow", "spark"}
        With ``arrow`` the DataFrame holds no content: :func:`verger.featurize` reads the files
        where they are used, or the row groups of a pack. With ``spark`` it has ``content``, read
        by ``binaryFile``.
    partitions : int, optional
        Number of partitions; by default by count and bytes. The ``spark`` reader repartitions
        nothing unless asked: it would move the photos' bytes.

    Returns
    -------
    DataFrame
        ``path``, ``modification_time``, ``length``, ``label`` [, ``content``]; of a pack also the
        columns :data:`verger.schema.PACKED`.
    """
    patterns = (glob,) if isinstance(glob, str) else tuple(glob)
    if not isinstance(source, Listing):
        if reader == "spark":
            refuse_pack(source)
        how = {"glob": patterns, "recursive": recursive, "label_from": label_from}
        source = (
            list_with_spark(spark, source, **how)  # type: ignore[arg-type]
            if reader == "spark"
            else list_photos(source, **how)  # type: ignore[arg-type]
        )
    if reader == "spark":
        return _read_binary_files(spark, source, patterns, partitions)
    parallelism = spark.sparkContext.defaultParallelism
    return plan_images(spark, *cut_listing(source.photos, parallelism, partitions))


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

    if root.startswith("/") and not Path(root).is_dir():
        raise SourceNotFoundError(f"source {root}: does not exist, or is no folder")
    loader = spark.read.format("binaryFile").options(**options)
    try:
        files = loader.load(hadoop_path(root))
    except AnalysisException as err:
        raise SourceNotFoundError(f"source {root}: {str(err).splitlines()[0]}") from err
    path = F.regexp_replace(F.regexp_replace("path", "^file:/+", "/"), "^s3[an]://", "s3://")
    return files.withColumn("path", path)


def list_with_spark(
    spark: SparkSession,
    source: str,
    *,
    glob: Sequence[str] = (),
    recursive: bool = True,
    label_from: str = "parent",
) -> Listing:
    """List the photos of a source that only Hadoop may reach; see :func:`list_photos`."""
    from pyspark.sql import functions as F

    check_label_rule(label_from)
    root = normalize_source(source)
    files = _binary_files(spark, root, recursiveFileLookup=str(recursive).lower())
    # Spark keeps microseconds of a local file where the listing keeps milliseconds.
    rows: pd.DataFrame = files.select(
        "path", "length", F.unix_millis("modificationTime").alias("ms")
    ).toPandas()
    listed = (
        _File(path, length, ms * 1_000_000)
        for path, length, ms in zip(rows["path"], rows["length"], rows["ms"], strict=True)
    )
    return _listing(listed, root, source, tuple(glob), label_from, recursive=recursive)


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
    if any(re.search(r"[\\{}\[\],^!]", pattern) for pattern in glob):
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
