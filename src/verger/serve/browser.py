"""What a page needs that does the work itself: exported files, their runtime, and names."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse

from verger.classify.predict import Predictor
from verger.errors import ConfigError
from verger.serve.answers import thumbnail_of

if TYPE_CHECKING:
    from verger.classify.export.check import ExportCheck

#: Of onnxruntime-web's folder ``dist``: the smallest set that runs on any browser's processor.
WASM = "ort-wasm-simd-threaded.wasm"
RUNTIME = {
    "ort.wasm.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.mjs": "text/javascript",
    WASM: "application/wasm",
}

#: Known photos that a page looks through: the size of their vectors, in half precision, and their
#: number. 4 MB are 1,562 photos of 1,280 features.
REFERENCE_BYTES, MOST_REFERENCES = 4_000_000, 2_000

# Pictures that are read at a time: less than all threads of the server, which give the page's files
# too, for a bucket may be slow.
_N_AT_ONCE = 8

# A telephone should not load 28 MB anew with every visit.
_KEPT = {"Cache-Control": "private, max-age=86400"}

# Of an answer, what is handed to a connection at a time: the rest waits until it is sent, so that
# clients that read slowly take no memory.
_PART_BYTES = 1 << 16


def check_runtime(folder: Path) -> None:
    """Check that a folder holds the files of onnxruntime-web.

    Raises
    ------
    ConfigError
        If one is missing.
    """
    for name in RUNTIME:
        if not (folder / name).is_file():
            raise ConfigError(
                f"--ort-web {folder}: has no {name}; npm install onnxruntime-web, "
                "and name its folder node_modules/onnxruntime-web/dist"
            )


@dataclass(frozen=True)
class References:
    """Known photos that a page finds similar ones among.

    Attributes
    ----------
    graph : bytes
        A file of :func:`verger.classify.export.graph.write_nearest_graph`; empty if there are none.
    labels : tuple of int
        Of each photo, among the labels of the classifier.
    paths : tuple of str
    """

    graph: bytes = field(default=b"", repr=False)
    labels: tuple[int, ...] = field(default=(), repr=False)
    paths: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Browser:
    """What a page needs to do the work itself.

    Attributes
    ----------
    graph : bytes
        An exported file.
    ort_web : path
        Folder of :data:`RUNTIME`.
    references : References
        Photos that are like others.
    check : ExportCheck
        What the exported file gives on photos, beside the pipeline.
    """

    graph: bytes = field(repr=False)
    ort_web: Path
    references: References
    check: ExportCheck


def draw_references(predictor: Predictor) -> References:
    """Draw known photos of :data:`REFERENCE_BYTES` at most, as many of each class as of another."""
    from verger.classify.export.graph import in_half, write_nearest_graph
    from verger.classify.splits import draw_stratified

    classifier = predictor.classifier
    n = min(MOST_REFERENCES, REFERENCE_BYTES // (2 * classifier.references.shape[1]))
    named = np.flatnonzero(classifier.reference_labels < len(classifier.labels))
    rows = named[draw_stratified(classifier.reference_labels[named].astype(np.int64), n)]
    if not len(rows):
        return References()
    paths = tuple(classifier.reference_paths[row] for row in rows)
    drawn = replace(
        classifier,
        references=classifier.references[rows],
        reference_paths=paths,
        reference_labels=classifier.reference_labels[rows],
        n_neighbors=1,
    )
    graph = in_half(write_nearest_graph(drawn, min(predictor.n_nearest, len(rows))))
    return References(graph.SerializeToString(), tuple(drawn.reference_labels.tolist()), paths)


def export_browser(
    predictor: Predictor, out: str | Path, ort_web: Path, precision: str | None = None
) -> Browser:
    """Export a result's classifier, checked; nothing of it stays on the disk.

    Parameters
    ----------
    predictor : Predictor
    out : path
        Where it comes from.
    ort_web : path
        Folder of :data:`RUNTIME`.
    precision : str, optional
        As for :func:`verger.classify.export.app.checked_graph`.
    """
    # And with it onnx, which else is not needed.
    from verger.classify.export.app import checked_graph

    graph, check = checked_graph(predictor, out, precision)
    return Browser(graph, ort_web, draw_references(predictor), check)


def add_browser(
    app: FastAPI, browser: Browser, predictor: Predictor, source: str, facts: Mapping[str, str]
) -> None:
    """Add the addresses that the page reads.

    Parameters
    ----------
    app : FastAPI
    browser : Browser
    predictor : Predictor
    source : str
        Where the known photos are.
    facts : mapping of str to str
        Label to a line about it.
    """
    names = describe_browser(browser, predictor, facts)

    @app.get("/app.json")
    async def read_names() -> dict[str, Any]:
        """Say what the outputs of the exported file stand for, and where it is."""
        return names

    @app.get("/app.onnx", response_class=Response)
    async def read_graph() -> Response:
        """Give the exported file; its address changes with it, so that it is loaded once."""
        return _stream(browser.graph)

    @app.get("/nearest.onnx", response_class=Response)
    async def read_nearest() -> Response:
        """Give the file that finds known photos that are like one."""
        return _stream(browser.references.graph)

    threads = anyio.CapacityLimiter(_N_AT_ONCE)

    @app.get("/known/{number}.jpg", response_class=Response)
    async def read_picture(number: int) -> Response:
        """Give a small picture of a known photo."""
        here = 0 <= number < len(browser.references.paths)
        path = browser.references.paths[number] if here else ""
        draw = partial(thumbnail_of, path, source, predictor.decoding)
        picture = await anyio.to_thread.run_sync(draw, limiter=threads)
        return Response(picture, 200 if picture else 404, media_type="image/jpeg")

    for name, kind in RUNTIME.items():
        _add_file(app, f"/ort/{name}", browser.ort_web / name, kind)


def _stream(content: bytes) -> StreamingResponse:
    headers = _KEPT | {"Content-Length": str(len(content))}
    return StreamingResponse(_parts(content), 200, headers, "application/octet-stream")


async def _parts(content: bytes) -> AsyncIterator[memoryview]:
    for start in range(0, len(content), _PART_BYTES):
        yield memoryview(content)[start : start + _PART_BYTES]


def describe_browser(
    browser: Browser, predictor: Predictor, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page has to know of the exported files."""
    classifier = predictor.classifier
    return {
        "graph": _address("app.onnx", browser.graph),
        "labels": classifier.labels,
        "threshold": classifier.threshold,
        "facts": dict(facts),
        "n_top": predictor.n_top,
        "nearest": _address("nearest.onnx", browser.references.graph)
        if browser.references.paths
        else None,
        "known": browser.references.labels,
        "bytes": len(browser.graph)
        + len(browser.references.graph)
        + (browser.ort_web / WASM).stat().st_size,
    }


def _address(name: str, content: bytes) -> str:
    return f"{name}?{hashlib.sha256(content).hexdigest()[:12]}"


def _add_file(app: FastAPI, address: str, path: Path, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def read_file() -> FileResponse:
        return FileResponse(path, media_type=kind, headers=_KEPT)
