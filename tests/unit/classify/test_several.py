"""Photos of several results of one contract are learnt as if they were of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.results import write_vectors
from verger.classify.classifier import Classifier
from verger.classify.recipe import Recipe
from verger.classify.several import read_several
from verger.classify.stage import train_classifier
from verger.config import Config
from verger.errors import ConfigError, ContractError
from verger.files.tables import read_part
from verger.result.output import Output


def result(folder: Path, seed: int, labels: list[str]) -> Output:
    """Write a result of vectors, with these labels and paths of its own."""
    x = np.random.default_rng(seed).exponential(size=(len(labels), 8)).astype(np.float32)
    paths = [f"{folder}/photos/{i}.jpg" for i in range(len(labels))]
    return write_vectors(folder, x, labels=labels, paths=paths)


def test_two_results_are_learnt_as_one(tmp_path: Path) -> None:
    """The classifier lies in the first, knows the labels and photos of both, and their vectors."""
    one = result(tmp_path / "one", 0, ["apple", "pear"] * 6)
    two = result(tmp_path / "two", 1, ["kiwi", "pear"] * 4)
    labelled = read_several([one, two], {"kiwi": "fruit"})
    assert (labelled.labels, len(labelled)) == (("apple", "fruit", "pear"), 20)
    assert labelled.names.to_pylist() == [labelled.labels[i] for i in labelled.targets]
    recipe = Recipe(method="centroid", split="random")
    train_classifier(one.root, Config(), recipe, also=[two.root])
    found = Classifier.load(one)
    assert found.labels == ("apple", "kiwi", "pear")
    assert len(found.reference_paths) == 20
    x = read_part(two.folder, two.part_names("features")[0], ["path", "features"]).to_pylist()
    kiwis = [row["features"] for row in x[::2]]
    mean = (np.mean(kiwis, axis=0) - found.mean) / found.scale
    np.testing.assert_allclose(found.coefficients[1], mean, atol=1e-5)


def test_results_that_do_not_go_together(tmp_path: Path) -> None:
    """Features of two contracts are never mixed, and no photo is learnt twice."""
    one = result(tmp_path / "one", 0, ["apple", "pear"] * 6)
    with pytest.raises(ConfigError, match="is a photo of two of these results"):
        read_several([one, one], {})
    other = result(tmp_path / "two", 1, ["apple", "pear"] * 6)
    other.write_run(replace(other.read_run(), contract_hash="f" * 64))
    with pytest.raises(ContractError, match="has features of contract ffff"):
        read_several([one, other], {})
