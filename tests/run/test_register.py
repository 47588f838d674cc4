"""A result in an Iceberg catalogue: the files of OUT as they are, and no row twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.results import write_vectors
from support.runs import new_bucket, rows
from verger import Config
from verger.errors import ConfigError, SchemaError
from verger.files.folder import Folder
from verger.files.tables import stored_schema
from verger.job.pipeline import run_featurize
from verger.result.iceberg import register
from verger.result.output import Output
from verger.schema import FEATURES, MEASURES

catalogs = pytest.importorskip("pyiceberg.catalog", reason="PyIceberg is an extra")
configs = pytest.importorskip("pyiceberg.utils.config")
pyarrow_to_schema = pytest.importorskip("pyiceberg.io.pyarrow").pyarrow_to_schema

CONFIG = Config(model="efficientnet_lite0", commit_every=4)
NAME = "local.orchard.features"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "TYPE": "sql",
        "URI": f"sqlite:///{tmp_path}/catalog.db",
        "WAREHOUSE": (tmp_path / "warehouse").as_uri(),
    }
    name_catalog(monkeypatch, "LOCAL", settings)


def name_catalog(monkeypatch: pytest.MonkeyPatch, catalog: str, settings: dict[str, str]) -> None:
    """Name a catalogue in the environment, which PyIceberg reads when it is imported."""
    for name, value in settings.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__{catalog}__{name}", value)
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", configs.Config())


def paths_in(name: str) -> list[str]:
    catalog, _, identifier = name.partition(".")
    found = catalogs.load_catalog(catalog).load_table(identifier).scan().to_arrow()
    return sorted(found["path"].to_pylist())


def test_changed_and_pruned_rows_are_replaced(photos: Path, tmp_path: Path, catalog: None) -> None:
    """After each run the table is what OUT is; a second call changes nothing."""
    source, out = tmp_path / "photos", tmp_path / "résultat 1"
    source.mkdir()
    files = sorted(photos.rglob("*.jpg"))[:6]
    for i, file in enumerate(files[:5]):
        (source / f"{i}.jpg").write_bytes(file.read_bytes())
    run_featurize(str(source), out, CONFIG)
    assert register(out, NAME).added
    assert paths_in(NAME) == sorted(rows(out))
    again = register(out, NAME)
    assert (again.added, again.removed) == (0, 0)
    (source / "0.jpg").unlink()
    (source / "1.jpg").write_bytes(files[5].read_bytes())
    (source / "5.jpg").write_bytes(files[0].read_bytes())
    run_featurize(str(source), out, Config(**{**vars(CONFIG), "prune": True}))
    changed = register(out, NAME)
    assert changed.added
    assert changed.removed
    assert paths_in(NAME) == sorted(rows(out))
    vectors = catalogs.load_catalog("local").load_table("orchard.features").scan().to_arrow()
    by_path = {row["path"]: row["features"] for row in vectors.to_pylist()}
    assert by_path == {path: row["features"] for path, row in rows(out).items()}


def test_what_does_not_belong_there_is_refused(finished: Path, catalog: None) -> None:
    with pytest.raises(ConfigError, match=r"must be CATALOG\.NAMESPACE\.TABLE"):
        register(finished, "local.features")
    register(finished, NAME)
    with pytest.raises(SchemaError, match="has other columns or ids"):
        register(finished, NAME, table="pca")


def test_measures_are_added_to_a_table_that_lacks_them(
    finished: Path, tmp_path: Path, catalog: None
) -> None:
    """An older result's photos have none, and those of a table of before keep their numbers."""
    older = tuple(name for name in FEATURES if name not in MEASURES)
    contract = Output.at(finished).read_run().contract_hash
    schema = pyarrow_to_schema(stored_schema(older, contract))
    held = catalogs.load_catalog("local")
    held.create_namespace("orchard")
    held.create_table("orchard.features", schema=schema, properties={"verger.contract": contract})
    register(finished, NAME)
    found = held.load_table("orchard.features").scan().to_arrow().to_pylist()
    columns = ("path", "features", *MEASURES)
    expected = {path: [row[name] for name in columns] for path, row in rows(finished).items()}
    assert {row["path"]: [row[name] for name in columns] for row in found} == expected
    assert all(row["sharpness"] > 0 for row in found)
    old = write_vectors(tmp_path / "old", [[1.0, 2.0]], columns=older)
    assert register(old.root, "local.orchard.old").rows_elsewhere == 0
    other = write_vectors(tmp_path / "other", [[3.0, 4.0], [5.0, 6.0]], columns=older)
    assert register(other.root, "local.orchard.two").rows_elsewhere == 0
    assert register(old.root, "local.orchard.two").rows_elsewhere == 2
    (row,) = held.load_table("orchard.old").scan().to_arrow().to_pylist()
    assert (row["features"], row["sharpness"]) == ([1.0, 2.0], None)


def test_glue_has_a_table_for_athena(
    finished: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue of AWS, played by moto, with OUT in a bucket."""
    bucket = new_bucket(s3, finished)
    settings = {"TYPE": "glue", "WAREHOUSE": f"s3://{bucket}/warehouse", "S3__ENDPOINT": s3}
    settings |= {"GLUE__ENDPOINT": s3, "GLUE__REGION": "eu-west-3", "S3__REGION": "eu-west-3"}
    name_catalog(monkeypatch, "LAKE", settings)
    assert Folder(f"s3://{bucket}/out").exists("run.json")
    assert register(f"s3://{bucket}/out", "lake.orchard.features").added
    assert paths_in("lake.orchard.features") == sorted(rows(finished))
