"""Graphs that were written before, in Verger's cache folder.

Reading one takes neither onnx nor h5py, whose imports take longer than the rest of loading a model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from verger.engine.home import cache_folders
from verger.engine.scratch import sweep_parts
from verger.features.model.graph import Graph, Layer


def graph_key(name: str, weights_sha256: str, size: int) -> str:
    """Name the graph of a built-in model by its weights, its size and the code that writes it."""
    code = hashlib.sha256()
    for file in ("graph_writer.py", f"{name}.py"):
        code.update((resources.files("verger.features.model") / file).read_bytes())
    return f"{name}-{size}-{weights_sha256[:16]}-{code.hexdigest()[:12]}"


def cached_graph(key: str, write: Callable[[], Graph]) -> Graph:
    """Return a graph from the cache, or write it and store it there.

    Parameters
    ----------
    key : str
        As from :func:`graph_key`.
    write : callable
        Called if the cache has no such graph, or a damaged one.
    """
    paths = [cache / "graphs" / key for cache in cache_folders()]
    for path in paths:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _read(path)
    graph = write()
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        _store(paths[0], graph)
    return graph


def _read(path: Path) -> Graph:
    head, _, content = path.read_bytes().partition(b"\n")
    stored = json.loads(head)
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise ValueError("damaged")
    layers = (Layer(**row | {"shape": tuple(row["shape"])}) for row in stored["layers"])
    return Graph(content, tuple(layers))


def _store(path: Path, graph: Graph) -> None:
    head = {
        "sha256": hashlib.sha256(graph.onnx).hexdigest(),
        "layers": [asdict(layer) for layer in graph.layers],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_parts(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(json.dumps(head).encode() + b"\n" + graph.onnx)
    part.replace(path)
