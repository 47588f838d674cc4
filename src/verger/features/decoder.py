"""The program of a decoding process: it takes photos from a socket and answers with pixels.

:mod:`verger.features.isolate` starts such processes and says why. This module is all that one of
them imports, so it stays light: Pillow, numpy and ``preprocess``.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from verger.features.preprocess import CROPS, DecodeError, Photo, Resizing, register_formats
from verger.schema import Reason

#: Address space that one photo may take on top of what the process starts with, in bytes: for each
#: pixel of the largest photo, and besides. An animated WebP takes 16 a pixel (libwebp holds two
#: canvases and hands over a third, Pillow has the fourth), and 4 more where it is turned.
BYTES_PER_PIXEL = 24
SPARE_BYTES = 1 << 30

#: A request: size, max_pixels, accept_truncated, views by their place in CROPS, four numbers of the
#: resizing, time-out in seconds (0 for none), bytes of the photo, which follow.
REQUEST = struct.Struct("<IQ?B4IdQ")
#: An answer: is it a photo, its width and height, is it truncated, bytes of the body that follows:
#: the pixels of all views, or reason and detail.
ANSWER = struct.Struct("<?II?Q")
#: Sent once the process can take photos.
READY = b"\x01"

# A process that has kept more address space than this after a photo is replaced: the next photo
# would not have the room that it may take.
_MOST_KEPT_BYTES = SPARE_BYTES // 4

Decode = Callable[..., Photo]


@dataclass(frozen=True)
class _MemoryLimits:
    """The address space of this process when it started, and the limits that it was given."""

    start_bytes: int
    soft: int
    hard: int

    def allow(self, more_bytes: int) -> None:
        """Bound the address space of this process."""
        if not self.start_bytes:  # there is no /proc
            return
        limits = self.start_bytes + more_bytes, self.soft, self.hard
        soft = min(limit for limit in limits if limit != resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_AS, (soft, self.hard))


def main(decode_name: str) -> None:
    """Answer requests on standard input, which is a socket, until the other end is closed.

    Parameters
    ----------
    decode_name : str
        The function that decodes, as ``module:name``; it takes what ``decode_photo`` takes.
    """
    decode: Decode = resolve_name(decode_name)
    faulthandler.disable()  # the parent reports a crash
    register_formats()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    limits = _MemoryLimits(_address_space(), *resource.getrlimit(resource.RLIMIT_AS))
    with socket.socket(fileno=0) as connection, connection.makefile("rb") as requests:
        connection.sendall(READY)
        while len(head := requests.read(REQUEST.size)) == REQUEST.size:
            settings = REQUEST.unpack(head)
            size, max_pixels, accept_truncated, place, *resizing, timeout_s, n_bytes = settings
            content = requests.read(n_bytes)
            limits.allow(n_bytes + BYTES_PER_PIXEL * max_pixels + SPARE_BYTES)
            # The parent kills at the time-out; should it be gone, this timer does.
            signal.setitimer(signal.ITIMER_REAL, timeout_s and timeout_s + 1)
            options = {
                "size": size,
                "max_pixels": max_pixels,
                "accept_truncated": accept_truncated,
                "views": list(CROPS)[place],
                "resizing": Resizing.from_numbers(*resizing),
            }
            answer = _answer(decode, content, options)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.sendall(answer)
            del content, answer
            if _address_space() > limits.start_bytes + _MOST_KEPT_BYTES:
                return


def _answer(decode: Decode, content: bytes, options: dict[str, Any]) -> bytes:
    try:
        photo = decode(content, **options)
        pixels = photo.views.tobytes()
    except MemoryError:
        return _rejection(Reason.TOO_MANY_PIXELS, "out of memory while decoding")
    except DecodeError as err:
        return _rejection(err.reason, err.detail)
    return ANSWER.pack(True, photo.width, photo.height, photo.truncated, len(pixels)) + pixels


def _rejection(reason: Reason, detail: str) -> bytes:
    text = f"{reason.value}\0{detail}".encode(errors="replace")
    return ANSWER.pack(False, 0, 0, False, len(text)) + text


def _address_space() -> int:
    """Return the bytes of this process' address space; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
