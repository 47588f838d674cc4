"""Photos that are alike: the exact search, over files and batches, and the command."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from support.results import write_result, write_vectors
from verger import cli
from verger.errors import ConfigError, EnvironmentNotReadyError, SourceError
from verger.features.model import Model
from verger.similar import photo as similar
from verger.similar.photo import find_similar, search


@pytest.mark.parametrize("k", [1, 7, 60, 500])
def test_the_best_of_all_files_are_found(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 8)).astype(np.float32) for n in (50, 0, 1, 70)]
    wanted, every = rng.standard_normal(8).astype(np.float32), np.concatenate(parts)
    cosine = every @ wanted / np.linalg.norm(every, axis=1) / np.linalg.norm(wanted)
    found = search(write_vectors(tmp_path / "out", *parts), wanted, k)
    assert [int(match.path) for match in found] == np.argsort(-cosine)[:k].tolist()
    np.testing.assert_allclose([m.similarity for m in found], np.sort(cosine)[::-1][:k], atol=1e-6)


def test_equal_photos_come_by_path(tmp_path: Path) -> None:
    """A scaled vector has the same direction; no order of files decides."""
    ones, other = np.ones((3, 4), np.float32), np.eye(4, dtype=np.float32)[:1]
    found = search(
        write_vectors(tmp_path / "out", other, ones, 2 * ones), np.ones(4, np.float32), 4
    )
    assert [match.path for match in found] == ["001", "002", "003", "004"]


def test_equal_photos_come_by_path_wherever_they_are_stored(tmp_path: Path) -> None:
    """Of seven equal photos in two files, in falling order of their paths, the first three come."""
    ones = np.ones((4, 4), np.float32)
    paths = [f"{9 - i}" for i in range(7)]
    found = search(write_vectors(tmp_path / "out", ones, ones[1:], paths=paths), ones[0], 3)
    assert [match.path for match in found] == ["3", "4", "5"]


def test_a_vector_of_zeros_is_like_nothing(tmp_path: Path) -> None:
    output = write_vectors(tmp_path / "out", np.zeros((1, 4), np.float32))
    assert search(output, np.ones(4, np.float32), 1)[0].similarity == 0


@pytest.fixture(scope="module")
def out(photos: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("similar") / "out"
    write_result(folder, photos, model)
    return folder


def test_a_known_photo_finds_itself_and_its_class(out: Path, photos: Path) -> None:
    file = sorted(photos.rglob("*.jpg"))[7]
    done = CliRunner().invoke(cli.app, ["similar", str(file), str(out), "-k", "4", "--json"])
    first, *others = json.loads(done.stdout)
    assert (first["path"], first["label"]) == (str(file), file.parent.name)
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert others[0]["label"] == file.parent.name
    assert all(a["similarity"] >= b["similarity"] for a, b in pairwise(others))
    text = CliRunner().invoke(cli.app, ["similar", str(file), str(out)]).stdout
    assert text.startswith(f"1.0000  {file}  ({file.parent.name})\n")
    assert text.count("\n") == 10


def test_mistakes_are_told(out: Path, photos: Path) -> None:
    with pytest.raises(SourceError, match="PHOTO: not an image: no decoder"):
        find_similar(b"no photo", out)
    with pytest.raises(ConfigError, match="k=0 must be at least 1"):
        similar.find_similar(b"", out, k=0)
    done = CliRunner().invoke(cli.app, ["similar", str(photos), str(out)])
    assert isinstance(done.exception, ConfigError)
    assert "is a folder; name one photo" in str(done.exception)


def test_the_index_finds_what_comparing_all_finds(out: Path, photos: Path) -> None:
    """Over two files, with labels; and every match says that it is not exact."""
    file = sorted(photos.rglob("*.jpg"))[7]
    exact = find_similar(file.read_bytes(), out, k=6)
    found = find_similar(file.read_bytes(), out, k=6, approximate=True)
    assert [(m.path, m.label) for m in found] == [(m.path, m.label) for m in exact]
    np.testing.assert_allclose(
        [m.similarity for m in found], [m.similarity for m in exact], atol=1e-4
    )
    assert {m.exact for m in exact} == {True}
    assert {m.exact for m in found} == {False}


def test_rows_of_several_files_are_found_by_their_places(tmp_path: Path) -> None:
    """A table of fewer photos than are asked for gives all it has."""
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 8)).astype(np.float32) for n in (5, 0, 1, 7)]
    output = write_vectors(tmp_path / "out", *parts)
    found = similar.search_by_index(output, parts[2][0], 20)
    assert [m.path for m in found] == [m.path for m in search(output, parts[2][0], 20)]
    assert found[0].path == "005"


def test_a_new_index_removes_old_ones_and_no_other_file(tmp_path: Path) -> None:
    """Others may have put files beside the index; only what a search has written is replaced."""
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    output = write_vectors(tmp_path / "out", x)
    for name in ("index/features-0.faiss", "index/letter.txt"):
        output.folder.write(name, b"old")
    similar.search_by_index(output, x[0], 3)
    names = [entry.name for entry in output.folder.files("index")]
    assert "index/letter.txt" in names
    assert "index/features-0.faiss" not in names


def test_the_command_says_what_the_index_is_worth(out: Path, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "out", ignore=shutil.ignore_patterns("index"))
    file = min(photos.rglob("*.jpg"))
    line = ["similar", str(file), str(copy), "--approximate", "-k", "1"]
    first, second = (CliRunner().invoke(cli.app, line) for _ in range(2))
    assert "no index of these features yet: it is made first" in first.stderr
    assert "an approximate index, which finds 100.0% of the nearest 10" in second.stderr
    assert first.stdout == second.stdout == f"1.0000  {file}  ({file.parent.name})\n"


def test_without_faiss_nothing_is_begun(
    out: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EnvironmentNotReadyError, match="which --approximate needs"):
        find_similar(b"", out, approximate=True)
