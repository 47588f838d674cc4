"""The ledger: which photos are done, which are to do, and which rows make the next result.

Every row of OUT is in a file that is published or belongs to a committed batch. The files are
ordered by age, and of two rows of one path the younger counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from verger.errors import ValidationError
from verger.files.tables import Part, Piece, read_part
from verger.result.journal import Rejection
from verger.result.record import Counts
from verger.schema import Reason, clamp_times, normal_labels

if TYPE_CHECKING:
    import pandas as pd

    from verger.files.folder import Folder
    from verger.result.journal import Batch

_READERS = 16
_KEY = ("path", "length", "modification_time", "label")
_PASSING = [reason.value for reason in Reason if reason.may_pass]


@dataclass(frozen=True)
class RowsFile:
    """A file of rows.

    Attributes
    ----------
    table : str
        ``features`` or ``rejected``.
    part : Part
    published : bool
        Whether it is part of the result already.
    """

    table: str
    part: Part
    published: bool


@dataclass(frozen=True)
class Ledger:
    """Which photos have a row, and in which file.

    Attributes
    ----------
    files : list of RowsFile
        The older before the younger.
    rows : DataFrame of pandas
        The youngest row of every path: ``path``, ``length``, ``modification_time`` (ms),
        ``label``, ``truncated``, ``reason`` (null with features), ``file`` (index).
    superseded : DataFrame of pandas
        ``path`` and ``file`` of all older rows.
    renamed : frozenset of int
        Files whose labels are not all in Unicode's form NFC, in which ``rows`` has them.
    """

    files: list[RowsFile]
    rows: pd.DataFrame = field(repr=False)
    superseded: pd.DataFrame = field(repr=False)
    renamed: frozenset[int] = frozenset()


def rows_files(published: Mapping[str, Sequence[Part]], batches: Sequence[Batch]) -> list[RowsFile]:
    """Return the files of a published result and of committed batches, by age."""
    old = [
        RowsFile(t, part, True) for t in ("features", "rejected") for part in published.get(t, ())
    ]
    new = [RowsFile(t, part, False) for batch in batches for t, part in batch.parts.items()]
    return [*old, *new]


def read_ledger(folder: Folder, files: Sequence[RowsFile]) -> Ledger:
    """Read which photos the files have rows of; no vector is read.

    Raises
    ------
    SchemaError
        If a file is gone or damaged.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(lambda pair: _keys(folder, *pair), enumerate(files)))
    rows = pa.concat_tables([_KEYS.empty_table(), *tables]).to_pandas()
    again = _rejected_as_before(rows)
    old = again | rows["path"].where(~again).duplicated(keep="last")
    renamed = frozenset(rows.loc[rows["renamed"], "file"])
    rows = rows.drop(columns="renamed")
    return Ledger(list(files), rows[~old], rows.loc[old, ["path", "file"]], renamed)


def _rejected_as_before(rows: pd.DataFrame) -> pd.Series[bool]:
    """Find rows that say the same as the row before them of one path: the older one stays.

    So a photo that is tried again, and rejected again for the same reason, changes no file.
    """
    columns = ["length", "modification_time", "label", "reason"]
    several = rows[rows["path"].duplicated(keep=False)]
    before = several.groupby("path")[columns].shift()
    same = (several[columns] == before) | (several[columns].isna() & before.isna())
    again = same.all(axis=1) & several["reason"].notna()
    return again.reindex(rows.index, fill_value=False)


_KEYS = pa.schema(
    [
        ("path", pa.string()),
        ("length", pa.int64()),
        ("modification_time", pa.int64()),
        ("label", pa.string()),
        ("truncated", pa.bool_()),
        ("reason", pa.string()),
        ("file", pa.int64()),
        ("renamed", pa.bool_()),
    ]
)


def _keys(folder: Folder, index: int, file: RowsFile) -> pa.Table:
    extra = "truncated" if file.table == "features" else "reason"
    found = read_part(folder, file.part.name, [*_KEY, extra])
    n = len(found)
    columns = {name: found[name] for name in found.schema.names}
    columns["modification_time"] = _millis(found["modification_time"])
    columns.setdefault("truncated", pa.array([False] * n, pa.bool_()))
    columns.setdefault("reason", pa.nulls(n, pa.string()))
    columns["file"] = pa.array([index] * n, pa.int64())
    columns["label"] = normal_labels(found["label"])
    columns["renamed"] = pc.fill_null(pc.not_equal(columns["label"], found["label"]), False)
    return pa.table([columns[name] for name in _KEYS.names], schema=_KEYS)


