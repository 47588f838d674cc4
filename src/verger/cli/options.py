"""Options of the command line: one for every field of the configuration, and how they combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from verger.config import PRECISIONS, READERS, VIEWS, Config, load_config
from verger.errors import ConfigError
from verger.language import LANGUAGES

#: Every option by its name.
FIELDS = {f.name: f for f in fields(Config)}

# Options that belong together.
PHOTOS = ("glob", "exclude", "recursive", "ignore", "label_from", "labels", "reader")
MODEL = ("model", "weights", "weights_sha256", "input_size", "precision", "views", "micro_batch")
FEATURES = (
    "max_error_rate",
    "accept_truncated",
    "decode_timeout_s",
    "commit_every",
    "prune",
    "legacy_parquet",
)
REDUCE = ("components", "standardize", "center")
REPORT = ("lang", "neighbour_map")
SPARK = ("workers", "master", "conf", "app_name", "ui")
#: Headings of the help, and the options under each; the rest stands under "Options".
HEADINGS = {
    "Photos": PHOTOS,
    "Model": MODEL,
    "Features": FEATURES,
    "Components": REDUCE,
    "Report": REPORT,
    "Where it runs": (*SPARK, "partitions"),
}


class GroupedCommand(click.Command):
    """A command whose help lists its options by what they concern."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        heading_of = {name: heading for heading, names in HEADINGS.items() for name in names}
        listed: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                listed.setdefault(heading_of.get(option.name or "", "Options"), []).append(record)
        for heading, records in listed.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class _Components(click.ParamType[int | float]):
    """A whole number, or a share such as 0.90."""

    name = "number|share"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | float:  # noqa: ARG002
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number such as 50 nor a share such as 0.90")


def seed_option(text: str) -> Callable[..., Any]:
    """Make the option of a seed: a generator takes any number from 0 on."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help=text
    )


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the configuration and what would be done; do nothing."
)


def json_option(text: str = "Print it as JSON.") -> Callable[..., Any]:
    """Make the option that has a command print for machines."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def config_option(name: str) -> Callable[..., Any]:
    """Make the option of one of Config's fields."""
    field, flag = FIELDS[name], "--" + name.replace("_", "-")
    text = field.metadata["help"]
    if isinstance(field.default, bool):
        both = f"{flag}/--no-{flag[2:]}"
        shown = f"{text}  [default: {'yes' if field.default else 'no'}]"
        return click.option(both, name, default=None, is_flag=True, help=shown)
    special: dict[str, dict[str, Any]] = {
        "glob": {"multiple": True, "metavar": "PATTERN"},
        "exclude": {"multiple": True, "metavar": "PATTERN"},
        "labels": {"metavar": "FILE.csv"},
        "conf": {"multiple": True, "metavar": "KEY=VALUE"},
        "reader": {"type": click.Choice(READERS)},
        "precision": {"type": click.Choice(PRECISIONS)},
        "lang": {"type": click.Choice(LANGUAGES)},
        "views": {"type": click.Choice(VIEWS)},
        "components": {"type": _Components()},
        "weights": {"metavar": "PATH"},
        "partitions": {"type": int},
        "workers": {"type": int},
        "input_size": {"type": int},
    }
    kind = type(field.default) if isinstance(field.default, int | float) else str
    shown = "" if field.default in (None, ()) or name == "conf" else f"  [default: {field.default}]"
    arguments = {"type": kind} | special.get(name, {})
    return click.option(flag, name, default=None, help=text + shown, **arguments)


weights_option = config_option("weights")
extractor_option = click.option(
    "--extractor",
    "model",
    metavar="FILE.onnx",
    help="Where the file of your own model is now, if OUT was made with one.",
)
frames_option = click.option(
    "--frames",
    metavar="REGEX",
    help="Where a path says film and frame: with (?P<film>...) and (?P<frame>...).",
)

name_option = click.option(
    "--name",
    default="",
    metavar="NAME",
    help="Which classifier of OUT, where there are several beside one another.",
)
label_map_option = click.option(
    "--label-map",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Other names for labels, such as one for all apples: TOML or CSV (docs/labels.md).",
)


def config_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of these fields, and those that every such command has."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        extra = [
            click.option(
                "--config",
                "config_file",
                type=click.Path(path_type=Path, dir_okay=False),
                help="TOML file of options of verger run; flags win.",
            ),
            json_option("Print the summary as JSON."),
        ]
        for option in reversed([*(config_option(name) for name in names), *extra]):
            function = option(function)
        return function

    return add


def resolve_config() -> Config:
    """Resolve the options: defaults, then the file, then the flags that were given."""
    ctx = click.get_current_context()
    file = ctx.params.get("config_file")
    values = load_config(file) if file else {}
    for name, value in ctx.params.items():
        given = ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
        if name in FIELDS and given and value is not None:
            # One setting of Spark typed does not drop those of the file.
            values[name] = values.get("conf", {}) | _pairs(value) if name == "conf" else value
    return Config(**values)


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--conf {text!r}: must be KEY=VALUE, e.g. spark.executor.memory=4g")
        pairs[key.strip()] = value.strip()
    return pairs
