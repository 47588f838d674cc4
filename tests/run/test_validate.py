"""verger validate finds each kind of damage; one test each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.engines import BOTH_ENGINES
from support.runs import CONFIG
from verger.job import pipeline, validate


def part(result: Path, table: str = "features") -> Path:
    return next((result / table).glob("*.parquet"))


def rewrite(result: Path, change: Callable[[pa.Table], pa.Table], table: str = "features") -> None:
    file = part(result, table)
    changed = change(pq.read_table(file))
    pq.write_table(changed, file)
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


def with_vector(table: pa.Table, vector: list[float] | None) -> pa.Table:
    """Replace the first vector."""
    rows = table.column("features").to_pylist()
    index = table.schema.get_field_index("features")
    changed = pa.array([vector, *rows[1:]], table.schema.field("features").type)
    return table.set_column(index, table.schema.field("features"), changed)


def broken(result: Path) -> list[str]:
    report = pipeline.run_validate(result, CONFIG)
    return [f"{check.name}: {check.detail}" for check in report.checks if not check.holds]


@BOTH_ENGINES
def test_an_undamaged_result_holds(finished: Path) -> None:
    """Nothing is reported where nothing is wrong, and labels are counted."""
    report = pipeline.run_validate(finished, CONFIG)
    assert report.holds
    assert sorted(report.labels.values()) == [5] * 6


def test_a_row_removed(result: Path) -> None:
    rewrite(result, lambda table: table.slice(1))
    assert any("29 featurized" in line for line in broken(result))


def test_a_row_doubled(result: Path) -> None:
    rewrite(result, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert any("1 path(s) more than once" in line for line in broken(result))


def test_a_path_that_is_missing(result: Path) -> None:
    def without_path(table: pa.Table) -> pa.Table:
        paths = pa.array([None, *table["path"].to_pylist()[1:]], pa.string())
        return table.set_column(table.schema.get_field_index("path"), table.field("path"), paths)

    rewrite(result, without_path)
    assert any("1 path(s) more than once, first None" in line for line in broken(result))


@pytest.mark.parametrize("at_once", [1, 7])
def test_paths_that_do_not_fit_into_memory_are_compared_in_passes(
    result: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Nothing is found where nothing is wrong, and what is wrong is counted once."""
    monkeypatch.setattr(validate, "PATHS_AT_ONCE", at_once)
    assert pipeline.run_validate(result, CONFIG).holds
    rewrite(result, lambda table: pa.concat_tables([table.slice(2), table.slice(2, 2)]))
    found = broken(result)
    assert any("2 path(s) more than once" in line for line in found)
    assert any("2 path(s) missing, 2 too many" in line for line in found)


def test_paths_of_one_digest_are_no_path_twice(
    result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(paths: pa.Array) -> npt.NDArray[np.uint64]:
        return np.full(len(paths), 7, np.uint64)

    monkeypatch.setattr(validate, "digest_paths", digest)
    assert pipeline.run_validate(result, CONFIG).holds


@BOTH_ENGINES
def test_a_row_swapped_for_another(result: Path) -> None:
    """A doubled row that hides a lost one is found, though the counts are right."""
    rewrite(result, lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]))
    assert any("1 path(s) more than once" in line for line in broken(result))


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ([float("nan")] + [0.0] * 1279, "1 such values"),
        ([float("inf")] * 1280, "1280 such values"),
        ([None] + [0.0] * 1279, "1 such values"),
        ([0.0] * 1279, "1 of another length"),
        ([], "1 of another length"),
        (None, "1 null"),
    ],
)
def test_a_vector_that_is_none(result: Path, vector: list[float] | None, said: str) -> None:
    """NaN, infinity, null inside, a wrong length and no vector at all are found."""
    rewrite(result, lambda table: with_vector(table, vector))
    assert any(said in line for line in broken(result))


def test_a_part_file_deleted(result: Path) -> None:
    part(result).unlink()
    assert any("features/part-" in line and "is missing" in line for line in broken(result))


def test_a_file_that_nobody_wrote(result: Path) -> None:
    """Rows that plain readers would see and run.json does not know are found."""
    shutil.copy(part(result), result / "features" / "part-0.parquet")
    assert any("1 unknown: features/part-0.parquet" in line for line in broken(result))


def test_a_flipped_bit(result: Path) -> None:
    """One bit of one float is found, though the file can be read and no count is wrong."""
    file = part(result)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert any("has the bytes that were written" in line for line in broken(result))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.97, 0.99, 0.999])
def test_a_flipped_bit_anywhere(result: Path, share: float) -> None:
    """In a header, a page of paths or the footer, too: a check fails, and the others are made."""
    file = part(result)
    content = bytearray(file.read_bytes())
    content[int(len(content) * share)] ^= 0x10
    file.write_bytes(content)
    assert any("has the bytes that were written" in line for line in broken(result))


def test_a_file_cut_short(result: Path) -> None:
    file = part(result)
    file.write_bytes(file.read_bytes()[:-100])
    assert any("cannot be read" in line for line in broken(result))


def test_a_column_missing(result: Path) -> None:
    rewrite(result, lambda table: table.drop_columns(["width"]))
    assert any("has its columns and types" in line for line in broken(result))


def test_a_column_of_another_type(result: Path) -> None:
    def as_text(table: pa.Table) -> pa.Table:
        return table.set_column(3, "width", table.column("width").cast(pa.string()))

    rewrite(result, as_text)
    assert any("('width', 'string')" in line for line in broken(result))


def test_a_file_of_another_contract(result: Path) -> None:
    """Features of another model in the same folder are found by the footer of their file."""
    file = part(result)
    table = pq.read_table(file)
    metadata = {
        k: v.replace(_contract(result).encode(), b"f" * 64)
        for k, v in table.schema.metadata.items()
    }
    pq.write_table(table.replace_schema_metadata(metadata), file)
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    assert any("every file of features/ names this contract" in x for x in broken(result))


def test_a_record_whose_contract_was_edited(result: Path) -> None:
    record = json.loads((result / "run.json").read_text())
    record["contract"]["input_size"] = 96
    (result / "run.json").write_text(json.dumps(record))
    assert any("run.json's contract has the hash it names" in x for x in broken(result))


def test_a_record_with_another_count(result: Path) -> None:
    record = json.loads((result / "run.json").read_text())
    record["counts"]["listed"] = 31
    (result / "run.json").write_text(json.dumps(record))
    assert any("31 listed, 30 featurized" in line for line in broken(result))


def test_a_pca_of_other_photos(result: Path) -> None:
    rewrite(result, lambda table: table.slice(2), "pca")
    assert any("30 of 30 rows, 2 path(s) missing" in line for line in broken(result))


def _contract(result: Path) -> str:
    return str(json.loads((result / "run.json").read_text())["contract_hash"])
