"""Re-derive every count of a stored result, and say what does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.engine.tasks import Engine, run_pieces
from verger.errors import ContractError, OutputError, ValidationError
from verger.features.contract import FeatureContract, count_views
from verger.features.precision import check_kept_model, model_file
from verger.files.tables import digest_paths, iter_part, iter_parts
from verger.job.validate_files import (
    FileFacts,
    check_files,
    check_vectors,
    column_types,
    look_at_files,
)
from verger.result.record import Check, Counts, RunRecord
from verger.schema import VIEWS, Reason, table_columns

if TYPE_CHECKING:
    from verger.files.folder import Folder
    from verger.result.output import Output


@dataclass(frozen=True)
class Validation:
    """All checks of one result."""

    checks: tuple[Check, ...]
    labels: dict[str | None, int]

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    def raise_if_broken(self) -> None:
        """Raise a :class:`ValidationError` that names the first check that does not hold."""
        for check in self.checks:
            if not check.holds:
                raise ValidationError(f"it does not hold that {check.name}: {check.detail}")


def validate_output(engine: Engine, output: Output) -> Validation:
    """Check a result against its own record and against itself.

    Parameters
    ----------
    engine : Engine
    output : Output

    Returns
    -------
    Validation
        Every file there with the bytes that were written, and no other; the schema of each
        table, the dimension of every vector, no null, NaN or infinity, no path twice, listed =
        featurized + rejected, one contract in every file, counts by label.
    """
    record = output.read_run()
    columns = table_columns(record.contract)
    tables = {name: output.parts(name) for name in columns if name in record.files}
    dimensions = {
        "features": record.model.n_features,
        VIEWS: record.model.n_features * (count_views(record.contract) - 1),
        "features_pca": record.pca.n_components if record.pca else 0,
    }
    files = look_at_files(engine, output, tables, dimensions)
    checks = [
        check
        for name, parts in tables.items()
        for check in check_files(output, name, parts, files[name], columns[name])
    ]
    labels: dict[str | None, int] = {}  # the rows of a table that cannot be read prove nothing
    if all(file.types in column_types(columns[name]) for name in tables for file in files[name]):
        for name, column in (("features", "features"), ("pca", "features_pca")):
            if name in tables:
                checks += check_vectors(name, files[name], dimensions[column])
        labels = _check_rows(engine, output, record, files, checks)
    checks += _check_contract(record, files)
    checks += _check_kept_model(output, record)
    return Validation(tuple(checks), labels)


# The rows of all files together


def _check_rows(
    engine: Engine,
    output: Output,
    record: RunRecord,
    files: dict[str, list[FileFacts]],
    checks: list[Check],
) -> dict[str | None, int]:
    n = sum(file.n for file in files["features"])
    labels = _add_up(file.labels for file in files["features"])
    paths = _compare_paths(engine, output, list(files))
    checks.append(_check_unique(paths))
    checks += _check_counts(record.counts, n, _add_up(file.reasons for file in files["rejected"]))
    checks.append(
        Check(
            "counts by label add up",
            sum(labels.values()) == n,
            f"{sum(labels.values())} in {len(labels)} label(s)",
        )
    )
    if "pca" in files:
        checks.append(_check_pca(record, paths))
    return labels


def _add_up(counts: Iterable[Mapping[str | None, int]]) -> dict[str | None, int]:
    total: Counter[str | None] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _check_unique(paths: _Paths) -> Check:
    twice = paths.twice
    detail = f"{len(twice)} path(s) more than once" + (f", first {twice[0]}" if twice else "")
    return Check("every photo is in exactly one of features and rejected", not twice, detail)


def _check_counts(counts: Counts, n_features: int, reasons: dict[str | None, int]) -> list[Check]:
    n_rejected = sum(reasons.values())
    unknown = sorted(str(r) for r in reasons if r not in {reason.value for reason in Reason})
    listed, gone = counts.listed, counts.gone
    kept = f" and {gone} kept of photos no longer listed" if gone else ""
    return [
        Check(
            "listed = featurized + rejected",
            listed + gone == n_features + n_rejected,
            f"{listed} listed{kept}, {n_features} featurized, {n_rejected} rejected",
        ),
        Check(
            "the tables hold what run.json says",
            (n_features, reasons) == (counts.featurized, counts.reasons),
            f"run.json: {counts.featurized} and {counts.reasons}; "
            f"found: {n_features} and {reasons}",
        ),
        Check(
            "every reason is one of the closed list",
            not unknown,
            f"{len(reasons)} reason(s)" + (f", unknown: {unknown}" if unknown else ""),
        ),
    ]


def _check_pca(record: RunRecord, paths: _Paths) -> Check:
    n = record.pca.n_samples if record.pca else None
    n_features = record.counts.featurized
    return Check(
        "pca has a row for every row of features",
        not paths.missing and not paths.extra and n == n_features,
        f"fitted to {n} of {n_features} rows, {paths.missing} path(s) missing, "
        f"{paths.extra} too many",
    )


# Paths, of which the driver gets 8 bytes each

_Digests = npt.NDArray[np.uint64]

#: Paths that the driver compares at once: 160 MB of digests.
PATHS_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class _Paths:
    """Paths that are not where they should be.

    Attributes
    ----------
    twice : list of str or None
        In ``features`` and ``rejected`` more than once, or null.
    missing, extra : int
        Rows of ``features`` without one in ``pca``, and the other way round.
    """

    twice: list[str | None]
    missing: int
    extra: int


def _compare_paths(engine: Engine, output: Output, tables: list[str]) -> _Paths:
    """Compare the paths of the tables, in as many passes as the driver's memory takes."""
    n_rows = sum(part.rows for table in tables for part in output.parts(table))
    n_passes = n_rows // PATHS_AT_ONCE + 1
    no_path = int(digest_paths(pa.array([None], pa.string()))[0])
    suspect, missing, extra = set[int](), 0, 0
    for number in range(n_passes):
        found = _collect_digests(engine, output, tables, number, n_passes)
        paths, counts = np.unique(
            np.concatenate([found["features"], found["rejected"]]), return_counts=True
        )
        suspect |= set(paths[(counts > 1) | (paths == no_path)].tolist())
        if "pca" in found:
            surplus = _surplus(found["pca"], found["features"])
            missing -= int(surplus[surplus < 0].sum())
            extra += int(surplus[surplus > 0].sum())
    return _Paths(_find_twice(engine, output, suspect), missing, extra)


