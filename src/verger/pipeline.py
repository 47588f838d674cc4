"""The stages in order: what is written where, from which table, and how long it took.

::

    source -> featurize -> features/ rejected/ -> reduce -> pca/ models/ -> validate -> report

Read this file from top to bottom to know what ``verger run`` does.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger import plots, validate
from verger.config import Config
from verger.errors import (
    ConfigError,
    EmptySourceError,
    ErrorRateError,
    OutputExistsError,
    ReduceError,
    ValidationError,
)
from verger.features import featurize, split_outcomes
from verger.model import Model, find_card, load_model
from verger.output import Output, write_text
from verger.reduce import (
    SHARES,
    FittedPCA,
    fit_pca,
    save_moments,
    sum_stored_moments,
    to_spark_model,
    transform_features,
)
from verger.session import check_environment, get_session, java_of
from verger.source import Listing, list_photos, read_images

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from verger.model.weights import OnProgress

#: Shows that a stage runs: (name, number of photos or None, session whose tasks tell how far
#: it is or None) to a context that lasts as long as the stage.
Watch = Callable[[str, "int | None", "SparkSession | None"], AbstractContextManager[Any]]

#: Rows of features in one Parquet file: about 32 MB.
ROWS_PER_FILE = 6_000
#: Rejected photos and reasons that an error or a summary spells out.
FIRST_REASONS = 3


def _no_watch(*_: Any) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass
class Run:
    """One run under way: where it writes, what it was asked, and its clock.

    Attributes
    ----------
    output : Output
    config : Config
    watch : Watch
    seconds : dict of str to float
        Wall time by stage, in the order of the stages.
    """

    output: Output
    config: Config
    watch: Watch = _no_watch
    notices: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, spark: SparkSession | None = None
    ) -> Iterator[OnProgress | None]:
        """Time a stage and show that it runs; yields what may be told of fetched bytes."""
        start = time.perf_counter()
        with self.watch(name, total, spark) as on_progress:
            yield on_progress
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)


# Whole commands


def run(
    source: str, out: str | Path, config: Config, *, watch: Watch = _no_watch,
    notices: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Featurize, reduce, validate all that was written, and report.

    Parameters
    ----------
    source : str
        Folder or bucket of photos.
    out : path
        Folder of the result.
    config : Config
    watch : Watch, optional
        Shows progress.
    notices : tuple of str
        What the report should tell its reader beside the numbers.

    Returns
    -------
    dict
        The summary, as in ``run.json``.

    Raises
    ------
    VergerError
        See :mod:`verger.errors`; what was done before stays in OUT.
    """
    run = Run(Output.at(out), config, watch, notices)
    _featurize(run, source, reduce=True)
    _reduce(run)
    _validate(run)
    return _report(run)


def run_featurize(
    source: str, out: str | Path, config: Config, *, watch: Watch = _no_watch
) -> dict[str, Any]:
    """Write ``features/`` and ``rejected/`` alone; see :func:`run`."""
    run = Run(Output.at(out), config, watch)
    _featurize(run, source, reduce=False)
    return run.output.read_run()


def run_reduce(out: str | Path, config: Config, *, watch: Watch = _no_watch) -> dict[str, Any]:
    """Fit the PCA of a stored table ``features`` and write all that belongs to it.

    Raises
    ------
    OutputExistsError
        If there is a PCA already and ``overwrite`` is off.
    """
    run = Run(Output.at(out), config, watch)
    run.output.check_table("features")
    if run.output.table("pca").exists() and not config.overwrite:
        raise OutputExistsError(
            f"OUT={run.output.root}: has a PCA already; --overwrite replaces it"
        )
    _reduce(run)
    return run.output.read_run()


