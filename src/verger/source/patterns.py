"""Which files of a source are photos, by their names and by those of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from verger.config import IMAGE_SUFFIXES
from verger.errors import ConfigError
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
    """Whether a pattern leaves out a file, by its name or path or those of a folder it is in."""
    if "/" in pattern:
        paths = ("/".join(parts[:n]) for n in range(1, len(parts) + 1))
        return any(fnmatchcase(path, pattern) for path in paths)
    return any(fnmatchcase(part, pattern) for part in parts)


def several(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns as a tuple; one may be given alone, and ``./x`` is ``x``.

    Raises
    ------
    ConfigError
        If one begins with a slash, or is an address: none of the paths below a source does.
    """
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in found:
        if pattern.startswith("/") or "://" in pattern:
            raise ConfigError(
                f"pattern {pattern!r}: is a whole path; patterns are names, such as '*.jpg', or "
                "paths below SRC, such as 'train/*.jpg'"
            )
    return tuple(pattern.removeprefix("./") for pattern in found)


def several_excludes(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns of what is left out: ``folder/`` is ``folder``; see :func:`several`."""
    return tuple(pattern.rstrip("/") for pattern in several(patterns))


def several_globs(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns of what is taken: ``folder/`` is all below it; see :func:`several`."""
    return tuple(f"{p}*" if p.endswith("/") else p for p in several(patterns))
