"""An S3 on loopback, and in front of it a proxy that does what bad servers do.

The proxy answers 500 and 503, stays silent until the client gives up, and cuts connections
before or within the body, at a rate and for photos that a seed chooses.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer
from pyarrow import fs

from support.http import Exchange, Server
from verger.files.paths import REQUEST_TIMEOUT_S

BUCKET = "orchard"
SOURCE = f"s3://{BUCKET}/photos"
REGION = "eu-west-3"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "soak",
    "AWS_SECRET_ACCESS_KEY": "soak",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}

FAULTS = ("500", "503", "silence", "cut", "reset")
#: Seconds of silence, longer than Verger waits for an answer; and silences in one weather, since
#: each takes that long.
SILENCE_S = 1.5 * REQUEST_TIMEOUT_S
MOST_SILENCES = 12
_BODY = {
    "500": b"<Error><Code>InternalError</Code><Message>We are sorry.</Message></Error>",
    "503": b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>",
}

#: Headers that are about one connection, or that the proxy server writes itself.
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Weather:
    """What goes wrong, how often, and what has gone wrong so far.

    Attributes
    ----------
    kinds : tuple of str
        Out of :data:`FAULTS`; none of them is fair weather.
    rate : float
        Share of the requests that a fault befalls.
    lost : float
        Share of the objects of which every reading fails as long as the weather lasts.
    methods : tuple of str
        The requests that are befallen.
    seed : int
    befell : Counter
        Faults so far, by kind.
    """

    kinds: tuple[str, ...] = ()
    rate: float = 0.0
    lost: float = 0.0
    methods: tuple[str, ...] = ("GET", "HEAD")
    seed: int = 0
    befell: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._lock = threading.Lock()

    @property
    def words(self) -> str:
        """Return the forecast."""
        text = f"{', '.join(self.kinds)} at {self.rate:.0%}"
        return text + (f", {self.lost:.0%} of the photos never" if self.lost else "")

    def strike(self, method: str, path: str) -> str | None:
        """Return the fault that befalls this request, if one does."""
        if not self.kinds or method not in self.methods:
            return None
        with self._lock:
            struck = self._draw.random() < self.rate or self._is_lost(path)
            fault = self._draw.choice(self.kinds) if struck else None
            if fault == "silence" and self.befell["silence"] >= MOST_SILENCES:
                fault = None
            if fault:
                self.befell[fault] += 1
            return fault

    def _is_lost(self, path: str) -> bool:
        """Whether this object is one of the lost: the same photos however often one asks."""
        digest = hashlib.sha256(f"{self.seed} {path.partition('?')[0]}".encode()).digest()
        share = int.from_bytes(digest[:4]) / 2**32
        return share < self.lost and path.lower().partition("?")[0].endswith(".jpg")


class Store:
    """The bucket and the proxy before it; :attr:`weather` may be changed at any time."""

    def __init__(self) -> None:
        self.weather = Weather()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for every request
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self._behind = self._moto.get_host_and_port()
        self._proxy = Server(self._pass)

    @property
    def address(self) -> str:
        """The proxy's address."""
        return self._proxy.address

    @property
    def environment(self) -> dict[str, str]:
        """What the driver and the executors need to find the bucket."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.address}

    @contextmanager
    def under(self, weather: Weather) -> Iterator[None]:
        """Let this weather last for a while."""
        self.weather = weather
        try:
            yield
        finally:
            self.clear_up()

    def clear_up(self) -> None:
        """Let nothing go wrong any more."""
        self.weather = Weather()

    def filesystem(self) -> fs.S3FileSystem:
        """Return a file system that does not go through the proxy."""
        host, port = self._behind
        return fs.S3FileSystem(
            access_key="soak",
            secret_key="soak",
            region=REGION,
            endpoint_override=f"http://{host}:{port}",
        )

    def unfinished_uploads(self, below: str) -> list[str]:
        """Return the keys below a prefix whose upload was begun, and neither ended nor given up."""
        found = self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [upload["Key"] for upload in found if upload["Key"].startswith(below)]

    def client(self):
        """Return a client that does not go through the proxy."""
        host, port = self._behind
        return boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name=REGION,
            aws_access_key_id="soak",
            aws_secret_access_key="soak",
        )

    def close(self) -> None:
        self._proxy.close()
        self._moto.stop()

    def _pass(self, exchange: Exchange) -> None:
        """Pass a request on to the bucket, or do what the weather says instead."""
        fault = self.weather.strike(exchange.command, exchange.path)
        if fault == "silence":
            time.sleep(SILENCE_S)
            exchange.hang_up()
        elif fault == "reset":
            exchange.hang_up()
        elif fault in _BODY:
            headers = [("Content-Type", "application/xml")]
            exchange.reply(_BODY[fault], status=int(fault), headers=headers)
        else:
            self._forward(exchange, cut=fault == "cut")

    def _forward(self, exchange: Exchange, *, cut: bool) -> None:
        """Send the bucket's answer, or only the first half of it."""
        connection = http.client.HTTPConnection(*self._behind, timeout=60)
        headers = {k: v for k, v in exchange.headers.items() if k.lower() not in _HOP}
        headers["Content-Length"] = str(len(exchange.body))
        connection.request(exchange.command, exchange.path, exchange.body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        length = len(content)
        if exchange.command == "HEAD":
            length = int(response.getheader("Content-Length") or 0)
        exchange.reply(
            content[: length // 2] if cut else content,
            status=response.status,
            headers=[(k, v) for k, v in response.getheaders() if k.lower() not in _HOP],
            length=length,
        )
        if cut:
            exchange.hang_up()


@contextmanager
def run_store(photos: Path) -> Iterator[Store]:
    """Start the store with a copy of a folder below ``s3://orchard/photos``."""
    store = Store()
    try:
        client = store.client()
        client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        for path in sorted(p for p in photos.rglob("*") if p.is_file()):
            key = f"photos/{path.relative_to(photos).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        yield store
    finally:
        store.close()
