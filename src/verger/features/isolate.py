"""A bound for decoders, which are C code that reads hostile bytes: they hang, crash or grow.

There are two ways. :func:`deadline` costs microseconds and ends the whole process if a decoder
never returns. :func:`decode_apart` decodes in another process, which costs a millisecond a photo
and loses nothing but the photo. A task that is tried again because its process died decodes
apart.

The decoding processes are new programs (``posix_spawn``) and never forks of this process: a fork
runs handlers of libraries such as OpenBLAS, which wait for threads of theirs and may wait for
ever. Each takes one photo after the other, ends when its parent does, and is replaced if it dies.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from math import prod

import numpy as np

from verger.config import MAX_PIXELS
from verger.engine.limits import usable_cores
from verger.errors import EnvironmentNotReadyError
from verger.features.decoder import ANSWER, READY, REQUEST
from verger.features.preprocess import CROPS, SQUARE, DecodeError, Photo, Resizing, n_views
from verger.schema import Reason

# Longest that a decoding process may take to start; it takes 0.2 s on an idle core.
_START_TIMEOUT_S = 120
# Longest reason and detail of a rejected photo.
_MOST_TEXT_BYTES = 4096
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from verger.features.decoder import main
main(sys.argv[2])
"""


@contextmanager
def deadline(timeout_s: float | None) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer than ``timeout_s``.

    The kernel does it: a decoder that never returns never lets Python look at a signal. Does
    nothing if ``timeout_s`` is None, and outside the main thread, where Python lets nobody
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
    views: str = "whole",
    resizing: Resizing = SQUARE,
    timeout_s: float | None = None,
) -> Photo:
    """Decode one photo in another process, which may hang, crash or run out of memory.

    May be called from several threads. The processes belong to this process, are started when
    they are first needed, and are as many as it has cores at most.

    Parameters
    ----------
    content : bytes
    size, max_pixels, accept_truncated, views, resizing
        As for :func:`verger.features.preprocess.decode_photo`.
    timeout_s : float, optional
        How long the decoder may take; after that its process is killed.

    Returns
    -------
    Photo
        The same as from ``decode_photo``.

    Raises
    ------
    DecodeError
        As from ``decode_photo``; with 'decode time-out' or 'decoder crashed' if the process
        gave no answer, with 'too many pixels' if it ran out of its address space
        (:data:`verger.features.decoder.BYTES_PER_PIXEL` x ``max_pixels`` +
        :data:`verger.features.decoder.SPARE_BYTES` on top of what it started with).
    EnvironmentNotReadyError
        If no decoding process can be started.
    """
    return _pool_of(os.getpid()).decode(
        content,
        size=size,
        max_pixels=max_pixels,
        accept_truncated=accept_truncated,
        views=views,
        resizing=resizing,
        timeout_s=timeout_s,
    )


@lru_cache(maxsize=1)
def _pool_of(_pid: int) -> DecoderPool:
    """Return the pool of one process: a fork of it has none of its decoding processes."""
    return DecoderPool(usable_cores())


class DecoderPool:
    """Decoding processes that are started as they are needed, and kept.

    Parameters
    ----------
    n_processes : int
        How many there are at most; calls beyond that wait.
    decode : str
        The function that decodes, as ``module:name``.
    """

    def __init__(
        self, n_processes: int, decode: str = "verger.features.preprocess:decode_photo"
    ) -> None:
        self._decode = decode
        self._places = threading.BoundedSemaphore(n_processes)
        self._idle: deque[DecoderProcess] = deque()

    def decode(
        self,
        content: bytes,
        *,
        size: int,
        max_pixels: int = MAX_PIXELS,
        accept_truncated: bool = False,
        views: str = "whole",
        resizing: Resizing = SQUARE,
        timeout_s: float | None = None,
    ) -> Photo:
        """Decode one photo; see :func:`decode_apart`."""
        place, shape = list(CROPS).index(views), (n_views(views), size, size, 3)
        settings = size, max_pixels, accept_truncated, place, *resizing.numbers()
        request = REQUEST.pack(*settings, timeout_s or 0, len(content))
        with self._places:
            while True:
                is_new = not self._idle
                process = DecoderProcess(self._decode) if is_new else self._idle.pop()
                try:
                    head, body = process.ask(request, content, prod(shape), timeout_s)
                    break
                except TimeoutError as err:
                    process.end()
                    detail = f"the decoder took longer than {timeout_s:g} s"
                    raise DecodeError(Reason.DECODE_TIMEOUT, detail) from err
                except EOFError as err:
                    status = process.end()
                    if not is_new:  # an earlier photo may have done the damage
                        continue
                    how = f"died by signal {-status}" if status < 0 else "ended without an answer"
                    raise DecodeError(Reason.DECODER_CRASHED, f"the decoder {how}") from err
                except BaseException:
                    process.end()
                    raise
            self._idle.append(process)
        return _photo_of(head, body, shape)

    def close(self) -> None:
        """End the processes that decode nothing now."""
        while self._idle:
            self._idle.pop().end()


