"""The report shows photos of its source, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.http import Exchange, Server
from verger.engine.local import LocalEngine
from verger.job.report.thumbnails import draw_sheet


def test_only_photos_of_the_source_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that names other files shows none of them, and asks no other bucket."""
    asked: list[str] = []

    def answer(exchange: Exchange) -> None:
        asked.append(exchange.path)
        exchange.reply(status=404)

    server = Server(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    source, private = tmp_path / "photos", tmp_path / "photos2"
    for folder in (source, private):
        folder.mkdir()
        Image.new("RGB", (60, 50)).save(folder / "a.png")
    (source / "link.png").symlink_to(private / "a.png")
    names = ("/a.png", "/link.png", "/../photos2/a.png")
    paths = [*(f"{source}{name}" for name in names), f"{private}/a.png", "s3://elsewhere/a.png"]
    engine = LocalEngine(1)
    try:
        tiles, sheet = draw_sheet(engine, paths, str(source))
    finally:
        engine.stop()
        server.close()
    assert tiles == {paths[0]: 0}
    assert sheet is not None
    assert asked == []
