"""The labelled photos of several results of one contract, as if they were of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.label_map import merge_labels
from verger.classify.vectors import Labelled, read_labelled
from verger.errors import ConfigError, ContractError
from verger.result.output import Output

Ints = npt.NDArray[np.int64]


def read_several(outputs: Sequence[Output], label_map: Mapping[str, str]) -> Labelled:
    """Read the labelled photos of some results, sorted by path.

    Raises
    ------
    ContractError
        If their features are of several contracts.
    ConfigError
        If a photo is in two of them, or the map has none of their labels.
    ClassifierError
        If one has no labels.
    """
    first, *others = outputs
    contract = first.read_run().contract_hash
    for other in others:
        theirs = other.read_run().contract_hash
        if theirs != contract:
            raise ContractError(
                f"OUT={other.root}: has features of contract {theirs[:12]}, and {first.root} of "
                f"{contract[:12]}: another model or preprocessing made them"
            )
    if not others:
        return read_labelled(first, label_map=label_map)
    return _joined([read_labelled(output) for output in outputs], label_map)


def _joined(parts: Sequence[Labelled], label_map: Mapping[str, str]) -> Labelled:
    known = sorted({label for part in parts for label in part.labels})
    merged = merge_labels(known, label_map)
    number = {label: int(i) for label, i in zip(known, merged.place, strict=True)}
    targets = [np.array([number[label] for label in p.labels])[p.targets] for p in parts]
    paths = pa.concat_arrays([part.paths for part in parts])
    order = pa.compute.sort_indices(paths)
    paths, at = paths.take(order), order.to_numpy()
    twice = np.flatnonzero(pa.compute.equal(paths[1:], paths[:-1]).to_numpy(zero_copy_only=False))
    if len(twice):
        raise ConfigError(f"{paths[int(twice[0])]}: is a photo of two of these results; name one")
    joined = np.concatenate(targets)[at]
    return Labelled(
        paths=paths,
        targets=joined,
        labels=merged.names,
        n_unlabelled=sum(part.n_unlabelled for part in parts),
        names=pa.array(merged.names).take(pa.array(joined)),
        n_without_features=sum(part.n_without_features for part in parts),
        groups=_joined_groups(parts, at),
    )


def _joined_groups(parts: Sequence[Labelled], at: Ints) -> Ints | None:
    """Return the groups of all; in a result without any, each photo is one of its own."""
    if all(part.groups is None for part in parts):
        return None
    groups: list[Ints] = []
    for part in parts:
        first = groups[-1].max() + 1 if groups else 0
        groups.append(first + (np.arange(len(part)) if part.groups is None else part.groups))
    return np.concatenate(groups)[at]
