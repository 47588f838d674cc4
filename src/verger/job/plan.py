"""Before anything is computed: list the source, find every mistake, say what would be done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from verger.config import HUB, Config
from verger.engine.choose import check_session, wants_spark
from verger.engine.session import check_hadoop_reads
from verger.errors import ConfigError
from verger.features.model import Model, find_card, load_model
from verger.features.precision import int8_model
from verger.files.paths import normalize_source
from verger.job.context import Run
from verger.job.losses import list_losses
from verger.job.resume import State, find_state
from verger.language import counted
from verger.result.journal import latest_attempt
from verger.result.ledger import Ledger, compare, read_ledger, rows_files
from verger.result.output import RUN, Output
from verger.source.listing import Listing, list_photos
from verger.source.lists import has_photos, is_list
from verger.source.notes import describe_source
from verger.source.stored import check_circles, check_folder

if TYPE_CHECKING:
    from verger.result.journal import Batch


#: What a task needs, and takes a second to load.
TASK_MODULE = "verger.features.task"


@dataclass(frozen=True)
class Plan:
    """What a run would do, as far as it is known without Spark.

    Attributes
    ----------
    source : str
        In the form in which it is stored.
    listing : Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    model : Model
    """

    source: str
    listing: Listing | None
    model: Model


def plan(run: Run, source: str, *, reduce: bool) -> Plan:
    """Find every mistake that can be found before a photo is read; write nothing."""
    check_session()
    # A result that is there may be up to date; where a bucket refuses, the listing says it better.
    if run.output.folder.is_local and not run.output.folder.exists(RUN):
        run.load_ahead(TASK_MODULE)
    listing = check_and_list(run, source, reduce=reduce)
    model = _find_model(run, listing)
    root = listing.source if listing else normalize_source(source)
    find_state(run.output, root, model.contract, overwrite=run.config.overwrite)
    return Plan(root, listing, model)


def check_and_list(run: Run, source: str, *, reduce: bool) -> Listing | None:
    """Check the output, list the source, and check what can be checked of the PCA.

    Returns
    -------
    Listing or None
        None with ``reader="spark"``: only Spark can list the source.
    """
    config = run.config
    if config.legacy_parquet and not run.output.folder.is_local:
        raise ConfigError(
            f"legacy_parquet with OUT={run.output.root}: only Spark writes such files, and only "
            "to a folder"
        )
    run.output.prepare(source=source, overwrite=config.overwrite)
    if config.reader != "arrow":
        if has_photos(source) or is_list(source):
            raise ConfigError(f"SRC={source}: is a file, which needs --reader arrow")
        check_folder(normalize_source(source))
        if config.recursive:
            check_circles(normalize_source(source))
        check_hadoop_reads(source, config)
        return None
    listing = list_source(run, source)
    if reduce:
        check_count(len(listing.photos), source, config)
    return listing


def list_source(run: Run, source: str) -> Listing:
    """List the photos of a source by the options of a run."""
    config = run.config
    with run.stage("list"):
        listing = list_photos(source, **listing_options(config))
    if listing.named_by:
        _check_apart(run.output, listing)
    return listing


def listing_options(config: Config) -> dict[str, Any]:
    """Return the options that say which photos a source has, and their labels."""
    names = ("glob", "exclude", "recursive", "ignore", "label_from", "labels")
    return {name: getattr(config, name) for name in names}


def _check_apart(output: Output, listing: Listing) -> None:
    """Refuse a list that names photos in OUT, which may lie beside the photos of a list."""
    below = output.root.rstrip("/") + "/"
    inside = pc.starts_with(listing.photos["path"], below)
    if pc.any(inside).as_py():
        raise ConfigError(f"OUT={output.root}: holds photos that {listing.named_by} names")


def check_count(n: int, source: str, config: Config) -> None:
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


def _find_model(run: Run, listing: Listing | None) -> Model:
    """Load the model, and calibrate it where that is asked for."""
    config = run.config
    with run.stage("load model") as progress:
        model = load_model(
            _pinned_model(run),
            weights=config.weights,
            weights_sha256=config.weights_sha256,
            input_size=config.input_size,
            views=config.views,
            on_progress=progress.on_bytes,
        )
    if config.precision == "float32" or listing is None:  # the latter only with float32
        return model
    with run.stage("calibrate"):
        return int8_model(run.output, listing, model, config)


def _pinned_model(run: Run) -> str:
    """Return the model to load: of a hub, the commit that OUT was made with, if it was asked alike.

    A branch is resolved once, so that a resumed run does not follow it.
    """
    config, output = run.config, run.output
    if not config.model.startswith(HUB):
        return config.model
    attempt = latest_attempt(output)
    is_resumed = attempt is not None and (not config.overwrite or attempt.start.overwrite)
    if attempt is not None and is_resumed and attempt.start.model == config.model:
        return str(attempt.start.contract.get("model"))
    if not output.folder.exists(RUN):
        return config.model
    record = output.read_run()
    is_begun = not config.overwrite or record.finished is None
    if is_begun and record.option("model") == config.model:
        return str(record.contract.get("model"))
    return config.model


def describe_plan(
    source: str, out: str | Path, config: Config, *, reduce: bool = True
) -> dict[str, Any]:
    """Return the resolved configuration and what a run would do.

    Starts no Spark, downloads nothing, and writes nothing but a model's graph into the cache.
    """
    run = Run(Output.at(out), config)
    listing = check_and_list(run, source, reduce=reduce)
    if listing:
        n_labels = len(listing.photos["label"].unique())
        labels = counted(n_labels, "label", "labels")
        listed = (
            f"read {_photos(len(listing.photos))} ({listing.n_bytes / 1e6:,.1f} MB, "
            f"{labels}) of {listing.named_by or listing.source}"
        )
    else:
        listed = f"let Spark list and read {source}"
    model = None if _weights_are_missing(run) else _find_model(run, listing)
    place = f"Spark ({config.master or 'local[*]'})" if wants_spark(config) else "this machine"
    steps = [
        f"run the tasks on {place}",
        _model_step(config, model),
        listed,
        *_left_out_steps(listing),
        *_output_steps(run, listing, model),
    ]
    if reduce:
        steps.append(f"fit a PCA and keep components = {config.components}")
    steps += [f"if features or PCA change, {loss}" for loss in list_losses(run.output)]
    notes = describe_source(listing, config.label_from) if listing else []
    return {"config": config.as_dict(), "steps": steps, "notes": notes}


def _model_step(config: Config, model: Model | None) -> str:
    if model is None and config.model.startswith(HUB):
        return f"fetch {config.model} from its hub"
    if model is None:
        address = find_card(config.model).weights.address()
        return f"fetch the weights of {config.model} from {address}"
    contract = model.contract
    name = contract.model if config.precision == "float32" else f"{contract.model} in int8"
    return f"use {name}, contract {contract.short_hash}: {contract.n_features} features"


def _weights_are_missing(run: Run) -> bool:
    config = run.config
    if config.model.startswith(HUB):
        from verger.features.model.hub import is_fetched

        return not is_fetched(_pinned_model(run))
    if not config.built_in_model or config.weights is not None:
        return False
    return find_card(config.model).weights.find() is None


def _left_out_steps(listing: Listing | None) -> list[str]:
    """Say which files of the source are no photos, most of them first."""
    if listing is None or not listing.ignored:
        return []
    counts = ", ".join(f"{n:,} {what}" for what, n in listing.ignored.items())
    n_files = sum(listing.ignored.values())
    return [f"leave out {counted(n_files, 'file', 'files')}: {counts} (see --glob)"]


def _output_steps(run: Run, listing: Listing | None, model: Model | None) -> list[str]:
    """Say what becomes of what OUT holds."""
    config, output = run.config, run.output
    holds = output.folder.exists(RUN)
    verb = ("replace the result in" if config.overwrite else "add to") if holds else "write to"
    if listing is None or model is None:
        return [f"{verb} {output.root}"]
    state = find_state(output, listing.source, model.contract, overwrite=config.overwrite)
    ledger = read_ledger_of(output, state)
    work = compare(listing.photos, ledger, accept_truncated=config.accept_truncated)
    n_done = len(listing.photos) - len(work.todo)
    done = f" ({n_done:,} are done already)" if n_done else ""
    steps = [f"compute the features of {_photos(len(work.todo))}{done}", f"{verb} {output.root}"]
    if work.relabelled:
        steps.append(f"change the labels of {_photos(work.relabelled)}, and compute nothing again")
    if work.gone:
        what = "drop" if config.prune else "keep"
        steps.append(f"{what} the rows of {_photos(len(work.gone))} no longer listed")
    return steps


def _photos(n: int) -> str:
    return counted(n, "photo", "photos")


def committed_batches(output: Output) -> list[Batch]:
    """Read the batches of the run under way, if there is one."""
    attempt = latest_attempt(output)
    return attempt.batches() if attempt else []


def read_ledger_of(output: Output, state: State) -> Ledger:
    """Read which photos have rows already, in the result or in committed batches."""
    return read_ledger(output.folder, rows_files(state.published, committed_batches(output)))
