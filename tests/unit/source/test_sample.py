"""The same photos for the same seed, as many of each class, and none at all on a mistake."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from verger.errors import (
    ConfigError,
    OutputError,
    OutputExistsError,
    SourceNotFoundError,
    VergerError,
)
from verger.source import sample as module
from verger.source.sample import sample_dataset

N_PHOTOS = 12


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"bytes of {name}".encode())
    return folder


@pytest.fixture
def orchard(tmp_path: Path) -> Path:
    """Eight classes of 12 photos, one of 2, one without; and what must never be drawn."""
    for i in range(8):
        fill(tmp_path / "orchard", *(f"Apple {i}/{j}_100.jpg" for j in range(N_PHOTOS)))
    fill(tmp_path / "orchard", "Rare/1.jpg", "Rare/2.PNG", "Rare/notes.txt", "Empty/notes.txt")
    fill(tmp_path / "orchard", "beside.jpg", ".hidden/1.jpg", ".hidden/2.jpg", ".hidden/3.jpg")
    return tmp_path / "orchard"


def copied(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def draw(source: Path, target: Path, **options: Any) -> list[str]:
    sample_dataset(source, target, **options)
    return copied(target)


def test_every_class_has_as_many_photos(orchard: Path, tmp_path: Path) -> None:
    """A sample has as many classes as asked for, and as many photos in each."""
    found = sample_dataset(orchard, tmp_path / "out", classes=5, per_class=4)
    counts = Counter(name.split("/")[0] for name in copied(tmp_path / "out"))
    assert set(counts.values()) == {4}
    assert len(counts) == 5
    assert (found.folder, found.classes) == (tmp_path / "out", dict(counts))


def test_every_photo_is_a_copy(orchard: Path, tmp_path: Path) -> None:
    """A photo keeps its class, its name, its bytes and its time, and the source stays as it is."""
    before = {p: p.read_bytes() for p in orchard.rglob("*") if p.is_file()}
    names = draw(orchard, tmp_path / "out", classes=3, per_class=5)
    for name in names:
        original, copy = orchard / name, tmp_path / "out" / name
        assert copy.read_bytes() == original.read_bytes()
        assert int(copy.stat().st_mtime) == int(original.stat().st_mtime)
        assert not copy.is_symlink()
    assert {p: p.read_bytes() for p in orchard.rglob("*") if p.is_file()} == before


def test_a_seed_is_a_sample(orchard: Path, tmp_path: Path) -> None:
    """The same seed draws the same photos, and the default seed is 0."""
    options = {"classes": 4, "per_class": 3}
    first = draw(orchard, tmp_path / "1", seed=0, **options)
    assert draw(orchard, tmp_path / "2", seed=0, **options) == first
    assert draw(orchard, tmp_path / "3", **options) == first


def test_a_sample_does_not_depend_on_the_file_system(
    orchard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same names draw the same photos, wherever the folder is and in any order of its names."""
    options = {"classes": 4, "per_class": 3, "seed": 7}
    first = draw(orchard, tmp_path / "1", **options)
    moved = shutil.copytree(orchard, tmp_path / "elsewhere" / "moved")
    iterdir = Path.iterdir
    for i, turn in enumerate((sorted, lambda entries: sorted(entries, reverse=True))):
        monkeypatch.setattr(Path, "iterdir", lambda folder, turn=turn: iter(turn(iterdir(folder))))
        assert draw(moved, tmp_path / f"turned {i}", **options) == first


def test_other_seeds_draw_other_photos(orchard: Path, tmp_path: Path) -> None:
    """Ten seeds draw ten samples that differ in classes and in photos."""
    samples = [
        draw(orchard, tmp_path / str(seed), classes=4, per_class=3, seed=seed) for seed in range(10)
    ]
    assert len({tuple(names) for names in samples}) == 10
    assert len({tuple(sorted({n.split("/")[0] for n in names})) for names in samples}) > 1