def _millis(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return clamp_times(times).cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Attributes
    ----------
    todo : pyarrow.Table
        Photos of the listing that have no row, or none that counts.
    new, changed, retried : int
        Why: never seen; another length or time than before; rejected for something that may have
        passed.
    relabelled : int
        Photos that need no features, but another label.
    rejected : list of Rejection
        Photos that were rejected and are not tried again.
    gone : list of str
        Paths with rows that are not in the source any more.
    """

    todo: pa.Table = field(repr=False)
    new: int
    changed: int
    retried: int
    relabelled: int
    rejected: list[Rejection]
    gone: list[str]


def compare(photos: pa.Table, ledger: Ledger, *, accept_truncated: bool) -> Work:
    """Find out what is to do.

    Parameters
    ----------
    photos : pyarrow.Table
        A listing: columns :data:`verger.schema.IMAGES`.
    ledger : Ledger
    accept_truncated : bool
        Whether photos that were cut off are to have features.
    """
    listed = photos.select(_KEY).set_column(
        _KEY.index("modification_time"), "modification_time", _millis(photos["modification_time"])
    )
    both = listed.to_pandas().merge(
        ledger.rows, on="path", how="left", suffixes=("", "_known"), indicator=True
    )
    seen = both["_merge"] == "both"
    same = (both["length"] == both["length_known"]) & (
        both["modification_time"] == both["modification_time_known"]
    )
    # What has neither length nor time is not there: it is tried once it has them.
    is_there = (both["length"] != 0) | (both["modification_time"] != 0)
    again = both["reason"].isin(_PASSING) & is_there
    if accept_truncated:
        again |= both["reason"] == Reason.TRUNCATED.value
    else:
        again |= both["truncated"].eq(True)
    done = seen & same & ~again
    listed_paths = photos["path"].combine_chunks()
    paths = pa.array(ledger.rows["path"], pa.string())
    gone = paths.filter(pc.invert(pc.is_in(paths, value_set=listed_paths)))
    left = both[done & both["reason"].notna()]
    return Work(
        todo=photos.filter(pa.array(~done)),
        new=int((~seen).sum()),
        changed=int((seen & ~same).sum()),
        retried=int((seen & same & again).sum()),
        relabelled=int((done & _differ(both["label"], both["label_known"])).sum()),
        rejected=[
            Rejection(path=path, reason=reason)
            for path, reason in zip(left["path"], left["reason"], strict=True)
        ],
        gone=gone.to_pylist(),
    )


def _differ(labels: pd.Series[Any], others: pd.Series[Any]) -> pd.Series[bool]:
    return (labels != others) & ~(labels.isna() & others.isna())


@dataclass(frozen=True)
class Composition:
    """Which files, and which of their rows, make the next result.

    Attributes
    ----------
    kept : dict of str to list of Part
        Table to published files that stay as they are.
    pieces : dict of str to list of Piece
        Table to files whose rows go into new files.
    removed : list of str
        Published files that go.
    labels : dict of str to int
        Label to number of rows.
    counts : Counts
        Of the rows; what is of the listing or of the run is the run's to fill in.
    """

    kept: dict[str, list[Part]]
    pieces: dict[str, list[Piece]]
    removed: list[str]
    labels: dict[str, int]
    counts: Counts

    @property
    def changes(self) -> bool:
        """Whether the next result differs from the published one."""
        return bool(self.removed) or any(self.pieces.values())


def compose(photos: pa.Table, ledger: Ledger, *, prune: bool) -> Composition:
    """Choose the rows of the next result, and prove that they are one for every photo.

    A row that is there stays, with the label that its photo is listed with.

    Raises
    ------
    ValidationError
        If a listed photo has no row: rows were lost.
    """
    listed = photos.select(["path", "label"]).to_pandas().set_index("path")["label"]
    here = ledger.rows["path"].isin(listed.index)
    labels = ledger.rows["path"].map(listed).where(here, ledger.rows["label"])
    every = ledger.rows.assign(label=labels)
    rows, moved = every[here] if prune else every, every[_differ(labels, ledger.rows["label"])]
    n_here = int(here.sum())
    if n_here != len(photos):
        raise ValidationError(
            f"listed={len(photos)} photos, but {n_here} of them have a row: rows were lost; "
            "nothing was replaced"
        )
    leaving = _paths_by_file(ledger.superseded)
    if prune:
        for index, paths in _paths_by_file(ledger.rows[~here]).items():
            leaving.setdefault(index, []).extend(paths)
    relabelled = _labels_by_file(moved)
    kept: dict[str, list[Part]] = {"features": [], "rejected": []}
    pieces: dict[str, list[Piece]] = {"features": [], "rejected": []}
    removed = []
    for index, file in enumerate(ledger.files):
        without, other = tuple(leaving.get(index, ())), relabelled.get(index, {})
        if file.published and not without and not other and index not in ledger.renamed:
            kept[file.table].append(file.part)
            continue
        if file.published:
            removed.append(file.part.name)
        n_left = file.part.rows - len(without)
        if n_left:
            pieces[file.table].append(Piece(file.part.name, n_left, without, other))
    by_label = {str(label): int(n) for label, n in rows["label"].value_counts().items()}
    counts = replace(_counts(rows, len(photos), n_here), relabelled=len(moved))
    return Composition(kept, pieces, removed, by_label, counts)


def _paths_by_file(rows: pd.DataFrame) -> dict[int, list[str]]:
    return {int(index): list(group["path"]) for index, group in rows.groupby("file")}


def _labels_by_file(rows: pd.DataFrame) -> dict[int, dict[str, str | None]]:
    texts = rows["label"].astype(object).where(rows["label"].notna(), None)
    return {
        int(index): dict(zip(group["path"], texts[group.index], strict=True))
        for index, group in rows.groupby("file")
    }


def _counts(rows: pd.DataFrame, n_listed: int, n_here: int) -> Counts:
    reasons = rows["reason"].dropna().value_counts()
    rejected = int(reasons.sum())
    return Counts(
        listed=n_listed,
        featurized=len(rows) - rejected,
        rejected=rejected,
        gone=len(rows) - n_here,
        truncated=int(rows["truncated"].sum()),
        reasons={str(reason): int(n) for reason, n in reasons.items()},
    )
