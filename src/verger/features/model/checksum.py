"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from verger.errors import WeightsError


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
    digest = sha256_of(path)
    check_digest(path, digest, expected)
    return digest


def check_digest(path: Path, digest: str, expected: str) -> None:
    """Refuse a model's file whose digest is not the expected one.

    Raises
    ------
    WeightsError
    """
    if digest != expected.lower():
        raise WeightsError(
            f"weights {path}: sha256 {digest} is not the expected {expected}; "
            "correct the sum, or use the right file"
        )