def run_validate(out: str | Path, config: Config, *, watch: Watch = _no_watch) -> validate.Report:
    """Re-derive every count of a stored result; see :mod:`verger.validate`."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    run.output.check_table("features")
    spark = _session(run)
    with run.stage("validate"):
        return validate.validate_output(spark, run.output)


def run_report(out: str | Path, config: Config, *, watch: Watch = _no_watch) -> dict[str, Any]:
    """Write ``report.html`` and ``report.json`` of a stored result."""
    run = Run(Output.at(out), config, watch)
    run.output.read_run()
    run.output.check_table("features")
    return _report(run)


# Before Spark


@dataclass(frozen=True)
class Plan:
    """What a run would do, as far as it is known without Spark.

    Attributes
    ----------
    listing : Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    model : Model
    """

    listing: Listing | None
    model: Model


def check_and_list(run: Run, source: str, *, reduce: bool) -> Listing | None:
    """Check the output, list the source, and check what can be checked of the PCA.

    Returns
    -------
    Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    """
    config = run.config
    run.output.prepare(source=source, overwrite=config.overwrite)
    if config.reader != "arrow":
        return None
    with run.stage("list"):
        listing = list_photos(
            source, glob=config.glob, recursive=config.recursive, label_from=config.label_from
        )
    if reduce:
        _check_count(len(listing.photos), source, config)
    return listing


def _check_count(n: int, source: str, config: Config) -> None:
    """Refuse a PCA that so few photos cannot have."""
    k = config.components
    if n == 1:
        raise ConfigError(
            f"source {source}: has 1 photo, and a PCA needs 2; verger featurize needs no more"
        )
    if isinstance(k, int) and k > n - 1:
        raise ConfigError(
            f"components={k} must be between 1 and {n - 1}: the source has {n} photos, and n "
            "photos vary in n - 1 directions"
        )


def plan(run: Run, source: str, *, reduce: bool) -> Plan:
    """Find every mistake that can be found before Spark starts; write nothing."""
    listing = check_and_list(run, source, reduce=reduce)
    with run.stage("load model") as on_progress:
        model = _load_model(run.config, on_progress)
    check_environment()
    return Plan(listing, model)


def _load_model(config: Config, on_progress: OnProgress | None = None) -> Model:
    return load_model(
        config.model,
        weights=config.weights,
        weights_sha256=config.weights_sha256,
        on_progress=on_progress,
    )


def describe_plan(
    source: str, out: str | Path, config: Config, *, reduce: bool = True
) -> dict[str, Any]:
    """Return the resolved configuration and what a run would do.

    Starts no Spark, writes nothing and downloads nothing.
    """
    run = Run(Output.at(out), config)
    listing = check_and_list(run, source, reduce=reduce)
    if listing:
        n_labels = len(listing.photos["label"].unique())
        listed = (
            f"read {len(listing.photos):,} photos ({listing.n_bytes / 1e6:,.1f} MB, "
            f"{n_labels:,} labels) of {listing.source}"
        )
    else:
        listed = f"let Spark list and read {source}"
    verb = "replace the result in" if run.output.run.exists() else "write to"
    steps = [*_model_steps(config), listed, f"{verb} {run.output.root}"]
    if reduce:
        steps.append(f"fit a PCA and keep components = {config.components}")
    return {"config": config.as_dict(), "steps": steps}


def _model_steps(config: Config) -> list[str]:
    if config.built_in_model and config.weights is None:
        weights = find_card(config.model).weights
        if weights.find() is None:
            return [f"fetch the weights of {config.model} from {weights.address()}"]
    contract = _load_model(config).contract
    return [f"use {contract.model}, contract {contract.short_hash}: {contract.n_features} features"]


def _session(run: Run) -> SparkSession:
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        return get_session(run.config)
    with run.stage("start Spark"):
        return get_session(run.config)


# The stages


def _featurize(run: Run, source: str, *, reduce: bool) -> None:
    """Write ``features/``, ``rejected/`` and ``run.json``."""
    started = datetime.now(UTC)
    planned = plan(run, source, reduce=reduce)
    spark = _session(run)
    images = _images(run, spark, source, planned.listing)
    n_listed = _count_listed(run, images, planned.listing, source)
    if reduce:
        _check_count(n_listed, source, run.config)
    outcomes = featurize(images, model=planned.model, micro_batch=run.config.micro_batch)
    outcomes = outcomes.persist()
    try:
        counts = _count_outcomes(run, outcomes, n_listed)
        counts["ignored"] = planned.listing.ignored if planned.listing else None
        with run.stage("write"):
            staging = run.output.start_staging()
            _write_outcomes(outcomes, staging, counts, run.config)
            record = describe_run(run, source, planned, counts, started, spark)
            run.output.stage_run(record)
            run.output.publish(("features", "rejected", "run.json"), stale=_DERIVED)
    finally:
        outcomes.unpersist()
    _save(run, record)
    _check_error_rate(run, counts)


#: What is derived from the features, and goes when they are replaced.
_DERIVED = (
    "pca", "models", "explained_variance.csv", "scree.png", "report.html", "report.json",
)  # fmt: skip


def _images(run: Run, spark: SparkSession, source: str, listing: Listing | None) -> DataFrame:
    config = run.config
    if listing is not None:
        return read_images(spark, listing, partitions=config.partitions)
    return read_images(
        spark, source, glob=config.glob, recursive=config.recursive,
        label_from=config.label_from, reader="spark", partitions=config.partitions,
    )  # fmt: skip


def _count_listed(run: Run, images: DataFrame, listing: Listing | None, source: str) -> int:
    """Return the number of photos before any is read; Spark's reader has to be asked for it."""
    if listing is not None:
        return len(listing.photos)
    with run.stage("list"):
        n = images.select("path").count()
    if n == 0:
        raise EmptySourceError(f"source {source}: no file matches; see --glob")
    return n


