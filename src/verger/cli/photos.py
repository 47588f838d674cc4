"""The commands that make photos: ``demo`` and ``sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from verger.cli.options import (
    MODEL,
    REDUCE,
    SPARK,
    config_options,
    json_option,
    resolve_config,
    seed_option,
)
from verger.cli.summary import print_summary
from verger.cli.terminal import keep_page_up, print_json, say, watch_for


@click.command()
@click.argument(
    "directory", metavar="[DIR]", default="verger-demo", type=click.Path(path_type=Path)
)
@click.option("--classes", default=30, show_default=True, help="Classes to render.")
@click.option("--per-class", default=10, show_default=True, help="Photos of each class.")
@seed_option("Seed of the renderer.")
@config_options(*MODEL, *REDUCE, *SPARK, "overwrite")
def demo(directory: Path, classes: int, per_class: int, seed: int, as_json: bool, **_: Any) -> None:
    """Render photos and run everything on them."""
    from verger.cli.demo import run_demo

    config = resolve_config()
    summary = run_demo(
        directory, config, classes=classes, per_class=per_class, seed=seed, watch=watch_for(config)
    )
    print_summary(summary, directory / "result", as_json)
    keep_page_up(config)


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--classes", default=30, show_default=True, help="Classes to draw.")
@click.option("--per-class", default=10, show_default=True, help="Photos of each class.")
@seed_option("Seed of the draw.")
@json_option("Print what was copied as JSON.")
def sample(
    source: str, target: str, classes: int, per_class: int, seed: int, as_json: bool
) -> None:
    """Copy a class-balanced sample of a class-per-folder data set."""
    from verger.source.sample import sample_dataset

    found = sample_dataset(source, target, classes=classes, per_class=per_class, seed=seed)
    if as_json:
        print_json({"folder": str(found.folder), "classes": found.classes})
        return
    n_photos = sum(found.classes.values())
    say(f"{n_photos} photos of {len(found.classes)} classes copied to {found.folder}")
