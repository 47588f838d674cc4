"""What a page needs that does the work itself: the exported file, its runtime, and names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse

from verger.errors import ConfigError
from verger.predict import Predictor

#: Of onnxruntime-web's folder ``dist``: the smallest set that runs on any browser's processor.
RUNTIME = {
    "ort.wasm.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.mjs": "text/javascript",
    "ort-wasm-simd-threaded.wasm": "application/wasm",
}


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


def add_browser(
    app: FastAPI, graph: Path, ort_web: Path, predictor: Predictor, facts: Mapping[str, str]
) -> None:
    """Add the addresses that the page reads.

    Parameters
    ----------
    app : FastAPI
    graph : path
        An exported file.
    ort_web : path
        Folder of :data:`RUNTIME`.
    predictor : Predictor
    facts : mapping of str to str
        Label to a line about it.
    """
    classifier = predictor.classifier
    names = {
        "labels": classifier.labels, "threshold": classifier.threshold, "facts": dict(facts),
        "n_top": predictor.n_top,
    }  # fmt: skip

    @app.get("/app.json")
    async def read_names() -> dict[str, Any]:
        """Say what the outputs of the exported file stand for."""
        return names

    @app.get("/app.onnx", response_class=FileResponse)
    async def read_graph() -> FileResponse:
        """Give the exported file."""
        return FileResponse(graph, media_type="application/octet-stream")

    for name, kind in RUNTIME.items():
        _add_file(app, f"/ort/{name}", ort_web / name, kind)


def _add_file(app: FastAPI, address: str, path: Path, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def read_file() -> FileResponse:
        return FileResponse(path, media_type=kind)
