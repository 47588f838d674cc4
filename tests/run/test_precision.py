"""A run in integers: OUT keeps the model that it was calibrated to, and goes on with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.runs import CONFIG, rows
from verger.errors import ContractError, OutputError
from verger.features import precision
from verger.job import pipeline
from verger.result.output import Output

INT8 = dataclasses.replace(CONFIG, precision="int8")


def contract_hash(out: Path) -> str:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return str(found["contract_hash"])


def kept(out: Path) -> list[Path]:
    return sorted((out / "extractor").iterdir())


def vectors(out: Path) -> dict[tuple[str, ...], np.ndarray]:
    """Return features by class and file name: the folders before them differ."""
    return {Path(path).parts[-2:]: np.array(r["features"]) for path, r in rows(out).items()}


@pytest.fixture(scope="module")
def source(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos without one class, which a test may add."""
    folder = tmp_path_factory.mktemp("int8") / "photos"
    classes = sorted(path for path in photos.iterdir() if path.is_dir())
    for path in classes[:-1]:
        shutil.copytree(path, folder / path.name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def quantised(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run in integers; do not write to it."""
    out = tmp_path_factory.mktemp("int8-out") / "out"
    pipeline.run(str(source), out, INT8)
    return out


@pytest.fixture
def out(quantised: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantised, tmp_path / "out"))


def test_a_run_in_integers_is_whole(quantised: Path, finished: Path) -> None:
    """The whole job holds; features are near those of float32, and the model is kept beside."""
    record = Output.at(quantised).read_run()
    assert (record.counts.featurized, record.counts.rejected) == (25, 1)
    assert record.model.precision == "int8"
    assert kept(quantised)[0].name == f"int8-{record.contract_hash[:12]}.npz"
    assert record.contract_hash != contract_hash(finished)
    ours, theirs = vectors(quantised), vectors(finished)
    for name, a in ours.items():
        b = theirs[name]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9


def test_added_photos_meet_the_same_model(
    source: Path, photos: Path, out: Path, tmp_path: Path
) -> None:
    """More photos would give another calibration: they get the one that is there."""
    before, hash_before = rows(out), contract_hash(out)
    more = source / "zz added"
    shutil.copytree(sorted(p for p in photos.iterdir() if p.is_dir())[-1], more)
    try:
        pipeline.run(str(source), out, INT8)
    finally:
        shutil.rmtree(more)
    after = rows(out)
    assert len(after) == 30
    assert contract_hash(out) == hash_before
    assert {path: after[path] for path in before} == before
    assert pipeline.run_validate(out, INT8).holds


def test_float32_and_int8_never_mix(source: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="two contracts never mix"):
        pipeline.run_featurize(str(source), out, CONFIG)
    plain = tmp_path / "plain"
    pipeline.run_featurize(str(source), plain, CONFIG)
    with pytest.raises(ContractError, match="two contracts never mix"):
        pipeline.run_featurize(str(source), plain, INT8)
    assert not (plain / "extractor").exists()


def test_overwriting_in_float32_forgets_the_model(source: Path, out: Path) -> None:
    pipeline.run_featurize(str(source), out, dataclasses.replace(CONFIG, overwrite=True))
    assert not list((out / "extractor").glob("*"))


def test_a_killed_run_goes_on_with_its_model(
    source: Path, quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is kept before the first batch; the next run calibrates nothing."""
    out = tmp_path / "out"

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("verger.job.compute.publish_features", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_featurize(str(source), out, INT8)
    model = kept(out)
    monkeypatch.setattr(precision, "quantize", killed)
    pipeline.run_featurize(str(source), out, INT8)
    assert kept(out) == model
    assert rows(out) == rows(quantised)


@pytest.mark.parametrize("damage", ["missing", "flipped", "another", "no archive"])
def test_a_lost_model_is_a_finding_and_stops_adding(source: Path, out: Path, damage: str) -> None:
    """Rows stay, but validate says so, and no photo is added by another calibration."""
    file = kept(out)[0]
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "another":
        with np.load(file) as held:
            np.savez(file, graph=held["graph"][:-1], golden=held["golden"])
    else:
        file.write_bytes(b"PK")
    with pytest.raises(OutputError, match="without it no photo can be added"):
        pipeline.run_featurize(str(source), out, INT8)
    checks = pipeline.run_validate(out, INT8).checks
    assert [check.name for check in checks if not check.holds] == [
        "the calibrated model is the one that the contract names"
    ]
