"""The first directory of a TIFF as it lies in the file, where Pillow reads only what it knows."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from PIL import ExifTags

Tag = ExifTags.Base
# Bytes of one value of each type of TIFF 6.0, and of BigTIFF's long one.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


@dataclass(frozen=True, repr=False)
class Entry:
    """An entry of a directory; ``place`` is where its value lies, or what says where it lies."""

    tag: int
    kind: int
    n_bytes: int
    value: bytes
    place: int


def byte_order(content: bytes) -> Literal["little", "big"]:
    """Return in which order the bytes of a TIFF's numbers lie."""
    return "little" if content.startswith(b"II") else "big"


def read_entries(content: bytes) -> list[Entry] | None:
    """Return the entries of the first directory; None if it ends behind the end of the file."""
    order = byte_order(content)
    is_big = 43 in content[2:4]  # BigTIFF
    head, count, form = (slice(8, 16), 8, "HHQ8s") if is_big else (slice(4, 8), 2, "HHI4s")
    form = ("<" if order == "little" else ">") + form
    start = int.from_bytes(content[head], order) + count
    size = struct.calcsize(form)
    stop = start + int.from_bytes(content[start - count : start], order) * size
    if stop > len(content):
        return None
    entries = []
    for number, (tag, kind, n, value) in enumerate(struct.iter_unpack(form, content[start:stop])):
        place = start + number * size + size - len(value)
        entries.append(Entry(tag, kind, _TYPE_BYTES.get(kind, 0) * n, value, place))
    return entries


# Where pixels lie, and how many bytes.
_PIXELS = (
    (Tag.StripOffsets, Tag.StripByteCounts),
    (Tag.TileOffsets, Tag.TileByteCounts),
    (Tag.JpegIFOffset, Tag.JpegIFByteCount),
)


def holds_its_pixels(content: bytes) -> bool:
    """Whether the first directory, its values, and all pixels that it names lie within the file."""
    entries = read_entries(content)
    if entries is None or any(value_of(entry, content) is None for entry in entries):
        return False
    numbers = {entry.tag: _integers(entry, content) for entry in entries}
    return all(
        sum(start_and_size) <= len(content)
        for pair in _PIXELS
        for start_and_size in zip_longest(*(numbers.get(tag, ()) for tag in pair), fillvalue=0)
    )


def value_of(entry: Entry, content: bytes) -> bytes | None:
    """Return the bytes of an entry's values; None if they end behind the end of the file."""
    if entry.n_bytes <= len(entry.value):
        return entry.value[: entry.n_bytes]
    start = int.from_bytes(entry.value, byte_order(content))
    data = content[start : start + entry.n_bytes]
    return data if len(data) == entry.n_bytes else None


_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _integers(entry: Entry, content: bytes) -> tuple[int, ...]:
    form = _INTEGERS.get(entry.kind)
    data = value_of(entry, content)
    if form is None or data is None:
        return ()
    order = "<" if byte_order(content) == "little" else ">"
    return struct.unpack(f"{order}{len(data) // struct.calcsize(form)}{form}", data)
