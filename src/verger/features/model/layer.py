"""The summary of a model, and graphs that were written before.

Reading a written graph takes neither onnx nor h5py, whose imports cost more than the rest of a
model's start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from verger.config import verger_home


@dataclass(frozen=True)
class Layer:
    """One row of a model's summary, in Keras' terms.

    Attributes
    ----------
    name, kind : str
        For instance ``Conv1`` and ``Conv2D``.
    shape : tuple of int
        Output as (height, width, channels), or (n_features,).
    n_params : int
        Numbers that the layer holds, moving averages of BatchNorm included.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_params: int = 0


@dataclass(frozen=True)
class Graph:
    """An ONNX graph as bytes, and its summary."""

    onnx: bytes
    layers: tuple[Layer, ...]


def cached_graph(key: str, write: Callable[[], Graph]) -> Graph:
    """Return a graph from Verger's cache, or write it and keep it there.

    Parameters
    ----------
    key : str
        A file name that stands for all that the graph depends on.
    write : callable
        Called where the cache has no such graph, or a damaged one.
    """
    path = verger_home() / "graphs" / key
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _read(path)
    graph = write()
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        _keep(path, graph)
    return graph


def _read(path: Path) -> Graph:
    head, _, content = path.read_bytes().partition(b"\n")
    found = json.loads(head)
    if hashlib.sha256(content).hexdigest() != found["sha256"]:
        raise ValueError("damaged")
    layers = (Layer(**row | {"shape": tuple(row["shape"])}) for row in found["layers"])
    return Graph(content, tuple(layers))


def _keep(path: Path, graph: Graph) -> None:
    head = {
        "sha256": hashlib.sha256(graph.onnx).hexdigest(),
        "layers": [asdict(layer) for layer in graph.layers],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(json.dumps(head).encode() + b"\n" + graph.onnx)
    part.replace(path)
