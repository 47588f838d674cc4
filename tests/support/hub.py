"""A hub of models on loopback, with one encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.encoder import PROCESSOR, write_encoder
from support.http import Exchange, Server
from verger.features.model import download as downloads

FIRST, SECOND = "a" * 40, "b" * 40
NAME = "hf:org/encoder"


@dataclass
class Hub:
    """A hub on loopback: files by commit, and a second host that they are redirected to."""

    commit: str = FIRST
    files: dict[str, bytes] = field(default_factory=dict)
    license: str = "apache-2.0"
    gated: bool = False
    token: str | None = None
    cut_at: int | None = None
    wrong: str | None = None
    seen: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    storage: str = ""

    def answer(self, exchange: Exchange) -> None:
        self.seen.append(exchange.path)
        if self.token and exchange.headers.get("Authorization") != f"Bearer {self.token}":
            exchange.reply(status=401)
        elif exchange.path.startswith("/api/models/org/encoder/revision/"):
            exchange.reply(json.dumps(self.listing()).encode())
        elif exchange.path.startswith("/org/encoder/resolve/"):
            name = exchange.path.split("/", 5)[5]
            exchange.reply(status=302, headers=[("Location", f"{self.storage}/{name}")])
        else:
            exchange.reply(status=404)

    def store(self, exchange: Exchange) -> None:
        self.leaked += [v for k, v in exchange.headers.items() if k.lower() == "authorization"]
        content = self.files[exchange.path[1:]]
        if exchange.path[1:] == self.wrong:
            content = content[:-1] + b"?"
        if self.cut_at is not None and "Range" not in exchange.headers and len(content) > 1000:
            exchange.reply(content[: self.cut_at], length=len(content))
            return
        start = int(exchange.headers.get("Range", "bytes=0-")[6:-1])
        exchange.reply(content[start:], status=206 if start else 200)

    def listing(self) -> dict[str, Any]:
        def sibling(name: str, content: bytes) -> dict[str, Any]:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            large = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            is_large = not name.endswith(".json")
            more = {"lfs": large} if is_large else {}
            return {"rfilename": name, "size": len(content), "blobId": git} | more

        return {
            "sha": self.commit,
            "gated": "manual" if self.gated else False,
            "cardData": {"license": self.license},
            "siblings": [sibling(*entry) for entry in self.files.items()],
        }


@contextmanager
def open_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub with one encoder, and let the environment name it."""
    hub = Hub()
    path = write_encoder(tmp_path / "source" / "model.onnx")
    hub.files = {
        "onnx/model.onnx": path.read_bytes(),
        "preprocessor_config.json": json.dumps(PROCESSOR).encode(),
    }
    servers = Server(hub.answer), Server(hub.store)
    hub.storage = servers[1].address.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("HF_ENDPOINT", servers[0].address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)
    yield hub
    for server in servers:
        server.close()
