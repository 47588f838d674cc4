"""The PCA in numpy: equal to scikit-learn's, from sums that may be added in any order."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA as SklearnPCA

from verger.errors import ReduceError, VergerError
from verger.files.folder import Folder
from verger.pca.fit import SHARES, FittedPCA, fit_pca
from verger.pca.moments import Moments, StoredMoments, load_moments

Matrix = npt.NDArray[np.float64]


def make(n: int = 300, d: int = 24, *, seed: int = 0, offset: float = 3.0) -> Matrix:
    """Return correlated vectors with an offset, whose variances fall over three decades."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return rng.standard_normal((n, d)) * np.logspace(0, -1.5, d) @ turn + offset


def fit(vectors: npt.NDArray[Any], components: float = 0.9, **options: bool) -> FittedPCA:
    return fit_pca(Moments.of(vectors), components, **options)


def assert_same_moments(one: Moments, other: Moments, rtol: float = 1e-12) -> None:
    assert one.n == other.n
    np.testing.assert_allclose(
        one.mean, other.mean, rtol=rtol, atol=rtol * np.abs(other.mean).max()
    )
    np.testing.assert_allclose(
        one.scatter, other.scatter, rtol=0, atol=rtol * max(np.abs(other.scatter).max(), 1e-300)
    )


# Sums


def test_moments_are_their_definition() -> None:
    """Count, mean and scatter are what their definition gives, in float64."""
    x = make(50, 5)
    moments = Moments.of(x)
    assert_same_moments(moments, Moments(50, x.mean(axis=0), np.cov(x.T, ddof=0) * 50))
    assert (moments.mean.dtype, moments.scatter.dtype) == (np.float64, np.float64)


def test_moments_leave_the_vectors_alone() -> None:
    """Summing does not change its input, though the sums are centred."""
    for x in (make(9, 4), make(9, 4).astype(np.float32)):
        before = x.copy()
        Moments.of(x)
        np.testing.assert_array_equal(x, before)


@settings(max_examples=60)
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 3.0, -1e3]),
)
def test_moments_of_parts_add_up_to_those_of_the_whole(
    n: int, d: int, seed: int, cuts: list[int], order: Any, offset: float
) -> None:
    """However the vectors are cut, and in whatever order the sums are added, they are the same."""
    x = np.random.default_rng(seed).standard_normal((n, d)) + offset
    parts = [p for p in np.split(x, sorted(c for c in cuts if c < n)) if len(p)]
    order.shuffle(parts)
    tolerance = 1e-12 * max(1.0, abs(offset))
    assert_same_moments(reduce(add, map(Moments.of, parts)), Moments.of(x), tolerance)


def test_moments_of_single_vectors_add_up() -> None:
    """Even one vector at a time gives the sums of the whole."""
    x = make(40, 6)
    assert_same_moments(reduce(add, (Moments.of(row[None]) for row in x)), Moments.of(x))


def test_adding_is_commutative_and_associative() -> None:
    """Sums may be joined in any tree, as tasks end."""
    a, b, c = (Moments.of(part) for part in np.split(make(90, 6, offset=100.0), [10, 60]))
    assert_same_moments(a + b, b + a)
    assert_same_moments((a + b) + c, a + (b + c))


def test_a_large_offset_costs_no_accuracy() -> None:
    """Vectors around a million have the sums of the same vectors around zero."""
    x = make(1000, 8, offset=0.0)
    parts = np.split(x + 1e6, 10)
    moments = reduce(add, map(Moments.of, parts))
    expected = Moments.of(x)
    np.testing.assert_allclose(
        moments.scatter, expected.scatter, atol=1e-8 * expected.scatter.max()
    )
    found, wanted = fit_pca(moments, 8), fit_pca(expected, 8)
    np.testing.assert_allclose(
        found.explained_variance_ratio, wanted.explained_variance_ratio, atol=1e-8
    )


def test_float32_vectors_are_summed_in_float64() -> None:
    """Vectors in float32 have the sums of the same numbers in float64."""
    x = make(500, 10, offset=1e3).astype(np.float32)
    assert_same_moments(Moments.of(x), Moments.of(x.astype(np.float64)), 0.0)


def test_saved_moments_can_be_added_to(tmp_path: Path) -> None:
    """Stored sums come back without pickle, and the photos of later days can be added."""
    old, new = np.split(make(60, 5), [45])
    folder = Folder(str(tmp_path))
    folder.write("m.npz", StoredMoments(Moments.of(old), ("a", "b")).to_npz(contract="abc"))
    stored = load_moments(folder, "m.npz", contract="abc")
    assert stored is not None
    assert stored.parts == ("a", "b")
    assert_same_moments(stored.sums + Moments.of(new), Moments.of(np.concatenate([old, new])))


