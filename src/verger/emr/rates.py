"""Read a file of rates: TOML, with the source and the date of its numbers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from verger.emr.requests import RequestPrice
from verger.errors import ConfigError

#: What is said of rates that nobody has held against their source.
UNCHECKED = "; check them"


@dataclass(frozen=True)
class RatesFile:
    """What a file of rates says, and its name for messages."""

    name: str
    values: dict[str, Any]

    @classmethod
    def read(cls, file: Path | None) -> RatesFile:
        """Read a file, by default Verger's own.

        Raises
        ------
        ConfigError
        """
        name = str(file or "rates.toml")
        own = resources.files("verger.emr") / "rates.toml"
        try:
            return cls(name, tomllib.loads((file or own).read_text("utf-8")))
        except (OSError, ValueError) as err:
            raise ConfigError(f"rates {name}: cannot be read: {err}") from err

    def table(self, region: str, kind: str) -> dict[str, Any]:
        """Return the rates of a region for a kind of machine.

        Raises
        ------
        ConfigError
            If there are none.
        """
        row = self.values.get(region, {}).get(kind)
        if isinstance(row, dict):
            return row
        raise ConfigError(
            f"rates {self.name}: none for region={region}, {kind}; there are "
            f"{', '.join(self.regions(kind)) or 'none at all'}; --rates FILE names others, and "
            f"verger emr rates --region {region} --refresh FILE asks AWS for them"
        )

    def regions(self, kind: str) -> list[str]:
        """Return the regions that have rates for a kind of machine."""
        return sorted(key for key, value in self.values.items() if kind in _keys(value))

    def number(self, row: dict[str, Any], key: str, where: str) -> float:
        """Return one rate.

        Raises
        ------
        ConfigError
            If it is none.
        """
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"rates {self.name}: {key}={value!r} for {where}")
        return value

    def requests(self, region: str) -> RequestPrice:
        """Return the prices of requests to S3.

        Raises
        ------
        ConfigError
            If there are none.
        """
        row = self.table(region, "s3")
        keys = ("read_1000", "write_1000")
        return RequestPrice(*(self.number(row, key, f"S3 in {region}") for key in keys))

    def about(self, source: str, date: str, row: dict[str, Any]) -> dict[str, Any]:
        """Return where rates come from: currency, source, date, and whether they were checked.

        Parameters
        ----------
        source, date : str
            Keys of the file.
        row : dict
            A table, which may have a ``source`` and a ``date`` of its own.

        Raises
        ------
        ConfigError
            If the file does not say so.
        """
        keys = {"currency": "currency", "source": source, "date": date, "checked": "checked"}
        facts = {name: row.get(name, self.values.get(key)) for name, key in keys.items()}
        for name, key in keys.items():
            if facts[name] is None:
                raise ConfigError(f"rates {self.name}: {key} is missing")
        return facts | {"date": str(facts["date"])}


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, dict) else ()
