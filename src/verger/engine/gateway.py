"""The JVM of a session: started early, while this process still looks at what it is to do."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verger.engine.cds import spark_home
from verger.errors import EnvironmentNotReadyError

_POLL_S = 0.01


class Gateway:
    """A JVM on its way, until Python is connected with it; else it ends with this process.

    It is started and found as ``pyspark.java_gateway.launch_gateway`` does, which can only start
    and wait in one go. What Java and Spark's launcher say before any setting of the log is read
    goes to a file that is gone with them.

    Parameters
    ----------
    settings : mapping of str to str
        Of Spark, for ``spark-submit --conf``.
    variables : mapping of str to str
        Of its environment, beside those of this process.
    """

    def __init__(self, settings: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        self._java = variables.get("JAVA_HOME", "")
        self._folder = Path(tempfile.mkdtemp(prefix="verger-"))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - the JVM keeps writing to it
        self._connection = self._folder / "connection"
        confs = (("--conf", f"{key}={value}") for key, value in settings.items())
        submitted = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell"))
        self._process = subprocess.Popen(
            [
                str(spark_home() / "bin" / "spark-submit"),
                *(word for pair in confs for word in pair),
                *submitted,
            ],
            stdin=subprocess.PIPE,  # the JVM ends when this closes
            stderr=self._log,
            env=os.environ
            | variables
            | {"SPARK_CONNECT_MODE": "0", "_PYSPARK_DRIVER_CONN_INFO_PATH": str(self._connection)},
            preexec_fn=_ignore_interrupts,
        )
        atexit.register(self.stop)

    def connect(self) -> Any:
        """Wait for the JVM, and return py4j's gateway to it.

        Raises
        ------
        EnvironmentNotReadyError
            If it has ended, with the last line that it said.
        """
        from pyspark.java_gateway import launch_gateway
        from pyspark.serializers import UTF8Deserializer, read_int

        while not self._connection.exists():
            if self._process.poll() is not None:
                said = self._last_line()
                self.stop()
                raise EnvironmentNotReadyError(
                    f"the Java of {self._java} does not start Spark"
                    f"{': ' + said if said else ''}; try verger doctor"
                )
            time.sleep(_POLL_S)
        with self._connection.open("rb") as file:
            port = read_int(file)  # type: ignore[no-untyped-call]
            secret = UTF8Deserializer().loads(file)  # type: ignore[no-untyped-call]
        there = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
        with environment_for_block(there):
            gateway: Any = launch_gateway()  # type: ignore[no-untyped-call]
        gateway.proc = self._process
        self._clear()
        return gateway

    def stop(self) -> None:
        """End a JVM that nobody is connected with."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._clear()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _clear(self) -> None:
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.stop)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to Python, which ends what runs in the JVM by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def environment_for_block(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Spark reads when it starts; the next session may need other ones."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