@pytest.mark.parametrize("content", [None, b"", b"PK", b"\x80\x04."])
def test_sums_that_cannot_be_used_are_summed_anew(tmp_path: Path, content: bytes | None) -> None:
    """Sums that are gone, damaged or of another contract are none: nothing is added to them."""
    folder = Folder(str(tmp_path))
    if content is not None:
        (tmp_path / "m.npz").write_bytes(content)
    assert load_moments(folder, "m.npz", contract="abc") is None
    folder.write("m.npz", StoredMoments(Moments.of(make(9, 3)), ("a",)).to_npz(contract="other"))
    assert load_moments(folder, "m.npz", contract="abc") is None


def test_sums_that_unpack_to_much_memory_are_none(tmp_path: Path) -> None:
    """Verger compresses no sums: 0.1 MB that unpack to 80 MB are somebody else's."""
    names = {"contract": "abc", "n": 1, "mean": np.zeros(3), "parts": np.array(["a"])}
    with (tmp_path / "m.npz").open("wb") as file:
        np.savez_compressed(file, scatter=np.zeros(10_000_000), **names)
    assert load_moments(Folder(str(tmp_path)), "m.npz", contract="abc") is None


# Against scikit-learn


def same_up_to_sign(one: npt.NDArray[Any], other: npt.NDArray[Any], atol: float) -> None:
    """Compare columns, each of which may be turned over."""
    signs = np.sign((one * other).sum(axis=0))
    np.testing.assert_allclose(one, other * signs, atol=atol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d"), [(300, 24), (2000, 3), (30, 30), (20, 50)])
def test_the_fit_is_scikit_learns(n: int, d: int, dtype: Any) -> None:
    """Ratios, variances, mean, axes and centred scores are scikit-learn's, up to sign."""
    x = make(n, d).astype(dtype)
    k = min(n - 1, d)
    sklearn = SklearnPCA(n_components=k, svd_solver="full").fit(x.astype(np.float64))
    pca = fit(x, k, center=True)
    np.testing.assert_allclose(
        pca.explained_variance_ratio[:k], sklearn.explained_variance_ratio_, atol=1e-9
    )
    np.testing.assert_allclose(pca.explained_variance[:k], sklearn.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(pca.mean, sklearn.mean_, rtol=1e-12)
    same_up_to_sign(pca.components[:k].T, sklearn.components_.T, atol=1e-6)
    same_up_to_sign(pca.transform(x), sklearn.transform(x.astype(np.float64)), atol=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 0.999])
def test_a_share_keeps_as_many_as_scikit_learn(share: float) -> None:
    """The number of components of a share of the variance is scikit-learn's."""
    x = make()
    sklearn = SklearnPCA(n_components=share, svd_solver="full").fit(x)
    assert fit(x, share).n_components == sklearn.n_components_


def test_standardized_is_scikit_learns_on_scaled_features() -> None:
    """Dividing by the standard deviation of the sample first is the PCA of scaled features."""
    x = make() * np.logspace(-3, 3, 24) + 5
    scaled = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    sklearn = SklearnPCA(n_components=10, svd_solver="full").fit(scaled)
    pca = fit(x, 10, standardize=True, center=True)
    np.testing.assert_allclose(
        pca.explained_variance_ratio[:10], sklearn.explained_variance_ratio_, atol=1e-9
    )
    np.testing.assert_allclose(pca.scale, x.std(axis=0, ddof=1), rtol=1e-12)
    assert pca.explained_variance.sum() == pytest.approx(24)
    same_up_to_sign(pca.transform(x), sklearn.transform(scaled), atol=1e-4)


# What holds of every fit


@pytest.fixture(params=[(300, 24), (24, 24), (10, 40), (2, 7)], ids=lambda s: f"{s[0]}x{s[1]}")
def vectors(request: pytest.FixtureRequest) -> Matrix:
    """Vectors: more, as many, fewer than features, and only two."""
    return make(*request.param)


@pytest.mark.parametrize("standardize", [False, True])
def test_components_are_orthonormal(vectors: Matrix, standardize: bool) -> None:
    """The axes are of unit length and at right angles, beyond the rank too."""
    components = fit(vectors, 1, standardize=standardize).components
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
def test_ratios_fall_and_sum_to_one(vectors: Matrix, standardize: bool) -> None:
    """The ratios fall, none is negative, and together they are 1 and no more."""
    pca = fit(vectors, 1, standardize=standardize)
    ratio = pca.explained_variance_ratio
    assert ratio.shape == (vectors.shape[1],)
    assert (np.diff(ratio) <= 0).all()
    assert ratio.min() >= 0
    assert ratio.sum() == pytest.approx(1, abs=1e-12)
    assert pca.cumulative_ratio[-1] <= 1 + 1e-12
    assert (np.diff(pca.cumulative_ratio) >= 0).all()


def test_scores_have_the_variance_they_should(vectors: Matrix) -> None:
    """The variance of every component's scores is its explained variance, without correlation."""
    pca = fit(vectors, 1.0)
    scores = pca.transform(vectors).astype(np.float64)
    covariance = np.atleast_2d(np.cov(scores.T))
    largest = pca.explained_variance[0]
    kept = np.diag(pca.explained_variance[: pca.n_components])
    np.testing.assert_allclose(covariance, kept, atol=1e-5 * largest)


def test_the_largest_entry_of_each_component_is_positive(vectors: Matrix) -> None:
    """The sign of an axis is fixed by its entry of the largest magnitude."""
    components = fit(vectors, 1).components
    largest = np.abs(components).argmax(axis=1)
    assert (components[np.arange(len(components)), largest] > 0).all()


def test_signs_do_not_depend_on_the_order_of_the_photos() -> None:
    """The scores of a photo stay what they are when the photos come in another order."""
    x = make()
    shuffled = x[np.random.default_rng(1).permutation(len(x))]
    np.testing.assert_allclose(fit(x, 8).transform(x), fit(shuffled, 8).transform(x), atol=1e-5)


def test_all_components_give_the_vectors_back() -> None:
    """With all components the scores can be turned back into the vectors."""
    x = make(100, 12)
    for center in (False, True):
        pca = fit(x, 12, center=center)
        back = pca.transform(x).astype(np.float64) @ pca.components + (pca.mean if center else 0)
        np.testing.assert_allclose(back, x, atol=1e-5)


def test_centring_moves_the_scores_by_one_vector() -> None:
    """Centred scores have mean zero, and differ from the others by the mean's own scores."""
    x = make()
    raw, centred = fit(x, 5).transform(x), fit(x, 5, center=True).transform(x)
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-5)
    moved = fit(x, 5).transform(x.mean(axis=0)[None])
    np.testing.assert_allclose(raw - centred, np.broadcast_to(moved, raw.shape), atol=1e-4)


