"""Picture files written by hand, sample by sample: what no library writes in every form."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from verger.features.preprocess import DecodeError, decode_photo

Samples = npt.NDArray[Any]

#: A picture of 2 by 2 in which every pixel and every band is another, and an alpha for it.
COLORS = np.array([[[255, 0, 10], [0, 200, 30]], [[5, 60, 255], [77, 99, 140]]], np.uint8)
ALPHA = np.array([[255, 128], [0, 255]], np.uint8)

BYTE, ASCII, SHORT, LONG, RATIONAL, SSHORT, SLONG, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 8, 9, 11, 12
_CODES = {
    BYTE: "B",
    ASCII: "B",
    SHORT: "H",
    LONG: "I",
    RATIONAL: "2I",
    SSHORT: "h",
    SLONG: "i",
    FLOAT: "f",
    DOUBLE: "d",
}

#: Of a TIFF's tag: how its values are written, and they themselves.
Tag = tuple[int, Sequence[Any]]


def packed(samples: Samples, bits: int, order: str = "<") -> bytes:
    """Pack samples (height, width, bands) row by row; those of no whole bytes from the left."""
    if bits in (8, 16, 32, 64):
        return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    rows = samples.reshape(len(samples), -1, 1).astype(np.uint16)
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((rows >> places & 1).reshape(len(rows), -1).astype(np.uint8), 1).tobytes()


def tiff(
    samples: Samples,
    bits: int,
    photometric: int | None,
    *,
    order: str = "<",
    packing: int = 1,
    planar: int = 1,
    pieces: str = "strip",
    tags: Mapping[int, Tag] | None = None,
) -> bytes:
    """Write a TIFF of one page.

    Parameters
    ----------
    samples : ndarray of shape (height, width) or (height, width, bands)
        Written in their own dtype, where that is of so many bits.
    bits : int
    photometric : int or None
        None leaves the tag out.
    order : str
        ``<`` for Intel's byte order, ``>`` for Motorola's.
    packing : int
        1 for none, 8 for deflate.
    planar : int
        2 writes each band by itself.
    pieces : str
        ``strip`` for one, ``rows`` for a strip of each row, ``tile`` for one tile of 16x16.
    tags : mapping
        More of them, or others instead.
    """
    if samples.ndim == 2:
        samples = samples[..., None]
    height, width, bands = samples.shape
    planes = np.split(samples, bands, axis=2) if planar == 2 else [samples]
    if pieces == "tile":
        room = ((0, 16 - height), (0, 16 - width), (0, 0))
        planes = [np.pad(plane, room) for plane in planes]
    if pieces == "rows":
        planes = [row for plane in planes for row in np.split(plane, height)]
    strips = [packed(plane, bits, order) for plane in planes]
    if packing == 8:
        strips = [zlib.compress(strip) for strip in strips]
    sizes = [len(strip) for strip in strips]
    offsets = [8 + sum(sizes[:number]) for number in range(len(strips))]
    entries: dict[int, Tag] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * bands),
        259: (SHORT, [packing]),
        277: (SHORT, [bands]),
        284: (SHORT, [planar]),
    }
    if photometric is not None:
        entries[262] = (SHORT, [photometric])
    if pieces == "tile":
        entries |= {322: (SHORT, [16]), 323: (SHORT, [16])}
        entries |= {324: (LONG, offsets), 325: (LONG, sizes)}
    else:
        entries |= {
            273: (LONG, offsets),
            278: (LONG, [height if pieces == "strip" else 1]),
            279: (LONG, sizes),
        }
    return _tiff_of(b"".join(strips), entries | dict(tags or {}), order)


def _tiff_of(data: bytes, entries: Mapping[int, Tag], order: str) -> bytes:
    data += bytes(len(data) % 2)
    place = 8 + len(data)  # of the directory
    directory, further = struct.pack(order + "H", len(entries)), b""
    behind = place + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        code = _CODES[kind]
        written = struct.pack(order + code[-1] * len(values), *values)
        n_values = len(values) // (2 if kind == RATIONAL else 1)
        if len(written) > 4:
            written, further = (
                struct.pack(order + "I", behind + len(further)),
                further + written + bytes(len(written) % 2),
            )
        directory += struct.pack(order + "HHI", tag, kind, n_values) + written.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, place)
    return head + data + directory + bytes(4) + further


def bmp(
    rows: Sequence[bytes],
    width: int,
    bits: int,
    *,
    palette: bytes = b"",
    n_colors: int = 0,
    compression: int = 0,
    masks: Sequence[int] = (),
    header: int = 40,
    top_down: bool = False,
    as_dib: bool = False,
) -> bytes:
    """Write a Windows bitmap; rows from the top, each without its padding.

    ``header`` is its size: 12 (OS/2), 40, 52, 56, 108 or 124. Masks lie in it, or behind 40.
    ``n_colors`` of 0 stands for all that the bits can number. RLE data are one row.
    """
    padded = [row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows]
    is_rle = compression in (1, 2)
    data = rows[0] if is_rle else b"".join(padded if top_down else reversed(padded))
    height = 2 if is_rle else len(rows)
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        head = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            len(data),
            2835,
            2835,
            n_colors,
            0,
        )
        head += b"".join(struct.pack("<I", mask) for mask in masks)
        head = head.ljust(header, b"\0")
    head += palette
    file = (
        b"" if as_dib else b"BM" + struct.pack("<IHHI", 14 + len(head + data), 0, 0, 14 + len(head))
    )
    return file + head + data


def chunk(kind: bytes, data: bytes) -> bytes:
    """Write a PNG's chunk, with its sum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Samples, bits: int, color: int, *chunks: bytes) -> bytes:
    """Write a PNG of samples (height, width) or (height, width, bands), without any filter.

    ``color`` is 0 for grey, 2 for RGB, 3 for a palette, 4 for grey and alpha, 6 for RGBA.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    rows = (b"\0" + packed(samples[y : y + 1], bits, ">") for y in range(height))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(b"".join(rows))),
            chunk(b"IEND", b""),
        )
    )


def onto_white(colors: Samples, alpha: Samples) -> Samples:
    """Return colours (height, width, 3) as they are seen on white; all are 0 to 255."""
    share = alpha[..., None] / 255
    return np.rint(colors * share + 255 * (1 - share))


def greys(levels: Any) -> Samples:
    """Return grey levels (height, width) as colours (height, width, 3)."""
    return np.stack([np.asarray(levels)] * 3, axis=-1)


def assert_seen(content: bytes, expected: Samples, tolerance: int = 0, how: str = "") -> None:
    """Compare what ``decode_photo`` gives of a picture of 2 by 2 with its true colours."""
    pixels = decode_photo(content, size=2).pixels
    np.testing.assert_allclose(pixels.astype(int), expected, rtol=0, atol=tolerance, err_msg=how)


def refusal(content: bytes) -> DecodeError:
    """Return why ``decode_photo`` refuses a picture."""
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=2)
    return caught.value
