"""A new classifier takes the place of the old one whole, whenever it is killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.results import train, write_vectors
from verger.classify.classifier import Classifier
from verger.classify.stage import publish_classifier, stage_classifier
from verger.classify.training import Trained
from verger.errors import OutputError
from verger.files.folder import Folder
from verger.files.records import as_json
from verger.result.classifiers import ClassifierFiles
from verger.result.derived import Fit, Penalty, Training
from verger.result.lock import locked
from verger.result.output import (
    CLASSIFIER_NPZ,
    EVALUATION,
    PREDICTIONS,
    SPARK_CLASSIFIER,
    TRAINING,
    Output,
)

#: What changes a folder.
STEPS = ("write", "move", "remove", "remove_tree")


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Dying:
    """A step of a folder that kills the process once some steps are done."""

    def __init__(self, real: Callable[..., Any], left: list[int]) -> None:
        self._real, self._left = real, left

    def __get__(self, folder: Folder, _: type) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if not self._left[0]:
                raise Killed
            self._left[0] -= 1
            return self._real(folder, *arguments, **options)

        return step


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Return a result with an old classifier, its Spark model, and what was said of it."""
    x = np.random.default_rng(0).exponential(size=(12, 8)).astype(np.float32)
    output = write_vectors(tmp_path / "out", x)
    train(output)
    for name in (f"{SPARK_CLASSIFIER}/metadata/part-00000", f"{PREDICTIONS}/part-1.parquet"):
        output.folder.write(name, b"old")
    output.folder.write(EVALUATION, b'{"against": "/other"}')
    output.folder.write(TRAINING, b'{"created": "before"}')
    return output


FIT = Fit(n_trained=12, n_sample=12, folds="random", n_others=0, threshold=0.5, temperature=1.0)


def new_classifier(output: Output) -> Trained:
    """Return one with other vectors than those of OUT."""
    old = Classifier.load(output)
    values = {name: getattr(old, name) for name in old.__dataclass_fields__}
    return Trained(
        Classifier(**values | {"references": old.references + 1}), None, FIT, np.empty(0)
    )


TRAINED = Training(
    verger="1",
    created="now",
    recipe={"method": "centroid"},
    n_labels=2,
    n_photos=12,
    n_unlabelled=0,
    **vars(FIT),
    on_pca=None,
    contract_hash="c0ffee",
    seconds={"train": 0.5},
)


def replace(output: Output, trained: Trained) -> None:
    publish_classifier(output, stage_classifier(output, trained), TRAINED)


def test_what_was_trained_is_read_back_as_it_was_written(output: Output) -> None:
    """One record, flat: the penalties are there only if there were any."""
    replace(output, new_classifier(output))
    assert output.read_derived(Training, TRAINING) == TRAINED
    assert "reg_param" not in json.loads(output.folder.read(TRAINING))
    tried = (Penalty(0.1, 0.5), Penalty(0.2, 0.75))
    regression = dataclasses.replace(TRAINED, reg_param=0.1, tried=tried)
    output.folder.write(TRAINING, as_json(regression))
    assert output.read_derived(Training, TRAINING) == regression


@pytest.mark.parametrize("n_steps", range(16))
def test_a_killed_training_leaves_the_old_classifier_or_the_new_one(
    output: Output, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    """Killed after any of its steps: at once readers see a whole one, and the next command ends it.

    Then everything in OUT is of one classifier.
    """
    old, trained, left = Classifier.load(output), new_classifier(output), [n_steps]
    record = output.read_run()
    with monkeypatch.context() as patched:
        for step in STEPS:
            patched.setattr(Folder, step, Dying(getattr(Folder, step), left))
        try:
            replace(output, trained)
            is_killed = False
        except Killed:
            is_killed = True
    assert is_killed == (n_steps < 15), "the range of steps must reach the end"
    for is_finished in (False, True):
        if is_finished:
            with locked(output):
                pass
        found = Classifier.load(output)
        is_new = (found.references == trained.classifier.references).all()
        assert is_new or (found.references == old.references).all()
        assert output.read_run() == record
    assert json.loads(output.folder.read(TRAINING))["created"] == ("now" if is_new else "before")
    for name in (EVALUATION, f"{SPARK_CLASSIFIER}/metadata/part-00000"):
        assert output.folder.exists(name) == (not is_new)


def test_nothing_is_left_of_the_old_classifier(output: Output) -> None:
    """Nor is of a training that was killed between the new classifier and the old vectors."""
    output.folder.write("models/references-0.npy", b"left by a killed process")
    before = {entry.name for entry in output.folder.files(recursive=True)}
    replace(output, new_classifier(output))
    after = {entry.name for entry in output.folder.files(recursive=True)}
    gone = {name for name in before - after if not name.startswith("models/references")}
    assert gone == {
        EVALUATION,
        f"{PREDICTIONS}/part-1.parquet",
        f"{SPARK_CLASSIFIER}/metadata/part-00000",
    }
    assert sum(name.startswith("models/references") for name in after) == 1


def test_vectors_stay_while_a_classifier_cannot_be_read(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that is slow for a moment must not cost another classifier its known photos."""
    read, files = Folder.read, ClassifierFiles("other")

    def read_some(folder: Folder, name: str, *most: int) -> bytes:
        if name == CLASSIFIER_NPZ:
            raise OutputError("503 Slow Down")
        return read(folder, name, *most)

    names = stage_classifier(output, new_classifier(output), files)
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "read", read_some)
        publish_classifier(output, names, TRAINED, files)
    old, new = Classifier.load(output), Classifier.load(output, npz=files.npz)
    np.testing.assert_array_equal(new.references, old.references + 1)


def test_an_evaluation_by_a_split_stays(output: Output) -> None:
    """It is of the table and the recipe, not of the stored classifier."""
    output.folder.write(EVALUATION, b'{"against": null}')
    replace(output, new_classifier(output))
    assert output.folder.exists(EVALUATION)
    assert output.folder.exists(f"{PREDICTIONS}/part-1.parquet")


def test_a_classifier_is_trained_and_tested_without_java(trained: Path, tmp_path: Path) -> None:
    """In processes of this machine; pyspark is not even imported."""
    out = shutil.copytree(trained, tmp_path / "out")
    look = f"""
import sys
from verger import Config
from verger.classify.evaluation import evaluate_split
from verger.classify.recipe import Recipe
from verger.classify.stage import train_classifier
from verger.similar.inspection.stage import Criteria, inspect_photos
if __name__ == "__main__":
    config, out = Config(), {str(out)!r}
    print(train_classifier(out, config, Recipe(method="knn"))["n_trained"])
    found = evaluate_split(out, config, Recipe(method="centroid", test_share=0.4))
    print(found["evaluation"]["n_test"])
    print(train_classifier(out, config, Recipe(method="logistic"))["n_trained"])
    print(inspect_photos(out, config, Criteria(k=3))["n_photos"])
    print([name for name in sys.modules if name.split(".")[0] in ("pyspark", "py4j")])
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:5] == ["30", "12", "30", "30", "[]"]
    assert Classifier.load(Output.at(out)).method == "logistic"
