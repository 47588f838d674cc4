"""A page and a REST interface to try a classifier with.

Photos are stored only where ``--feedback`` asks for it.

Requests are read here and not by Starlette, which writes large forms to temporary files: the whole
of a request stays in memory.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from verger.classify.predict import Predictor
from verger.errors import ConfigError, EnvironmentNotReadyError
from verger.features.model.weights import OnProgress
from verger.features.outcomes import Decoding
from verger.result.output import Output
from verger.serve.answers import Answer, Answerer
from verger.serve.browser import Browser, add_browser, check_runtime, export_browser
from verger.serve.connections import run
from verger.serve.facts import load_facts
from verger.serve.feedback import Feedback
from verger.serve.guard import Guard
from verger.serve.limits import Limits, Refusal, Refused, photo_of, read_body
from verger.serve.look import Look

_Read = Callable[[Request], AbstractAsyncContextManager[bytes]]

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {"type": "object", "properties": {"photo": _BINARY["schema"]}, "required": ["photo"]}
}
_BODY = {
    "requestBody": {"required": True, "content": {"image/*": _BINARY, "multipart/form-data": _FORM}}
}
_REFUSALS = {
    400: "a form that cannot be read",
    403: "a page of another site asks",
    408: "a photo that took too long to arrive",
    413: "a photo of too many bytes",
    415: "a body that is called something else than a photo",
    422: "a photo that cannot be decoded; error says why",
    503: "too many photos at a time",
}

#: What to do about a request that has no answer.
_DETAILS = {
    404: "nothing has this address; GET /openapi.json lists what has",
    405: "this address does not take this method; the header Allow names those that it takes",
}


def serve(
    out: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    in_browser: bool = False,
    ort_web: Path | None = None,
    behind_proxy: bool = False,
    on_start: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve a result's classifier until Ctrl-C.

    Parameters
    ----------
    out : path
        The folder of a result with a classifier, or ``s3://bucket/prefix``.
    host, port
        Where to listen; port 0 takes a free one.
    in_browser : bool
        Let the page do the work: no photo is sent.
    ort_web : path, optional
        The folder of onnxruntime-web's files, for ``in_browser``.
    behind_proxy : bool
        A server in front forwards all requests: believe its ``X-Forwarded-For`` and
        ``X-Forwarded-Proto``, and answer to every name that it forwards.
    on_start : callable, optional
        Called with the address once the server accepts requests.
    **options
        As for :func:`load_app`.

    Raises
    ------
    ConfigError
        If the address is taken, or options do not fit.
    OutputError, ContractError
        As from :meth:`verger.classify.predict.Predictor.load`.
    """
    if in_browser != (ort_web is not None):
        raise ConfigError("--in-browser and --ort-web go together, and only so")
    if ort_web is not None:
        check_runtime(ort_web)
    hosts = _LOCAL_NAMES if is_loopback(host) and not behind_proxy else ("*",)
    with _listen(host, port) as listener:
        app = load_app(out, ort_web=ort_web, hosts=hosts, **options)
        if on_start:
            on_start(_address(listener))
        run(app, listener, behind_proxy=behind_proxy)


def load_app(
    out: str | Path,
    *,
    facts: Path | None = None,
    ort_web: Path | None = None,
    weights: str | Path | None = None,
    model: str | Path | None = None,
    name: str = "",
    on_progress: OnProgress | None = None,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = _LOCAL_NAMES,
    look: Look | None = None,
    feedback: Path | None = None,
) -> FastAPI:
    """Load a result's classifier, and make its web application.

    Parameters
    ----------
    out : path
        As for :func:`serve`.
    facts : path, optional
        A file for :func:`verger.serve.facts.load_facts`.
    ort_web : path, optional
        The folder of onnxruntime-web's files; then the page does the work.
    weights, model, name, on_progress
        As for :meth:`verger.classify.predict.Predictor.load`.
    limits, hosts, look
        As for :func:`create_app`.
    feedback : path, optional
        A file for :class:`verger.serve.feedback.Feedback`.
    """
    told = load_facts(facts) if facts else {}
    predictor = Predictor.load(out, weights, model, name=name, on_progress=on_progress)
    heard = Feedback(feedback, predictor.classifier.labels) if feedback else None
    browser = None
    if ort_web is not None:
        browser = export_browser(predictor, out, ort_web)
    source = Output.at(out).read_run().source
    return create_app(
        predictor,
        source=source,
        facts=told,
        limits=limits,
        hosts=hosts,
        browser=browser,
        look=look,
        feedback=heard,
    )


