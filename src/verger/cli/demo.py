"""Render a small data set of our own and run everything on it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from verger.config import Config
from verger.engine.choose import check_engine
from verger.engine.session import configured_master
from verger.errors import OutputExistsError, WeightsNotFoundError
from verger.features.model import find_card
from verger.job import pipeline
from verger.source.render import render_dataset

if TYPE_CHECKING:
    from verger.features.model.weights import OnProgress
    from verger.job.context import Watch
    from verger.result.record import RunRecord

FALLBACK = "efficientnet_lite0"


def run_demo(
    folder: Path, config: Config, *, classes: int, per_class: int, seed: int, watch: Watch
) -> RunRecord:
    """Render photos into ``folder/photos`` and write the result of a run to ``folder/result``.

    MobileNetV2 is used where its weights are at hand or can be fetched; where they cannot,
    the demo, and only the demo, takes EfficientNet-Lite0 and says so. Spark runs the tasks, on
    this machine unless another master is named: the demo shows the whole of Verger.

    Raises
    ------
    OutputExistsError
        If the folder holds an earlier demo and ``overwrite`` is off.
    """
    photos, mark = folder / "photos", folder / ".verger-demo"
    if photos.exists() and not mark.exists():
        raise OutputExistsError(f"DIR={folder}: holds photos of your own; choose another folder")
    if photos.exists() and not config.overwrite:
        raise OutputExistsError(f"DIR={folder}: holds a demo already; --overwrite renders it anew")
    config = replace(config, master=config.master or configured_master() or "local[*]")
    check_engine(config)  # before a photo is rendered for nothing
    config, notices = choose_model(config, watch)
    with watch("render", None):
        shutil.rmtree(photos, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        render_dataset(photos, n_classes=classes, per_class=per_class, seed=seed)
    return pipeline.run(str(photos), folder / "result", config, watch=watch, notices=notices)


def choose_model(config: Config, watch: Watch) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration with a model whose weights can be had, and what to say of it."""
    if config.model != "mobilenet_v2" or config.weights:
        return config, ()
    with watch("fetch weights", None) as progress:
        missing = _try_weights(config.model, progress.on_bytes)
    if missing is not None:
        notice = (
            f"MobileNetV2's published weights cannot be had here ({missing}), so this demo "
            f"used {FALLBACK}, real ImageNet weights from a Python package. Its features are not "
            "MobileNetV2's."
        )
        return replace(config, model=FALLBACK), (notice,)
    return config, ()


def _try_weights(name: str, on_progress: OnProgress | None) -> str | None:
    """Find or fetch the weights of a model; return why they cannot be had, or None."""
    try:
        find_card(name).weights.fetch(on_progress)
    except WeightsNotFoundError as err:
        cause = err.__cause__
        return str(getattr(cause, "reason", None) or cause or err)
    return None