def test_a_photo_has_its_scores_whoever_is_beside_it() -> None:
    """Scores do not depend on the batch, are float32, and no photos have no scores."""
    x = make().astype(np.float32)
    pca = fit(x, 6, standardize=True, center=True)
    whole = pca.transform(x)
    assert (whole.shape, whole.dtype) == ((300, 6), np.float32)
    np.testing.assert_allclose(pca.transform(x[7:8]), whole[7:8], rtol=1e-6, atol=1e-6)
    assert pca.transform(x[:0]).shape == (0, 6)


def test_a_transform_leaves_the_vectors_alone() -> None:
    """Projecting does not change its input, centred or not."""
    x = make(20, 5)
    before = x.copy()
    fit(x, 2, center=True).transform(x)
    np.testing.assert_array_equal(x, before)


# How many components


@settings(max_examples=40)
@given(shares=st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_a_larger_share_needs_no_fewer_components(shares: list[float], seed: int) -> None:
    """k rises with the share, reaches it, and one component less would not."""
    pca = fit(make(60, 12, seed=seed), 1)
    ks = [pca.k_for(share) for share in sorted(shares)]
    assert ks == sorted(ks)
    assert ks[0] >= 1
    assert ks[-1] <= 12
    for share, k in zip(sorted(shares), ks, strict=True):
        assert pca.cumulative_ratio[k - 1] >= share - 1e-11
        assert k == 1 or pca.cumulative_ratio[k - 2] < share


def test_a_share_that_is_reached_exactly_needs_no_more() -> None:
    """The share that j components keep, rounding and all, is kept by j components."""
    pca = fit(make(60, 12), 1)
    assert [pca.k_for(share) for share in pca.cumulative_ratio] == list(range(1, 13))
    assert [pca.k_for(share + 1e-9) for share in pca.cumulative_ratio[:-1]] == list(range(2, 13))


def test_the_reported_shares_rise() -> None:
    """The shares that are always reported are 80, 90 and 95 %, and their k rise with them."""
    pca = fit(make(), 1)
    assert SHARES == (0.80, 0.90, 0.95)
    assert 1 <= pca.k_for(0.8) <= pca.k_for(0.9) <= pca.k_for(0.95) <= 24


def test_a_number_and_a_share_of_components() -> None:
    """A whole number is that many, a share as many as reach it, and 1.0 all that vary."""
    x = make()
    for k in (1, 7, 24):
        assert fit(x, k).n_components == k
        assert fit(x, k).transform(x).shape == (300, k)
    assert fit(x, 0.9).n_components == fit(x, 1).k_for(0.9)
    assert fit(x, 1.0).n_components == 24
    assert fit(x, 1).n_components == 1
    assert fit(x, 1e-9).n_components == 1


def test_fewer_photos_than_features() -> None:
    """Ten photos of 40 features have nine components, of which all hold 100 % of the variance."""
    x = make(10, 40)
    pca = fit(x, 1.0)
    assert pca.n_components == 9
    assert pca.cumulative_ratio[8] == pytest.approx(1, abs=1e-12)
    assert fit(x, 9).n_components == 9
    says = r"components=10 must be between 1 and 9, the number of directions .* n_samples=10 photos"
    with pytest.raises(ReduceError, match=says):
        fit(x, 10)


@pytest.mark.parametrize("components", [0, -1, 25, 2000])
def test_more_components_than_features_are_refused(components: int) -> None:
    """A number of components outside 1 to n_features is refused with its bounds."""
    says = rf"components={components} must be between 1 and n_features"
    with pytest.raises(VergerError, match=says):
        fit(make(), components)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, 50.0, float("nan")])
