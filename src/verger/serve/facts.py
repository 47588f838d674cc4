"""A line about each label, from a TOML file that its owner edits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verger.config.toml import read_toml
from verger.errors import ConfigError


def load_facts(path: Path) -> dict[str, str]:
    """Read a file of facts: a table a label, with its ``line``.

    Parameters
    ----------
    path : path
        Such as ``["Apple Golden"]`` and ``line = "Sweet, and keeps until spring."`` Labels that
        the classifier does not know are let be: one file may serve several.

    Returns
    -------
    dict
        Label to line.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or holds something else.
    """
    tables = read_toml(path, "--facts")
    _check(path, tables)
    return {label: table["line"] for label, table in tables.items()}


def _check(path: Path, tables: Mapping[str, Any]) -> None:
    for label, table in tables.items():
        if not isinstance(table, dict) or set(table) != {"line"}:
            raise ConfigError(f"--facts {path}: {label!r} must be a table with one key: line")
        if not isinstance(table["line"], str):
            raise ConfigError(f"--facts {path}: {label!r}: line={table['line']!r} must be text")
