"""The options of a run: one frozen value, its defaults, its bounds, and its TOML file.

Every option is declared once, here; the command line and the configuration file take its name
(with dashes on the command line), default and help from :class:`Config`.
"""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from verger.config.bounds import (
    check_at_least,
    check_between,
    check_choice,
    check_master,
    check_type,
)
from verger.config.toml import read_toml
from verger.errors import ConfigError
from verger.language import LANGUAGES
from verger.redaction import redact_json, redact_setting, refuse_secret

#: Suffixes of photos that the default glob lets through, in any case.
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".pjpeg",
    ".pjp",
    ".mpo",
    ".png",
    ".apng",
    ".webp",
    ".gif",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
    ".avif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)

#: Width of every feature vector of the built-in models.
N_FEATURES = 1280

#: Sides of the input that the built-in models are read for; MobileNetV2 was published at these.
INPUT_SIZES = (224, 192, 160, 128, 96)

#: Most pixels (width x height) that a photo may have before it is decoded at all.
MAX_PIXELS = 200_000_000

#: Longest time-out of a decoder, in seconds: a day.
MAX_TIMEOUT_S = 86_400

#: Most processes of one machine, and most tasks of a run.
MAX_WORKERS, MAX_PARTITIONS = 1024, 1_000_000


#: How the name of a model of a hub begins.
HUB = "hf:"
#: How a rule begins that names a column of labels.
COLUMN = "column:"
READERS = ("arrow", "spark")
VIEWS = ("whole", "center", "five")
#: Options that are patterns, of which there may be several.
PATTERNS = ("glob", "exclude")
_TYPED_TEXTS = (*PATTERNS, "label_from", "app_name")
PRECISIONS = ("float32", "int8")


