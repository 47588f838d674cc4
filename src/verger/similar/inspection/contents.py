"""The contents of photos that may be copies, read again in the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from verger.engine.tasks import Engine, run_pieces
from verger.files.paths import is_below, is_reachable
from verger.files.reading import Unread, read_ahead
from verger.similar.inspection.photos import Ints, Photos

# Photos in a piece of a task's work.
_PHOTOS_AT_ONCE = 64


def hash_contents(engine: Engine, photos: Photos, rows: Ints, source: str) -> list[str | None]:
    """Compute the sha256 of photos' contents.

    Parameters
    ----------
    engine : Engine
    photos : Photos
    rows : ndarray of shape (m,), int64
    source : str
        Photos that are not below it are not read.

    Returns
    -------
    list of str or None
        None of a photo that cannot be read again: it is gone, has changed, only Hadoop has it, or
        it is not below the source.
    """
    wanted = [(row, photos.paths[row], int(photos.lengths[row])) for row in rows.tolist()]
    work = [wanted[i : i + _PHOTOS_AT_ONCE] for i in range(0, len(wanted), _PHOTOS_AT_ONCE)]
    if not work or not is_reachable(source):
        return [None] * len(wanted)

    n_tasks = engine.n_cores
    sums = dict(run_pieces(engine, _hash_pieces, work, source, n_tasks=n_tasks))
    return [sums[row] for row in rows.tolist()]


def _hash_pieces(
    pieces: Iterator[list[tuple[int, str, int]]], source: str
) -> Iterator[tuple[int, str | None]]:
    for piece in pieces:
        numbers, paths, lengths = zip(*piece, strict=True)
        yield from zip(numbers, _hash_below(source, paths, lengths), strict=True)


def _hash_below(source: str, paths: tuple[str, ...], lengths: tuple[int, ...]) -> list[str | None]:
    allowed = [(path, n) for path, n in zip(paths, lengths, strict=True) if is_below(path, source)]
    contents = read_ahead([path for path, _ in allowed], [n for _, n in allowed])
    sums = {
        path: None if isinstance(content, Unread) else hashlib.sha256(content).hexdigest()
        for (path, _), content in zip(allowed, contents, strict=True)
    }
    return [sums.get(path) for path in paths]
