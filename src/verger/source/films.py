"""What the path of a photo says: of which film it is a frame, and to which group it belongs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from verger.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: A shorter film is not cut: there would be nothing left between its gaps.
SHORTEST_FILM = 12
#: Frames of one film whose numbers differ by no more than this are neighbours. A turn of
#: Fruits-360's table is some 330 frames, so that these are 11 degrees.
NEIGHBOUR_FRAMES = 10
#: Film and frame in a file's name: ``r2_17_100.jpg`` is frame 17 of the film ``r2_``, and the 100
#: is the width of the picture; ``IMG_0017.jpg`` is frame 17 of ``IMG_``.
FRAMES = r"(?P<film>[^/]*?)(?P<frame>\d+)(?:_100)?\.\w+$"


@dataclass(frozen=True)
class Films:
    """Which photos are frames of one film.

    Attributes
    ----------
    film : ndarray of shape (n,), int64
        Number of the photo's film; a photo without a frame number is a film of its own.
    frame : ndarray of shape (n,), int64
        Number in the file's name; -1 where there is none.
    """

    film: Ints = field(repr=False)
    frame: Ints = field(repr=False)

    @property
    def n_films(self) -> int:
        """How many films are long enough to be cut."""
        return int((np.bincount(self.film) >= SHORTEST_FILM).sum())

    def frames_apart(self, one: Ints, other: Ints) -> Floats:
        """Count the frames between pairs of photos, the shorter way round; infinite across films.

        Parameters
        ----------
        one, other : ndarray of shape (m,), int64
            Rows.

        Returns
        -------
        ndarray of shape (m,), float64
        """
        apart = np.abs(self.frame[one] - self.frame[other])
        apart = np.minimum(apart, self._turns[1][one] - apart).astype(np.float64)
        return np.where(self.film[one] == self.film[other], apart, np.inf)

    def keep(self, is_film: npt.NDArray[np.bool_]) -> Films:
        """Return some of the films; every photo of another one is a film of its own.

        Parameters
        ----------
        is_film : ndarray of shape (n_films,), bool
            By the number of the film.
        """
        stays = is_film[self.film]
        own = -1 - np.arange(len(self.film))
        film = np.unique(np.where(stays, self.film, own), return_inverse=True)[1]
        return Films(film.astype(np.int64), np.where(stays, self.frame, -1))

    def take(self, rows: Ints) -> Films:
        """Return the films of some photos."""
        return Films(np.unique(self.film[rows], return_inverse=True)[1], self.frame[rows])

    @property
    def angle(self) -> Floats:
        """Return where in its film each photo is, from 0 to 1, of shape (n,)."""
        first, turn = self._turns
        return (self.frame - first + 0.5) / turn

    @cached_property
    def _turns(self) -> tuple[Ints, Ints]:
        """Return the first frame of each photo's film, and how many frames the film spans."""
        n = self.film.max(initial=-1) + 1
        first, last = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
        np.minimum.at(first, self.film, self.frame)
        np.maximum.at(last, self.film, self.frame)
        return first[self.film], (last - first + 1)[self.film]


def find_films(paths: Sequence[str], frames: str = FRAMES) -> Films:
    """Read film and frame from the names of photos.

    Parameters
    ----------
    paths : sequence of str
    frames : str
        Regular expression with the groups ``film`` and ``frame``, searched in each path, both in
        Unicode's form NFC. Photos of different folders are never of one film.

    Raises
    ------
    ConfigError
        If it is no expression, or lacks a group.
    """
    pattern = _compile("frames", frames)
    if not {"film", "frame"} <= set(pattern.groupindex):
        raise ConfigError(f"frames={frames!r}: must have groups (?P<film>...) and (?P<frame>...)")
    keys: list[tuple[str, ...]] = []
    numbers = []
    for path in (normalize("NFC", path) for path in paths):
        match = pattern.search(path)
        if match is None or not match["frame"].isdecimal():
            keys.append((path,))
            numbers.append(-1)
        else:
            keys.append((path.rpartition("/")[0], match["film"]))
            numbers.append(int(match["frame"]))
    return Films(_numbered(keys), np.array(numbers, np.int64))


def match_groups(paths: Sequence[str], groups: str) -> Ints:
    """Read the group of each photo from its path.

    Parameters
    ----------
    paths : sequence of str
    groups : str
        Regular expression; photos with the same text in its groups (or the same match, where it
        has none) belong together.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    ConfigError
        If it is no expression, or does not match a path.
    """
    pattern = _compile("groups", groups)
    keys: list[tuple[str, ...]] = []
    for path in (normalize("NFC", path) for path in paths):
        match = pattern.search(path)
        if match is None:
            raise ConfigError(f"groups={groups!r}: must match every photo, and does not {path}")
        keys.append(tuple(part or "" for part in match.groups()) or (match[0],))
    return _numbered(keys)


def _compile(name: str, text: str) -> re.Pattern[str]:
    """Compile a regular expression of an option.

    Raises
    ------
    ConfigError
    """
    try:
        return re.compile(normalize("NFC", text))
    except re.error as err:
        raise ConfigError(f"{name}={text!r}: is no regular expression: {err}") from err


def _numbered(keys: Sequence[tuple[str, ...]]) -> Ints:
    """Give equal keys one number, in the order in which they appear."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
