"""Clients that are slow, idle or many: each costs the server little, and nobody else anything."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from support.server import Server, read_all, started
from verger.serve.connections import QuietServer

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
PROGRAM = """
    import asyncio, json, resource, socket, sys
    from starlette.responses import PlainTextResponse
    from verger.serve.connections import run

    async def answer(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] == "/slow":
            await asyncio.sleep(600)
        if scope["path"] == "/open":
            open("/dev/null")
        text = f"{scope['scheme']} {scope['client'][0]}"
        if scope["path"] == "/large":
            text = "x" * 40_000_000
        await PlainTextResponse(text)(scope, receive, send)

    options = json.loads(sys.argv[1])
    files = options.pop("files", None)
    listener = socket.create_server(("127.0.0.1", 0))
    print("http://127.0.0.1:%d/" % listener.getsockname()[1], flush=True)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    run(answer, listener, **options)
"""


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def start(options: str = "{}") -> Server:
            log = tmp_path / "log"
            return stack.enter_context(started(PROGRAM, options, log=log))

        yield start


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 0\r\n\r\n" + HEAD])
def test_a_connection_without_a_whole_header_is_closed(serve: Any, sent: bytes) -> None:
    """Idle, in the middle of its first header, or of the next one."""
    server = serve('{"header_timeout_s": 0.5}')
    with server.connect() as connection:
        connection.sendall(sent)
        assert read_all(connection).count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


def test_a_header_that_drips_is_cut_off(serve: Any) -> None:
    """Single bytes do not prolong the time for a header."""
    server = serve('{"header_timeout_s": 0.5}')
    with server.connect() as connection:
        connection.setblocking(False)
        for _ in range(1200):
            try:
                connection.sendall(b"G")
            except ConnectionError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the connection is still open")
    assert server.ask().startswith("HTTP/1.1 200")


def test_a_request_that_takes_too_long_is_cut_off(serve: Any) -> None:
    """A client that does not read its answer, for example, is not waited for."""
    server = serve('{"request_timeout_s": 0.5}')
    assert server.ask(path="/slow") == ""


@pytest.mark.parametrize("kind", ["keep-alive", "close"])
def test_an_answer_that_is_read_slowly_is_not_cut_off(serve: Any, kind: str) -> None:
    """The time for the next header begins when the answer is sent, not when it is written."""
    server = serve('{"header_timeout_s": 0.5}')
    with server.connect() as connection:
        head = f"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: {kind}\r\n\r\n"
        connection.sendall(head.encode())
        time.sleep(2)
        assert len(read_all(connection)) > 40_000_000


def test_an_answer_that_is_not_read_at_all_is_cut_off(serve: Any) -> None:
    """The time for a whole request with its answer is the longest that a client is waited for."""
    server = serve('{"request_timeout_s": 0.5}')
    with server.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2)
        assert len(read_all(connection)) < 40_000_000


def test_half_headers_keep_nobody_out(serve: Any) -> None:
    """Whoever fills all connections with half a header has them closed for new requests."""
    server = serve()
    with ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(300)]
        for connection in held:
            try:
                connection.sendall(HEAD)
            except ConnectionError:  # closed already, for a newer one
                continue
        wait_until(lambda: server.ask().startswith("HTTP/1.1 200"))
        open_files = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        assert len(open_files) < 64 + 20


def test_requests_in_progress_are_not_closed_for_others(serve: Any) -> None:
    """An address whose connections all have a request gets no further one."""
    server = serve()
    slow = HEAD.replace(b"/ ", b"/slow ", 1) + b"\r\n"
    with ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(64)]
        for connection in held:
            connection.sendall(slow)
        wait_until(lambda: server.ask() == "")
        for connection in held:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):  # nothing has come, not even the end
                connection.recv(1)


def test_a_server_without_descriptors_is_quiet_and_comes_back(serve: Any) -> None:
    """A few lines in the log, no tracebacks; once others leave it answers again."""
    server = serve('{"files": 40}')
    with ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(100)]
        for connection in held:
            try:
                connection.sendall(HEAD)
            except ConnectionError:
                continue
        wait_until(lambda: "new connections wait" in server.log.read_text())
        text = server.log.read_text()
        assert "Traceback" not in text
        assert len(text) < 1000
    # Connections that the kernel still held come first, and a new one may find no room among them.
    wait_until(lambda: server.ask().startswith("HTTP/1.1 200"))


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD.replace(b"/ ", b"/slow ", 1) + b"\r\n"])
def test_sigterm_ends_the_server_whatever_its_clients_do(serve: Any, sent: bytes) -> None:
    """Idle, in the middle of a header, and waiting for an answer that would take for ever."""
    server = serve()
    with server.connect() as connection:
        connection.sendall(sent)
        time.sleep(0.2)
        server.stop()
        assert b"200" not in read_all(connection)


def test_a_forwarded_address_is_believed_from_a_proxy_alone(serve: Any) -> None:
    """Anybody can write ``X-Forwarded-For``; only ``behind_proxy`` says who does."""
    forwarded = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
    assert serve().ask(*forwarded).endswith("http 127.0.0.1")
    assert serve('{"behind_proxy": true}').ask(*forwarded).endswith("https 192.0.2.7")


@pytest.mark.parametrize("path", [b"/", b"/slow"])
def test_malformed_requests_leave_no_traceback(serve: Any, path: bytes) -> None:
    """Nobody fills the log from afar, whatever is being answered when a request goes wrong."""
    server = serve()
    request = HEAD.replace(b"/ ", path + b" ", 1) + b"Transfer-Encoding: chunked\r\n\r\n"
    for rest in (b"x\r\n", b"1;" + b"x" * 100_000, b"1\r\naa\r\n"):
        with server.connect() as connection:
            connection.sendall(request + rest)
            read_all(connection)
        with server.connect() as connection:
            connection.sendall(request)
            time.sleep(0.1)  # the answer is on its way
            connection.sendall(rest)
            if path == b"/slow":
                assert read_all(connection).startswith(b"HTTP/1.1 400")
    assert server.ask().startswith("HTTP/1.1 200")
    assert server.log.read_text() == ""


def test_a_second_ctrl_c_is_the_first() -> None:
    """It cuts no request off, so that nothing prints a traceback of it."""
    server = QuietServer(uvicorn.Config(lambda: None))
    for _ in range(2):
        server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, False)
