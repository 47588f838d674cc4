"""Dark, light, uniform and blurry photos are found by their pixels, odd ones by their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from verger.engine.local import LocalEngine
from verger.files.folder import Folder
from verger.similar.inspection.photos import Photos
from verger.similar.inspection.quality import find_flaws
from verger.similar.rows import StoredRows
from verger.source.films import find_films


def test_each_flaw_is_found_in_the_photo_that_has_it(tmp_path: Path) -> None:
    """And none in a plain one; a photo that is gone has no measure, and keeps its size."""
    noise = np.random.default_rng(0).integers(40, 216, (120, 120, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    smooth = Image.linear_gradient("L").resize((120, 120)).convert("RGB")
    pictures = {
        "blurry": smooth.filter(ImageFilter.GaussianBlur(4)),
        "dark": Image.fromarray(noise // 12),
        "gone": plain.resize((300, 110)),
        "large": plain.resize((600, 600)),
        "light": Image.fromarray(255 - noise // 40),
        "long": plain.resize((400, 120)),
        "plain": plain,
        "small": plain.resize((20, 20)),
        "uniform": Image.new("RGB", (120, 120), (128, 128, 128)),
    }
    paths = [str(tmp_path / f"{name}.png") for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        picture.save(path)
    lengths = [Path(path).stat().st_size for path in paths]
    (tmp_path / "gone.png").unlink()
    photos = Photos(
        rows=StoredRows(Folder("/out"), (), np.arange(len(paths), dtype=np.int32)),
        paths=paths,
        labels=("a",),
        targets=np.zeros(len(paths), np.int64),
        lengths=np.array(lengths),
        sides=np.array([picture.size for picture in pictures.values()], float),
        films=find_films(paths),
    )
    engine = LocalEngine(1)
    table, n_measured = find_flaws(engine, photos, str(tmp_path))
    engine.stop()
    found = {(Path(row["path"]).stem, row["flaw"]) for row in table.to_pylist()}
    expected = {(name, name) for name in pictures if name not in ("plain", "gone")}
    assert found >= expected | {("gone", "long")}
    assert not {name for name, _ in found} & {"plain"}
    assert n_measured == len(pictures) - 1
    worst = next(row for row in table.to_pylist() if row["flaw"] == "long")
    assert (worst["value"], worst["limit"]) == (pytest.approx(400 / 120), 2.5)
