"""What must hold of the photos that ``verger demo`` renders."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from verger.errors import ConfigError, OutputError
from verger.source.render import COLOURS, SHAPES, TEXTURES, make_fruit, render_dataset, render_photo

Photo = npt.NDArray[np.uint8]
N_CLASSES = 30
STEP_RAD = math.radians(36)


@pytest.fixture(scope="module")
def photos() -> list[tuple[Photo, Photo]]:
    """Two consecutive frames of each of 30 classes."""
    fruits = [make_fruit(index) for index in range(N_CLASSES)]
    return [(render_photo(fruit, 0.0), render_photo(fruit, STEP_RAD)) for fruit in fruits]


def _object(photo: Photo) -> npt.NDArray[np.bool_]:
    seen: npt.NDArray[np.bool_] = photo.min(axis=2) < 255
    return seen


def _difference(one: Photo, other: Photo) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def _pixels(path: Path) -> Photo:
    with Image.open(path) as image:
        return np.asarray(image)


def test_files_are_laid_out_as_in_fruits_360(tmp_path: Path) -> None:
    """One folder per class holds one file per step, named after its angle in degrees."""
    paths = render_dataset(tmp_path, n_classes=2, per_class=3)
    names = [make_fruit(index).name for index in range(2)]
    expected = [tmp_path / n / f"{deg}_100.jpg" for n in names for deg in (0, 120, 240)]
    assert paths == sorted(expected)
    assert sorted(tmp_path.rglob("*.jpg")) == paths


def test_files_are_rgb_jpegs_of_the_size_asked_for(tmp_path: Path) -> None:
    """A file decodes to a square RGB JPEG, and its name ends in its size."""
    (path,) = render_dataset(tmp_path, n_classes=1, per_class=1, size=40)
    assert path.name == "0_40.jpg"
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 40))


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs with one seed write identical files."""
    runs = [render_dataset(tmp_path / run, n_classes=2, per_class=2, seed=7) for run in "ab"]
    assert [p.read_bytes() for p in runs[0]] == [p.read_bytes() for p in runs[1]]


def test_another_seed_gives_another_look() -> None:
    """The seed changes both what the classes are and how one of them looks."""
    looks = [render_photo(make_fruit(0, seed=seed), 0.0) for seed in (0, 1)]
    assert _difference(*looks) > 5
    names = [{make_fruit(index, seed=seed).name for index in range(30)} for seed in (0, 1)]
    assert names[0] != names[1]


def test_a_class_does_not_depend_on_how_many_are_asked_for(tmp_path: Path) -> None:
    """A class has the same folder and bytes in a small set as in a larger one."""
    few = render_dataset(tmp_path / "few", n_classes=1, per_class=2)
    many = render_dataset(tmp_path / "many", n_classes=4, per_class=4)
    twins = [tmp_path / "many" / path.relative_to(tmp_path / "few") for path in few]
    assert set(twins) <= set(many)
    assert [p.read_bytes() for p in few] == [p.read_bytes() for p in twins]


def test_a_photo_is_square_rgb_bytes(photos: list[tuple[Photo, Photo]]) -> None:
    """A photo is uint8 of shape (100, 100, 3)."""
    for photo in itertools.chain.from_iterable(photos):
        assert photo.shape == (100, 100, 3)
        assert photo.dtype == np.uint8


def test_the_object_stays_clear_of_the_border(photos: list[tuple[Photo, Photo]]) -> None:
    """The outermost two pixels, the corners among them, are pure white."""
    for photo in itertools.chain.from_iterable(photos):
        assert _object(photo)[2:-2, 2:-2].sum() == _object(photo).sum()


def test_the_object_fills_a_sensible_share(photos: list[tuple[Photo, Photo]]) -> None:
    """The object covers a fifth to four fifths of the photo and spans nine tenths of a side."""
    for photo in itertools.chain.from_iterable(photos):
        seen = _object(photo)
        assert 0.2 < seen.mean() < 0.8
        assert max(seen.any(axis=0).sum(), seen.any(axis=1).sum()) >= 90


