"""The connections of a server: how many there are, and how long one may keep the server waiting.

uvicorn waits without end for the rest of a header, and answers 503 to everybody once there are
too many connections. Here a connection has a time for its header and one for its whole request;
if there are too many, the one that has waited longest without a request makes room.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from socket import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds that a client may take for the header of a request, from the connection or from the end
#: of the answer before; and for a whole request with its answer: 28 MB for a page on a telephone.
HEADER_TIMEOUT_S, REQUEST_TIMEOUT_S = 10.0, 600.0
#: Seconds without a request after which a connection may be closed for a newer one.
IDLE_S = 1.0
#: Seconds that requests have to come to an end once the server is told to stop.
STOP_TIMEOUT_S = 5
#: Connections at a time, in all and of one address; browsers open up to six each.
MAX_CONNECTIONS, MAX_OF_ADDRESS = 256, 64

# Connections that the kernel may hold, and that asyncio accepts in one go.
_BACKLOG = 64
# Descriptors that are kept for everything but connections.
_OTHER_FILES = 2 * _BACKLOG
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TOLD_EVERY_S = 60.0


@dataclass(frozen=True)
class Connections:
    """The open connections, the oldest first.

    Attributes
    ----------
    most, most_of_address : int
        How many there may be, in all and of one address.
    """

    most: int = MAX_CONNECTIONS
    most_of_address: int = MAX_OF_ADDRESS
    _open: dict[BoundedProtocol, None] = field(default_factory=dict)

    def admit(self, new: BoundedProtocol) -> bool:
        """Take a connection in; make room for it by closing one that has no request.

        Returns
        -------
        bool
            False if there is no such connection: the new one has to go.
        """
        rivals = [one for one in self._open if one.address == new.address]
        if len(rivals) < self.most_of_address:
            rivals = list(self._open) if len(self._open) >= self.most else []
        if rivals:
            idle = next((one for one in rivals if one.is_idle), None)
            if idle is None:
                return False
            self.remove(idle)
            idle.transport.abort()
        self._open[new] = None
        return True

    def remove(self, one: BoundedProtocol) -> None:
        """Forget a connection."""
        self._open.pop(one, None)


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with time limits.

    Parameters
    ----------
    connections : Connections
    header_timeout_s, request_timeout_s : float
        See :data:`HEADER_TIMEOUT_S`.
    **values
        What uvicorn gives to a protocol.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        header_timeout_s: float = HEADER_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        **values: Any,
    ) -> None:
        super().__init__(**values)
        self._all = connections
        self._header_timeout_s, self._request_timeout_s = header_timeout_s, request_timeout_s
        self._phase: tuple[object, bool] | None = None
        self._since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The other end's address."""
        return self.client[0] if self.client else ""

    @property
    def is_waiting(self) -> bool:
        """Whether there is no request to be answered, and no answer that is still being sent."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    @property
    def is_idle(self) -> bool:
        """Whether there has been none for a while: a header usually comes at once."""
        return self.is_waiting and self.loop.time() - self._since > IDLE_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or close it."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # writing is paused while anything is unsent
        if self._all.admit(self):
            self._watch()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._all.remove(self)
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Say that a request is malformed, unless its answer has begun; nobody answers it twice."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def resume_writing(self) -> None:
        """Let the time for the next header begin, if the answer is complete and sent."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Start the clock anew if a request has begun or ended, and only then."""
        phase = self.cycle, self.is_waiting
        if phase == self._phase or self.transport.is_closing():
            return
        if self._timer:
            self._timer.cancel()
        limit_s = self._header_timeout_s if self.is_waiting else self._request_timeout_s
        self._since = self.loop.time()
        self._phase, self._timer = phase, self.loop.call_later(limit_s, self.transport.abort)


class QuietServer(uvicorn.Server):
    """A server that says in one line a minute that it has no file descriptors left.

    A second Ctrl-C changes nothing: running requests have :data:`STOP_TIMEOUT_S` either way.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at the first signal."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to listen."""
        asyncio.get_running_loop().set_exception_handler(_Report())
        await super().startup(sockets)


class _Report:
    """What is said of an error outside any request."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._told = now, -_TOLD_EVERY_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        err = context.get("exception")
        if not isinstance(err, OSError) or err.errno not in _NO_DESCRIPTORS:
            loop.default_exception_handler(context)
        elif self._now() - self._told >= _TOLD_EVERY_S:
            self._told = self._now()
            logging.getLogger("uvicorn.error").error("new connections wait: %s", err.strerror)


def run(app: Any, listener: socket, *, behind_proxy: bool = False, **timeouts: float) -> None:
    """Serve an application until SIGINT or SIGTERM.

    Parameters
    ----------
    app : ASGI application
    listener : socket
        Bound to an address.
    behind_proxy : bool
        Believe ``X-Forwarded-For`` and ``X-Forwarded-Proto``, and let one address, which is the
        proxy's, have all the connections.
    **timeouts
        As for :class:`BoundedProtocol`.
    """
    # It writes a warning for every form that is malformed.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    most = _most_connections()
    connections = Connections(most, most if behind_proxy else min(most, MAX_OF_ADDRESS))
    protocol: Any = partial(BoundedProtocol, connections=connections, **timeouts)
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="asyncio",
        ws="none",
        log_level="error",  # a warning for every malformed request would fill a disk
        access_log=False,
        server_header=False,
        proxy_headers=behind_proxy,
        forwarded_allow_ips="*",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    QuietServer(config).run(sockets=[listener])


def _most_connections() -> int:
    """Return how many connections the limit on open files leaves room for."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, files - _OTHER_FILES))