def _collect_digests(
    engine: Engine, output: Output, tables: list[str], number: int, n_passes: int
) -> dict[str, _Digests]:
    """Bring the digests of one pass to the driver, by table."""
    work = [(table, name) for table in tables for name in output.part_names(table)]
    found = run_pieces(engine, _digest_share, work, (output.folder, number, n_passes), light=True)
    empty = np.empty(0, np.uint64)
    return {
        table: np.concatenate([empty, *(digests for name, digests in found if name == table)])
        for table in tables
    }


def _digest_share(
    share: Iterator[tuple[str, str]], carry: tuple[Folder, int, int]
) -> Iterator[tuple[str, _Digests]]:
    folder, number, n_passes = carry
    for table, name in share:
        for batch in iter_part(folder, name, ["path"]):
            digests = digest_paths(batch.column("path"))
            yield table, digests[digests % n_passes == number]


def _surplus(these: _Digests, those: _Digests) -> npt.NDArray[np.int64]:
    """Return of each digest by how much it is oftener among these than among those."""
    paths, place = np.unique(np.concatenate([these, those]), return_inverse=True)
    counts = [np.bincount(p, minlength=len(paths)) for p in np.split(place, [len(these)])]
    return counts[0] - counts[1]


def _find_twice(engine: Engine, output: Output, suspect: set[int]) -> list[str | None]:
    """Return the paths with one of some digests that are null, or there more than once.

    Two paths may have one digest: among a hundred million, with one chance in 3,700.
    """
    if not suspect:
        return []

    names = [name for table in ("features", "rejected") for name in output.part_names(table)]
    paths = run_pieces(engine, _suspect_paths, names, (output.folder, suspect), light=True)
    counts = Counter(paths)
    twice = [path for path, n in counts.items() if n > 1 or path is None]
    return sorted(twice, key=lambda path: (path is not None, path))


def _suspect_paths(names: Iterator[str], carry: tuple[Folder, set[int]]) -> Iterator[str | None]:
    folder, suspect = carry
    for batch in iter_parts(folder, names, ["path"]):
        paths = batch.column("path")
        for path, digest in zip(paths.to_pylist(), digest_paths(paths).tolist(), strict=True):
            if digest in suspect:
                yield path


def _check_contract(record: RunRecord, files: dict[str, list[FileFacts]]) -> list[Check]:
    """Check that run.json's contract has the hash it claims, and that every file names it."""
    expected = record.contract_hash
    try:
        derived = FeatureContract.from_dict(record.contract).hash
    except ContractError as err:
        derived = str(err)
    checks = [
        Check("run.json's contract has the hash it names", derived == expected, f"hash {derived}")
    ]
    for name, those in files.items():
        named = [file.contract for file in those if file.contract is not None]
        if name not in ("rejected", "groups") and named:
            foreign = sorted({contract for contract in named if contract != expected})
            detail = f"{len(named)} file(s)" + (f", found {foreign}" if foreign else "")
            checks.append(Check(f"every file of {name}/ names this contract", not foreign, detail))
    return checks


def _check_kept_model(output: Output, record: RunRecord) -> list[Check]:
    """Check that a model that cannot be made again is there, whole, and this contract's."""
    try:
        contract = FeatureContract.from_dict(record.contract)
    except ContractError:
        return []  # a finding already
    if model_file(contract) is None:
        return []
    try:
        holds, detail = True, check_kept_model(output, contract)
    except OutputError as err:
        holds, detail = False, str(err)
    return [Check("the calibrated model is the one that the contract names", holds, detail)]