@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_the_surface_has_no_pin_holes(index: int) -> None:
    """No pixel is much lighter than all eight around it, whatever the shape and the size."""
    photo = render_photo(make_fruit(index), 1.0, size=60 + 7 * index).min(axis=2).astype(int)
    shifts = [shift for shift in itertools.product((-1, 0, 1), repeat=2) if any(shift)]
    around = np.max([np.roll(photo, shift, axis=(0, 1)) for shift in shifts], axis=0)
    assert (photo - around).max() < 40


def test_the_edge_is_antialiased() -> None:
    """Between the object and the ground there are pixels of neither colour."""
    fruit = make_fruit(4)
    assert fruit.name == "Flat Maroon", "dark all over"
    photo = render_photo(fruit, 0.0).min(axis=2)
    assert ((photo > 120) & (photo < 255)).sum() > 20


def test_consecutive_frames_differ(photos: list[tuple[Photo, Photo]]) -> None:
    """Turning by one step changes the photo of every class visibly."""
    assert min(_difference(*frames) for frames in photos) > 2


def test_a_full_turn_returns_to_the_start() -> None:
    """An angle of 360 degrees shows what 0 degrees shows, but for rounding."""
    fruit = make_fruit(2)
    assert _difference(render_photo(fruit, 0.0), render_photo(fruit, 2 * math.pi)) < 0.5


def test_classes_differ_in_colour_or_silhouette(photos: list[tuple[Photo, Photo]]) -> None:
    """No two classes are close both in mean colour and in silhouette."""
    looks = [
        (np.mean([f[_object(f)].mean(axis=0) for f in frames], axis=0), _object(frames[0]))
        for frames in photos
    ]
    for (rgb, seen), (other_rgb, other_seen) in itertools.combinations(looks, 2):
        overlap = (seen & other_seen).sum() / (seen | other_seen).sum()
        assert np.linalg.norm(rgb - other_rgb) > 10 or overlap < 0.85


def test_names_are_unique_and_valid_on_every_file_system() -> None:
    """200 names differ even where case is ignored, and hold letters, spaces and hyphens only."""
    names = [make_fruit(index).name for index in range(200)]
    assert len({name.casefold() for name in names}) == 200
    assert all(name.replace(" ", "").replace("-", "").isalpha() for name in names)
    assert all(name == name.strip() for name in names)


def test_names_get_a_number_when_the_combinations_run_out() -> None:
    """After every shape in every colour and texture the names come again, numbered."""
    n_names = len(SHAPES) * len(COLOURS) * len(TEXTURES)
    names = {make_fruit(index).name for index in range(n_names)}
    assert len(names) == n_names
    assert make_fruit(n_names).name == f"{make_fruit(0).name} 2"


def test_thirty_names_hold_accents_and_spaces() -> None:
    """The default set exercises paths that are not plain ASCII words."""
    names = [make_fruit(index).name for index in range(N_CLASSES)]
    assert sum(not name.isascii() for name in names) >= 2
    assert sum(" " in name for name in names) >= 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("n_classes", 0, "n_classes=0 must be at least 1"),
        ("per_class", 0, "per_class=0 must be at least 1"),
        ("per_class", 361, "per_class=361 must be at most 360"),
        ("size", 15, "size=15 must be at least 16"),
        ("seed", -1, "seed=-1 must be at least 0"),
    ],
)
def test_a_number_out_of_bounds_is_refused(
    tmp_path: Path, option: str, value: int, message: str
) -> None:
    """The error names the option, its value and the bound, and nothing is written."""
    with pytest.raises(ConfigError, match=message):
        render_dataset(tmp_path / "set", **{option: value})
    assert not (tmp_path / "set").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file in the way of the folder is an OutputError, not a bare OSError."""
    (tmp_path / "set").write_text("in the way")
    with pytest.raises(OutputError, match=r"set.* cannot be written"):
        render_dataset(tmp_path / "set", n_classes=1, per_class=1)
