"""The photos most like each photo: rows of stored tables, and how much an index finds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.results import write_vectors
from support.vectors import like_features, search_all
from verger.classify.nearest import Cosine
from verger.errors import EnvironmentNotReadyError, InspectionError, SchemaError
from verger.result.output import INDEX, Output
from verger.similar import index as approximate
from verger.similar.rows import cut_evenly, iter_blocks, read_stored_rows

#: Features of the vectors that are indexed.
D = 256


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
    rows, table = read_stored_rows(output, ["label"])
    assert rows.number.tolist() == list(range(9, -1, -1))
    assert table["path"].to_pylist() == sorted(paths)
    blocks = list(iter_blocks(output.folder, output.parts("features"), 3, 9))
    assert [start for start, _ in blocks] == [3, 4]
    np.testing.assert_array_equal(np.concatenate([x for _, x in blocks]), x[3:9])


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
    exact = search_all(Cosine(x), x, 10, own=True)
    similarity, place = approximate.search_index(output.folder, found, x, 11)
    hits = [len(set(a) & set(b)) for a, b in zip(place.tolist(), exact.row.tolist(), strict=True)]
    assert np.sum(hits) / exact.row.size == pytest.approx(found.recall, abs=0.01)
    assert found.recall >= approximate.RECALL
    assert (place[:, 0] == np.arange(3_000)).mean() > 0.999
    np.testing.assert_allclose(similarity[:, 1], exact.likeness[:, 0], atol=2e-3)
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
    files = write_vectors(tmp_path / "other", like_features(50, d=D)).read_run().files
    record = output.read_run()
    output.write_run(replace(record, files=files))
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


def test_a_table_without_a_vector_has_no_index(tmp_path: Path) -> None:
    output = write_vectors(tmp_path / "out", like_features(0))
    with pytest.raises(InspectionError, match="n_photos=0 with features must be at least 1"):
        approximate.build_index(output)


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
    with pytest.raises(EnvironmentNotReadyError, match=r"pip install .*\[index\]'"):
        approximate.build_index(output)
