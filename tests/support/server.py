"""A server in a process of its own, as a user starts it, and clients that talk to it by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: Longest that a test waits for anything; it only guards against a hang.
PATIENCE_S = 60


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes
    ----------
    process : Popen
    address : str
        Such as ``http://127.0.0.1:8000/``.
    log : path
        What it writes to standard error.
    """

    process: subprocess.Popen[str]
    address: str
    log: Path

    def connect(self) -> socket.socket:
        """Open a connection."""
        place = urlsplit(self.address)
        return socket.create_connection((place.hostname, place.port), PATIENCE_S)

    def ask(self, *headers: str, path: str = "/", method: str = "GET", body: bytes = b"") -> str:
        """Send one request; return the status line, headers and body of the answer."""
        head = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}"]
        if not any(header.startswith("Host:") for header in headers):
            head.append(f"Host: {urlsplit(self.address).netloc}")
        with self.connect() as connection:
            connection.sendall("\r\n".join([*head, *headers, "", ""]).encode() + body)
            return read_all(connection).decode(errors="replace")

    def stop(self) -> int:
        """Send SIGTERM; return the exit code once the server has ended."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other end closes, or resets, the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@contextmanager
def started(program: str, *arguments: str | Path, log: Path) -> Iterator[Server]:
    """Start a program that prints its address, and end it however the test ends."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | path
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield Server(process, address, log)
        finally:
            process.kill()
