"""Classifiers: the same on either engine, without Spark ML, and honestly tested."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from support.engines import BOTH_ENGINES
from support.results import vectors_and_labels
from support.runs import new_bucket
from verger import Config
from verger.classify.against import evaluate_against
from verger.classify.classifier import Classifier
from verger.classify.evaluation import evaluate_split
from verger.classify.recipe import Recipe
from verger.classify.regression import scale_of
from verger.classify.stage import train_classifier
from verger.classify.testing import find_nearest, fit_whole_pca
from verger.classify.vectors import LabelledVectors, read_labelled
from verger.cli import app
from verger.engine.tasks import Engine
from verger.errors import ClassifierError, ConfigError, ContractError, OutputError
from verger.files.tables import read_part
from verger.job.context import Progress
from verger.job.pipeline import run, run_featurize, run_reduce
from verger.result.output import Output
from verger.source.render import render_dataset

CONFIG = Config()
QUICK = Recipe(method="centroid")


@pytest.fixture
def output(result: Path) -> Output:
    """Return the layout of a result of 6 classes of 5 photos."""
    return Output.at(result)


@pytest.fixture(scope="module")
def distinct(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return a result of 6 classes of 5 photos that five components tell apart."""
    folder = tmp_path_factory.mktemp("distinct")
    render_dataset(folder / "photos", n_classes=6, per_class=5, seed=4)
    run(str(folder / "photos"), folder / "out", Config(model="efficientnet_lite0", components=5))
    return Output.at(folder / "out")


def edit(output: Output, **changes: Any) -> None:
    """Change run.json."""
    output.write_run(dataclasses.replace(output.read_run(), **changes))


def relabel(output: Output, labels: Any) -> None:
    """Write the table features anew with other labels."""
    (name,) = output.part_names("features")
    table = pq.ParquetFile(output.address(name)).read()
    column = pa.array(labels(table["label"].to_pylist()), pa.string())
    pq.write_table(table.set_column(1, "label", column), output.address(name))


# Fits


@BOTH_ENGINES
@pytest.mark.parametrize("method", ["knn", "centroid"])
@pytest.mark.parametrize("on", ["features", "pca"])
def test_what_needs_no_fit_recognises_the_photos_it_knows(
    distinct: Output, method: str, on: str
) -> None:
    """Training accuracy of one vote is 1; the centroid's temperature and threshold are set."""
    train_classifier(distinct.root, CONFIG, Recipe(method=method, on=on, n_neighbors=1))
    x, target, paths = vectors_and_labels(distinct)
    found = Classifier.load(distinct)
    right = (found.probabilities(x).argmax(axis=1) == target).mean()
    assert right == 1.0 if method == "knn" else right > 0.9
    assert sorted(found.reference_paths) == paths
    assert 0 < found.threshold <= 1
    assert not Path(distinct.address("models/classifier")).exists()


@BOTH_ENGINES
@pytest.mark.parametrize("on", ["features", "pca"])
def test_a_regression_recognises_the_photos_it_knows(distinct: Output, on: str) -> None:
    """Spark's pipeline stands beside the arrays, in the stages that Spark loads."""
    found = train_classifier(distinct.root, CONFIG, Recipe(method="logistic", on=on))
    x, target, _ = vectors_and_labels(distinct)
    classifier = Classifier.load(distinct)
    assert (classifier.probabilities(x).argmax(axis=1) == target).all()
    assert found["reg_param"] in {tried["reg_param"] for tried in found["tried"]}
    stages = sorted(Path(distinct.address("models/classifier/stages")).iterdir())
    assert [stage.name.partition("_")[2].partition("_")[0] for stage in stages] == [
        "StandardScaler",
        "LogisticRegression",
        "IndexToString",
    ]


def test_training_tells_each_fit(output: Output) -> None:
    """Three folds of six penalties and for the threshold, and the last: 22 fits of few photos."""
    told: list[tuple[int, int]] = []

    @contextmanager
    def watch(name: str, total: int | None) -> Iterator[Progress]:
        yield Progress(on_fits=lambda done, n_fits: told.append((done, n_fits)))

    train_classifier(output.root, CONFIG, Recipe(), watch=watch)
    assert [done for done, _ in told] == list(range(1, 23))
    assert told[-1] == (22, 22)


