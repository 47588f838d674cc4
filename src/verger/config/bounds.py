"""Bounds and types of single options, each refused with its name, its value and the bound."""

from __future__ import annotations

import re
from typing import Any

from verger.errors import ConfigError

#: The masters that Spark knows by name; a cluster's is an address.
_MASTER = re.compile(r"yarn|local|local(-cluster)?\[[1-9*][\d, ]*\]|\w+://.+")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not on a list."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} must be one of {', '.join(allowed)}")


def check_at_least(name: str, value: int, bound: int) -> None:
    """Refuse a number below a bound."""
    if value < bound:
        raise ConfigError(f"{name}={value} must be at least {bound}")


def check_between(name: str, value: int, low: int, high: int) -> None:
    """Refuse a number out of two bounds."""
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} must be from {low} to {high}")


def check_master(master: str | None) -> None:
    """Refuse a master whose form Spark does not know."""
    if master and not _MASTER.fullmatch(master):
        raise ConfigError(
            f"master={master!r} must be local[N], local[*], yarn, or an address such as "
            "spark://host:7077 or k8s://https://host:443"
        )


def check_type(told: str, value: Any, accepted: dict[str, Any]) -> None:
    """Refuse a value of another type; ``accepted`` has the types by their names."""
    is_odd = isinstance(value, bool) and bool not in accepted.values()
    if is_odd or not isinstance(value, tuple(accepted.values())):
        raise ConfigError(f"{told} must be {' or '.join(accepted)}")
