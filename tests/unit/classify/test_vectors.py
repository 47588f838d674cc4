"""Vectors in tasks: what comes back is what one matrix in this process gives. No Java."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.results import write_vectors
from support.vectors import like_features
from verger.classify.projection import stored_projection
from verger.classify.recipe import Recipe
from verger.classify.testing import accuracy_by_k, find_nearest, fit_whole_pca, score_rows
from verger.classify.training import train
from verger.classify.vectors import Labelled, LabelledVectors, put_last
from verger.engine.local import LocalEngine
from verger.errors import ClassifierError, OutputError, ReduceError
from verger.pca.moments import Moments, npz_bytes
from verger.result.output import PCA_NPZ, Output

N = 200


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(2)
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Return the vectors, (200, 32), in the order of their paths."""
    return like_features(N)


@pytest.fixture(scope="module")
def vectors(
    engine: LocalEngine, x: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> LabelledVectors:
    """Return the vectors of a result of three files, whose rows are in no order, one file empty."""
    order = np.random.default_rng(1).permutation(N)
    stored, paths = x[order], [f"{row:03}.jpg" for row in order]
    out = tmp_path_factory.mktemp("vectors") / "out"
    output = write_vectors(out, stored[:40], stored[:0], stored[40:], paths=paths)
    targets = np.arange(N) % 4
    names = pa.array(["abcd"[target] for target in targets])
    labelled = Labelled(pa.array(sorted(paths)), targets, tuple("abcd"), 0, names)
    return LabelledVectors(engine, output, labelled)


#: Some rows, in no order.
ROWS = np.random.default_rng(2).permutation(N)[:150]
TRAINED, TESTED = ROWS[:100], ROWS[100:]


def test_vectors_come_back_in_the_order_of_the_rows(
    vectors: LabelledVectors, x: np.ndarray
) -> None:
    assert (vectors.collect(ROWS) == x[ROWS]).all()


def test_sums_of_some_rows_are_those_of_their_matrix(
    vectors: LabelledVectors, x: np.ndarray
) -> None:
    """By the one sum that the PCA has too: count, mean and scatter."""
    ours, expected = vectors.moments(ROWS), Moments.of(x[ROWS])
    assert ours.n == expected.n
    np.testing.assert_allclose(ours.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.scatter, expected.scatter, atol=1e-10)


def test_sums_of_no_rows_are_an_error(vectors: LabelledVectors) -> None:
    with pytest.raises(ReduceError, match="n_samples=0"):
        vectors.moments(np.empty(0, np.int64))


def test_rows_that_are_held_need_no_task(
    vectors: LabelledVectors, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors, sums and means of any of them are those of the tasks."""
    expected = vectors.moments(TRAINED), vectors.class_means(TRAINED)
    held = vectors.hold(ROWS)
    monkeypatch.delattr(LocalEngine, "run")
    assert (held.collect(TRAINED) == x[TRAINED]).all()
    np.testing.assert_allclose(held.moments(TRAINED).scatter, expected[0].scatter, atol=1e-10)
    np.testing.assert_allclose(held.class_means(TRAINED), expected[1], rtol=1e-6)


def test_means_are_those_of_each_class(vectors: LabelledVectors, x: np.ndarray) -> None:
    targets = vectors.labelled.targets[ROWS]
    expected = [x[ROWS][targets == target].mean(axis=0) for target in range(4)]
    np.testing.assert_allclose(vectors.class_means(ROWS), expected, rtol=1e-6)


def test_the_nearest_row_of_all_tasks_is_that_of_all_differences(
    vectors: LabelledVectors, x: np.ndarray
) -> None:
    moments = Moments.of(x[TRAINED])
    scale = np.where(moments.deviation > 0, moments.deviation, 1.0)
    known, asked = ((x[rows] - moments.mean) / scale for rows in (TRAINED, TESTED))
    apart = np.square(asked[:, None] - known[None]).sum(axis=2)
    assert (find_nearest(vectors, TRAINED, TESTED) == TRAINED[apart.argmin(axis=1)]).all()


@pytest.mark.parametrize("method", ["knn", "centroid"])
def test_rows_are_scored_in_tasks_as_in_this_process(
    vectors: LabelledVectors, x: np.ndarray, method: str
) -> None:
    trained = train(vectors, TRAINED, Recipe(method=method), "random", contract_hash="c0ffee")
    rows, scored, unlike = score_rows(vectors, trained.classifier, TESTED)
    assert rows.tolist() == sorted(TESTED.tolist())
    probabilities = trained.classifier.probabilities(x[rows])
    assert (scored.predicted == probabilities.argmax(axis=1)).all()
    assert (scored.probability == probabilities.max(axis=1)).all()
    assert (scored.true == rows % 4).all()
    assert (unlike == trained.classifier.unlike(x[rows])).all()


def test_accuracy_by_components_is_that_of_the_nearest_mean_of_the_scores(
    vectors: LabelledVectors, x: np.ndarray
) -> None:
    pca = fit_whole_pca(vectors, TRAINED, standardize=False, center=False)
    found = {row["k"]: row["accuracy"] for row in accuracy_by_k(vectors, pca, 3, TRAINED, TESTED)}
    targets = vectors.labelled.targets
    scores = x.astype(float) @ pca.components[:3].T
    means = np.array(
        [scores[TRAINED][targets[TRAINED] == target].mean(axis=0) for target in range(4)]
    )
    nearest = np.square(scores[TESTED][:, None] - means[None]).sum(axis=2).argmin(axis=1)
    assert found[3] == pytest.approx((nearest == targets[TESTED]).mean())


@pytest.mark.parametrize("content", [b"", b"PK", npz_bytes(mean=np.zeros(3), center=True)])
def test_a_damaged_pca_is_told(tmp_path: Path, content: bytes) -> None:
    output = Output(str(tmp_path))
    output.folder.write(PCA_NPZ, content)
    with pytest.raises(OutputError, match=r"pca\.npz: cannot be read: .*verger reduce"):
        stored_projection(output)


@pytest.mark.parametrize("method", ["logistic", "knn", "centroid"])
def test_photos_of_other_things_get_no_name(
    vectors: LabelledVectors, x: np.ndarray, method: str
) -> None:
    """Their label is none that is given; the threshold lets 5 % of the held-out ones pass."""
    vectors = replace(vectors, labelled=put_last(vectors.labelled, ["b"]))
    assert vectors.labelled.labels == ("a", "c", "d", "b")
    recipe = Recipe(method=method, other=("b",))
    trained = train(vectors, ROWS, recipe, "random", contract_hash="c0ffee")
    classifier = trained.classifier
    assert (classifier.labels, classifier.others) == (("a", "c", "d"), ("b",))
    assert (trained.others >= classifier.threshold).mean() <= 0.05
    rows, scored, _ = score_rows(vectors, classifier, ROWS)
    assert ((scored.true < 0) == (rows % 4 == 1)).all()
    assert classifier.probabilities(x[rows]).shape == (150, 3)
    assert 0 < classifier.alarm < 2


def test_other_things_must_be_labels(vectors: LabelledVectors) -> None:
    with pytest.raises(ClassifierError, match="other='x': no photo has this label"):
        put_last(vectors.labelled, ["x"])
    with pytest.raises(ClassifierError, match="none is left to name"):
        put_last(vectors.labelled, ["a", "b", "c", "d"])