def _count_outcomes(run: Run, outcomes: DataFrame, n_listed: int) -> dict[str, Any]:
    """Run the one job that reads photos, and reconcile its rows with the listing."""
    from pyspark.sql import functions as F

    grouped = outcomes.groupBy("reason")
    with run.stage("featurize", n_listed, outcomes.sparkSession):
        rows = grouped.agg(F.count("*").alias("n"), F.sum("length").alias("n_bytes")).collect()
    reasons = {row["reason"]: row["n"] for row in rows if row["reason"] is not None}
    featurized = sum(row["n"] for row in rows if row["reason"] is None)
    rejected = sum(reasons.values())
    if n_listed != featurized + rejected:
        raise ValidationError(
            f"listed={n_listed} photos, but featurized={featurized} and rejected={rejected}: "
            "rows were lost or doubled; nothing was written"
        )
    return {
        "listed": n_listed, "featurized": featurized, "rejected": rejected, "reasons": reasons,
        "bytes": sum(row["n_bytes"] or 0 for row in rows),
    }  # fmt: skip


def _write_outcomes(
    outcomes: DataFrame, staging: Path, counts: dict[str, Any], config: Config
) -> None:
    features, rejected = split_outcomes(outcomes)
    n_files = -(-counts["featurized"] // ROWS_PER_FILE) or 1
    with parquet_settings(outcomes.sparkSession, legacy=config.legacy_parquet):
        features.coalesce(n_files).write.parquet((staging / "features").as_uri())
        rejected.coalesce(1).write.parquet((staging / "rejected").as_uri())


@contextmanager
def parquet_settings(spark: SparkSession, *, legacy: bool) -> Iterator[None]:
    """Write Parquet for everybody: times as Parquet's own UTC type, not as Spark's old INT96."""
    settings = {
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.writeLegacyFormat": str(legacy).lower(),
    }
    before = {key: spark.conf.get(key) for key in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            spark.conf.set(key, str(old))


def _check_error_rate(run: Run, counts: dict[str, Any]) -> None:
    rate = counts["rejected"] / counts["listed"]
    if rate <= run.config.max_error_rate:
        return
    first = sorted(counts["reasons"].items(), key=lambda item: -item[1])[:FIRST_REASONS]
    named = ", ".join(f"{n} {reason}" for reason, n in first)
    raise ErrorRateError(
        f"{counts['rejected']} of {counts['listed']} photos were rejected ({named}): more than "
        f"max_error_rate={run.config.max_error_rate}; what was done is in {run.output.root}, "
        "see verger show OUT --table rejected; --max-error-rate 1 accepts it"
    )


def _validate(run: Run) -> None:
    spark = _session(run)
    with run.stage("validate"):
        report = validate.validate_output(spark, run.output)
    record = run.output.read_run()
    record["checks"] = [check.as_dict() for check in report.checks]
    _save(run, record)
    report.raise_if_broken()


_REDUCE_OPTIONS = ("components", "standardize", "center")


def _reduce(run: Run) -> None:
    """Write ``pca/``, ``models/``, ``explained_variance.csv`` and ``scree.png``."""
    record = run.output.read_run()
    config, contract = run.config, record["contract_hash"]
    if record["counts"]["featurized"] < 2:
        raise ReduceError(
            f"n_samples={record['counts']['featurized']} must be at least 2 for a PCA; "
            "the features are written, verger report shows them"
        )
    spark = _session(run)
    features = spark.read.parquet(run.output.table("features").as_uri())
    with run.stage("reduce", record["counts"]["featurized"], spark):
        moments = sum_stored_moments(spark, run.output.table("features"))
        pca = fit_pca(
            moments, config.components, standardize=config.standardize, center=config.center
        )
        staging = run.output.start_staging()
        (staging / "models").mkdir()
        scores = transform_features(features, pca, contract=contract)
        n_files = -(-moments.n // (ROWS_PER_FILE * 4))
        scores.coalesce(n_files).write.parquet((staging / "pca").as_uri())
        to_spark_model(pca).save((staging / "models" / "pca").as_uri())
        pca.save(staging / "models" / "pca.npz", contract=contract)
        save_moments(moments, staging / "models" / "moments.npz", contract=contract)
        write_text(staging / "explained_variance.csv", spectrum_csv(pca))
        plots.scree_plot(pca, staging / "scree.png")
        written = ("pca", "models", "explained_variance.csv", "scree.png")
        run.output.publish(written, stale=("report.html", "report.json"))
    record["pca"] = describe_pca(pca, config)
    record.pop("checks", None)  # they were about the PCA before
    record["config"] |= {name: getattr(config, name) for name in _REDUCE_OPTIONS}
    record["command"] = command_line(record["source"], run.output, Config(**record["config"]))
    _save(run, record)


def _report(run: Run) -> dict[str, Any]:
    from verger.report import write_report

    record = run.output.read_run()
    record["seconds"] = record.get("seconds", {}) | run.seconds
    spark = _session(run)
    with run.stage("report"):
        write_report(spark, run.output, record)
    return _save(run, record)


def _save(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    record["seconds"] = record.get("seconds", {}) | run.seconds
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    run.output.write_run(record)
    return record


# What is written down


def describe_run(
    run: Run, source: str, planned: Plan, counts: dict[str, Any], started: datetime,
    spark: SparkSession,
) -> dict[str, Any]:  # fmt: skip
    """Return what ``run.json`` says once the features are written."""
    model = planned.model
    return {
        "verger": version("verger"),
        "source": planned.listing.source if planned.listing else source,
        "output": str(run.output.root),
        "started": started.isoformat(timespec="seconds"),
        "command": command_line(source, run.output, run.config),
        "notices": list(run.notices),
        "config": run.config.as_dict(),
        "contract": model.contract.as_dict(),
        "contract_hash": model.contract.hash,
        "model": {
            "name": model.contract.model,
            "license": model.license,
            "weights_path": model.weights_path,
            "weights_sha256": model.contract.weights_sha256,
            "published": model.published,
            "n_features": model.contract.n_features,
            "input_size": model.contract.input_size,
        },
        "counts": counts,
        "seconds": run.seconds,
        "versions": versions(spark),
        "machine": {"platform": platform.platform(), "master": spark.sparkContext.master,
                    "cpu_count": spark.sparkContext.defaultParallelism},
    }  # fmt: skip


def command_line(source: str, output: Output, config: Config) -> str:
    """Return a command that does the same run: every option that is not at its default."""
    import shlex

    words = ["verger", "run", source, str(output.root)]
    defaults = Config().as_dict()
    for name, value in config.as_dict().items():
        flag = f"--{name.replace('_', '-')}"
        if value == defaults[name]:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += [word for item in value for word in (flag, item)]
        elif isinstance(value, dict):
            words += [word for item in value.items() for word in (flag, "=".join(item))]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def versions(spark: SparkSession) -> dict[str, str]:
    """Return the versions of all that has a part in the numbers."""
    packages = ("verger", "pyspark", "pyarrow", "numpy", "onnxruntime", "onnx", "pillow", "h5py")
    return {
        "python": platform.python_version(),
        "java": java_of(spark),
        **{name: version(name) for name in packages},
    }


def describe_pca(pca: FittedPCA, config: Config) -> dict[str, Any]:
    """Return what ``run.json`` says of a PCA."""
    return {
        "n_samples": pca.n_samples,
        "n_components": pca.n_components,
        "components": config.components,
        "kept": round(float(pca.cumulative_ratio[pca.n_components - 1]), 6),
        "standardize": config.standardize,
        "center": config.center,
        "first_ratios": [round(float(r), 6) for r in pca.explained_variance_ratio[:2]],
        "k": {str(share): pca.k_for(share) for share in SHARES},
    }


def spectrum_csv(pca: FittedPCA) -> str:
    """Return the whole spectrum as CSV: component, explained_variance, ratio, cumulative."""
    columns = (pca.explained_variance, pca.explained_variance_ratio, pca.cumulative_ratio)
    rows = (
        f"{i},{variance!r},{ratio!r},{cumulative!r}\n"
        for i, (variance, ratio, cumulative) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    )
    return "component,explained_variance,ratio,cumulative\n" + "".join(rows)
