"""Read from binaries what they need: their machine, the C library's version, other libraries.

Of the ELF format (64 bits, little-endian, as on both processors of EMR) it reads the program
headers and the dynamic section; see elf(5).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"
#: The machine that a file is for, bytes 18 and 19 of its header.
_MACHINES = {b"\x3e\x00": "X86_64", b"\xb7\x00": "ARM64"}
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME = 0, 1, 5, 14


@dataclass(frozen=True)
class Binary:
    """What one binary says of itself.

    Attributes
    ----------
    machine : str
        ``X86_64``, ``ARM64`` or ``another``.
    glibc : tuple of int
        Newest symbol version of the C library that it asks for; (2, 0) for none.
    needs : tuple of str
        Names of the libraries that it is linked with, such as ``libz.so.1``.
    soname : str
        By which others need it; empty where it has none.
    """

    machine: str
    glibc: tuple[int, int]
    needs: tuple[str, ...]
    soname: str


def read_binary(content: bytes) -> Binary:
    """Read a whole ELF file; one that is cut off needs nothing."""
    machine = _MACHINES.get(content[18:20], "another")
    versions = re.findall(rb"GLIBC_2\.(\d+)\0", content)
    glibc = max(((2, int(number)) for number in versions), default=(2, 0))
    try:
        entries = list(_dynamic(content))
    except (struct.error, ValueError):
        entries = []
    needs = tuple(name for tag, name in entries if tag == _DT_NEEDED)
    soname = next((name for tag, name in entries if tag == _DT_SONAME), "")
    return Binary(machine, glibc, needs, soname)


def _dynamic(content: bytes) -> Iterator[tuple[int, str]]:
    """Yield the tags of the dynamic section that are names, with the names."""
    (headers,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [
        struct.unpack_from("<IIQQQQ", content, headers + size * number) for number in range(count)
    ]
    for kind, _, start, _, _, length in segments:
        if kind == _PT_DYNAMIC:
            pairs = [
                struct.unpack_from("<QQ", content, start + 16 * number)
                for number in range(length // 16)
            ]
            names = _offset(segments, dict(pairs).get(_DT_STRTAB, 0))
            for tag, value in pairs:
                if tag == _DT_NULL:
                    return
                if tag in (_DT_NEEDED, _DT_SONAME):
                    begin = names + value
                    yield tag, content[begin : content.index(b"\0", begin)].decode("ascii")


def _offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Return where in the file a loaded address is."""
    for kind, _, start, virtual, _, length in segments:
        if kind == _PT_LOAD and virtual <= address < virtual + length:
            return start + address - virtual
    raise ValueError(f"address={address} is in no segment")
