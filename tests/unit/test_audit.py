"""make check finds known vulnerabilities, and says so where it could not look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit import ask, judge
from support.http import Exchange, Server

#: What an advisory service says of leaky 1.0.
HOLE = {
    "id": "PYSEC-2026-1",
    "summary": "leaks",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}],
        }
    ],
}


def advise(exchange: Exchange) -> None:
    """Answer as an advisory service that knows of one hole."""
    name = json.loads(exchange.body)["package"]["name"]
    exchange.reply(json.dumps({"vulns": [HOLE] if name == "leaky" else {}}).encode())


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with closing(Server(advise)) as server:
        yield f"{server.address}/v1/query"


def test_a_known_vulnerability_fails_the_check(osv: str, tmp_path: Path) -> None:
    """A pinned package with a hole is named with the version that mends it."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("leaky==1.0\nsound==1.0\n")
    report = ask(str(pins), "-s", "osv", "--osv-url", osv)
    code, lines = judge(report, strict=False)
    assert code == 1
    assert lines == [
        "leaky 1.0: PYSEC-2026-1, mended in 2",
        "2 of 2 packages audited, 1 vulnerabilities",
    ]


def test_sound_packages_pass(osv: str, tmp_path: Path) -> None:
    """Without a known hole the check passes, and says how many it looked at."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("sound==1.0\n")
    report = ask(str(pins), "-s", "osv", "--osv-url", osv)
    assert judge(report, strict=True) == (0, ["1 of 1 packages audited, 0 vulnerabilities"])


def test_what_could_not_be_audited_is_never_called_sound(tmp_path: Path) -> None:
    """Without an answer every package is told as not audited, and strict makes that a failure."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("sound==1.0\n")
    report = ask(str(pins), "-s", "osv", "--osv-url", "http://127.0.0.1:9/v1/query")
    code, lines = judge(report, strict=False)
    assert (code, lines[0]) == (0, "0 of 1 packages audited, 0 vulnerabilities")
    assert lines[1].startswith("NOT AUDITED")
    assert judge(report, strict=True)[0] == 1
