"""A fork server: a process of ours that has loaded what tasks need, and forks the workers.

Loading takes half a second of a core; so it is done once, while the driver lists photos, and a
worker starts in a few milliseconds, also one that takes a dead one's place. The driver itself is
never forked: it may have threads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module

from verger.engine import worker

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from verger.engine.forkserver import main; "
    "main({fd}, {module!r})"
)

#: A number in a message: of a process, or its exit code.
_BYTES = 8


class ForkServer:
    """The driver's end.

    Parameters
    ----------
    module : str
        What the server imports before it forks.
    environment : mapping of str to str
        Its variables, and those of the workers.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        program = _PROGRAM.format(path=sys.path, fd=theirs.fileno(), module=module)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", program],
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # decoders written in C warn there
                )
        except OSError:
            self._socket.close()
            raise

    def fork(self, descriptor: int) -> int:
        """Start a worker at the other end of a connection; return the number of its process.

        Raises
        ------
        ConnectionError
            If the server has died.
        OSError
            If the system gives no process.
        """
        socket.send_fds(self._socket, [bytes(_BYTES)], [descriptor])
        answer = self._answer()
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    def wait(self, pid: int) -> int:
        """Return the exit code of a worker that ends, or minus the signal that it died by.

        Raises
        ------
        OSError
            If the server has died: nobody knows the code then.
        """
        self._socket.sendall(_as_bytes(pid))
        return self._answer()

    def _answer(self) -> int:
        try:
            answer = self._socket.recv(_BYTES, socket.MSG_WAITALL)
        except BaseException:  # Ctrl-C: what comes now would be taken for the next answer
            self._socket.close()
            raise
        if len(answer) < _BYTES:
            raise ConnectionResetError("the fork server has died")
        return int.from_bytes(answer, signed=True)

    def stop(self) -> None:
        """End the server; workers end with their connections."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def main(descriptor: int, module: str) -> None:
    """Fork workers until the driver's end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine answers Ctrl-C
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the driver may ignore it, and its children then
    warnings.simplefilter("ignore")  # Arrow's allocator has a thread, which it ends for a fork
    worker.keep_pandas_out()
    with suppress(Exception):  # a task that needs it says why it cannot be imported
        import_module(module)
    with socket.socket(fileno=descriptor) as server:
        while True:
            message, descriptors, *_ = socket.recv_fds(server, _BYTES, 1)
            if not message:
                return
            if descriptors:
                answer = _fork(server, descriptors[0])
            else:
                _, status = os.waitpid(int.from_bytes(message, signed=True), 0)
                answer = os.waitstatus_to_exitcode(status)
            server.sendall(_as_bytes(answer))


def _fork(server: socket.socket, descriptor: int) -> int:
    """Return the number of a new worker, or of the error, negative."""
    os.set_inheritable(descriptor, False)  # a decoder that outlives its worker must not hold it
    try:
        pid = os.fork()
    except OSError as err:
        pid = -(err.errno or 1)
    if not pid:
        server.close()
        with suppress(BaseException):
            worker.main(descriptor)
        os._exit(1)
    os.close(descriptor)
    return pid


def _as_bytes(number: int) -> bytes:
    return number.to_bytes(_BYTES, signed=True)
