"""Download a file of weights from its publisher.

A file is either whole or absent: a download is written to ``*.part``, resumed from there, checked,
and moved into place in one step.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verger.errors import WeightsError, WeightsNotFoundError
from verger.features.model.checksum import sha256_of

_OnProgress = Callable[[int, int], None]

ATTEMPTS = 4
TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 18


def download(
    url: str,
    path: Path,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    on_progress: _OnProgress | None = None,
) -> None:
    """Download a file, trying again and resuming where that may help.

    Parameters
    ----------
    url : str
    path : Path
        Where the file is to be.
    size_bytes, sha256 : optional
        What was published, as far as it is known.
    headers : mapping of str to str, optional
        Sent to this host alone, not to the one that it may point to.
    on_progress : callable, optional

    Raises
    ------
    WeightsNotFoundError
        If it cannot be downloaded.
    WeightsError
        If the downloaded file is not what was published; it is deleted.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_with_retries(url, part, headers or {}, size_bytes, on_progress)
        size = part.stat().st_size
        if size_bytes is not None and size != size_bytes:
            part.unlink()
            raise WeightsError(f"{url}: sent {size} bytes instead of {size_bytes}")
        digest = sha256_of(part)
        if sha256 is not None and digest != sha256.lower():
            part.unlink()
            raise WeightsError(f"{url}: sent sha256 {digest} instead of {sha256}")
        if sha256 is None:  # noted, so that the file is checked the next time
            path.with_name(path.name + ".sha256").write_text(digest + "\n", "ascii")
        part.replace(path)
    except OSError as err:
        raise WeightsNotFoundError(
            f"weights {path.name}: {url} cannot be fetched ({err}); "
            f"use --weights PATH (in Python weights=PATH), put the file at {path}, or use --model "
            "efficientnet_lite0, which needs no download"
        ) from err


def _fetch_with_retries(
    url: str,
    part: Path,
    headers: Mapping[str, str],
    size_bytes: int | None,
    on_progress: _OnProgress | None,
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, headers, size_bytes, on_progress)
            return
        except (OSError, http.client.HTTPException) as err:
            if attempt == ATTEMPTS or not _may_pass(err):
                raise err if isinstance(err, OSError) else OSError(str(err)) from err
            time.sleep(0.5 * 2**attempt)


def _may_pass(err: Exception) -> bool:
    """Whether trying again can help: not for a name that does not resolve, nor for a 404."""
    if isinstance(err, WeightsNotFoundError):
        return False
    if isinstance(err, urllib.error.HTTPError):
        return err.code in (408, 416, 429) or err.code >= 500
    reason = getattr(err, "reason", err)
    return not isinstance(reason, (ConnectionRefusedError, PermissionError)) and (
        type(reason).__name__ != "gaierror"
    )


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Keep the headers of a request for its own host: a redirect may lead to a storage service.

    Or away from https, where anybody on the way would read a token.
    """

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is None or request.host != req.host:
            return request
        if request.type in (req.type, "https"):
            for name, value in req.unredirected_hdrs.items():
                if name != "Host":
                    request.add_unredirected_header(name, value)
        return request


def open_url(
    url: str, own: Mapping[str, str], timeout_s: float, headers: Mapping[str, str] | None = None
) -> Any:
    """Open an address over HTTP.

    Parameters
    ----------
    url : str
    own : mapping of str to str
        Headers for this host alone.
    timeout_s : float
    headers : mapping of str to str, optional
        Headers for every host that it may point to.

    Raises
    ------
    OSError
        ``urllib.error.HTTPError`` is one.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - checked
    for name, value in own.items():
        request.add_unredirected_header(name, value)
    return urllib.request.build_opener(_SameHost).open(request, timeout=timeout_s)


def _fetch_rest(
    url: str,
    part: Path,
    headers: Mapping[str, str],
    size_bytes: int | None,
    on_progress: _OnProgress | None,
) -> None:
    """Append to ``part`` what it lacks, or start again if the server ignores ranges."""
    done = part.stat().st_size if part.exists() else 0
    if size_bytes is not None and done >= size_bytes:
        return  # whole, or wrong: the caller checks
    try:
        rest = {"Range": f"bytes={done}-"} if done else {}
        answer = open_url(url, headers, TIMEOUT_S, rest)
    except urllib.error.HTTPError as err:
        err.close()
        if err.code == 416:  # nothing beyond what is here: it was of another file
            part.unlink(missing_ok=True)
        raise
    with answer:
        if answer.status != 206:
            done = 0
        announced = int(answer.headers.get("Content-Length") or 0)
        total = size_bytes or done + announced
        if announced and done + announced != total:
            # A log-in page of the network, or another file: nothing of it is kept.
            raise WeightsNotFoundError(f"it offers {done + announced} bytes instead of {total}")
        with part.open("ab" if done else "wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                done += file.write(chunk)
                if on_progress:
                    on_progress(done, total)
    if done < total:
        raise http.client.IncompleteRead(b"", total - done)
