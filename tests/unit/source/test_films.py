"""Film and frame, as the names of photos tell them."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pytest

from verger.source.films import find_films, match_groups


@pytest.mark.parametrize(
    ("name", "film", "frame"),
    [
        ("12_100.jpg", "", 12),
        ("r2_7_100.jpg", "r2_", 7),
        ("IMG_0017.JPG", "IMG_", 17),
        ("100_100.jpg", "", 100),
        ("frame_100.png", "frame_", 100),
    ],
)
def test_a_name_tells_film_and_frame(name: str, film: str, frame: int) -> None:
    """Two photos are of one film exactly when folder and prefix agree, and the number is read."""
    others = [f"/a/{film}999.jpg", f"/b/{film}999.jpg", f"/a/x{film}999.jpg"]
    found = find_films([f"/a/{name}", *others])
    assert found.frame[0] == frame
    assert (found.film[1:] == found.film[0]).tolist() == [True, False, False]


def test_a_name_without_a_number_is_a_film_of_its_own() -> None:
    """Such photos never count as neighbours, of anything."""
    found = find_films(["/a/apple.jpg", "/a/pear.jpg", "/a/apple1.jpg"])
    assert len(set(found.film.tolist())) == 3
    assert found.frame.tolist() == [-1, -1, 1]


def test_a_film_in_folders_of_two_forms_of_unicode_is_one() -> None:
    """One class, unpacked twice by different systems; an expression is typed in either form."""
    composed, decomposed = (f"/{normalize(form, 'Pêche')}" for form in ("NFC", "NFD"))
    paths = [f"{composed}/r_1.jpg", f"{decomposed}/r_2.jpg"]
    assert find_films(paths).film.tolist() == [0, 0]
    assert match_groups(paths, normalize("NFD", "/(Pêche)/")).tolist() == [0, 0]


def test_the_last_frame_of_a_turn_is_beside_the_first() -> None:
    """Frames are counted the shorter way round, and never across films."""
    found = find_films([f"/a/{n}.jpg" for n in range(1, 361)] + ["/b/1.jpg"])
    one, other = np.array([0, 0, 10, 0]), np.array([359, 180, 30, 360])
    assert found.frames_apart(one, other).tolist() == [1, 180, 20, np.inf]
