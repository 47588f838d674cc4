"""Folders of n photos: real ones, linked; rendered ones where there are none."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from itertools import count, zip_longest
from pathlib import Path

from verger.config import IMAGE_SUFFIXES
from verger.source.render import render_dataset

#: As many as Fruits-360 has in its test set: more than that are links.
N_RENDERED = 20_622
N_CLASSES = 120


def make_folder(n: int, photos: Path | None, work: Path) -> Path:
    """Return a folder of n photos below ``work``, made if it is not there.

    Parameters
    ----------
    n : int
        As many from every class as from any other; more than there are come again under
        other names.
    photos : Path or None
        Folder of class folders, or a tar of one. None renders photos.
    work : Path
    """
    target = work / f"{'rendered' if photos is None else 'real'}-{n}"
    if not target.exists():
        part = work / "part"
        shutil.rmtree(part, ignore_errors=True)
        source = _rendered(n, work) if photos is None else source_folder(photos, work)
        _link(_balanced(source), n, part)
        part.rename(target)
    return target


def source_folder(photos: Path, work: Path) -> Path:
    """Return a folder of class folders; a tar of one is unpacked below ``work``."""
    if photos.is_dir():
        return photos
    folder = work / f"unpacked {photos.stem}"
    if not folder.exists():
        with tarfile.open(photos) as tar:
            tar.extractall(work / "part", filter="data")
        (work / "part").rename(folder)
    inside = [path for path in folder.iterdir() if path.is_dir()]
    return inside[0] if len(inside) == 1 else folder


def _rendered(n: int, work: Path) -> Path:
    folder = work / f"rendered from {min(n, N_RENDERED)}"
    if not folder.exists():
        per_class = -(-min(n, N_RENDERED) // N_CLASSES)
        render_dataset(work / "part", n_classes=N_CLASSES, per_class=per_class)
        (work / "part").rename(folder)
    return folder


def _balanced(source: Path) -> list[Path]:
    """Return all photos so that the first n of them are balanced by class, whatever n is."""
    rng = random.Random(0)
    classes = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        found = sorted(path for path in folder.iterdir() if path.name.endswith(IMAGE_SUFFIXES))
        classes.append(rng.sample(found, len(found)))
    rng.shuffle(classes)
    return [path for row in zip_longest(*classes) for path in row if path is not None]


def _link(photos: list[Path], n: int, target: Path) -> None:
    if not photos:
        raise SystemExit("no photos in class folders there")
    target.mkdir(parents=True)
    made = 0
    for lap in count():
        for photo in photos[: n - made]:
            again = f"-{lap}" if lap else ""
            link = target / photo.parent.name / f"{photo.stem}{again}{photo.suffix}"
            link.parent.mkdir(exist_ok=True)
            try:
                os.link(photo, link)
            except OSError:  # another disk, or one that knows no links
                shutil.copy2(photo, link)
        made += len(photos[: n - made])
        if made == n:
            return