def test_centroids_are_the_means_of_the_standardised_classes(output: Output) -> None:
    train_classifier(output.root, CONFIG, QUICK)
    x, target, _ = vectors_and_labels(output)
    found = Classifier.load(output)
    z = (x - x.mean(axis=0)) / scale_of(x.std(axis=0, ddof=1))
    means = [z[target == i].mean(axis=0) for i in range(len(found.labels))]
    np.testing.assert_allclose(found.coefficients, means, atol=1e-6)


@BOTH_ENGINES
def test_the_nearest_photo_is_scikit_learns(started: Engine, output: Output) -> None:
    """Searched in the tasks, by standardised features, among the known rows alone."""
    x, _, _ = vectors_and_labels(output)
    rows = np.arange(len(x))
    known, photos = rows[rows % 3 > 0], rows[rows % 3 == 0][::-1]
    found = find_nearest(LabelledVectors(started, output, read_labelled(output)), known, photos)
    scaler = StandardScaler().fit(x[known])
    search = NearestNeighbors(n_neighbors=1).fit(scaler.transform(x[known]))
    expected = known[search.kneighbors(scaler.transform(x[photos]))[1][:, 0]]
    assert found.tolist() == expected.tolist()


def test_the_components_of_a_split_are_of_its_training_photos(
    started: Engine, output: Output
) -> None:
    x, _, _ = vectors_and_labels(output)
    rows = np.arange(0, len(x), 2)
    vectors = LabelledVectors(started, output, read_labelled(output))
    ours = fit_whole_pca(vectors, rows, standardize=False, center=False)
    theirs = SklearnPCA(n_components=5).fit(x[rows])
    np.testing.assert_allclose(
        ours.explained_variance_ratio[:5], theirs.explained_variance_ratio_, atol=1e-6
    )


# Evaluations


def test_an_evaluation_is_kept_and_shown(output: Output) -> None:
    """The table of held-out photos, the record and the page say the same."""
    found = evaluate_split(output.root, CONFIG, Recipe(on="pca", test_share=0.4))
    assert json.loads(Path(output.address("classifier/evaluation.json")).read_text()) == found
    asked = found["evaluation"]
    assert asked["split"] == "random"
    assert asked["n_train"] + asked["n_test"] == 30
    rows = pq.read_table(f"{output.root}/predictions").to_pylist()
    assert len(rows) == asked["n_test"] == asked["scores"]["n"]
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert asked["scores"]["accuracy"] == pytest.approx(right)
    assert sum(n for _, _, n in found["confusion"]) == len(rows)
    assert [k["k"] for k in asked["by_k"]] == sorted(k["k"] for k in asked["by_k"])
    assert {"reg_param", "tried", "threshold"} <= set(asked["training"])
    assert "Confusion matrix" in Path(output.address("report.html")).read_text()
    assert CliRunner().invoke(app, ["validate", output.root]).exit_code == 0


