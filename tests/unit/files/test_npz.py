"""A file of arrays takes no more memory than it is large, and damage of any kind is one error."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from verger.files.npz import read_npz
from verger.pca.moments import npz_bytes


def entry(content: bytes, **options: int) -> bytes:
    """Return a zip file with one entry, x.npy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        archive.writestr("x.npy", content)
    return stream.getvalue()


def array_of(shape: str, descr: str = "<f8") -> bytes:
    """Return an npy file whose header says a shape, and which has no values."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def patched(content: bytes, offset: int, value: int) -> bytes:
    """Set two bytes of the header of the one entry, in the file and in the directory."""
    changed, directory = bytearray(content), content.index(b"PK\x01\x02")
    for place in (offset, directory + 2 + offset):
        changed[place : place + 2] = value.to_bytes(2, "little")
    return bytes(changed)


def test_arrays_are_read_back() -> None:
    read = read_npz(npz_bytes(a=np.arange(3.0), b="text"), {"a": (3,)})
    np.testing.assert_array_equal(read["a"], [0, 1, 2])
    assert str(read["b"]) == "text"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no zip", "zip"),
        (b"", "zip"),
        (entry(array_of(f"({2**70},)")), "does not fit into"),
        (entry(array_of("(1000000, 1000000, 1000000)")), "does not fit into"),
        (entry(array_of("(5,)", "<U500000000")), "does not fit into"),
        (entry(array_of("(-1,)")), "."),
        (entry(array_of("((((")), "."),
        (entry(array_of("(1,)", "|O")), "allow_pickle=False"),
        (entry(b"\x93NUMPY\x09\x00"), "."),
        (entry(b"x"), "."),
        (patched(entry(array_of("()") + bytes(8)), 6, 1), "encrypted"),
        (patched(entry(array_of("()") + bytes(8)), 8, 99), "compression"),
        (patched(entry(array_of("()") + bytes(8)), 8, 8), "."),
    ],
)
def test_damage_is_one_error(content: bytes, text: str) -> None:
    """Whatever zipfile, zlib and numpy raise."""
    with pytest.raises(ValueError, match=text):
        read_npz(content)


def test_a_small_file_does_not_unpack_to_a_large_array() -> None:
    """Verger compresses none, so that an array that is larger than its file is none of its own."""
    content = array_of("(100000000,)", "|i1") + bytes(100_000_000)
    packed = entry(content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"size=100,000,\d+ bytes must be at most"):
        read_npz(packed)
