"""Ways to break a photo's file; everything follows from the random numbers that are given."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

#: What length fields are set to; a file's own length, and its neighbours, come on top.
LENGTHS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def flip_bits(data: bytearray, dice: random.Random) -> bytearray:
    for _ in range(dice.choice((1, 2, 5, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def set_run(data: bytearray, dice: random.Random) -> bytearray:
    at, n_bytes = _run(data, dice)
    fill = dice.choice((bytes(n_bytes), b"\xff" * n_bytes, dice.randbytes(n_bytes)))
    data[at : at + n_bytes] = fill
    return data


def drop_run(data: bytearray, dice: random.Random) -> bytearray:
    at, n_bytes = _run(data, dice)
    del data[at : at + n_bytes]
    return data


def repeat_run(data: bytearray, dice: random.Random) -> bytearray:
    at, n_bytes = _run(data, dice)
    data[at:at] = data[at : at + n_bytes] * dice.choice((1, 1, 3, 40))
    return data


def cut(data: bytearray, dice: random.Random) -> bytearray:
    return data[: dice.randrange(len(data) + 1)]


def zero_tail(data: bytearray, dice: random.Random) -> bytearray:
    at = dice.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


def edit_header(data: bytearray, dice: random.Random) -> bytearray:
    for _ in range(dice.choice((1, 2, 4))):
        data[dice.randrange(min(64, len(data)))] = dice.randrange(256)
    return data


def edit_length(data: bytearray, dice: random.Random) -> bytearray:
    form = dice.choice((">H", "<H", ">I", "<I"))
    n_bytes = struct.calcsize(form)
    value = dice.choice((*LENGTHS, len(data) - 1, len(data), len(data) + 1))
    at = dice.randrange(max(1, len(data) - n_bytes))
    data[at : at + n_bytes] = struct.pack(form, value & (256**n_bytes - 1))
    return data


def shuffle_chunks(data: bytearray, dice: random.Random) -> bytearray:
    """Repeat, drop or move one of the file's own parts."""
    parts = list(chunks(bytes(data)))
    if not parts:
        return data
    start, end = dice.choice(parts)
    chunk = data[start:end]
    what = dice.randrange(3)
    if what == 0:
        data[end:end] = chunk * dice.choice((1, 1, 5, 100))
        return data
    del data[start:end]
    if what == 1:
        to = min(dice.choice(parts)[0], len(data))
        data[to:to] = chunk
    return data


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    flip_bits,
    set_run,
    drop_run,
    repeat_run,
    cut,
    zero_tail,
    edit_header,
    edit_length,
    shuffle_chunks,
)


def mutate(content: bytes, other: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Break a file in one to three ways; return it and their names."""
    data, names = bytearray(content), []
    if dice.random() < 0.1:  # a splice of two files
        data = data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]
        names.append("splice")
    for _ in range(dice.choice((1, 1, 1, 2, 3)) - len(names)):
        if data:
            mutation = dice.choice(MUTATIONS)
            data = mutation(data, dice)
            names.append(mutation.__name__)
    if data.startswith(PNG_MAGIC) and dice.random() < 0.6:
        # Otherwise every second chunk stops at its checksum, and nothing behind that is tried.
        data = _with_checksums(data)
    return bytes(data), "+".join(names)


def _run(data: bytearray, dice: random.Random) -> tuple[int, int]:
    at = dice.randrange(len(data))
    return at, min(len(data) - at, dice.choice((1, 2, 4, 16, 64, 300)))


def chunks(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of a file's own parts: chunks, segments or boxes."""
    at, length_of = _layout(content)
    while at + 8 <= len(content):
        end = at + length_of(content, at)
        if not at < end <= len(content):
            return
        yield at, end
        at = end


def _layout(content: bytes) -> tuple[int, Callable[[bytes, int], int]]:
    if content.startswith(PNG_MAGIC):
        return 8, lambda data, at: 12 + int.from_bytes(data[at : at + 4])
    if content.startswith(b"\xff\xd8"):
        return 2, lambda data, at: 2 + int.from_bytes(data[at + 2 : at + 4])
    if content.startswith(b"RIFF"):
        return (
            12,
            lambda data, at: 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2,
        )
    if content[4:8] == b"ftyp":
        return 0, lambda data, at: int.from_bytes(data[at : at + 4])
    return 8, lambda data, at: 12  # an entry of a TIFF's directory, or any 12 bytes


def _with_checksums(png: bytearray) -> bytearray:
    for start, end in chunks(bytes(png)):
        png[end - 4 : end] = struct.pack(">I", zlib.crc32(png[start + 4 : end - 4]))
    return png
