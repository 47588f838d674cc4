"""What browsers are told, and which of their requests are refused: those of other sites' pages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = (
    "default-src 'none'; script-src 'self'{wasm}; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'"
)


def page_policy(*, wasm: bool) -> str:
    """Return the content policy of a page that asks nothing of other hosts."""
    return _POLICY.format(wasm=" 'wasm-unsafe-eval'" if wasm else "")


class Guard:
    """Middleware that refuses requests of other sites' pages and adds headers to all answers.

    HEAD is answered as GET is, which FastAPI alone refuses; the server sends no body for it.

    Parameters
    ----------
    app : ASGI application
    wasm : bool
        Let the page run WebAssembly.
    """

    def __init__(self, app: ASGIApp, *, wasm: bool = False) -> None:
        self._app = app
        policy = f"{page_policy(wasm=wasm)}; frame-ancestors 'none'"
        self._headers = _HEADERS | {"Content-Security-Policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            send = partial(_send_with, self._headers, send)
            if is_foreign(scope["method"], scope["scheme"], Headers(scope=scope)):
                refusal = {"error": "foreign page", "detail": "only this server's page may ask"}
                answer = JSONResponse(refusal, 403, headers={"Connection": "close"})
                await answer(scope, receive, send)
                return
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def is_foreign(method: str, scheme: str, headers: Mapping[str, str]) -> bool:
    """Whether a page of another site makes a request.

    Browsers say so themselves, and let no page change it: by ``Sec-Fetch-Site`` at addresses that
    they trust, and else by ``Origin``. A link to the page is no such request. Other programs send
    neither header.

    Parameters
    ----------
    method, scheme : str
        Such as ``POST`` and ``https``.
    headers : mapping of str to str
        By names in lower case.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_link = method == "GET" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not is_link
    return origin is not None and origin != f"{scheme}://{headers.get('host', '')}"


async def _send_with(headers: Mapping[str, str], send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        given = MutableHeaders(scope=message)
        for name, value in headers.items():
            given.setdefault(name, value)
    await send(message)