def test_all_there_is_can_be_drawn(orchard: Path, tmp_path: Path) -> None:
    """A sample may be everything: every class with two photos, in any case of their suffix."""
    names = draw(orchard, tmp_path / "out", classes=9, per_class=2)
    assert {"Rare/1.jpg", "Rare/2.PNG"} <= set(names)
    assert len(names) == 18


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": 9, "per_class": 3}, r"classes=9: SRC=.* has 8 subfolders .* 2 with "),
        (
            {"classes": 1, "per_class": 13},
            r"has 0 subfolders .* at least per_class=13 photos, and 10 with fewer",
        ),
        ({"classes": 0}, r"classes=0 must be at least 1"),
        ({"per_class": 0}, r"per_class=0 must be at least 1"),
        ({"classes": -1}, r"classes=-1 must be at least 1"),
        ({"seed": -1}, r"seed=-1 must be at least 0"),
    ],
)
def test_too_few_classes_or_photos(
    orchard: Path, tmp_path: Path, options: dict[str, int], says: str
) -> None:
    """A sample that cannot be drawn is refused with what there is, and nothing is copied."""
    with pytest.raises(ConfigError, match=says):
        sample_dataset(orchard, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_none(orchard: Path, tmp_path: Path) -> None:
    """A missing source and a file are refused with the path, and nothing is copied."""
    for source in (tmp_path / "nope", orchard / "beside.jpg"):
        with pytest.raises(SourceNotFoundError, match=f"SRC={source}: does not exist, or is no fo"):
            sample_dataset(source, tmp_path / "out", classes=1, per_class=1)
    assert not (tmp_path / "out").exists()


def test_a_target_that_is_not_empty(orchard: Path, tmp_path: Path) -> None:
    """A folder that holds anything, and a file, are refused and stay as they are."""
    fill(tmp_path / "out", "mine.txt")
    for target in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(OutputExistsError, match=f"DST={target}: is not empty; choose another"):
            sample_dataset(orchard, target, classes=1, per_class=1)
    assert copied(tmp_path / "out") == ["mine.txt"]


def test_a_target_that_is_empty_or_deep(
    orchard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder is filled, the current one and a linked one too, and parents are made."""
    for name in ("empty", "here", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "here")
    for target in (tmp_path / "empty", tmp_path / "a" / "b" / "c", tmp_path / "link", Path()):
        assert len(draw(orchard, target, classes=1, per_class=1)) == 1
    for name in ("here", "real"):
        (of_class,) = (tmp_path / name).iterdir()  # and nothing that was under way
        assert len(copied(of_class)) == 1
    assert (tmp_path / "link").is_symlink()


def test_a_source_is_no_target(orchard: Path) -> None:
    """A data set is never sampled onto itself."""
    before = copied(orchard)
    with pytest.raises(VergerError, match=f"DST={orchard}: "):
        sample_dataset(orchard, orchard, classes=1, per_class=1)
    assert copied(orchard) == before


def test_a_target_that_cannot_be_written(orchard: Path, tmp_path: Path) -> None:
    """A target below a file is refused with the system's reason."""
    target = fill(tmp_path, "file") / "file" / "out"
    with pytest.raises(OutputError, match=r"DST=.*/file/out: cannot be written: .*Not a directory"):
        sample_dataset(orchard, target, classes=1, per_class=1)


def test_nothing_is_left_of_a_copy_that_fails(
    orchard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a photo cannot be copied, those before it are not left as half a sample."""
    done: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        done.append(target)
        assert target.is_relative_to(tmp_path / "out" / ".part")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(module.shutil, "copy2", copy)
    with pytest.raises(OutputError, match=r"DST=.*No space left"):
        sample_dataset(orchard, tmp_path / "out", classes=2, per_class=4)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_class_that_may_not_be_read(
    orchard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is closed to this user is told in words, as an error of Verger's."""
    iterdir = Path.iterdir

    def closed(folder: Path) -> Any:
        if folder.name == "Apple 3":
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(VergerError, match="Apple 3"):
        sample_dataset(orchard, tmp_path / "out", classes=1, per_class=1)
    assert not (tmp_path / "out").exists()


def test_hidden_files_are_no_photos(tmp_path: Path) -> None:
    """The files that macOS leaves beside photos are never drawn."""
    source = fill(tmp_path / "in", "Apple/1.jpg", "Apple/._1.jpg", "Apple/._2.jpg")
    assert draw(source, tmp_path / "out", classes=1, per_class=1) == ["Apple/1.jpg"]
    with pytest.raises(ConfigError, match=r"has 0 subfolders .*, and 1 with fewer"):
        sample_dataset(source, tmp_path / "more", classes=1, per_class=2)


def test_a_folder_with_a_photos_name_is_no_photo(tmp_path: Path) -> None:
    """A subfolder of a class is never drawn as one of its photos."""
    source = fill(tmp_path / "in", "Apple/1.jpg", "Apple/more.jpg/2.jpg")
    with pytest.raises(ConfigError, match=r"has 0 subfolders .*, and 1 with fewer"):
        sample_dataset(source, tmp_path / "out", classes=1, per_class=2)
    assert draw(source, tmp_path / "one", classes=1, per_class=1) == ["Apple/1.jpg"]


def test_a_target_inside_the_source_is_refused(orchard: Path) -> None:
    """A sample inside its own source would become one of its classes."""
    with pytest.raises(VergerError, match="DST="):
        sample_dataset(orchard, orchard / "sample", classes=1, per_class=1)
    assert not (orchard / "sample").exists()
