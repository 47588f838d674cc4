"""Fetches weights from their publisher.

A file is either whole or absent: a download goes to ``*.part``, is resumed from there, checked,
and moved into place in one step.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from verger.errors import WeightsError, WeightsNotFoundError
from verger.features.model.weights import OnProgress, WeightsSource, sha256_of

ATTEMPTS = 4
TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 18


def download(url: str, path: Path, source: WeightsSource, on_progress: OnProgress | None) -> None:
    """Fetch a file of weights, trying again and going on where that may help.

    Parameters
    ----------
    url : str
    path : Path
        Where it is to be; a file beside it keeps its sha256.
    source : WeightsSource
        Its size and sha256, as far as they are known.
    on_progress : callable, optional

    Raises
    ------
    WeightsNotFoundError
        If it cannot be had.
    WeightsError
        If what came is not what was published; it is not kept.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_with_retries(url, part, source.size_bytes, on_progress)
        size = part.stat().st_size
        if source.size_bytes is not None and size != source.size_bytes:
            part.unlink()
            raise WeightsError(f"{url}: sent {size} bytes instead of {source.size_bytes}")
        digest = sha256_of(part)
        if source.sha256 is not None and digest != source.sha256.lower():
            part.unlink()
            raise WeightsError(f"{url}: sent sha256 {digest} instead of {source.sha256}")
        path.with_name(path.name + ".sha256").write_text(digest + "\n", "ascii")
        part.replace(path)
    except OSError as err:
        raise WeightsNotFoundError(
            f"weights {source.file_name}: {url} cannot be fetched ({err}); "
            f"use --weights PATH, put the file at {path}, or take another --model"
        ) from err


def _fetch_with_retries(
    url: str, part: Path, size_bytes: int | None, on_progress: OnProgress | None
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, size_bytes, on_progress)
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


def _fetch_rest(
    url: str, part: Path, size_bytes: int | None, on_progress: OnProgress | None
) -> None:
    """Append to ``part`` what it lacks, or start anew where the server knows no ranges."""
    done = part.stat().st_size if part.exists() else 0
    if size_bytes is not None and done >= size_bytes:
        return  # whole, or wrong: the caller looks
    request = urllib.request.Request(  # noqa: S310 - https, or the mirror that the user named
        url, headers={"Range": f"bytes={done}-"} if done else {}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
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
