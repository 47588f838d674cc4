"""What an inspection concludes from neighbours, labels, names and distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from support.results import write_vectors
from verger.errors import ConfigError, InspectionError
from verger.files.folder import Folder
from verger.similar.inspection.gallery import make_galleries
from verger.similar.inspection.groups import (
    Across,
    DuplicateKind,
    Group,
    components,
    find_contents,
    find_groups,
    find_suspects,
)
from verger.similar.inspection.outliers import score_outliers
from verger.similar.inspection.photos import Photos, read_photos
from verger.similar.inspection.stage import Criteria
from verger.similar.inspection.votes import find_doubtful
from verger.similar.neighbors import Neighbors
from verger.similar.rows import StoredRows
from verger.source.films import find_films


def photos_of(paths: list[str], labels: list[str | None] | None = None, lengths=None) -> Photos:
    """Return photos by their paths; labels are folders unless they are given."""
    names = [path.split("/")[-2] for path in paths] if labels is None else labels
    known = sorted({name for name in names if name is not None})
    return Photos(
        rows=StoredRows(Folder("/out"), (), np.arange(len(paths), dtype=np.int32)),
        paths=paths,
        labels=tuple(known),
        targets=np.array([-1 if name is None else known.index(name) for name in names]),
        lengths=np.array(lengths if lengths is not None else range(len(paths))),
        films=find_films(paths),
    )


def neighbors_of(similarity: np.ndarray, k: int) -> Neighbors:
    """Return the k nearest of each row by a matrix of cosines."""
    cosine = np.array(similarity, np.float32)
    np.fill_diagonal(cosine, -2)
    row = np.argsort(-cosine, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Neighbors(row, np.take_along_axis(cosine, row, 1))


def alike(n: int, *groups: list[int], cosine: float = 0.99) -> np.ndarray:
    """Return cosines of 0.5, and more within each group."""
    found = np.full((n, n), 0.5)
    for group in groups:
        found[np.ix_(group, group)] = cosine
    return found


# Groups


def test_components_are_scipys() -> None:
    """Chains, stars and rows without a link; each component is named by its first row."""
    rng = np.random.default_rng(1)
    chain = rng.permutation(1_000)
    i = np.concatenate([chain[:-1], np.full(50, 1_500), rng.integers(1_200, 1_600, 100)])
    j = np.concatenate([chain[1:], np.arange(1_100, 1_150), rng.integers(1_200, 1_600, 100)])
    ours = components(2_000, i, j)
    _, theirs = connected_components(coo_matrix((np.ones(len(i)), (i, j)), (2_000, 2_000)), False)
    first = {name: row for row, name in reversed(list(enumerate(theirs.tolist())))}
    assert ours.tolist() == [first[name] for name in theirs.tolist()]


def test_photos_are_read_again_only_where_length_and_features_agree() -> None:
    photos = photos_of([f"/p/a/{name}.jpg" for name in "vwxyz"], lengths=[5, 5, 5, 6, 5])
    cosine = alike(5, [0, 1], [2, 3], cosine=1.0)
    assert find_suspects(photos, neighbors_of(cosine, 2)).tolist() == [0, 1]


def test_one_content_is_one_whatever_the_features_say() -> None:
    """Equal sums join; other sums part; without a sum, length and features must do."""
    photos = photos_of([f"/p/a/{name}.jpg" for name in "uvwxyz"], lengths=[5, 5, 5, 5, 7, 7])
    neighbors = neighbors_of(alike(6, [0, 1, 2, 3], [4, 5], cosine=1.0), 3)
    sums = {0: "aa", 1: "bb", 2: "aa", 3: "bb", 4: None, 5: None}
    assert find_contents(photos, neighbors, sums).tolist() == [0, 1, 0, 1, 4, 4]


@pytest.mark.parametrize(
    ("paths", "across"),
    [
        (["/p/a/x.jpg", "/p/b/x.jpg"], "labels"),
        (["/p/train/a/x.jpg", "/p/test/a/x.jpg"], "folders"),
        (["/p/a/x.jpg", "/p/a/y.jpg"], "photos"),
        (["/p/a/1_100.jpg", "/p/a/r_2_100.jpg"], "photos"),
        (["/p/a/x.jpg", "/p/a/1_100.jpg"], "photos"),
        (["/p/a/1_100.jpg", "/p/a/30_100.jpg"], "film"),
        (["/p/a/1_100.jpg", "/p/a/11_100.jpg"], "frames"),
        (["/p/a/1_100.jpg", "/p/a/9_100.jpg", "/p/a/18_100.jpg"], "frames"),
        (["/p/a/1_100.jpg", "/p/a/2_100.jpg", "/p/a/40_100.jpg", "/p/a/41_100.jpg"], "film"),
        (["/p/a/1_100.jpg", "/p/a/3_100.jpg", "/p/a/98_100.jpg"], "frames"),
    ],
)
def test_a_group_is_called_by_what_it_lies_across(paths: list[str], across: str) -> None:
    """A film is a turn: frames 98 and 1 of 100 follow one another."""
    others = [f"/p/a/{i}_100.jpg" for i in (0, 50, 99)]
    photos = photos_of([*paths, *others])
    n = len(paths)
    neighbors = neighbors_of(alike(n + 3, list(range(n))), 3)
    (group,) = find_groups(photos, neighbors, np.arange(n + 3), near=0.98)
    assert (group.kind, group.across) == (DuplicateKind.NEAR, across)
    assert group.rows.tolist() == list(range(n))


def test_groups_come_in_the_order_of_their_weight() -> None:
    """Copies first; then across labels before one folder; then the larger. A group of copies
    alone is no near one too, but with another photo it is both."""
    names = ["a/a", "a/b", "a/c", "a/d", "a/e", "b/a", "b/b", "b/c", "b/d"]
    photos = photos_of([f"/p/{name}.jpg" for name in names])
    cosine = alike(9, [0, 1], [2, 3, 6], [4, 5], [7, 8])
    content = np.array([0, 1, 2, 2, 4, 5, 6, 7, 7])
    groups = find_groups(photos, neighbors_of(cosine, 2), content, near=0.98)
    assert [(g.kind, g.across, g.rows.tolist()) for g in groups] == [
        ("exact", "photos", [2, 3]),
        ("exact", "photos", [7, 8]),
        ("near", "labels", [2, 3, 6]),
        ("near", "labels", [4, 5]),
        ("near", "photos", [0, 1]),
    ]


def test_nothing_below_the_threshold_is_near() -> None:
    photos = photos_of(["/p/a/x.jpg", "/p/a/y.jpg", "/p/a/z.jpg"])
    neighbors = neighbors_of(alike(3, [0, 1], cosine=0.97), 2)
    assert find_groups(photos, neighbors, np.arange(3), near=0.98) == []


# Labels


def doubts_of(labels: list[str | None], cosine: np.ndarray, k: int, content=None) -> list:
    photos = photos_of([f"/p/{i:02}.jpg" for i in range(len(labels))], labels)
    known = np.arange(len(labels)) if content is None else np.array(content)
    return find_doubtful(photos, neighbors_of(cosine, k), known)


def test_a_photo_among_others_of_another_label_is_doubtful() -> None:
    """Row 0 says b and lies among a; its nearest b is told beside its nearest a."""
    cosine = alike(9, [1, 2, 3, 4], [5, 6, 7, 8], cosine=0.9)
    cosine[0, 1:5], cosine[0, 5] = [0.8, 0.85, 0.7, 0.7], 0.75
    cosine[:, 0] = cosine[0]
    (doubt,) = doubts_of(["b", *"aaaa", *"bbbb"], cosine, 5)
    assert (doubt.row, doubt.suggestion, doubt.n_votes, doubt.n_against) == (0, "a", 5, 4)
    assert doubt.score == 0.8
    assert doubt.against == (2, 1, 3, 4)
    assert (doubt.similarity, doubt.similarity_own) == pytest.approx((0.85, 0.75))


def test_the_label_that_most_have_is_suggested_and_of_equals_the_nearer() -> None:
    cosine = np.full((6, 6), 0.1)
    cosine[0, 1:] = [0.9, 0.8, 0.7, 0.6, 0.5]
    found = doubts_of(["x", "a", "b", "b", "a", "c"], cosine, 5)
    assert 0 not in [d.row for d in found]  # a class of one photo: nobody could agree
    cosine = np.pad(cosine, (0, 3), constant_values=0.05)
    found = [
        d for d in doubts_of(["x", "a", "b", "b", "a", "c", "x", "x", "x"], cosine, 5) if d.row == 0
    ]
    assert found[0].suggestion == "a"


def test_a_small_class_is_not_outvoted_by_its_size() -> None:
    """Two photos that are alike agree, though eight of ten neighbours must be of other classes."""
    cosine = alike(12, [0, 1], list(range(2, 12)), cosine=0.9)
    assert doubts_of(["a", "a", *"bbbbbbbbbb"], cosine, 10) == []


def test_photos_without_label_neither_vote_nor_are_judged() -> None:
    cosine = alike(5, [0, 1, 2, 3, 4], cosine=0.9)
    assert doubts_of([None, "a", "a", None, None], cosine, 4) == []


def test_a_copy_with_the_same_label_says_nothing_new() -> None:
    """Rows 0 and 1 are one file twice in the wrong folder: each would speak for the other."""
    cosine = alike(9, [0, 1, 2, 3], [4, 5, 6, 7, 8], cosine=0.9)
    cosine[0, 1] = cosine[1, 0] = 1.0
    labels = ["b", "b", "a", "a", "b", "b", "b", "b", "b"]
    content = [0, 0, 2, 3, 4, 5, 6, 7, 8]
    assert [d.row for d in doubts_of(labels, cosine, 3, content)][:2] == [0, 1]
    assert not {0, 1} & {d.row for d in doubts_of(labels, cosine, 2)}


def test_the_most_doubtful_come_first() -> None:
    """By share of the votes; of equal shares, by how much nearer the other label is."""
    cosine = alike(10, [4, 5, 6], [7, 8, 9], cosine=0.9)
    for row, near in ((0, 0.7), (1, 0.8)):
        cosine[row, [4, 5, 6]] = cosine[[4, 5, 6], row] = near
    cosine[2, [4, 5, 7]] = cosine[[4, 5, 7], 2] = 0.85
    labels = ["b", "b", "b", "b", "a", "a", "a", "b", "b", "b"]
    found = [d for d in doubts_of(labels, cosine, 3) if d.row < 3]
    assert [(d.row, d.n_against) for d in found] == [(1, 3), (0, 3), (2, 2)]


# Outliers


def test_scores_are_those_of_iglewicz_and_hoaglin() -> None:
    """Their own example: ten values with the median 3 and a median deviation of 0.65."""
    values = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    found = score_outliers(values, np.zeros(10, np.int64))
    mad = np.median(np.abs(values - np.median(values)))
    np.testing.assert_allclose(found, 0.6745 * (values - np.median(values)) / mad)
    assert (found > 3.5).nonzero()[0].tolist() == [8, 9]


def test_each_class_is_judged_by_itself() -> None:
    """The same distance is far in a narrow class and usual in a wide one."""
    narrow, wide = np.linspace(0.10, 0.12, 9), np.linspace(0.1, 0.5, 9)
    distance = np.concatenate([narrow, [0.3], wide, [0.3]])
    found = score_outliers(distance, np.repeat([0, 1], 10))
    assert found[9] > 3.5
    assert abs(found[-1]) < 1


def test_one_odd_photo_among_equal_ones_is_found() -> None:
    """More than half are at one distance, so that the median deviation is 0."""
    found = score_outliers(np.array([0.1] * 19 + [0.4]), np.zeros(20, np.int64))
    mean_deviation = 0.3 / 20
    assert found[-1] == pytest.approx(0.7979 * 0.3 / mean_deviation)
    assert (found[:-1] == 0).all()
    assert (score_outliers(np.full(9, 0.1), np.zeros(9, np.int64)) == 0).all()


def test_small_classes_and_photos_without_one_are_not_judged() -> None:
    targets = np.array([0] * 7 + [-1] * 9)
    assert np.isnan(score_outliers(np.arange(16.0), targets)).all()


# What is shown


def test_of_neighbouring_frames_one_is_shown() -> None:
    """Frames 4 to 60 by fours are far from their class, the later the farther."""
    paths = sorted(f"/p/a/{i:03}_100.jpg" for i in range(0, 200, 4))
    photos = photos_of(paths)
    distance = np.where(np.arange(50) < 16, 0.5 + np.arange(50) / 100, np.arange(50) / 1000)
    scores = np.where(np.arange(50) < 16, 4 + np.arange(50), 0.0)
    (shown,) = make_galleries(photos, [], [], distance, scores)["outliers"]
    assert (shown["label"], shown["n"], shown["score"]) == ("a", 16, 19.0)
    assert shown["photos"] == [f"/p/a/{i:03}_100.jpg" for i in (60, 48, 36, 24, 12)]
    assert shown["typical"] == [f"/p/a/{i:03}_100.jpg" for i in (64, 76, 88)]


def test_a_large_group_is_shown_from_end_to_end() -> None:
    """Frames are left out, groups within a film stand apart."""
    photos = photos_of([f"/p/{label}/{i}.jpg" for label in "ab" for i in range(10)])
    groups = [
        Group(DuplicateKind.NEAR, Across.LABELS, np.arange(20)),
        Group(DuplicateKind.NEAR, Across.FILM, np.array([0, 9])),
        Group(DuplicateKind.NEAR, Across.FRAMES, np.array([0, 1])),
    ]
    nothing = np.full(20, np.nan)
    shown = make_galleries(photos, groups, [], nothing, nothing)
    (near,) = shown["near"]
    assert (near["size"], near["labels"]) == (20, ["a", "b"])
    assert near["photos"] == [photos.paths[row] for row in (0, 4, 9, 14, 19)]
    assert [group["size"] for group in shown["film"]] == [2]


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 must be between 1 and 100"),
        ({"k": 101}, "k=101 must be between 1 and 100"),
        ({"near": 0.0}, "near=0.0 must be above 0, and at most 1"),
        ({"near": 1.01}, "near=1.01 must be above 0, and at most 1"),
    ],
)
def test_criteria_that_cannot_be_meant_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Criteria(**options)


def test_one_photo_cannot_be_compared(tmp_path: Path) -> None:
    output = write_vectors(tmp_path / "out", np.ones((1, 4), np.float32))
    with pytest.raises(InspectionError, match="n_photos=1 with features must be at least 2"):
        read_photos(output)
    with pytest.raises(ConfigError, match=r"frames='x': must have groups"):
        read_photos(write_vectors(tmp_path / "two", np.ones((2, 4), np.float32)), "x")


def test_one_class_in_two_forms_of_unicode(tmp_path: Path) -> None:
    """An older result may have a label as macOS spelt it, and as others do: it is one class."""
    vectors, labels = np.ones((3, 4), np.float32), ["Pe\u0302che", "P\xeache", None]
    photos = read_photos(write_vectors(tmp_path / "out", vectors, labels=labels))
    assert photos.labels == ("P\xeache",)
    assert photos.targets.tolist() == [0, 0, -1]