class DecoderProcess:
    """One decoding process and the socket to it.

    Parameters
    ----------
    decode : str
        The function that decodes, as ``module:name``.

    Raises
    ------
    EnvironmentNotReadyError
        If it does not start.
    """

    def __init__(self, decode: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            pid = _spawn([_PROGRAM, json.dumps(sys.path), decode], theirs.fileno())
        # Called at the latest when this process ends in an orderly way.
        self._finalizer = weakref.finalize(self, _end, self._socket, pid, os.getpid())
        try:
            self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S)
        except (EOFError, TimeoutError) as err:
            raise EnvironmentNotReadyError(
                f"the decoding process did not start (status {self.end()}); "
                f"its message is above, if it had one: {sys.executable} must be able to import "
                "verger"
            ) from err

    def ask(
        self, request: bytes, content: bytes, n_pixels: int, timeout_s: float | None
    ) -> tuple[tuple[bool, int, int, bool], bytes]:
        """Send a photo; return the head and the body of the answer, of ``n_pixels`` bytes.

        Raises
        ------
        TimeoutError
            If there is no answer in time.
        EOFError
            If the process died, or its answer makes no sense.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(request)
            self._socket.sendall(content)
        except ConnectionError as err:
            raise EOFError from err
        *head, n_bytes = ANSWER.unpack(self._receive(ANSWER.size, end))
        is_right = n_bytes == n_pixels if head[0] else n_bytes <= _MOST_TEXT_BYTES
        if not is_right:
            raise EOFError
        return tuple(head), self._receive(n_bytes, end)

    def _receive(self, n_bytes: int, end: float | None) -> bytes:
        answer = bytearray()
        while len(answer) < n_bytes:
            # 0 would mean: do not wait at all.
            left_s = None if end is None else max(end - time.monotonic(), 1e-6)
            self._socket.settimeout(left_s)
            try:
                part = self._socket.recv(n_bytes - len(answer))
            except ConnectionError as err:
                raise EOFError from err
            if not part:
                raise EOFError
            answer += part
        return bytes(answer)

    def end(self) -> int:
        """Kill the process; return its exit code, or minus the signal that it died by."""
        return self._finalizer() or 0


def _spawn(arguments: list[str], connection: int) -> int:
    """Start Python with a socket as its standard input; return the process' id.

    It has a process group of its own, so that Ctrl-C in a terminal is left to the parent.
    """
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-c", *arguments],  # -P: import nothing from the current folder
        os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, connection, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ],
        setpgroup=0,
    )


def _end(connection: socket.socket, pid: int, parent: int) -> int:
    """Close the socket and, in the process that started it, kill and reap a decoding process."""
    connection.close()
    if os.getpid() != parent:
        return 0
    with suppress(ProcessLookupError, ChildProcessError):  # if SIGCHLD is ignored nobody reaps
        os.kill(pid, signal.SIGKILL)  # a process that has died already keeps its status
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0


def _photo_of(head: tuple[bool, int, int, bool], body: bytes, shape: tuple[int, ...]) -> Photo:
    is_photo, width, height, truncated = head
    if not is_photo:
        reason, _, detail = body.decode(errors="replace").partition("\0")
        raise DecodeError(Reason(reason), detail)
    pixels, *crops = np.frombuffer(body, np.uint8).reshape(shape)
    return Photo(pixels, width, height, truncated, np.stack(crops) if crops else None)