def test_a_share_outside_its_bounds_is_refused(share: float) -> None:
    """A float that is no share above 0 and up to 1 is refused, not taken for everything."""
    with pytest.raises(VergerError, match="components="):
        fit(make(), share)


def test_directions_that_do_not_vary_are_no_components() -> None:
    """Features that are copies of others add no component."""
    x = make(100, 6)
    doubled = np.concatenate([x, 2 * x], axis=1)
    assert fit(doubled, 1.0).n_components == 6
    with pytest.raises(ReduceError, match=r"components=7 must be between 1 and 6, the number of d"):
        fit(doubled, 7)


# Features that no PCA can be fitted to


def test_one_photo_is_too_few() -> None:
    """A single photo has no variance, and the error says how many it takes."""
    with pytest.raises(ReduceError, match="n_samples=1 must be at least 2 for a PCA"):
        fit(make(1, 5), 1)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3.7])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_photos_are_refused(dtype: Any, value: float, standardize: bool) -> None:
    """Photos whose features are all the same are refused, rounding or not."""
    x = np.full((1000, 6), value, dtype)
    moments = Moments.of(x[:333]) + Moments.of(x[333:])
    with pytest.raises(ReduceError, match="n_samples=1000: all photos have the same features"):
        fit_pca(moments, 1, standardize=standardize)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    """A vector that is not finite is refused as features, not as a failure of the algebra."""
    x = make(50, 6)
    x[3, 2] = bad
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ReduceError, match=r"features.* (NaN|finite)"),
    ):
        fit(x, 2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_constant_feature_contributes_nothing(standardize: bool, value: float) -> None:
    """A feature that never varies changes no ratio and no centred score, and makes no NaN."""
    x = make(200, 8)
    with_constant = np.insert(x, 3, value, axis=1).astype(np.float32)
    pca = fit(with_constant, 0.95, standardize=standardize, center=True)
    plain = fit(x.astype(np.float32), 0.95, standardize=standardize, center=True)
    np.testing.assert_allclose(
        pca.explained_variance_ratio, [*plain.explained_variance_ratio, 0], atol=1e-9
    )
    scores = pca.transform(with_constant)
    assert np.isfinite(scores).all()
    assert np.isfinite(pca.projection).all()
    same_up_to_sign(scores, plain.transform(x.astype(np.float32)), atol=1e-4)
    with pytest.raises(ReduceError, match="components=9 must be between 1 and 8"):
        fit(with_constant, 9, standardize=standardize)


# pca.npz


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_numpy_alone_can_use_the_stored_model(
    tmp_path: Path, standardize: bool, center: bool
) -> None:
    """pca.npz holds all that a transform needs, is read without pickle, and names its contract."""
    x = make(80, 10)
    x[:, 4] = 2.5
    pca = fit(x, 4, standardize=standardize, center=center)
    (tmp_path / "pca.npz").write_bytes(pca.to_npz(contract="f00d"))
    with np.load(tmp_path / "pca.npz", allow_pickle=False) as file:
        shift = file["mean"] if file["center"] else 0
        scores = (x - shift) / file["scale"] @ file["components"].T
        np.testing.assert_allclose(scores, pca.transform(x), atol=1e-5)
        assert file["components"].shape == (4, 10)
        assert file["explained_variance"].shape == file["explained_variance_ratio"].shape == (10,)
        assert (int(file["n_samples"]), str(file["contract"])) == (80, "f00d")
