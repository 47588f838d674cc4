"""A worker process of the local engine: receives a function once, then tasks, and sends results.

Its first message says which function is called and what it is given besides the task, each of the
next ones names a task. The process ends when its connection does, whatever it is doing.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue

#: Kinds of messages: to the worker, and from it.
WORK, TASK = b"w", b"t"
DONE, FAILED = b"d", b"f"


def main(descriptor: int) -> None:
    """Serve the engine at the other end of an inherited socket until it closes."""
    connection = Connection(descriptor)
    messages: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    pickled, work = b"", None
    while True:
        message = messages.get()
        if message[:1] == WORK:
            pickled, work = message[1:], None
            continue
        try:
            if work is None:
                work = pickle.loads(pickled)  # noqa: S301 - written by the engine that started us
            function, carry = work
            result = function(pickle.loads(message[1:]), carry)  # noqa: S301 - likewise
            answer = DONE + pickle.dumps(result, protocol=5)
        except Exception as err:  # noqa: BLE001 - the engine raises it
            answer = FAILED + _describe(err)
        connection.send_bytes(answer)


def keep_pandas_out() -> None:
    """Let this process import no pandas: Arrow does for its first list, and no task needs it."""
    sys.meta_path.insert(0, _WithoutPandas())


class _WithoutPandas:
    """Raises what Arrow expects; it takes a None in ``sys.modules`` for pandas itself."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse pandas, and find nothing else."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def _receive(connection: Connection, messages: SimpleQueue[bytes]) -> None:
    while True:
        try:
            messages.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)  # the engine has stopped or died: nobody waits for what is under way


def _describe(err: Exception) -> bytes:
    """Pickle an exception and its traceback; one that cannot be pickled becomes its text."""
    text = "".join(traceback.format_exception(err))
    try:
        described = pickle.dumps((err, text))
        pickle.loads(described)  # noqa: S301 - our own; some exceptions fail only here
    except Exception:  # noqa: BLE001 - whatever its class makes of pickling
        return pickle.dumps((RuntimeError(f"{type(err).__name__}: {err}"), text))
    return described
