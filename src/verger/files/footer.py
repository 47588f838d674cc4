"""What a Parquet file says of its sizes, read without decoding anything.

pyarrow gives the same numbers, but ends the process where a footer is damaged, and does not
say what the headers of the pages hold. Both are written in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

#: Bytes that are read at once where a page begins; a longer header is read again as a whole.
_HEADER_BYTES, _LONGEST_HEADER = 1024, 1 << 20
#: Physical types, by their number.
_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED")
#: Encodings of values that cannot grow beyond their bytes: plain, by dictionary, run lengths.
_ENCODINGS = {0, 2, 3, 4, 8}


@dataclass(frozen=True)
class Chunk:
    """The values of one column in one row group.

    Attributes
    ----------
    column : tuple of str
        Path in the schema; of a list also its levels.
    physical_type : str
    rows, values : int
    size, stored_size : int
        In bytes, before and after compression.
    start : int
        Where its first page begins.
    """

    column: tuple[str, ...]
    physical_type: str
    rows: int
    values: int
    size: int
    stored_size: int
    start: int


def read_chunks(file: pa.NativeFile) -> list[Chunk]:
    """Read what the footer says of every column in every row group.

    Raises
    ------
    ValueError
        If it is no footer, or says what cannot be.
    """
    size = file.size()
    tail = file.read_at(8, max(size - 8, 0))
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        raise ValueError("it has no footer of a Parquet file")
    footer = _Thrift(file.read_at(length, size - 8 - length)).read()
    try:
        groups, leaves = footer.get(4, []), list(_leaves(iter(footer[2][1:]), footer[2][0][5]))
        if any(len(group[1]) != len(leaves) for group in groups):
            raise ValueError(f"columns={len(leaves)} are not those of its row groups")
        if footer[3] != sum(group[3] for group in groups):
            raise ValueError(f"rows={footer[3]:,} are not those of its row groups")
        return [
            _chunk(leaf, column[3], group[3])
            for group in groups
            for leaf, column in zip(leaves, group[1], strict=True)
        ]
    except (LookupError, TypeError, AttributeError, RuntimeError, UnicodeError) as err:
        raise ValueError(f"its footer is damaged: {err!r}") from err


_Leaf = tuple[tuple[str, ...], str]


def _leaves(elements: Iterator[dict[int, Any]], n: int) -> Iterator[_Leaf]:
    """Return path and type of every column, of a tree that is written from its root on."""
    for _ in range(n):
        element = next(elements)
        name = element[4].decode()
        if element.get(5):
            yield from (((name, *below), kind) for below, kind in _leaves(elements, element[5]))
        else:
            yield (name,), _TYPES[element[1]]


def _chunk(leaf: _Leaf, values: dict[int, Any], rows: int) -> Chunk:
    column, kind = leaf
    numbers = [rows, values[5], values[6], values[7], values[9], values.get(11, 0)]
    if min(numbers) < 0 or not set(values[2]) <= _ENCODINGS:
        raise ValueError(
            f"column {'.'.join(column)} has rows, values, sizes and offsets {numbers} "
            f"and encodings {sorted(set(values[2]))}, which no table has"
        )
    start = min(values[9], values.get(11) or values[9])
    return Chunk(column, kind, rows, values[5], values[6], values[7], start)


# By the type of a page (data, dictionary, second version of data): which field of its header has
# the number of values, and which field of that their encoding.
_BODIES = {0: (5, 2), 2: (7, 2), 3: (8, 4)}


def check_pages(file: pa.NativeFile, chunk: Chunk) -> None:
    """Compare the headers of a column's pages with what the footer says of them.

    Raises
    ------
    ValueError
        If the pages hold more than that.
    """
    n_values = size = 0
    for page in _pages(file, chunk):
        try:
            field, encoded = _BODIES[page[1]]
            counted, encoding = page[field][1], page[field][encoded]
            n_values += 0 if field == 7 else counted
            size += page[2]
            is_whole = min(counted, page[2]) >= 0 and encoding in _ENCODINGS
        except (LookupError, TypeError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"a page of column {'.'.join(chunk.column)} is damaged")
        if n_values > chunk.values or size > chunk.size:
            raise ValueError(
                f"the pages of column {'.'.join(chunk.column)} have {n_values:,} values in "
                f"{size:,} bytes; its footer says {chunk.values:,} in {chunk.size:,}"
            )


def _pages(file: pa.NativeFile, chunk: Chunk) -> Iterator[dict[int, Any]]:
    at, end = chunk.start, min(chunk.start + chunk.stored_size, file.size())
    while at < end:
        try:
            thrift = _Thrift(file.read_at(min(_HEADER_BYTES, end - at), at))
            page = thrift.read()
        except ValueError:  # with texts as its statistics it may be longer
            thrift = _Thrift(file.read_at(min(_LONGEST_HEADER, end - at), at))
            page = thrift.read()
        stored = page.get(3)
        if not isinstance(stored, int) or stored < 0:
            raise ValueError(f"a page of column {'.'.join(chunk.column)} is damaged")
        yield page
        at += thrift.at + stored


class _Thrift:
    """A structure in the compact protocol, as a mapping from the numbers of its fields."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def read(self) -> dict[int, Any]:
        try:
            return self._structure()
        except (IndexError, RecursionError) as err:
            raise ValueError(f"its footer or a page is damaged: {err!r}") from err

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while shift < 70:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
        raise ValueError("a number of its footer or a page is damaged")

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _structure(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields:
                raise ValueError("its footer or a page has a field twice")
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind == 9:
            return self._list()
        if kind == 12:
            return self._structure()
        raise ValueError(f"its footer or a page is damaged: type={kind}")

    def _bytes(self, n: int) -> bytes:
        self.at += n
        if self.at > len(self.content):
            raise IndexError(n)
        return self.content[self.at - n : self.at]

    def _list(self) -> list[Any]:
        head = self._byte()
        n = head >> 4 if head >> 4 < 15 else self._varint()
        return [self._value(head & 15) for _ in range(n)]
