"""The photos most like each photo: exact whatever the blocks, and how much an index finds."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.results import write_vectors
from verger.errors import EnvironmentNotReadyError, SchemaError
from verger.result.output import INDEX, Output
from verger.similar import index as approximate
from verger.similar.exact import NearestRows
from verger.similar.rows import cut_evenly, iter_blocks, read_rows

#: Features of the vectors that are indexed.
D = 256


def like_features(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Draw vectors as a model's: none negative, a dozen things, each seen from several sides."""
    rng = np.random.default_rng(0)
    things = rng.exponential(size=(12, d)) * (rng.random((12, d)) < 0.4)
    sides = rng.normal(scale=0.3, size=(12, 4, d))
    rng = np.random.default_rng(seed)
    which, turned = rng.integers(12, size=n), rng.normal(size=(n, 4))
    x = things[which] + np.einsum("ns,nsd->nd", turned, sides[which])
    return np.maximum(x, 0).astype(np.float32)


def search(x: np.ndarray, k: int, blocks: list[int]) -> NearestRows:
    """Show all rows of a matrix to themselves, in blocks that end at these rows."""
    number = np.arange(len(x), dtype=np.int32)
    found = NearestRows(x, number, k)
    for start, stop in pairwise([0, *blocks, len(x)]):
        found.add(x[start:stop], number[start:stop])
    return found


@pytest.mark.parametrize("k", [1, 10, 199])
@pytest.mark.parametrize("blocks", [[], [1, 2, 3, 150], [40, 80, 120, 160]])
def test_the_nearest_rows_are_those_of_all_cosines_in_float64(k: int, blocks: list[int]) -> None:
    x = like_features(200)
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    found = search(x, k, blocks)
    assert found.row.tolist() == np.argsort(-cosine, axis=1, kind="stable")[:, :k].tolist()
    np.testing.assert_allclose(found.similarity, -np.sort(-cosine, axis=1)[:, :k], atol=1e-6)


def test_the_cut_into_blocks_changes_no_bit() -> None:
    """Rows that differ in the last bits alone are in the same order whatever stands beside them."""
    x = np.tile(like_features(30, d=1280), (10, 1))
    x[::7] *= np.float32(1 + 1e-6)
    one, other = search(x, 20, []), search(x, 20, [11, 99, 100, 101, 256])
    assert (one.row == other.row).all()
    assert (one.similarity == other.similarity).all()


def test_equal_rows_come_by_their_number_and_none_is_its_own_neighbour() -> None:
    found = search(np.ones((5, 4), np.float32), 3, [2])
    assert found.row.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (found.similarity == 1).all()


def test_a_row_of_zeros_is_like_nothing_and_missing_rows_are_marked() -> None:
    found = search(np.array([[0, 0], [1, 0], [-1, 0]], np.float32), 4, [])
    assert found.row.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [0, 1, -1, -1]]
    assert found.similarity.tolist() == [[0, 0, -1, -1], [0, -1, -1, -1], [0, -1, -1, -1]]


@pytest.mark.parametrize(("n", "most", "n_tasks"), [(1, 5, 4), (20, 5, 2), (21, 5, 2), (7, 100, 3)])
def test_stretches_cover_all_rows_once_and_evenly(n: int, most: int, n_tasks: int) -> None:
    stretches = cut_evenly(n, most, n_tasks)
    assert [row for start, stop in stretches for row in range(start, stop)] == list(range(n))
    lengths = [stop - start for start, stop in stretches]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert len(stretches) % n_tasks == 0 or len(stretches) == n


def test_a_stretch_of_stored_rows_is_read_over_the_ends_of_files(tmp_path: Path) -> None:
    """Places count in the stored order, numbers in that of the paths."""
    x = like_features(10)
    paths = [f"p{9 - i}" for i in range(10)]
    output = write_vectors(tmp_path / "out", x[:4], x[4:4], x[4:9], x[9:], paths=paths)
    rows, table = read_rows(output, ["label"])
    assert rows.number.tolist() == list(range(9, -1, -1))
    assert table["path"].to_pylist() == sorted(paths)
    blocks = list(iter_blocks(output.folder, output.parts("features"), 3, 9))
    assert [block.start for block in blocks] == [3, 4]
    np.testing.assert_array_equal(np.concatenate([block.x for block in blocks]), x[3:9])


# The index


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Return a result with 3,000 vectors in two files."""
    x = like_features(3_000, d=D)
    return write_vectors(tmp_path / "out", x[:1_700], x[1_700:])


def test_an_index_finds_nearly_all_of_the_nearest(output: Output) -> None:
    """Recall is counted here by brute force; cosines are right to the digits that are kept."""
    found = approximate.build_index(output)
    x = like_features(3_000, d=D)
    exact = search(x, 10, [])
    similarity, place = approximate.search_index(output.folder, found, x, 11)
    hits = [len(set(a) & set(b)) for a, b in zip(place.tolist(), exact.row.tolist(), strict=True)]
    assert np.sum(hits) / exact.row.size == pytest.approx(found.recall, abs=0.01)
    assert found.recall >= approximate.RECALL
    assert (place[:, 0] == np.arange(3_000)).mean() > 0.999
    np.testing.assert_allclose(similarity[:, 1], exact.similarity[:, 0], atol=2e-3)
    assert (found.n_photos, found.n_features, found.n_tried) == (3_000, D, 500)
    assert found.n_probe < found.n_lists


def test_the_same_files_give_the_same_answers(output: Output) -> None:
    x = like_features(20, d=D, seed=1)
    answers = [
        approximate.search_index(output.folder, approximate.build_index(output), x, 5)
        for _ in range(2)
    ]
    assert (answers[0][0] == answers[1][0]).all()
    assert (answers[0][1] == answers[1][1]).all()


def test_an_index_is_kept_until_the_features_change(output: Output, tmp_path: Path) -> None:
    """Another table, or a file that is gone, is noticed; of two files the older goes."""
    first = approximate.ensure_index(output)
    assert approximate.ensure_index(output) == first
    files = write_vectors(tmp_path / "other", like_features(50, d=D)).read_run()["files"]
    record = output.read_run()
    output.write_run(record | {"files": files})
    assert approximate.current_index(output) is None
    output.write_run(record)
    output.folder.remove(first.file)
    second = approximate.ensure_index(output)
    names = [entry.name for entry in output.folder.files("index")]
    assert sorted(names) == sorted([INDEX, second.file])


@pytest.mark.parametrize("n", [1, 2, 45])
def test_a_small_table_is_searched_whole(tmp_path: Path, n: int) -> None:
    output = write_vectors(tmp_path / "out", like_features(n))
    found = approximate.build_index(output)
    assert (found.n_lists, found.recall, found.n_tried) == (1, 1.0, n)


def test_a_damaged_index_says_what_to_do(output: Output) -> None:
    found = approximate.build_index(output)
    output.folder.write(found.file, b"no index")
    with pytest.raises(SchemaError, match=r"features-.*faiss: cannot be read.*remove it"):
        approximate.search_index(output.folder, found, like_features(1, d=D), 1)
    output.folder.write(INDEX, b'{"file": "x"}')
    assert approximate.current_index(output) is None  # another version's
    output.folder.write(INDEX, b"{")
    with pytest.raises(SchemaError, match=r"index.json: cannot be read.*remove it"):
        approximate.current_index(output)


def test_without_faiss_the_command_to_install_it_is_told(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EnvironmentNotReadyError, match=r"pip install 'verger\[index\]'"):
        approximate.build_index(output)
