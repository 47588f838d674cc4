"""TOML files that a user names: the configuration, a label map, facts, a model's card."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from verger.errors import ConfigError

#: Deepest nesting of a TOML file. ``conf.spark.a.b`` is four tables, one in the other.
MAX_TOML_DEPTH = 32


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """Read a TOML file that an option names.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not TOML; the text begins with the option.
    """
    try:
        return parse_toml(path.read_text("utf-8-sig"))
    except OSError as err:
        raise ConfigError(f"{option} {path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ConfigError(f"{option} {path}: is not TOML: {err}") from err


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML whose values are safe to print and to walk through.

    Raises
    ------
    ValueError
        If it is not TOML, is nested deeper than :data:`MAX_TOML_DEPTH`, or has a whole number of
        more than 64 bits, which TOML does not have either.
    """
    try:
        parsed = tomllib.loads(text)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    _check_toml(parsed, MAX_TOML_DEPTH)
    return parsed


def _check_toml(value: Any, depth: int) -> None:
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"a whole number of {value.bit_length()} bits; 64 at most")
    if not isinstance(value, dict | list):
        return
    if not depth:
        raise ValueError(f"nested deeper than {MAX_TOML_DEPTH} tables or lists")
    for item in value.values() if isinstance(value, dict) else value:
        _check_toml(item, depth - 1)
