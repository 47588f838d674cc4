"""Re-derive every count of a stored result, and say what does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verger.contract import FeatureContract
from verger.errors import ContractError, ValidationError
from verger.schema import CONTRACT_KEY, FEATURES, PCA, REJECTED, Reason, spark_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from verger.output import Output


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes
    ----------
    name : str
        What must hold, in words.
    holds : bool
    detail : str
        The numbers that were found.
    """

    name: str
    holds: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return the check as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
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
                raise ValidationError(f"{check.name} does not hold: {check.detail}")


def validate_output(spark: SparkSession, output: Output) -> Report:
    """Check a result against its own record and against itself.

    Parameters
    ----------
    spark : SparkSession
    output : Output

    Returns
    -------
    Report
        The schema of each table, the dimension of every vector, no null, NaN or infinity, no
        path twice, listed = featurized + rejected, one contract in every file, counts by label.
    """
    record = output.read_run()
    tables = [_table_files(output, name, schema) for name, schema in _expected(output).items()]
    checks = [check for found in tables for check in found]
    if all(check.holds for check in checks):
        labels = _check_rows(spark, output, record, checks)
    else:
        labels = {}  # the rows of a table that cannot be read prove nothing
    checks += _check_contract(output, record)
    return Report(tuple(checks), labels)


def _expected(output: Output) -> dict[str, StructType]:
    columns = {"features": FEATURES, "rejected": REJECTED}
    if output.table("pca").exists():
        columns["pca"] = PCA
    return {name: spark_schema(names) for name, names in columns.items()}


def _part_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def _table_files(output: Output, name: str, schema: StructType) -> list[Check]:
    """Check that every part file can be read and has the table's columns and types."""
    from pyspark.sql.pandas.types import from_arrow_schema

    title = f"{name}/ has its columns and types"
    files = _part_files(output.table(name))
    if not files:
        return [Check(title, False, f"{output.table(name)}: no Parquet file")]
    wanted = [(f.name, f.dataType.simpleString()) for f in schema]
    n_rows = 0
    for path in files:
        try:
            found = from_arrow_schema(pq.read_schema(path))
            n_rows += pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as err:
            return [Check(title, False, f"{path.name}: cannot be read: {err}")]
        types = [(f.name, f.dataType.simpleString()) for f in found]
        if types != wanted:
            return [Check(title, False, f"{path.name}: {types}, not {wanted}")]
    return [Check(title, True, f"{n_rows} rows in {len(files)} file(s)")]


def _check_rows(
    spark: SparkSession, output: Output, record: dict[str, Any], checks: list[Check]
) -> dict[str | None, int]:
    features = spark.read.parquet(output.table("features").as_uri())
    rejected = spark.read.parquet(output.table("rejected").as_uri())
    n_features = record["contract"]["n_features"]
    vectors = _count_vectors(features, "features", n_features)
    labels = {row["label"]: row["count"] for row in features.groupBy("label").count().collect()}
    checks += _vector_checks("features", vectors, n_features)
    checks.append(_check_unique(features, rejected))
    checks += _check_counts(record["counts"], vectors["n"], rejected)
    checks.append(
        Check("counts by label add up", sum(labels.values()) == vectors["n"],
              f"{sum(labels.values())} in {len(labels)} label(s)")
    )  # fmt: skip
    if output.table("pca").exists():
        checks += _check_pca(spark, output, record, vectors["n"], features)
    return labels


def _count_vectors(table: DataFrame, column: str, dimension: int) -> dict[str, int]:
    """Count rows, null vectors, wrong dimensions and values that are no finite numbers."""

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        n = nulls = wrong = not_finite = 0
        for batch in batches:
            vectors = batch.column(0)
            lengths = pa.compute.list_value_length(vectors).drop_null().to_numpy()
            values = vectors.flatten()
            finite = np.isfinite(values.drop_null().to_numpy()).sum()
            n += len(vectors)
            nulls += vectors.null_count
            wrong += int((lengths != dimension).sum())
            not_finite += len(values) - int(finite)
        yield pa.RecordBatch.from_pydict(
            {"n": [n], "nulls": [nulls], "wrong": [wrong], "not_finite": [not_finite]}
        )

    schema = "n long, nulls long, wrong long, not_finite long"
    rows = table.select(column).mapInArrow(count, schema).collect()
    return {key: sum(row[key] for row in rows) for key in ("n", "nulls", "wrong", "not_finite")}


