"""Other names for labels: several labels may get one name, such as all apples ``apple``.

Training on a map learns the names. A classifier of the finer labels answers by the names as well:
the probability of a name is the sum of its labels'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from verger.config.toml import read_toml
from verger.errors import ConfigError
from verger.source.lists import read_cells


@dataclass(frozen=True)
class Merged:
    """The names that a map gives some labels.

    Attributes
    ----------
    names : tuple of str
        Sorted.
    place : ndarray of shape (n_labels,), int64
        Index into ``names`` of each label.
    """

    names: tuple[str, ...]
    place: npt.NDArray[np.int64] = field(repr=False)

    def sum(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum probabilities of shape (n, n_labels) by name: (n, n_names)."""
        total = np.zeros((len(probabilities), len(self.names)))
        np.add.at(total.T, self.place, probabilities.T)
        return total


def merge_labels(
    labels: Sequence[str], label_map: Mapping[str, str], others: Sequence[str] = ()
) -> Merged:
    """Name labels by a map; one that is not in it keeps its own name.

    The map may be of ``others`` alone, labels of other things, which get no name.

    Raises
    ------
    ConfigError
        If the map has none of the labels, and gives none of them as a name.
    """
    if label_map and not {*labels, *others} & {*label_map, *label_map.values()}:
        raise ConfigError(
            f"label_map: has none of the labels; the first of {len(labels)} is {labels[0]!r}, and "
            f"the first of the map {next(iter(label_map))!r}"
        )
    named = [label_map.get(label, label) for label in labels]
    names = sorted(set(named))
    number = {name: i for i, name in enumerate(names)}
    return Merged(tuple(names), np.array([number[name] for name in named], np.int64))


def read_label_map(path: Path) -> dict[str, str]:
    """Read a map from a file.

    Parameters
    ----------
    path : Path
        TOML with ``label = "name"`` or ``name = ["label", ...]``, or CSV with lines of
        ``label,name`` or ``label;name``.

    Returns
    -------
    dict of str to str
        Label to name, both in Unicode's form NFC.

    Raises
    ------
    ConfigError
        If it cannot be read, or gives a label two names.
    """
    pairs = _read_csv(path) if path.suffix.lower() == ".csv" else _read_toml(path)
    names: dict[str, str] = {}
    for label, name in ((normalize("NFC", a), normalize("NFC", b)) for a, b in pairs):
        if names.setdefault(label, name) != name:
            raise ConfigError(
                f"label_map={path}: gives {label!r} two names, {names[label]!r} and {name!r}"
            )
    if not names:
        raise ConfigError(f"label_map={path}: has no label")
    return names


def _read_toml(path: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in read_toml(path, "--label-map").items():
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) and text for text in (key, *texts)):
            raise ConfigError(
                f"label_map={path}: {key!r} = {value!r} must be the name of that label, or the "
                "list of labels of that name"
            )
        pairs += [(label, key) for label in value] if isinstance(value, list) else [(key, value)]
    return pairs


def _read_csv(path: Path) -> list[tuple[str, str]]:
    try:
        cells = read_cells(path.read_bytes().decode("utf-8-sig"))
        rows = [[cell.strip() for cell in row] for row in cells]
    except OSError as err:
        raise ConfigError(f"label_map={path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ConfigError(f"label_map={path}: is no CSV in UTF-8: {err}") from err
    odd = next((row for row in rows if len(row) != 2 or not all(row)), None)
    if odd is not None:
        raise ConfigError(f"label_map={path}: {','.join(odd)} must be label,name")
    pairs = [(row[0], row[1]) for row in rows]
    return pairs[1:] if pairs and pairs[0] in (("label", "name"), ("label", "coarse")) else pairs
