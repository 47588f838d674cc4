"""What errors tell their reader to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verger.errors import missing_extra


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (None, "'verger[serve]'"),
        ({"url": "file:///home/me/my%20verger", "dir_info": {}}, "'/home/me/my verger[serve]'"),
        ({"url": "file:///src", "dir_info": {"editable": True}}, "-e '/src[serve]'"),
        ({"url": "https://there/verger.whl", "archive_info": {}}, "'verger[serve]'"),
    ],
)
def test_an_extra_is_installed_from_where_verger_came(
    origin: object, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout is named by its folder, because Verger may be on no index."""
    installed = tmp_path / "verger-9.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: verger\nVersion: 9\n")
    if origin is not None:
        (installed / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(tmp_path))
    error = missing_extra("fastapi", "verger serve", "serve")
    assert str(error) == f"fastapi is not installed, which verger serve needs: pip install {told}"
