"""A classifier of plain arrays: its probabilities, the photos near by, and its file."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from verger.classify.classifier import Classifier
from verger.classify.nearest import unit
from verger.errors import ConfigError, OutputError
from verger.result.output import CLASSIFIER_NPZ, Output

LABELS = ("apple", "fig", "pear")


def make(method: str = "logistic", *, seed: int = 0, m: int = 40, **changes: Any) -> Classifier:
    """Return a classifier of random numbers: 7 features, 3 labels."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "method": method,
        "on": "features",
        "labels": LABELS,
        "contract_hash": "c0ffee",
        "mean": rng.standard_normal(7),
        "scale": rng.uniform(0.5, 2, 7),
        "coefficients": rng.standard_normal((3, 7)),
        "intercepts": rng.standard_normal(3),
        "temperature": 1.0,
        "threshold": 0.5,
        "n_neighbors": 5,
        "references": unit(rng.standard_normal((m, 7))),
        "reference_labels": rng.integers(0, 3, m).astype(np.int32),
        "reference_paths": tuple(f"photos/{i}.jpg" for i in range(m)),
    }
    return Classifier(**values | changes)


def features(n: int = 20, width: int = 7) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((n, width)).astype(np.float32)


@pytest.mark.parametrize("method", ["logistic", "knn", "centroid"])
def test_probabilities_are_probabilities(method: str) -> None:
    found = make(method).probabilities(features())
    assert found.shape == (20, 3)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert make(method).probabilities(features(0)).shape == (0, 3)


def test_logistic_regression_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((90, 7)), rng.choice(LABELS, 90)
    fitted = LogisticRegression().fit(x, y)
    ours = make(
        mean=np.zeros(7), scale=np.ones(7), coefficients=fitted.coef_, intercepts=fitted.intercept_
    )
    expected = fitted.predict_proba(features().astype(np.float64))
    np.testing.assert_allclose(ours.probabilities(features()), expected, atol=1e-12)


def test_votes_are_scikit_learns() -> None:
    ours = make("knn")
    labels = np.array(LABELS)[ours.reference_labels]
    theirs = KNeighborsClassifier(5).fit(ours.references.astype(np.float64), labels)
    expected = theirs.predict_proba(unit(features()))
    np.testing.assert_allclose(ours.probabilities(features()), expected, atol=1e-12)


def test_the_nearest_centroid_is_the_most_probable() -> None:
    """By hand: squared distances 0 and 4 at temperature 2 give odds of exp(2)."""
    ours = make(
        "centroid",
        labels=("a", "b"),
        mean=np.zeros(7),
        scale=np.ones(7),
        intercepts=np.zeros(2),
        coefficients=np.array([np.zeros(7), np.full(7, 2 / 7**0.5)]),
        temperature=2.0,
        reference_labels=np.zeros(40, np.int32),
    )
    found = ours.probabilities(np.zeros((1, 7), np.float32))[0]
    assert found[0] / found[1] == pytest.approx(np.exp(2), rel=1e-12)


def test_large_scores_do_not_overflow() -> None:
    found = make(coefficients=np.full((3, 7), 1e6)).probabilities(features())
    assert np.isfinite(found).all()


def test_a_lower_temperature_is_surer() -> None:
    sure, unsure = (make(temperature=t).probabilities(features()) for t in (0.5, 5.0))
    assert (sure.max(axis=1) > unsure.max(axis=1)).all()
    np.testing.assert_array_equal(sure.argmax(axis=1), unsure.argmax(axis=1))


