"""The stage that fits the PCA: ``pca/``, ``models/``, ``explained_variance.csv``, ``scree.png``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from verger.engine.tasks import Engine
from verger.errors import ReduceError
from verger.files.tables import Part
from verger.job.context import Run
from verger.job.record import REDUCE_OPTIONS, command_line, describe_pca, spectrum_csv
from verger.pca import plots
from verger.pca.fit import FittedPCA, fit_pca
from verger.pca.moments import StoredMoments, load_moments, sum_stored_moments
from verger.pca.scores import write_scores
from verger.pca.spark_models import write_spark_model
from verger.result.output import MOMENTS_NPZ, PCA_NPZ, SCREE, SPARK_PCA, SPECTRUM, STAGED, Output
from verger.result.record import FAILED, PCARecord, RunRecord


def pca_is_stale(run: Run) -> bool:
    """Whether the PCA is missing, or is not the one that is asked for."""
    record, config = run.output.read_run(), run.config
    if record.pca is None or "pca" not in record.files:
        return True
    return any(record.option(name) != getattr(config, name) for name in REDUCE_OPTIONS)


def reduce_features(run: Run) -> None:
    """Write ``pca/``, ``models/``, ``explained_variance.csv`` and ``scree.png``."""
    output, config = run.output, run.config
    record = output.read_run()
    n, contract = record.counts.featurized, record.contract_hash
    if n < 2:
        raise ReduceError(
            f"n_samples={n} must be at least 2 for a PCA; "
            "the features are written, verger report shows them"
        )
    engine = run.engine
    with run.stage("reduce"), ThreadPoolExecutor(1) as pool:
        pool.submit(plots.import_matplotlib)  # takes as long as the fit
        moments, n_summed = _sum_moments(output, engine, contract)
        pca = fit_pca(
            moments.sums, config.components, standardize=config.standardize, center=config.center
        )
        scree = pool.submit(plots.scree_plot, pca, config.lang)
        output.folder.remove_tree(STAGED)
        features = output.parts("features")
        parts = write_scores(engine, output.folder, features, pca, contract=contract, below=STAGED)
        written = _write_pca(output, pca, moments, contract)
        output.folder.write(f"{STAGED}/{SCREE}", scree.result())
        record = _with_pca(record, parts, describe_pca(pca, config, summed=n_summed), run)
        names = [*(part.name for part in parts), *written, SCREE]
        run.check_lock()
        output.publish(
            record,
            add=[(f"{STAGED}/{name}", name) for name in names],
            remove=output.derived_files(),
            attempts=False,
        )
    run.save(record)


def _with_pca(record: RunRecord, parts: list[Part], pca: PCARecord, run: Run) -> RunRecord:
    """Return the record of a result with another PCA; its checks were about the one before."""
    options = dict(record.config) | {name: getattr(run.config, name) for name in REDUCE_OPTIONS}
    return replace(
        record,
        files=dict(record.files) | {"pca": tuple(parts)},
        pca=pca,
        checks=None,
        notices=tuple(text for text in record.notices if not text.startswith(FAILED)),
        config=options,
        command=command_line(record.named_by or record.source, run.output, options),
    )


def _sum_moments(output: Output, engine: Engine, contract: str) -> tuple[StoredMoments, int]:
    """Return the sums over all features, and how many rows had to be read for them."""
    names = output.part_names("features")
    stored = load_moments(output.folder, MOMENTS_NPZ, contract=contract)
    if stored is None or not set(stored.parts) <= set(names):
        sums = sum_stored_moments(engine, output.folder, names)
        return StoredMoments(sums, tuple(names)), sums.n
    new = [name for name in names if name not in stored.parts]
    if not new:
        return stored, 0
    added = sum_stored_moments(engine, output.folder, new)
    return StoredMoments(stored.sums + added, tuple(names)), added.n


def _write_pca(output: Output, pca: FittedPCA, moments: StoredMoments, contract: str) -> list[str]:
    """Write the models and the spectrum into staging; return their names."""
    files = {
        PCA_NPZ: pca.to_npz(contract=contract),
        MOMENTS_NPZ: moments.to_npz(contract=contract),
        SPECTRUM: spectrum_csv(pca).encode(),
    }
    for name, content in files.items():
        output.folder.write(f"{STAGED}/{name}", content)
    spark_files = write_spark_model(pca, output.folder, f"{STAGED}/{SPARK_PCA}")
    return [*files, *(name.removeprefix(f"{STAGED}/") for name in spark_files)]
