"""The one search for nearest rows: exact whatever the blocks, by cosine and by distance."""

from __future__ import annotations

import numpy as np
import pytest

from support.vectors import like_features, search_all
from verger.classify.nearest import Cosine, Euclidean, NearestRows


@pytest.mark.parametrize("k", [1, 10, 199])
@pytest.mark.parametrize("blocks", [[], [1, 2, 3, 150], [40, 80, 120, 160]])
def test_the_nearest_rows_are_those_of_all_cosines_in_float64(k: int, blocks: list[int]) -> None:
    x = like_features(200)
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    found = search_all(Cosine(x), x, k, blocks, own=True)
    assert found.row.tolist() == np.argsort(-cosine, axis=1, kind="stable")[:, :k].tolist()
    np.testing.assert_allclose(found.likeness, -np.sort(-cosine, axis=1)[:, :k], atol=1e-6)


def test_the_cut_into_blocks_changes_no_bit() -> None:
    """Rows that differ in the last bits alone are in the same order whatever stands beside them."""
    x = np.tile(like_features(30, d=1280), (10, 1))
    x[::7] *= np.float32(1 + 1e-6)
    one, other = (
        search_all(Cosine(x), x, 20, [], own=True),
        search_all(Cosine(x), x, 20, [11, 99, 100, 101, 256], own=True),
    )
    assert (one.row == other.row).all()
    assert (one.likeness == other.likeness).all()


def test_equal_rows_come_by_their_number_and_none_is_its_own_neighbour() -> None:
    x = np.ones((5, 4), np.float32)
    found = search_all(Cosine(x), x, 3, [2], own=True)
    assert found.row.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (found.likeness == 1).all()


def test_a_row_of_zeros_is_like_nothing_and_missing_rows_are_marked() -> None:
    x = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    found = search_all(Cosine(x), x, 4, own=True)
    assert found.row.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [0, 1, -1, -1]]
    assert found.likeness.tolist() == [[0, 0, -1, -1], [0, -1, -1, -1], [0, -1, -1, -1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("blocks", [[], [1, 2, 3, 150], [40, 80, 120, 160]])
def test_the_nearest_by_distance_are_those_of_all_differences_in_float64(
    dtype: type[np.floating], blocks: list[int]
) -> None:
    """Far from the origin too, where products in float32 lose the difference of two rows."""
    x, asked = (
        (like_features(n, seed=seed) + 500).astype(dtype) for n, seed in ((200, 0), (30, 1))
    )
    apart = np.square(asked[:, None].astype(float) - x[None].astype(float)).sum(axis=2)
    found = search_all(Euclidean(asked), x, 7, blocks)
    assert found.row.tolist() == np.argsort(apart, axis=1, kind="stable")[:, :7].tolist()
    np.testing.assert_array_equal(found.likeness, -np.sort(apart, axis=1)[:, :7])


def test_rows_at_one_distance_come_by_their_number() -> None:
    x = np.array([[2, 0], [0, 1], [-1, 0], [1, 0]], np.float32)
    for blocks in ([], [1, 2, 3]):
        found = search_all(Euclidean(np.zeros((1, 2))), x, 3, blocks)
        assert found.row.tolist() == [[1, 2, 3]]


def test_a_row_is_not_its_own_neighbour_by_distance_either() -> None:
    x = np.arange(3, dtype=np.float32)[:, None]
    assert search_all(Euclidean(x), x, 3, own=True).row.tolist() == [
        [1, 2, -1],
        [0, 2, -1],
        [1, 0, -1],
    ]


def test_searches_of_two_tasks_are_joined_to_the_search_of_one() -> None:
    x, asked = like_features(60), like_features(5, seed=1)
    whole = search_all(Euclidean(asked), x, 4)
    joined = NearestRows(Euclidean(asked), 4)
    for rows in (np.arange(30, 60), np.arange(30)):
        part = NearestRows(Euclidean(asked), 4)
        part.add(x[rows], rows)
        joined.join(np.repeat(np.arange(5), 4), part.row.ravel(), part.likeness.ravel())
    assert joined.row.tolist() == whole.row.tolist()
    assert (joined.likeness == whole.likeness).all()