def test_a_regression_by_groups_is_judged_in_a_bucket(s3: str, output: Output) -> None:
    """The whole command on s3://: what it writes there is what it says, and no group straddles."""
    bucket = new_bucket(s3, output.root)
    line = ["classify", "evaluate", f"s3://{bucket}/out", "--groups", r"(\d+)_100\.jpg$", "--json"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    found = json.loads(done.stdout)
    there = Output.at(f"s3://{bucket}/out")
    assert json.loads(there.folder.read("classifier/evaluation.json")) == found
    assert (found["evaluation"]["split"], found["beside"]["split"]) == ("group", "random")
    table = read_part(there.folder, *there.own_files("predictions"))
    views = {path.rpartition("/")[2] for path in table["path"].to_pylist()}
    assert len(table) == 6 * len(views) == found["evaluation"]["n_test"]  # a view of all 6 classes
    right = np.equal(*(table[name].to_pylist() for name in ("label", "prediction")))
    assert right.mean() == found["evaluation"]["scores"]["accuracy"] > 0.8
    assert "Classifier" in there.folder.read("report.html").decode()


def test_a_classifier_of_a_bucket_is_written_there_whole(s3: str, output: Output) -> None:
    """Spark's pipeline too, which needed libraries of Hadoop's when Spark wrote it."""
    bucket = new_bucket(s3, output.root)
    train_classifier(f"s3://{bucket}/out", CONFIG, Recipe())
    there = Output.at(f"s3://{bucket}/out")
    assert Classifier.load(there).method == "logistic"
    files = {name.rpartition("/")[2] for name in there.own_files("models/classifier")}
    assert files == {"part-00000", "_SUCCESS", "part-00000.snappy.parquet"}


@BOTH_ENGINES
def test_films_are_cut_and_the_random_split_stands_beside(output: Output) -> None:
    """With names of frames the default is the contiguous split, and both leakages are measured."""
    (name,) = output.part_names("features")
    table = pq.ParquetFile(output.address(name)).read()
    films = [f"/p/{label}/{i}_100.jpg" for i, label in enumerate(table["label"].to_pylist())]
    many = pa.concat_tables(
        [
            table.set_column(0, "path", pa.array([f.replace("_100", f"{n:02}_100") for f in films]))
            for n in range(12)
        ]
    )
    pq.write_table(many, output.address(name))
    found = evaluate_split(output.root, CONFIG, QUICK)
    assert (found["evaluation"]["split"], found["beside"]["split"]) == ("contiguous", "random")
    assert found["evaluation"]["n_left_out"] > 0
    assert found["evaluation"]["leakage"]["neighbouring_frame"] < 0.05
    assert found["beside"]["leakage"]["same_film"] == 1.0


def test_photos_without_labels_are_left_out_and_counted(output: Output) -> None:
    relabel(output, lambda labels: [None, *labels[1:]])
    found = train_classifier(output.root, CONFIG, QUICK)
    assert (found["n_unlabelled"], found["n_photos"]) == (1, 29)


@BOTH_ENGINES
def test_another_result_is_tested_and_unknown_labels_count_as_other_things(
    output: Output, tmp_path: Path
) -> None:
    """Photos of a class that the classifier does not have are never right, nor in its scores."""
    other = Output.at(shutil.copytree(output.root, tmp_path / "other"))
    relabel(other, lambda labels: ["new" if x == min(labels) else x for x in labels])
    train_classifier(output.root, CONFIG, Recipe(method="knn", n_neighbors=1))
    found = evaluate_against(output.root, other.root, CONFIG)
    one = found["evaluation"]
    assert (one["n_test"], one["n_others"], one["scores"]["accuracy"]) == (25, 5, 1.0)
    (new,) = one["other_labels"]
    assert (new["label"], new["n"], new["named"]) == ("new", 5, 5)
    assert (new["taken_for"] in found["labels"], one["n_rejected"]) == (True, 0)
    assert one["sure"]["others"] == 5  # one vote is always sure: the photos are known ones
    rows = pq.read_table(f"{output.root}/predictions")
    assert rows["label"].to_pylist().count("new") == 5


def test_training_anew_forgets_what_was_said_of_the_old_classifier(
    output: Output, tmp_path: Path
) -> None:
    other = shutil.copytree(output.root, tmp_path / "other")
    train_classifier(output.root, CONFIG, QUICK)
    evaluate_against(output.root, other, CONFIG)
    train_classifier(output.root, CONFIG, QUICK)
    assert not Path(output.address("classifier/evaluation.json")).exists()
    assert not Path(output.address("predictions")).exists()


def test_no_classifier_outlives_its_features(output: Output, photos: Path, tmp_path: Path) -> None:
    """New photos make another table: classifier, evaluation and predictions go."""
    more = Path(shutil.copytree(photos, tmp_path / "photos"))
    config = Config(model="efficientnet_lite0", components=5)
    out = tmp_path / "out"
    run_featurize(str(more), out, config)
    run_reduce(out, config)
    train_classifier(out, CONFIG, QUICK)
    evaluate_split(out, CONFIG, QUICK)
    first = next(more.rglob("*.jpg"))
    shutil.copy(first, first.with_name("new.jpg"))
    run_featurize(str(more), out, config)
    left = {path.name for path in out.iterdir()}
    assert not left & {"classifier", "predictions"}
    assert not (out / "models" / "classifier.npz").exists()


def test_a_classifier_stays_until_a_new_pca_is_whole(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reduction that dies before it publishes has removed nothing; one that ends, all of it."""
    train_classifier(output.root, CONFIG, QUICK)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    config = Config(components=3, overwrite=True)
    with monkeypatch.context() as patched:
        patched.setattr(Output, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            run_reduce(output.root, config)
    Classifier.load(output)
    run_reduce(output.root, config)
    with pytest.raises(OutputError, match="has no classifier"):
        Classifier.load(output)
    assert not output.own_files("models/classifier")


# Mistakes


def test_one_class_cannot_be_told_apart(output: Output) -> None:
    relabel(output, lambda labels: ["pear"] * len(labels))
    with pytest.raises(ClassifierError, match=r"n_labels=1 must be at least 2.* 'pear'"):
        train_classifier(output.root, CONFIG, QUICK)


def test_photos_without_any_label_are_refused(output: Output) -> None:
    relabel(output, lambda labels: [None] * len(labels))
    with pytest.raises(ClassifierError, match="none of its 30 photos has a label"):
        evaluate_split(output.root, CONFIG, QUICK)


def test_components_are_needed_where_they_are_asked_for(output: Output) -> None:
    shutil.rmtree(output.address("models"))
    with pytest.raises(OutputError, match="has no PCA, which on=pca needs"):
        train_classifier(output.root, CONFIG, Recipe(on="pca"))


def test_classes_of_one_photo_cannot_be_tested(output: Output) -> None:
    relabel(output, lambda labels: [str(i) for i in range(len(labels))])
    with pytest.raises(ClassifierError, match="0 photos to test"):
        evaluate_split(output.root, CONFIG, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "forest"}, "method='forest' must be one of logistic"),
        ({"on": "pixels"}, "on='pixels' must be one of features, pca"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"n_neighbors": 0}, "n_neighbors=0 must be at least 1"),
        ({"test_share": 1.0}, "test_share=1.0 must be above 0 and below 1"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**options)


def test_features_of_another_contract_are_refused_with_both_names(
    output: Output, tmp_path: Path
) -> None:
    other = Output.at(shutil.copytree(output.root, tmp_path / "other"))
    edit(other, contract_hash="ab" * 32)
    train_classifier(output.root, CONFIG, QUICK)
    ours = output.read_run().contract_hash[:12]
    with pytest.raises(ContractError, match=rf"{output.root}.*{ours}.*{other.root}.*abababababab"):
        evaluate_against(output.root, other.root, CONFIG)


def test_against_goes_without_the_options_of_a_split(output: Output) -> None:
    done = CliRunner().invoke(
        app, ["classify", "evaluate", output.root, "--against", "/x", "--seed", "3"]
    )
    assert isinstance(done.exception, ConfigError)
    assert "--seed goes with a split" in str(done.exception)


def test_the_commands_say_what_was_found(output: Output) -> None:
    """train and evaluate as a user types them, for people and for machines."""
    run = CliRunner().invoke
    trained = run(app, ["classify", "train", output.root, "--method", "centroid"])
    assert trained.exit_code == 0, trained.output
    assert "30 photos of 6 classes" in trained.stdout
    line = ["classify", "evaluate", output.root, "--method", "centroid", "--split", "random"]
    shown = run(app, line)
    assert "photos right" in shown.stdout
    assert "of its own photos" in shown.stdout
    found = json.loads(run(app, [*line, "--json"]).stdout)
    assert f"{found['evaluation']['scores']['accuracy']:.1%} of" in shown.stdout
