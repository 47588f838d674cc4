"""The regression of this process is scikit-learn's, however many threads share its photos."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from support.vectors import like_features
from verger.classify.regression import fit_regressions, fits_in_memory
from verger.engine import limits

N_LABELS = 5


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Return 90 vectors; of their 32 numbers one never varies, one hardly, and one is large."""
    x = like_features(90)
    x[:, 0], x[:, 1] = 3.0, x[:, 1] + 5000
    x[:, 2] *= 1e-3
    return x


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    """Return classes of 6 to 30 photos, which the vectors hardly tell apart."""
    return np.random.default_rng(3).choice(N_LABELS, 90, p=[0.1, 0.1, 0.2, 0.3, 0.3])


def by_sklearn(x: np.ndarray, targets: np.ndarray, reg_param: float) -> np.ndarray:
    """Return its probabilities; its C counts the sum of the losses: C = 1 / (n penalty)."""
    deviation = x.std(axis=0, ddof=1, dtype=np.float64)
    deviation[deviation < 1e-6] = 0
    least = np.median(deviation[deviation > 0])
    z = (x - x.mean(axis=0, dtype=np.float64)) / np.maximum(deviation, least)
    model = LogisticRegression(C=1 / (reg_param * len(x)), tol=1e-9, max_iter=10_000)
    with threadpool_limits(1):  # threads of BLAS wait busily, and other tests have the cores
        return model.fit(z, targets).predict_proba(z)


@pytest.mark.parametrize("n_threads", [1, 3, 100])
def test_each_penalty_gives_the_probabilities_of_scikit_learn(
    x: np.ndarray, targets: np.ndarray, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    """To 1e-4, though each fit starts from the one before; intercepts are centred."""
    monkeypatch.setattr(limits, "usable_cores", lambda: n_threads)
    penalties = [1.0, 0.1, 0.01]
    fits = list(fit_regressions(x, targets, N_LABELS, penalties, 1000))
    assert [fit.reg_param for fit in fits] == penalties
    for fit in fits:
        expected = by_sklearn(x, targets, fit.reg_param)
        np.testing.assert_allclose(fit.probabilities(x), expected, atol=1e-4)
        assert abs(fit.intercepts.mean()) < 1e-9


def test_a_class_without_photos_is_never_predicted(x: np.ndarray, targets: np.ndarray) -> None:
    """Its probability is 0, and the others' are what they are without it."""
    (fit,) = fit_regressions(x, targets + (targets > 1), N_LABELS + 1, [0.1], 1000)
    (expected,) = fit_regressions(x, targets, N_LABELS, [0.1], 1000)
    found = fit.probabilities(x)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(np.delete(found, 2, axis=1), expected.probabilities(x), atol=1e-9)


def test_a_feature_that_never_varies_says_nothing(x: np.ndarray, targets: np.ndarray) -> None:
    (fit,) = fit_regressions(x, targets, N_LABELS, [0.1], 100)
    assert fit.scale[0] == fit.scale[2] == fit.scale.min() > 0
    assert not fit.coefficients[:, 0].any()


def test_many_photos_are_fitted_in_float32_and_nearly_as_well(targets: np.ndarray) -> None:
    """Beyond a million numbers: probabilities are those of scikit-learn to 1e-3."""
    x, classes = np.tile(like_features(90, d=500), (30, 1)), np.tile(targets, 30)
    (fit,) = fit_regressions(x, classes, N_LABELS, [0.1], 1000)
    np.testing.assert_allclose(fit.probabilities(x), by_sklearn(x, classes, 0.1), atol=1e-3)


def test_threads_of_blas_are_as_before(x: np.ndarray, targets: np.ndarray) -> None:
    before = threadpool_info()
    for _ in fit_regressions(x, targets, N_LABELS, [0.1], 3):
        pass
    assert threadpool_info() == before


def test_a_fit_may_take_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million photos of 1,280 features and 100 classes take 17 GB, of a machine of 34."""
    size = 1_000_000, 1280, 100
    for memory, fits in ((32 * 10**9, False), (36 * 10**9, True)):
        monkeypatch.setattr(limits, "memory_bytes", lambda memory=memory: memory)
        assert fits_in_memory(*size) == fits
