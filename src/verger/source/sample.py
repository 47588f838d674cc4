"""A class-balanced copy of a class-per-folder data set."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from verger.config import IMAGE_SUFFIXES
from verger.errors import (
    ConfigError,
    OutputError,
    OutputExistsError,
    SourceError,
    SourceNotFoundError,
)
from verger.source.system_folders import is_system_folder


@dataclass(frozen=True)
class BalancedSample:
    """A class-balanced copy of a data set.

    Attributes
    ----------
    folder : Path
    classes : dict of str to int
        Name to number of photos.
    """

    folder: Path
    classes: dict[str, int]


def sample_dataset(
    source: str | Path, target: str | Path, *, classes: int = 30, per_class: int = 10, seed: int = 0
) -> BalancedSample:
    """Copy ``per_class`` photos of each of ``classes`` classes, drawn at random.

    Parameters
    ----------
    source : path
        A folder with one subfolder a class.
    target : path
        A folder that does not exist, or is empty.
    classes, per_class : int
        How many to draw; the same for the same seed and the same names.

    Raises
    ------
    SourceNotFoundError, ConfigError, OutputExistsError, OutputError
        If there is no such source, it has too few classes or a class too few photos, or the
        target is not empty or cannot be written. Nothing is copied then.
    """
    source, target = Path(source), Path(target)
    chosen = _draw(source, classes, per_class, seed)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExistsError(f"DST={target}: is not empty; choose another folder")
    _check_apart(source, target)
    part = target / ".part"
    try:
        for photo in (photo for photos in chosen.values() for photo in photos):
            copy = part / photo.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(photo, copy)
        for name in chosen:
            (part / name).replace(target / name)
        part.rmdir()
    except OSError as err:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"DST={target}: cannot be written: {err}") from err
    return BalancedSample(target, {name: len(photos) for name, photos in chosen.items()})


def _check_apart(source: Path, target: Path) -> None:
    ours, photos = target.resolve(), source.resolve()
    if ours == photos or photos in ours.parents:
        raise ConfigError(f"DST={target}: must lie outside SRC={source}")


def _is_photo(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".") and path.is_file()


def _draw(source: Path, classes: int, per_class: int, seed: int) -> dict[str, list[Path]]:
    for name, value in (("classes", classes), ("per_class", per_class)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed={seed} must be at least 0")
    rng = random.Random(seed)  # noqa: S311 - no secret
    if not source.is_dir():
        raise SourceNotFoundError(f"SRC={source}: does not exist, or is no folder")
    try:
        photos = {
            folder.name: sorted(path for path in folder.iterdir() if _is_photo(path))
            for folder in sorted(source.iterdir())
            if folder.is_dir()
            and not folder.name.startswith(".")
            and not is_system_folder(folder.name)
        }
    except OSError as err:
        raise SourceError(f"SRC={source}: cannot be read: {err}") from err
    large = [name for name, found in photos.items() if len(found) >= per_class]
    if len(large) < classes:
        raise ConfigError(
            f"classes={classes}: SRC={source} has {len(large)} subfolders with at least "
            f"per_class={per_class} photos, and {len(photos) - len(large)} with fewer"
        )
    names = sorted(rng.sample(large, classes))
    return {name: sorted(rng.sample(photos[name], per_class)) for name in names}
