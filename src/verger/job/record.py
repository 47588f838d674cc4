"""What ``run.json`` says of a run, and the files that say it in other forms."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from verger.config import Config
from verger.engine.tasks import Engine
from verger.job.context import Run
from verger.pca.fit import SHARES, FittedPCA
from verger.result.clock import Spent
from verger.result.output import Output
from verger.result.record import Counts, ModelRecord, PCARecord, RunRecord
from verger.source.notes import describe_source

if TYPE_CHECKING:
    from verger.features.model import Model
    from verger.source.listing import Listing

#: Options that are about the PCA alone, and about the report alone.
REDUCE_OPTIONS = ("components", "standardize", "center")
REPORT_OPTIONS = ("lang", "neighbour_map")


def describe_run(
    run: Run,
    listing: Listing,
    model: Model,
    *,
    started: datetime,
    counts: Counts,
    labels: Mapping[str, int] | None = None,
    spent: Spent | None = None,
) -> RunRecord:
    """Return what ``run.json`` says of a run whose features have just been computed.

    Parameters
    ----------
    run, listing, model, started
    counts : Counts
        Of the rows; what is of the listing is filled in.
    labels : mapping of str to int, optional
        Label to number of rows, by default of the listing.
    spent : Spent, optional

    Returns
    -------
    RunRecord
        Without files, which are named when they are published.
    """
    contract, source = model.contract, listing.source
    notes = describe_source(listing, run.config.label_from, labels)
    return RunRecord(
        verger=version("verger"),
        source=source,
        named_by=listing.named_by,
        output=run.output.root,
        started=started.isoformat(timespec="seconds"),
        command=command_line(listing.named_by or source, run.output, run.config.as_dict()),
        config=run.config.as_dict(),
        contract=contract.as_dict(),
        contract_hash=contract.hash,
        model=_describe_model(model, run.config.precision),
        versions=versions(run.engine),
        machine=_describe_machine(run.engine),
        counts=with_listing(counts, listing),
        notices=(*run.notices, *notes),
        seconds=dict(run.seconds),
        spent=spent,
        files={},
    )


def _describe_machine(engine: Engine) -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "engine": engine.name,
        "master": engine.master,
        "cpu_count": engine.n_cores,
    }


def with_listing(counts: Counts, listing: Listing) -> Counts:
    """Return counts of rows with what is of the listing."""
    return replace(
        counts,
        listed=len(listing.photos),
        bytes=listing.n_bytes,
        ignored=listing.ignored,
        clamped=listing.n_clamped,
    )


def _describe_model(model: Model, precision: str) -> ModelRecord:
    contract = model.contract
    return ModelRecord(
        name=contract.model,
        license=model.license,
        weights_path=model.weights_path,
        weights_sha256=contract.weights_sha256,
        published=model.published,
        n_features=contract.n_features,
        input_size=contract.input_size,
        precision=precision,
    )


def command_line(source: str, output: Output, options: Mapping[str, object]) -> str:
    """Return a command that does the same run: every option that is not at its default."""
    words = ["verger", "run", source, output.root]
    defaults = Config().as_dict()
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value == defaults.get(name):
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


def versions(engine: Engine) -> dict[str, str]:
    """Return the versions of all that has a part in the numbers."""
    packages = ("verger", "pyarrow", "numpy", "onnxruntime", "onnx", "pillow", "h5py")
    return {
        "python": platform.python_version(),
        **engine.versions,
        **{name: version(name) for name in packages},
    }


def describe_pca(pca: FittedPCA, config: Config, *, summed: int) -> PCARecord:
    """Return what ``run.json`` says of a PCA; ``summed`` rows were read for its sums."""
    return PCARecord(
        n_samples=pca.n_samples,
        n_components=pca.n_components,
        components=config.components,
        kept=round(float(pca.cumulative_ratio[pca.n_components - 1]), 6),
        standardize=config.standardize,
        center=config.center,
        first_ratios=tuple(round(float(r), 6) for r in pca.explained_variance_ratio[:2]),
        k={str(share): pca.k_for(share) for share in SHARES},
        summed=summed,
    )


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
