"""Files of named arrays: small ones cannot unpack to much memory, and damage is one error."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

#: Largest file that is read: a classifier of 25,000 labels of 1,280 features has 256 MB.
MAX_NPZ_BYTES = 512_000_000

#: What zipfile, numpy and the conversion of their values raise for damaged files. RuntimeError is
#: for encrypted entries and unknown compression, AttributeError for an npz in place of an npy.
UNREADABLE = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(content: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """Read all arrays of an npz file, which needs no more memory than the file is large.

    Parameters
    ----------
    content : bytes
    shapes : mapping of str to tuple of int, optional
        Largest shape of each array; all others must be single values.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If it is damaged, or an array is larger than it may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_sizes(archive, len(content), shapes)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except UNREADABLE as err:
        raise ValueError(str(err) or type(err).__name__) from err


def _check_sizes(
    archive: zipfile.ZipFile, size: int, shapes: Mapping[str, tuple[int, ...]] | None
) -> None:
    """Refuse arrays that are too large, before one is read: 26 MB may unpack to 7 GB."""
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > MAX_NPZ_BYTES:
        raise ValueError(f"size={total:,} bytes must be at most {MAX_NPZ_BYTES:,}")
    for entry in entries:
        with archive.open(entry) as member:
            shape, dtype = _read_header(member)
        name = entry.filename.removesuffix(".npy")
        most = shapes.get(name, ()) if shapes is not None else shape
        if len(shape) != len(most) or any(a > b for a, b in zip(shape, most, strict=True)):
            raise ValueError(f"{name}: shape {shape} must be at most {most}")
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{name}: shape {shape} does not fit into {entry.file_size:,} bytes")
    if total > size:
        raise ValueError(f"size={total:,} bytes must be at most {size:,}: Verger compresses none")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the type of a stored array without reading its values."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype
