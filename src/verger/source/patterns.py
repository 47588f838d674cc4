"""Which files of a source are photos, by their names and by those of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from verger.config import IMAGE_SUFFIXES
from verger.source.system_folders import is_system_folder


def path_below(path: str, root: str) -> list[str]:
    """Return the folders below the source that a file is in, and its name; "" of a folder."""
    return path.removeprefix(root.rstrip("/")).split("/")[1:]


def hidden_as(parts: list[str]) -> str | None:
    """Return what a file is counted under that is left out for its name or its folders' names."""
    if any(part.startswith(".") and part not in (".", "..") for part in parts):
        return "hidden"
    folder = next(filter(is_system_folder, parts[:-1]), None)
    return f"in {folder}" if folder else None


def matches(path: str, glob: tuple[str, ...]) -> bool:
    """Whether a file is a photo: by the patterns, or by its suffix where there are none.

    Parameters
    ----------
    path : str
        Below the source. A pattern without a slash is matched with its last part alone.
    glob : tuple of str
    """
    if not glob:
        return path.lower().endswith(IMAGE_SUFFIXES)
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in glob)


def excludes(pattern: str, parts: list[str]) -> bool:
    """Whether a pattern leaves out a file, by its path or the name of any of its parts."""
    if "/" in pattern:
        return fnmatchcase("/".join(parts), pattern)
    return any(fnmatchcase(part, pattern) for part in parts)


def several(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns as a tuple; one may be given alone."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
