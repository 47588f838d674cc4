"""What a page needs that does the work itself: the exported file, its runtime, and names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

from verger.errors import ConfigError
from verger.predict import Predictor

#: Of onnxruntime-web's folder ``dist``: the smallest set that runs on any browser's processor.
RUNTIME = {
    "ort.wasm.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.mjs": "text/javascript",
    "ort-wasm-simd-threaded.wasm": "application/wasm",
}

# A telephone should not load 28 MB anew with every visit.
_KEPT = {"Cache-Control": "private, max-age=86400"}


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
class Browser:
    """What a page needs to do the work itself.

    Attributes
    ----------
    graph : bytes
        An exported file.
    ort_web : path
        Folder of :data:`RUNTIME`.
    """

    graph: bytes
    ort_web: Path


def export_browser(out: str | Path, ort_web: Path, **options: Any) -> Browser:
    """Export a result's classifier, checked; nothing of it stays on the disk.

    Parameters
    ----------
    out : path
    ort_web : path
        Folder of :data:`RUNTIME`.
    **options
        As for :func:`verger.export.export_app`.
    """
    from verger.export import export_app  # and with it onnx, which else is not needed

    with TemporaryDirectory(prefix="verger-serve-") as folder:
        path = Path(folder, "app.onnx")
        export_app(out, path, **options)
        return Browser(path.read_bytes(), ort_web)


def add_browser(
    app: FastAPI, browser: Browser, predictor: Predictor, facts: Mapping[str, str]
) -> None:
    """Add the addresses that the page reads.

    Parameters
    ----------
    app : FastAPI
    browser : Browser
    predictor : Predictor
    facts : mapping of str to str
        Label to a line about it.
    """
    classifier = predictor.classifier
    names = {
        "graph": f"app.onnx?{hashlib.sha256(browser.graph).hexdigest()[:12]}",
        "labels": classifier.labels, "threshold": classifier.threshold, "facts": dict(facts),
        "n_top": predictor.n_top,
    }  # fmt: skip

    @app.get("/app.json")
    async def read_names() -> dict[str, Any]:
        """Say what the outputs of the exported file stand for, and where it is."""
        return names

    @app.get("/app.onnx", response_class=Response)
    async def read_graph() -> Response:
        """Give the exported file; its address changes with it, so that it is loaded once."""
        return Response(browser.graph, media_type="application/octet-stream", headers=_KEPT)

    for name, kind in RUNTIME.items():
        _add_file(app, f"/ort/{name}", browser.ort_web / name, kind)


def _add_file(app: FastAPI, address: str, path: Path, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def read_file() -> FileResponse:
        return FileResponse(path, media_type=kind, headers=_KEPT)
