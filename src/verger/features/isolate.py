"""A bound for decoders, which are C code that reads hostile bytes: they hang, crash or grow.

Two ways, for two speeds. :func:`deadline` costs microseconds and ends the whole process where a
decoder never returns; :func:`decode_apart` costs a fork, and loses nothing but the photo. Spark
tries a task again whose process died, and the second time every photo is decoded apart.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from verger.config import MAX_PIXELS
from verger.features.preprocess import DecodeError, Photo, decode_photo, register_formats
from verger.schema import Reason

#: What a child may add to the address space that it begins with, in bytes: for each pixel of the
#: largest photo, and besides. An animated WebP takes 16 a pixel (libwebp holds two canvases and
#: hands over a third, Pillow has the fourth), and 4 more where it is turned.
BYTES_PER_PIXEL = 24
SPARE_BYTES = 1 << 30

# Of a child's answer: is it a photo, its width and height, is it truncated, bytes that follow.
_HEADER = struct.Struct("<?II?Q")
# Two threads that fork at a time would each hand the other's pipe to its own child, and wait for
# the end of both.
_forking = threading.Lock()


@contextmanager
def deadline(timeout_s: float | None) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer than ``timeout_s``.

    The kernel does it: a decoder that never returns never lets Python look at a signal. Does
    nothing where ``timeout_s`` is None, and outside the main thread, where Python lets nobody
    set a handler. A timer that was running before runs on afterwards.
    """
    if timeout_s is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier_s, interval_s = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # None stands for a handler that is not Python's, and that Python cannot put back.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if earlier_s:
            left_s = earlier_s - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 1e-6), interval_s)


def decode_apart(
    content: bytes,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    accept_truncated: bool = False,
    timeout_s: float | None = None,
) -> Photo:
    """Decode one photo in a process of its own, which may hang, crash or run out of memory.

    Parameters
    ----------
    content : bytes
    size, max_pixels, accept_truncated
        As for :func:`verger.features.preprocess.decode_photo`.
    timeout_s : float, optional
        How long the child may take; after that it is killed.

    Returns
    -------
    Photo
        The same as without the process.

    Raises
    ------
    DecodeError
        As from ``decode_photo``; with 'decode time-out' or 'decoder crashed' where the child
        gave no answer, with 'too many pixels' where it ran out of its address space
        (:data:`BYTES_PER_PIXEL` x ``max_pixels`` + :data:`SPARE_BYTES` on top of this process').
    """
    register_formats()  # here, once, and not in every child
    decode = partial(
        decode_photo, content, size=size, max_pixels=max_pixels, accept_truncated=accept_truncated
    )
    pid, reader = _fork(decode, max_pixels, timeout_s)
    answer, in_time = b"", False
    try:
        answer, in_time = _read_answer(reader, timeout_s)
    finally:
        os.close(reader)
        status = _reap(pid, kill=not in_time)
    if not in_time:
        raise DecodeError(Reason.DECODE_TIMEOUT, f"the decoder took longer than {timeout_s:g} s")
    return _read_photo(answer, size, status)


def _fork(decode: Callable[[], Photo], max_pixels: int, timeout_s: float | None) -> tuple[int, int]:
    """Start a child that decodes; return its id, and where its answer is read."""
    with _forking, warnings.catch_warnings():
        # Python warns that another thread may hold a lock that the child would wait for. The
        # child takes the allocator's and Python's own, which are made new in it, and that of
        # preprocess, which is too.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run_child(decode, writer, max_pixels, timeout_s)
        os.close(writer)
    return pid, reader


def _run_child(
    decode: Callable[[], Photo], writer: int, max_pixels: int, timeout_s: float | None
) -> NoReturn:
    """Decode, write the answer and end, whatever happens: the parent's code must not go on."""
    try:
        faulthandler.disable()  # the parent tells of a crash
        _bound(max_pixels, timeout_s)
        answer = _decode_to_answer(decode)
        while answer:
            answer = answer[os.write(writer, answer) :]
    finally:
        os._exit(0)


def _bound(max_pixels: int, timeout_s: float | None) -> None:
    """Bound this process' memory, and its life should the parent die before it."""
    with suppress(OSError, ValueError):  # where there is no /proc, or no such limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        allowed = pages * resource.getpagesize() + BYTES_PER_PIXEL * max_pixels + SPARE_BYTES
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([allowed, *given]), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if timeout_s is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 1)


def _decode_to_answer(decode: Callable[[], Photo]) -> bytes:
    try:
        photo = decode()
        pixels = photo.pixels.tobytes()
    except MemoryError:
        return _rejection(Reason.TOO_MANY_PIXELS, "out of memory while decoding")
    except DecodeError as err:
        return _rejection(err.reason, err.detail)
    return _HEADER.pack(True, photo.width, photo.height, photo.truncated, len(pixels)) + pixels


def _rejection(reason: Reason, detail: str) -> bytes:
    text = f"{reason.value}\0{detail}".encode(errors="replace")
    return _HEADER.pack(False, 0, 0, False, len(text)) + text


def _read_answer(reader: int, timeout_s: float | None) -> tuple[bytes, bool]:
    """Read all that a child writes; say whether it came to an end in time."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    answer = bytearray()
    while True:
        left_ms = None if end is None else max(0, (end - time.monotonic()) * 1000)
        if not poll.poll(left_ms):
            return bytes(answer), False
        part = os.read(reader, 1 << 16)
        if not part:
            return bytes(answer), True
        answer += part


def _reap(pid: int, *, kill: bool) -> int:
    """Wait for a child; return its exit code, or minus the signal that it died by."""
    if kill:
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # a process that ignores SIGCHLD has no dead children
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0


def _read_photo(answer: bytes, size: int, status: int) -> Photo:
    body = answer[_HEADER.size :]
    head = _HEADER.unpack(answer[: _HEADER.size]) if len(answer) >= _HEADER.size else None
    if head is None or len(body) != head[-1]:
        how = f"died by signal {-status}" if status < 0 else "ended without an answer"
        raise DecodeError(Reason.DECODER_CRASHED, f"the decoder {how}")
    is_photo, width, height, truncated, _ = head
    if not is_photo:
        reason, _, detail = body.decode().partition("\0")
        raise DecodeError(Reason(reason), detail)
    pixels = np.frombuffer(body, np.uint8).reshape(size, size, 3)
    return Photo(pixels, width, height, truncated)