def _option(default: Any, text: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of ``verger run``; each stage is handed only those that are its own.

    Raises
    ------
    ConfigError
        If a value is out of its bounds; the text names the option, the value and the bound.

    Examples
    --------
    >>> verger.Config(components=0.95, input_size=160).components
    0.95
    """

    glob: tuple[str, ...] = _option(
        (),
        "Names to take, e.g. '*.jpg', or with a slash paths below SRC, e.g. 'train/*.jpg'; several "
        "allowed. Default: every image suffix.",
    )
    exclude: tuple[str, ...] = _option(
        (), "Names of files and folders to leave out, or with a slash paths below SRC."
    )
    recursive: bool = _option(True, "Look into subfolders.")
    ignore: bool = _option(
        True, "Leave out hidden files, thumbnails and bins (@eaDir, $RECYCLE.BIN, __MACOSX ...)."
    )
    label_from: str = _option(
        "parent",
        "parent, none, or a regular expression on the path whose first group is the label; of "
        "photos in Parquet column:NAME, by default their column label.",
    )
    labels: str | None = _option(
        None,
        "List that has the labels (.csv, .txt or .parquet): path below SRC, label, and a group if "
        "you like.",
    )
    reader: Literal["arrow", "spark"] = _option(
        "arrow", "arrow lists and reads by itself (folders, s3://); spark is Spark's binaryFile."
    )
    model: str = _option(
        "mobilenet_v2",
        "mobilenet_v2, efficientnet_lite0, an ONNX file with a TOML card beside it, or "
        "hf:ORG/NAME[@REV][:FILE] of a model hub.",
    )
    weights: str | None = _option(
        None, "File of the model's weights, or s3://bucket/file, instead of the published ones."
    )
    weights_sha256: str | None = _option(None, "Refuse weights with another SHA-256.")
    input_size: int | None = _option(
        None,
        "Side of a photo before the model, in pixels: 224 by default; 192, 160, 128 or 96 are "
        "cheaper, and give other features.",
    )
    precision: Literal["float32", "int8"] = _option(
        "float32",
        "int8 computes the model in integers, calibrated on some of the photos: cheaper, and "
        "other features.",
    )
    views: Literal["whole", "center", "five"] = _option(
        "whole",
        "What a classifier looks at: the whole photo; its center too; or the whole and four "
        "corners. Costs one, two or five times the model's time.",
    )
    micro_batch: int = _option(1, "Photos per call of the model.")
    max_error_rate: float = _option(
        0.05, "Largest share of rejected photos that is still a success, 0 to 1."
    )
    accept_truncated: bool = _option(
        False, "Give photos that were cut off features too, marked as truncated."
    )
    decode_timeout_s: float = _option(60.0, "Longest that a decoder may take for one photo.")
    commit_every: int = _option(
        256, "Photos in a batch, the most that a core loses when a run is killed."
    )
    prune: bool = _option(
        False, "Drop rows whose photo is no longer in the source; else they are kept."
    )
    partitions: int | None = _option(
        None, "Tasks that the photos are cut into. Default: by count and bytes."
    )
    workers: int | None = _option(
        None, "Processes that compute on this machine, without Spark. Default: one a core."
    )
    components: int | float = _option(
        0.90, "Principal components kept: a number, or a share of the variance such as 0.90."
    )
    standardize: bool = _option(
        False, "Divide every feature by its standard deviation before the PCA."
    )
    center: bool = _option(
        False, "Subtract the mean from the scores, as scikit-learn does (Spark does not)."
    )
    legacy_parquet: bool = _option(
        False, "Write Parquet for old readers (spark.sql.parquet.writeLegacyFormat)."
    )
    overwrite: bool = _option(
        False, "Begin anew, and replace an earlier result once the new one is whole."
    )
    master: str | None = _option(
        None,
        "Spark master, for instance local[*] or yarn. Default: the active or configured one; "
        "without one, processes of this machine compute, and Spark is not needed.",
    )
    conf: Mapping[str, str] = _option(
        {}, "KEY=VALUE for Spark, which then runs the tasks; several allowed."
    )
    app_name: str = _option("verger", "Name of the Spark application.")
    lang: Literal["en", "fr"] | None = _option(
        None, "Language of the report: en or fr. Default: that of its reader's browser."
    )
    neighbour_map: bool = _option(
        False, "Add a map of neighbours to the report: t-SNE, by scikit-learn (extra map)."
    )
    ui: bool = _option(False, "Keep Spark's own web page up and print its address.")

    def __post_init__(self) -> None:
        _make_plain(self)
        for name in ("model", "weights", "master", "labels"):
            refuse_secret(name, getattr(self, name) or "")
        check_choice("reader", self.reader, READERS)
        check_choice("precision", self.precision, PRECISIONS)
        if self.lang is not None:
            check_choice("lang", self.lang, LANGUAGES)
        check_choice("views", self.views, VIEWS)
        if self.precision == "int8" and self.reader == "spark":
            raise ConfigError("precision='int8' needs reader='arrow', to calibrate before Spark")
        if self.label_from.startswith(COLUMN) and self.reader == "spark":
            raise ConfigError(f"label_from={self.label_from!r} needs reader='arrow'")
        if self.precision == "int8":
            check_quantizable(self.model)
        check_at_least("micro_batch", self.micro_batch, 1)
        check_at_least("commit_every", self.commit_every, 1)
        if not 0 < self.decode_timeout_s <= MAX_TIMEOUT_S:
            raise ConfigError(
                f"decode_timeout_s={self.decode_timeout_s} must be above 0, and at most "
                f"{MAX_TIMEOUT_S}"
            )
        if self.partitions is not None:
            check_between("partitions", self.partitions, 1, MAX_PARTITIONS)
        if self.workers is not None:
            check_between("workers", self.workers, 1, MAX_WORKERS)
            if self.master:
                raise ConfigError(
                    f"workers={self.workers} with master={self.master!r}: Spark has its own; "
                    "local[N] starts N"
                )
        if self.input_size is not None:
            check_input_size(self.input_size)
        if not 0 <= self.max_error_rate <= 1:
            raise ConfigError(f"max_error_rate={self.max_error_rate} must be between 0 and 1")
        check_components(self.components, n_features=N_FEATURES if self.built_in_model else None)
        check_label_rule(self.label_from)
        check_master(self.master or self.conf.get("spark.master"))

    @property
    def built_in_model(self) -> bool:
        """Whether ``model`` is a name, not a file."""
        return is_built_in(self.model)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, ready for JSON or TOML; no secret is among them."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        conf = {key: redact_setting(key, value) for key, value in self.conf.items()}
        plain |= {name: redact_json(plain[name]) for name in _TYPED_TEXTS}
        return plain | {"conf": conf}


def is_built_in(model: str) -> bool:
    """Whether a model is one of Verger's, not a file of the user's own nor one of a hub."""
    return not model.lower().endswith(".onnx") and not model.startswith(HUB)


def check_quantizable(model: str) -> None:
    """Refuse a model that Verger does not bring to int8.

    Raises
    ------
    ConfigError
    """
    if not is_built_in(model):
        raise ConfigError(
            f"precision='int8' with model={model!r}: only built-in models are quantised; of a "
            "model of your own, name a quantised file"
        )


def check_input_size(value: int) -> None:
    """Refuse a size that the built-in models are not read for.

    Raises
    ------
    ConfigError
    """
    if value not in INPUT_SIZES:
        raise ConfigError(f"input_size={value} must be one of {', '.join(map(str, INPUT_SIZES))}")


def check_components(value: int | float, *, n_features: int | None = None) -> None:
    """Refuse a number of components, or a share of variance, that can never be.

    Parameters
    ----------
    value : int or float
        A whole number counts components; a float strictly between 0 and 1 is a share of the
        variance (1.0 is the whole of it).
    n_features : int, optional
        Upper bound of the number, where it is known already.

    Raises
    ------
    ConfigError
        If the value is out of bounds.
    """
    if not isinstance(value, numbers.Integral):
        if not 0 < value <= 1:
            raise ConfigError(
                f"components={value} must be a share between 0 and 1, or a whole number"
            )
        return
    bound = f"n_features={n_features}" if n_features else "n_features"
    if value < 1 or (n_features is not None and value > n_features):
        raise ConfigError(f"components={value} must be between 1 and {bound}")


def check_label_rule(rule: str) -> None:
    """Refuse a rule for labels that is neither ``parent``, ``none`` nor a usable expression.

    Raises
    ------
    ConfigError
        If the regular expression does not compile or has no group.
    """
    if rule in ("parent", "none") or rule.startswith(COLUMN):
        return
    try:
        groups = re.compile(rule).groups
    except re.error as err:
        raise ConfigError(f"label_from={rule!r} is no regular expression: {err}") from err
    if groups < 1:
        raise ConfigError(
            f"label_from={rule!r} needs a group (...) that holds the label; "
            "or use 'parent' for the folder's name, 'none' for no labels"
        )


def load_config(path: str | Path) -> dict[str, Any]:
    """Read options from a TOML file.

    Keys are the names of :class:`Config`'s fields, with dashes or underscores; ``conf`` is a
    table of Spark's settings, and ``emr`` one of options of ``verger emr``, which reads it itself.

    Returns
    -------
    dict
        Field name to value, only for the keys that the file has.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, has an unknown key or a value of the wrong type.

    Examples
    --------
    >>> _ = Path("run.toml").write_text("components = 0.95")
    >>> verger.load_config("run.toml")
    {'components': 0.95}
    """
    path = Path(path)
    values: dict[str, Any] = {}
    for key, value in read_toml(path, "--config").items():
        if key == "emr":
            continue
        name = _known_key(key, path)
        if name in values:
            raise ConfigError(f"--config {path}: {key!r} is there twice, with dash and underscore")
        values[name] = _typed(key, value, path)
    return values


def _known_key(key: str, path: Path) -> str:
    from difflib import get_close_matches

    name = key.replace("-", "_")
    names = [f.name for f in fields(Config)]
    if name in names:
        return name
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(names)}"
    raise ConfigError(f"--config {path}: unknown key {key!r}; {hint}")


#: Types of a value, by the type of the option as it is written above; else a text.
_KINDS: dict[str, dict[str, Any]] = {
    "bool": {"bool": bool},
    "int": {"int": numbers.Integral},
    "float": {"float": numbers.Real},
    "int | float": {"int": numbers.Integral, "float": numbers.Real},
    "tuple[str, ...]": {"str": str, "list": (list, tuple)},
    "Mapping[str, str]": {"dict": Mapping},
}
_TYPES = {
    option.name: _KINDS.get(str(option.type).removesuffix(" | None"), {"str": str})
    for option in fields(Config)
}


def _make_plain(config: Config) -> None:
    """Bring paths, patterns and settings into their one form, and refuse values of other types."""
    for option in fields(config):
        value = getattr(config, option.name)
        if isinstance(value, os.PathLike) and option.name in ("model", "weights", "labels"):
            value = os.fspath(value)
        if value is not None or not str(option.type).endswith("| None"):
            check_type(f"{option.name}={value!r}", value, _TYPES[option.name])
        if option.name in PATTERNS:
            value = (value,) if isinstance(value, str) else tuple(value)
            if not all(isinstance(pattern, str) for pattern in value):
                raise ConfigError(f"{option.name}={value!r} must be a pattern, or several")
        object.__setattr__(config, option.name, dict(value) if option.name == "conf" else value)


def _typed(key: str, value: Any, path: Path) -> Any:
    told = f"--config {path}: {key} = {value!r}"
    check_type(told, value, _TYPES[key.replace("-", "_")])
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(value, dict):
        return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in _flat(value)}
    return (value,) if key in PATTERNS else value


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten TOML's dotted keys: ``spark.ui.port`` is read as three nested tables."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        pairs += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return pairs
