"""Every public name has an example in its docstring, and it does what it shows."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import verger
from verger.pca.moments import Moments

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("name", [name for name in dir(verger) if not name.startswith("_")])
def test_the_example_of_a_public_name_runs(
    name: str,
    photos: Path,
    trained: Path,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a folder with photos/, apple.jpg and the classifier trained/."""
    for folder, there in (("photos", photos), ("trained", trained)):
        (tmp_path / folder).symlink_to(there)
    shutil.copy(min(photos.rglob("*.jpg")), tmp_path / "apple.jpg")
    monkeypatch.chdir(tmp_path)
    known = {"verger": verger, "np": np, "Path": Path, "Moments": Moments}
    finder = doctest.DocTestFinder(recurse=False)
    [example] = finder.find(getattr(verger, name), name, extraglobs=known)
    assert example.examples, f"{name} has no example"
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert not failed


def test_the_reference_has_every_public_name() -> None:
    """docs/python.md shows the docstring of each."""
    page = Path(__file__).parents[2].joinpath("docs", "python.md").read_text("utf-8").splitlines()
    public = {f"::: verger.{name}" for name in verger.__all__}
    assert public == {line for line in page if line.startswith(":::")}