def _vector_checks(name: str, found: dict[str, int], dimension: int) -> list[Check]:
    n, misfits = found["n"], found["nulls"] + found["wrong"]
    return [
        Check(f"every vector of {name} has {dimension} numbers", misfits == 0,
              f"{n} rows, {found['nulls']} null, {found['wrong']} of another length"),
        Check(f"no vector of {name} holds null, NaN or infinity", found["not_finite"] == 0,
              f"{found['not_finite']} such values in {n} rows"),
    ]  # fmt: skip


def _check_unique(features: DataFrame, rejected: DataFrame) -> Check:
    paths = features.select("path").unionByName(rejected.select("path"))
    twice = paths.groupBy("path").count().where("count > 1 OR path IS NULL")
    n, first = twice.count(), twice.select("path").head(1)
    detail = f"{n} path(s) more than once" + (f", first {first[0]['path']}" if first else "")
    return Check("every photo is in exactly one of features and rejected", n == 0, detail)


def _check_counts(counts: dict[str, Any], n_features: int, rejected: DataFrame) -> list[Check]:
    reasons = {row["reason"]: row["count"] for row in rejected.groupBy("reason").count().collect()}
    n_rejected = sum(reasons.values())
    unknown = sorted(str(r) for r in reasons if r not in {reason.value for reason in Reason})
    listed = counts["listed"]
    return [
        Check("listed = featurized + rejected", listed == n_features + n_rejected,
              f"{listed} listed, {n_features} featurized, {n_rejected} rejected"),
        Check("the tables hold what run.json says",
              (n_features, reasons) == (counts["featurized"], counts["reasons"]),
              f"run.json: {counts['featurized']} and {counts['reasons']}; "
              f"found: {n_features} and {reasons}"),
        Check("every reason is one of the closed list", not unknown,
              f"{len(reasons)} reason(s)" + (f", unknown: {unknown}" if unknown else "")),
    ]  # fmt: skip


def _check_pca(
    spark: SparkSession, output: Output, record: dict[str, Any], n: int, features: DataFrame
) -> list[Check]:
    scores = spark.read.parquet(output.table("pca").as_uri())
    n_components = record.get("pca", {}).get("n_components", 0)
    found = _count_vectors(scores, "features_pca", n_components)
    missing = features.select("path").exceptAll(scores.select("path")).count()
    return [
        *_vector_checks("pca", found, n_components),
        Check("pca has a row for every row of features", missing == 0 and found["n"] == n,
              f"{found['n']} rows for {n}, {missing} path(s) missing"),
    ]  # fmt: skip


def _check_contract(output: Output, record: dict[str, Any]) -> list[Check]:
    """Check that run.json's contract has the hash it claims, and that every file names it."""
    expected = record["contract_hash"]
    try:
        derived = FeatureContract.from_dict(record["contract"]).hash
    except ContractError as err:
        derived = str(err)
    checks = [
        Check("run.json's contract has the hash it names", derived == expected, f"hash {derived}")
    ]
    for name, column in (("features", "features"), ("pca", "features_pca")):
        files = _part_files(output.table(name))
        if files:
            foreign = sorted({h for p in files if (h := _contract_of(p, column)) != expected})
            detail = f"{len(files)} file(s)" + (f", found {foreign}" if foreign else "")
            checks.append(Check(f"every file of {name}/ names this contract", not foreign, detail))
    return checks


def _contract_of(path: Path, column: str) -> str:
    """Return the contract's hash out of the footer of a Parquet file that Spark has written."""
    import json

    try:
        metadata = pq.read_metadata(path).metadata or {}
        schema = json.loads(metadata[b"org.apache.spark.sql.parquet.row.metadata"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return "none"
    for spark_field in schema.get("fields", ()):
        if spark_field.get("name") == column:
            return str(spark_field.get("metadata", {}).get(CONTRACT_KEY, "none"))
    return "none"