def test_pca_scores_are_computed_from_features() -> None:
    rng = np.random.default_rng(2)
    components, mean = rng.standard_normal((7, 11)), rng.standard_normal(11)
    ours = make(on="pca", components=components, pca_mean=mean)
    assert ours.n_features == 11
    x = features(width=11)
    scores = (x - mean) @ components.T
    expected = dataclasses.replace(ours, on="features", components=None, pca_mean=None)
    np.testing.assert_allclose(
        ours.probabilities(x), expected.probabilities(scores), rtol=1e-12, atol=0
    )


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 1000))
def test_the_nearest_are_exact(seed: int, k: int, offset: float) -> None:
    """Of vectors of length 1; where all point one way, products in float32 tell none apart."""
    ours, x = make(seed=seed), unit(features(5) + np.float32(offset))
    ours = dataclasses.replace(ours, references=unit(ours.references + np.float32(offset)))
    theirs = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(ours.references.astype(float))
    difference = ours.references[None].astype(float) - x[:, None].astype(float)
    exact = np.sort(np.linalg.norm(difference, axis=2), axis=1)[:, :k]
    distances, indices = ours.nearest(x, k)
    np.testing.assert_allclose(distances, exact, atol=1e-6)
    assert all(len(set(row)) == k for row in indices.tolist())
    if offset == 0:
        np.testing.assert_array_equal(indices, theirs.kneighbors(x, return_distance=False))


def test_a_known_photo_is_nearest_to_itself() -> None:
    """However bright or large its features are; what is farther than the alarm is unlike all."""
    ours = make(alarm=0.1)
    x = 5 * ours.references[[3, 300 % 40]]
    distances, indices = ours.nearest(x, 1)
    assert indices.ravel().tolist() == [3, 20]
    assert distances.max() < 1e-5
    assert ours.unlike(np.concatenate([x, -x])).tolist() == [False, False, True, True]
    assert not make().unlike(-x).any()


@pytest.mark.parametrize("method", ["logistic", "knn", "centroid"])
def test_the_share_of_other_things_is_what_is_missing_to_1(method: str) -> None:
    all_named, x = make(method), features()
    ours = dataclasses.replace(all_named, labels=LABELS[:2], others=LABELS[2:])
    np.testing.assert_array_equal(ours.probabilities(x), all_named.probabilities(x)[:, :2])


def test_views_are_averaged() -> None:
    ours, x = make(), features(12)
    expected = (ours.probabilities(x[::2]) + ours.probabilities(x[1::2])) / 2
    np.testing.assert_allclose(ours.probabilities(x.reshape(6, 2, 7)), expected, rtol=1e-12)


def test_more_rows_than_fit_at_once_are_the_same_rows() -> None:
    ours, x = make(), features(600)
    whole, one = ours.nearest(x, 3), ours.nearest(x[599:], 3)
    np.testing.assert_array_equal(whole[1][599:], one[1])


# Its file


@pytest.mark.parametrize("on", ["features", "pca"])
def test_it_is_read_as_it_was_written(tmp_path: Path, on: str) -> None:
    rng = np.random.default_rng(3)
    extra = {"components": rng.standard_normal((7, 11)), "pca_mean": np.zeros(11)}
    ours = make(on=on, labels=("a b", "ä", "日"), **(extra if on == "pca" else {}))
    ours.save(Output.at(tmp_path).folder)
    found = Classifier.load(Output.at(tmp_path))
    for field in dataclasses.fields(Classifier):
        before, after = getattr(ours, field.name), getattr(found, field.name)
        assert type(before) is type(after)
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype


def test_a_missing_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has no classifier; verger classify trains one"):
        Classifier.load(Output.at(tmp_path))


def saved(tmp_path: Path, **changes: Any) -> Output:
    """Write a classifier's file with some of its arrays changed; None leaves one out."""
    output = Output.at(tmp_path)
    make().save(output.folder)
    file = tmp_path / CLASSIFIER_NPZ
    with np.load(file) as held:
        arrays = dict(held) | changes
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    return output