def create_app(
    predictor: Predictor,
    *,
    source: str = "",
    facts: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = _LOCAL_NAMES,
    browser: Browser | None = None,
    look: Look | None = None,
    feedback: Feedback | None = None,
) -> FastAPI:
    """Make the web application of a classifier.

    Parameters
    ----------
    predictor : Predictor
        Photos are decoded apart and within ``limits``, whatever its own ``decoding`` says.
    source : str
        Folder of the known photos; their paths are shown relative to it.
    facts : mapping of str to str, optional
        Label to a line about it.
    limits : Limits, optional
    hosts : tuple of str
        Host names that the server answers to. Others are refused, so that another site cannot
        read answers by pointing a name of its own at this machine.
    browser : Browser, optional
        What the page needs to do the work itself; then there is no ``POST /predict``.
    look : Look, optional
    feedback : Feedback, optional
        Ask visitors whether the answer was right, by ``POST /feedback``.

    Returns
    -------
    FastAPI
    """
    limits, facts = limits or Limits(), facts or {}
    app = _bare_app()
    page = {"in_browser": browser is not None, "labels": feedback and feedback.labels}
    _add_page(app, look or Look(), page | {"max_bytes": limits.max_bytes})
    read = partial(_read_photo, places=anyio.Semaphore(limits.max_waiting), limits=limits)
    decoding = Decoding(max_pixels=limits.max_pixels, timeout_s=limits.decode_timeout_s, apart=True)
    predictor = replace(predictor, decoding=decoding)
    if browser is None:
        predictor.predict([b""], ["none"])  # opens the model once, before threads would each
        _add_predict(app, predictor, source, facts, read, limits.n_threads)
    else:
        add_browser(app, browser, predictor, source, facts)
    if feedback is not None:
        _add_feedback(app, feedback, decoding, read)
    return _guarded(app, hosts, wasm=browser is not None)


def _guarded(app: FastAPI, hosts: tuple[str, ...], *, wasm: bool) -> FastAPI:
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, wasm=wasm)
    return app


def _bare_app() -> FastAPI:
    app = FastAPI(
        title="Verger",
        version=version("verger"),
        telemetry=_NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,  # these load scripts from another host
    )
    _add_refusals(app)
    return app


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _add_page(app: FastAPI, look: Look, values: Mapping[str, Any]) -> None:
    page, manifest = look.page(**values), look.manifest()
    app.mount("/static", StaticFiles(packages=[("verger.serve", "static")]))

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def read_page() -> str:
        return page

    @app.get("/manifest.webmanifest", include_in_schema=False)
    async def read_manifest() -> JSONResponse:
        return JSONResponse(manifest, media_type="application/manifest+json")

    @app.get("/logo-{side}.png", include_in_schema=False)
    async def read_logo(side: int) -> Response:
        icon = look.logo.get(side)
        return Response(icon, 200 if icon else 404, media_type="image/png")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok"}


@asynccontextmanager
async def _read_photo(
    request: Request, *, places: anyio.Semaphore, limits: Limits
) -> AsyncIterator[bytes]:
    """Read the photo of a request, which has one of the places until it is answered."""
    try:
        places.acquire_nowait()
    except anyio.WouldBlock as err:
        raise _busy() from err
    try:
        headers = request.headers
        body = await read_body(request.stream(), headers.get("content-length"), limits)
        yield photo_of(body, headers.get("content-type"))
    finally:
        places.release()


def _add_predict(
    app: FastAPI,
    predictor: Predictor,
    source: str,
    facts: Mapping[str, str],
    read: _Read,
    n_threads: int,
) -> None:
    answerer = Answerer(predictor=predictor, source=source, facts=facts)
    threads = anyio.CapacityLimiter(n_threads)
    responses: dict[int | str, dict[str, object]] = {
        status: {"description": text, "model": Answer if status == 422 else Refusal}
        for status, text in _REFUSALS.items()
    }

    @app.post("/predict", openapi_extra=_BODY, responses=responses, response_model=Answer)
    async def predict(request: Request, response: Response) -> Answer:
        """Say what is on a photo, which is the body itself or the one part of a form."""
        async with read(request) as photo:
            ask = partial(answerer.answer, photo)
            answer = await anyio.to_thread.run_sync(ask, limiter=threads)
        response.status_code = 422 if answer.error else 200
        return answer


def _add_feedback(app: FastAPI, feedback: Feedback, decoding: Decoding, read: _Read) -> None:
    threads = anyio.CapacityLimiter(1)

    @app.post("/feedback", status_code=204, response_class=Response)
    async def note(request: Request, label: str, prediction: str = "") -> None:
        """Note what a photo shows; its body is the photo, if it is to be kept."""
        async with read(request) as photo:
            add = partial(feedback.add, label, prediction, photo, decoding)
            await anyio.to_thread.run_sync(add, limiter=threads)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refuse(_: Request, err: Refused) -> JSONResponse:
        return _refusal(err)

    @app.exception_handler(HTTPException)
    async def refuse_request(_: Request, err: HTTPException) -> JSONResponse:
        """Say what the framework refuses in the form of all refusals."""
        detail = _DETAILS.get(err.status_code, str(err.detail))
        phrase = HTTPStatus(err.status_code).phrase.lower()
        answer = _refusal(Refused(err.status_code, phrase, detail))
        answer.headers.update(err.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def refuse_values(_: Request, err: RequestValidationError) -> JSONResponse:
        told = (f"{each['loc'][-1]}: {each['msg'].lower()}" for each in err.errors())
        return _refusal(Refused(422, "wrong parameters", "; ".join(told)))

    @app.exception_handler(OSError)
    @app.exception_handler(EnvironmentNotReadyError)
    async def wait(_: Request, err: Exception) -> JSONResponse:
        """Say that memory or file descriptors do not suffice now; the log gets one line."""
        logging.getLogger("uvicorn.error").error("a request was refused: %s", err)
        return _refusal(_busy())


def _busy() -> Refused:
    return Refused(503, "busy", "ask again in a few seconds", 2)


def _refusal(err: Refused) -> JSONResponse:
    headers = err.headers | {"Connection": "close"}
    return JSONResponse(asdict(err.refusal), err.status, headers=headers)


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded, so that a taken address is reported at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as err:
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {err}") from err


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
