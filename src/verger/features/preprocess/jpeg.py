"""JPEGs at a reduced scale, that tell whether they are whole: Pillow drops libjpeg's warnings.

A JPEG is whole if it has its end marker, a scan of each component, every bit of the coefficients
that its scans begin, and if no scan ends before its data are decoded: libjpeg would fill with grey
what is missing, and warn "premature end of data segment". A band of coefficients that no scan
brings is none of this: libjpeg decodes such a file without a warning. So three cuts that something
closed with an end marker pass: exactly between two scans of a progressive JPEG that brings its
coefficients whole, one by one; in the last bytes of a scan, where three blocks of 8x8 may lack
their details; and in the last 16 bytes of an arithmetic-coded scan, and 1 more for each 2 million
pixels, of which an encoder may leave out zeros (ITU-T T.81, D.1.8). A whole file whose scans never
bring the last bits of what they began is taken for a cut one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

#: How a JPEG begins.
JPEG_MAGIC = b"\xff\xd8\xff"
_SOS, _EOI, _RST0 = 0xDA, 0xD9, 0xD0
# Those three are tables; the last one is of JPEG-LS (ITU-T T.87).
_FRAMES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
# What libjpeg decodes: baseline, extended, progressive, lossless; and two in arithmetic coding.
_LOSSLESS, _PROGRESSIVE, _ARITHMETIC = 0xC3, frozenset({0xC2, 0xCA}), frozenset({0xC9, 0xCA})
_DECODED = frozenset({0xC0, 0xC1, _LOSSLESS}) | _PROGRESSIVE | _ARITHMETIC
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length
# What else lies between two segments is padding. Within a scan 0xFF is data where 0x00 follows,
# and RST0 to RST7 belong to it.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# 8 bits of 1, of which no Huffman code consists. libjpeg looks 8 bytes ahead of what it decodes.
# Where pixels are missing they stand for three blocks of 8x8 of them at most.
_FILLER, _N_AHEAD = b"\xff\x00", 8
_LEAST_HEADER, _LEAST_SCAN_BYTES = 10, 16


@dataclass(frozen=True, repr=False)
class _Scan:
    """A scan: its header, from its marker on, and where its data end."""

    header: bytes
    end: int

    @property
    def components(self) -> bytes:
        return self.header[5:-3:2]


@dataclass(frozen=True, repr=False)
class _Structure:
    """The frame of a JPEG, from its marker on, its scans, and its end; 0 where that is missing."""

    frame: bytes
    scans: list[_Scan]
    end: int

    @property
    def kind(self) -> int:
        return self.frame[1] if self.frame else 0

    @property
    def components(self) -> bytes:
        return self.frame[10::3]

    @property
    def is_unsupported(self) -> bool:
        """Whether libjpeg, or Pillow, does not decode such a frame.

        So are other than 8 bits a colour, 2 or more than 4 components, a height that only follows
        the first scan (DNL), hierarchical and arithmetic-coded lossless frames, and components of
        which one is not a whole number of times as wide or high as another.
        """
        frame = self.frame
        if len(frame) < 10 or len(frame) < 10 + 3 * frame[9]:
            return False
        factors = [[x >> 4 for x in frame[11::3]], [x & 15 for x in frame[11::3]]]
        return (
            self.kind not in _DECODED
            or frame[4] != 8
            or frame[5:7] == b"\0\0"
            or frame[9] not in (1, 3, 4)
            or any(max(side) % (factor or 1) for side in factors for factor in side)
        )

    def lacks_scans(self) -> bool:
        """Whether a component has no scan, or bits are still to come of what a scan began.

        ITU-T T.81, B.2.3: the header of a scan holds its marker, its length, n components, n times
        a component and its tables, the first and the last coefficient (0 to 63), and two times 4
        bits, the last of which say how many bits of them are still to come.
        """
        to_come: dict[tuple[int, int], int] = {}
        for scan in self.scans:
            is_part = self.kind in _PROGRESSIVE
            first, last, bits = scan.header[-3:] if is_part else (0, 0, 0)
            for component in scan.components:
                for coefficient in range(first, min(last, 63) + 1):
                    to_come[component, coefficient] = bits & 15
        has_all = all((component, 0) in to_come for component in self.components)
        return not has_all or any(to_come.values())


def _structure(content: bytes) -> _Structure:
    frame, scans, end = b"", [], 0
    header = b""
    for marker, start, stop in _segments(content):
        if len(header) >= _LEAST_HEADER:
            scans.append(_Scan(header, start))
        header = content[start:stop] if marker == _SOS else b""
        if marker in _FRAMES:
            frame = frame or content[start:stop]
        elif marker == _EOI:
            end = stop
    return _Structure(frame, scans, end)


class Jpeg(JpegImageFile):
    """A JPEG that tells whether it ends before its last pixel.

    Attributes
    ----------
    full_size : (int, int) or None
        Width and height in the file, where it is decoded at a reduced scale.
    extent : (float, float) or None
        How much of the reduced width and height they are: the last pixels may be partly filled.
    """

    structure: _Structure
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
        if min(self.size) >= 2 * least and self.structure.kind != _LOSSLESS:
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
        jpeg = self.structure
        if not jpeg.end:
            raise OSError("image file is truncated: it has no end marker")
        if jpeg.lacks_scans():
            raise OSError("image file is truncated: it ends before its last scan")
        self.load_prepare()
        feeder = _Feeder(self)
        if jpeg.kind in _ARITHMETIC:
            # It takes all at once, or fails; behind an end marker it would see zeros for ever.
            last = jpeg.scans[-1].end
            width, height = self.full_size or self.size
            feeder.feed(content[:last] + bytes(16 + (width * height >> 21)))
            feeder.feed(content[last : jpeg.end])
        else:
            feeder.feed_scans(content, jpeg)
        if not feeder.is_done:
            raise OSError("image file is truncated: it ends before its last row")
        self.tile = []


def open_jpeg(content: bytes) -> Jpeg:
    """Open a JPEG.

    Raises
    ------
    SyntaxError
        If Pillow does not know it.
    OSError
        If its frame is of a kind that libjpeg does not decode.
    """
    image = Jpeg(io.BytesIO(content))
    image.structure = _structure(content)
    if image.structure.is_unsupported:
        raise OSError("unsupported coding or sampling of a JPEG")
    image.decodermaxblock = len(content)  # arithmetic coding is decoded all at once, or not
    return image


class _Feeder:
    """libjpeg's decoder, given a photo piece by piece."""

    def __init__(self, image: Jpeg) -> None:
        codec, box, _, arguments = image.tile[0]
        self._decoder: Any = Image._getdecoder(image.mode, codec, arguments, image.decoderconfig)
        self._decoder.setimage(image.im, box)
        self._rest = b""
        self.is_done = False

    def feed(self, piece: bytes) -> bool:
        """Give the next bytes; return whether all of them were taken.

        What libjpeg cannot decode to the end of a block of pixels it leaves for the next time.
        """
        if self.is_done:
            return True
        given = self._rest + piece
        n_taken, error = self._decoder.decode(given)
        if error < 0:
            raise OSError("broken data stream")
        self.is_done = n_taken < 0
        self._rest = b"" if self.is_done else given[n_taken:]
        return not self._rest

    def feed_scans(self, content: bytes, jpeg: _Structure) -> None:
        """Give a photo scan by scan, and see that each has all of its data.

        Behind the end of its data a scan takes any filler: libjpeg looks for the next marker.
        Before it, libjpeg waits until it can look ahead, or for the next restart.
        """
        start = 0
        for scan in jpeg.scans:
            self.feed(content[start : scan.end])
            self.feed(_FILLER * _N_AHEAD)
            # Twice: when it can look ahead again libjpeg takes all, and then it has to wait again.
            if not self.feed(_FILLER) or not self.feed(_FILLER):
                return
            n_restarts = len(_RESTART.findall(content, start, scan.end))
            if not self.feed(bytes((0xFF, _RST0 + n_restarts % 8)) + _FILLER):
                return
            start = scan.end
        self.feed(content[start : jpeg.end])


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


def is_unsupported_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG that libjpeg, or Pillow, does not decode though it may be whole."""
    return content.startswith(JPEG_MAGIC) and _structure(content).is_unsupported