def vectors_of(folder: Path) -> Path:
    """Return the one file of vectors in a folder."""
    (file,) = (folder / "models").glob("references*.npy")
    return file


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 1}, "version=1 must be 4"),
        ({"version": None}, "version"),
        ({"mean": None}, "mean"),
        ({"stray": np.zeros(1)}, "stray"),
        ({"method": "forest"}, "method='forest' must be one of logistic, knn, centroid"),
        ({"scale": np.zeros(7)}, "scale: holds 0"),
        ({"coefficients": np.zeros((2, 7))}, r"shape \(2, 7\) float64 must be \(3, 7\) float64"),
        ({"intercepts": np.full(3, np.nan)}, "intercepts: holds values that are not finite"),
        ({"reference_labels": np.full(40, 3, np.int32)}, "must be between 0 and 2"),
        ({"mean": np.array([{}] * 7)}, "allow_pickle=False"),
        ({"version": np.inf}, "infinity"),
        ({"references_file": 5}, "references_file='5' must be models/references"),
        ({"references_file": CLASSIFIER_NPZ}, "must be models/references"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(OutputError, match=rf"(?s){text}.*train it again"):
        Classifier.load(saved(tmp_path, **changes))


@pytest.mark.parametrize(
    ("references", "text"),
    [
        (np.zeros((40, 7)), r"\(40, 7\) float64 must be \(40, 7\) float32"),
        (np.zeros((39, 7), np.float32), r"\(39, 7\) float32 must be \(40, 7\) float32"),
        (np.full((40, 7), np.nan, np.float32), "references: holds values that are not finite"),
        (np.array([[{}] * 7] * 40), "Python objects"),
    ],
)
def test_references_that_do_not_fit_are_refused(tmp_path: Path, references: Any, text: str) -> None:
    output = saved(tmp_path)
    np.save(vectors_of(tmp_path), references)
    with pytest.raises(OutputError, match=rf"(?s){text}.*train it again"):
        Classifier.load(output)


def test_an_npz_in_the_place_of_references_is_refused(tmp_path: Path) -> None:
    output = saved(tmp_path)
    np.savez(tmp_path / "x.npz", x=1)
    (tmp_path / "x.npz").replace(vectors_of(tmp_path))
    with pytest.raises(OutputError, match=r"cannot be used.*train it again"):
        Classifier.load(output)


@pytest.mark.parametrize("which", ["classifier", "references"])
def test_half_a_file_is_refused(tmp_path: Path, which: str) -> None:
    output = saved(tmp_path)
    file = tmp_path / CLASSIFIER_NPZ if which == "classifier" else vectors_of(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OutputError, match=rf"{file}: cannot be used"):
        Classifier.load(output)


def test_known_photos_are_mapped_and_not_read(tmp_path: Path) -> None:
    """They are 102 MB in a large result, and a command is asked about one photo."""
    output = saved(tmp_path)
    known = Classifier.load(output).references
    assert not known.flags.owndata
    assert isinstance(known.base, np.memmap)
    np.testing.assert_array_equal(known, make().references)


def test_one_without_known_photos_is_read_too(tmp_path: Path) -> None:
    make(m=0).save(Output.at(tmp_path).folder)
    assert Classifier.load(Output.at(tmp_path)).references.shape == (0, 7)


def test_no_classifier_is_read_with_the_vectors_of_another_one(tmp_path: Path) -> None:
    """Its file names its vectors by their sha256; whatever else lies there is not taken."""
    output, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    make(seed=1).save(other.folder)
    shutil.copy(Path(other.root) / CLASSIFIER_NPZ, Path(output.root) / CLASSIFIER_NPZ)
    with pytest.raises(OutputError, match=r"references-\w{64}.npy: cannot be used"):
        Classifier.load(output)


def test_whoever_is_killed_while_saving_leaves_the_old_classifier_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = saved(tmp_path)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", die)
    with pytest.raises(KeyboardInterrupt):
        make(seed=1).save(output.folder)
    np.testing.assert_array_equal(Classifier.load(output).references, make().references)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"on": "pixels"}, "on='pixels' must be one of features, pca"),
        ({"on": "pca"}, "components and pca_mean go with on='pca'"),
        ({"labels": ("b", "a", "c")}, "must be at least 1, sorted, none twice"),
        ({"labels": ()}, "must be at least 1, sorted, none twice"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"threshold": 1.5}, "threshold=1.5 must be between 0 and 1"),
        ({"alarm": np.nan}, "alarm=nan must be at least 0"),
        ({"others": ("fig",)}, "must not be labels"),
        ({"method": "knn", "n_neighbors": 41}, "n_neighbors=41 must be between 1 and 40"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make(**changes)


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"features of shape \(20, 8\) must be \(n, 7\)"):
        make().probabilities(features(width=8))
    with pytest.raises(ConfigError, match="k=41 must be between 1 and n_references=40"):
        make().nearest(features(), 41)
