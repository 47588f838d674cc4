"""The contents of photos are read again only if they are the result's own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from support.results import write_vectors
from verger.engine.local import LocalEngine
from verger.similar.inspection.contents import hash_contents
from verger.similar.inspection.photos import read_photos


def test_only_photos_of_the_source_are_read_again(tmp_path: Path) -> None:
    """A result that names other files tells no sum of their contents."""
    source, private = tmp_path / "photos", tmp_path / "photos2"
    for folder in (source, private):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"content")
    names = [f"{source}/a.png", f"{source}/../photos2/a.png", f"{private}/a.png"]
    rows = np.eye(3, 4, dtype=np.float32)
    output = write_vectors(tmp_path / "out", rows, paths=names, lengths=[7] * 3)
    engine, photos = LocalEngine(1), read_photos(output)
    try:
        sums = hash_contents(engine, photos, np.arange(3), str(source))
    finally:
        engine.stop()
    expected = dict.fromkeys(names) | {names[0]: hashlib.sha256(b"content").hexdigest()}
    assert dict(zip(photos.paths, sums, strict=True)) == expected
