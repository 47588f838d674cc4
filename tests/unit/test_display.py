"""What a notebook shows: the public names, the version, and objects in a line or a table."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verger
from verger.features.model import Model
from verger.features.preprocess import decode_photo
from verger.pca.fit import fit_pca
from verger.pca.moments import Moments

REPOSITORY = Path(__file__).parents[2]


def test_dir_lists_the_public_names() -> None:
    """``dir(verger)``, and so the completion of a notebook, has the public names and no other."""
    assert set(dir(verger)) == {*verger.__all__, "__version__"}


def test_the_version_is_the_projects() -> None:
    """``verger.__version__`` is what pyproject.toml says, which is the only place that says it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert verger.__version__ == project["version"]


def shown(name: str, model: Model, photos: Path, trained: Path) -> Any:
    """Make one of the objects that a user of the library gets."""
    if name == "Listing":
        return verger.list_photos(str(photos))
    if name == "Predictor":
        return verger.Predictor.load(trained)
    if name == "Model":
        return model
    if name == "Photo":
        return decode_photo(next(photos.rglob("*.jpg")).read_bytes(), size=224)
    moments = Moments.of(np.random.default_rng(0).normal(size=(20, 5)))
    return fit_pca(moments, 3) if name == "FittedPCA" else moments


@pytest.mark.parametrize("name", ["Listing", "Model", "Predictor", "Photo", "Moments", "FittedPCA"])
def test_an_object_is_shown_in_one_line(
    name: str, model: Model, photos: Path, trained: Path
) -> None:
    """The repr of what the library returns is one line, with no array and no bytes in it."""
    text = repr(shown(name, model, photos, trained))
    assert text.startswith(f"{name}(")
    assert "\n" not in text
    assert "array(" not in text
    assert "b'" not in text
    assert len(text) < 700


@pytest.mark.parametrize("name", ["Listing", "Model", "Predictor", "FittedPCA"])
def test_a_notebook_shows_a_table(name: str, model: Model, photos: Path, trained: Path) -> None:
    """A notebook shows a small table with the same facts."""
    html = shown(name, model, photos, trained)._repr_html_()
    assert html.startswith(f"<table><caption>{name}</caption><tr><th>")
    assert len(html) < 2000


def classes_of_verger() -> list[type]:
    """Return the classes that all rooms define."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(verger.__path__, "verger.")
        if not found.name.endswith("__main__")
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]


def fields_shown(kind: Any) -> dict[str, str]:
    """Return the fields that the generated repr of a dataclass or named tuple prints: to type."""
    if dataclasses.is_dataclass(kind):
        has_line = kind.__dataclass_params__.repr  # type: ignore[attr-defined]
        return {f.name: str(f.type) for f in dataclasses.fields(kind) if has_line and f.repr}
    return {name: str(kind.__annotations__[name]) for name in getattr(kind, "_fields", ())}


def test_nothing_large_is_printed() -> None:
    """Dataclasses and named tuples of all rooms print no array, column, table, frame or bytes."""
    large = re.compile(
        r"NDArray|\b(Array|Vector|Ints|Floats|Float(32|64)s|Int32s|Indices|DataFrame|bytes)\b"
        r"|\bpa\.(Table|Array|ChunkedArray|RecordBatch)\b"
    )
    shown = [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in classes_of_verger()
        for name, type_name in fields_shown(kind).items()
        if large.search(type_name)
    ]
    assert shown == []


def test_names_of_files_are_escaped(tmp_path: Path, photos: Path) -> None:
    """A folder whose name is markup is shown as text."""
    folder = tmp_path / "<b>x"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    html = verger.list_photos(str(folder))._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;x" in html
