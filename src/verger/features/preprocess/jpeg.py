"""JPEGs at a reduced scale, that tell whether they are whole: libjpeg does not always."""

from __future__ import annotations

import re
from collections.abc import Iterator

from PIL.JpegImagePlugin import JpegImageFile

#: How a JPEG begins.
JPEG_MAGIC = b"\xff\xd8\xff"
_SOS, _EOI = 0xDA, 0xD9
# Huffman-coded: one pass from top to bottom; and scans that refine one another.
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length
# What else lies between two segments is padding. Within a scan 0xFF is data where 0x00 follows,
# and RST0 to RST7 belong to it.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# 64 bits of 1, of which no Huffman code consists: as much as the decoder looks ahead behind the
# last pixel. Where pixels are missing it stands for two blocks of 8x8 of them at most.
_FILLER = b"\xff\x00" * 8
_LEAST_SCAN_BYTES = 16
# What a row is marked with: noise, which no photo's last row equals.
_MARK = bytes.fromhex("5aa713ec4b96d2380fe1877c69b43d90")


class Jpeg(JpegImageFile):
    """A JPEG that tells whether it ends before its last pixel.

    libjpeg fills with grey what is missing before an end marker, and Pillow drops its warning.

    Attributes
    ----------
    full_size : (int, int) or None
        Width and height in the file, where it is decoded at a reduced scale.
    extent : (float, float) or None
        How much of the reduced width and height they are: the last pixels may be partly filled.
    """

    parts: tuple[bytes, ...] | None = None
    full_size: tuple[int, int] | None = None
    extent: tuple[float, float] | None = None

    def reduce_scale(self, least: int) -> None:
        """Decode at 1/2, 1/4 or 1/8 of width and height: the smallest that leaves enough.

        libjpeg computes fewer pixels out of each block of 8x8 coefficients. All of the file is
        still read, so that nothing cut off passes unnoticed.

        Parameters
        ----------
        least : int
            Pixels that the shorter side must still have.
        """
        if min(self.size) >= 2 * least:
            self.full_size = self.size
            drafted = self.draft(None, (least, least))
            if drafted is not None:
                self.extent = drafted[1][2:]

    def load_whole(self, content: bytes) -> None:
        """Decode the photo.

        Raises
        ------
        OSError
            If it is cut off, or was and then was closed by an end marker.
        """
        frame, scans, end = 0, [], 0
        for marker, start, stop in _segments(content):
            if marker in _FRAMES:
                frame = frame or start
            elif marker == _SOS:
                scans.append(content[start:stop])
            elif marker == _EOI:
                end = start
        if frame and end:
            kind, n_components = content[frame + 1], content[frame + 9]
            if kind == _PROGRESSIVE and not _are_all_scans(scans, n_components):
                raise OSError("image file is truncated: it ends before its last scan")
            if kind in _SEQUENTIAL and len(scans) == 1 and self._put_mark():
                # The end marker comes only when the decoder has had everything before it.
                self.parts = (content[:end], _FILLER, content[end : end + 2])
        self.load()

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes for the decoder; none at the end."""
        if self.parts is None:
            return super().load_read(read_bytes)
        if len(self.parts) == 1 and self._row() == self._mark():
            raise OSError("image file is truncated: it ends before its last row")
        part, self.parts = b"".join(self.parts[:1]), self.parts[1:]
        return part

    def _put_mark(self) -> bool:
        """Mark the last row, unless a decoded one might look the same: in 4 bytes it does not."""
        self.load_prepare()
        for x, color in enumerate(self._mark()):
            self.im.putpixel((x, self.height - 1), color)
        return self.width * len(self.getbands()) >= 4

    def _mark(self) -> list[int | tuple[int, ...]]:
        """Return the first pixels of a marked row."""
        n_bands = len(self.getbands())
        colors = [tuple(_MARK[x : x + n_bands]) for x in range(min(self.width, 12))]
        return [color[0] if n_bands == 1 else color for color in colors]

    def _row(self) -> list[int | tuple[int, ...]]:
        """Return the first pixels of the last row."""
        return [self.im.getpixel((x, self.height - 1)) for x in range(min(self.width, 12))]


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of a JPEG's segments, its end marker the last.

    The data of a scan belong to no segment. Where the file was cut, ``end`` lies behind it.
    """
    found = _MARKER.search(content, 2)  # behind the start marker
    while found:
        start, marker = found.start(), content[found.start() + 1]
        end = start + 2
        if marker not in _BARE:
            end += int.from_bytes(content[end : end + 2].ljust(2, b"\xff"))
            yield marker, start, end
        if marker == _EOI:
            yield marker, start, end
            return
        found = (_MARKER_IN_SCAN if marker == _SOS else _MARKER).search(content, end)


def without_cut_segment(content: bytes) -> bytes:
    """Drop a JPEG's last segment where it was cut; libjpeg would give up what precedes it.

    So too a scan with next to no data: libjpeg makes a block of noise of it.
    """
    for marker, start, end in _segments(content):
        if end + (_LEAST_SCAN_BYTES if marker == _SOS else 0) > len(content):
            return content[:start]
    return content


def _are_all_scans(scans: list[bytes], n_components: int) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient, to its last bit.

    ITU-T T.81, B.2.3: the header of a scan holds its marker, its length, n components, n times a
    component and its tables, the first and the last coefficient (0 to 63), and two times 4 bits,
    the last of which say how many bits of them are still to come.
    """
    to_come: dict[tuple[int, int], int] = {}
    for scan in scans:
        first, last, bits = scan[-3:]
        for component in scan[5 : 5 + 2 * scan[4] : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                to_come[component, coefficient] = bits & 15
    return len(to_come) == 64 * n_components and not any(to_come.values())


def is_deep_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG of other than 8 bits a colour."""
    if not content.startswith(JPEG_MAGIC):
        return False
    frame = next((start for marker, start, _ in _segments(content) if marker in _FRAMES), None)
    return frame is not None and content[frame + 4 : frame + 5] not in (b"", b"\x08")
