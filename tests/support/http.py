"""The HTTP server of the tests, on loopback: a test says how it answers."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: How often the server looks whether it was closed.
_POLL_S = 0.02


class Exchange(BaseHTTPRequestHandler):
    """One request, and the ways to answer it.

    Attributes
    ----------
    command, path, headers
        The request, as http.server has read it.
    body : bytes
        What came with it.
    """

    protocol_version = "HTTP/1.1"
    server: Server
    body: bytes

    def _serve(self) -> None:
        self.body = self._read_body()
        self.server.answer(self)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def reply(
        self,
        content: bytes = b"",
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        length: int | None = None,
    ) -> None:
        """Send an answer.

        Parameters
        ----------
        content : bytes
            Left out where the request was HEAD.
        status : int
        headers : iterable of (str, str)
        length : int, optional
            Announced in the place of the true length; -1 announces none. The connection is closed
            where the two differ.
        """
        announced = len(content) if length is None else length
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if announced >= 0:
            self.send_header("Content-Length", str(announced))
        if announced != len(content) and self.command != "HEAD":
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def hang_up(self) -> None:
        """Cut the connection: a reset, not an orderly end."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)


Answer = Callable[[Exchange], None]


class Server(ThreadingHTTPServer):
    """A server that answers from when it is made until it is closed.

    Parameters
    ----------
    answer : callable
        Called in a thread of its own for each request.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answer = answer
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL_S,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Return ``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Answer no more, and free the port."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print what an answer raised; a client that hangs up is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
