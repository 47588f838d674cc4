"""What real folders hold besides photos, and photos as no one would store them on purpose."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.engines import BOTH_ENGINES
from support.runs import CONFIG, rows
from verger.classify.vectors import read_labelled
from verger.cli.show import view_table
from verger.job import pipeline
from verger.result.output import Output

#: Seconds since 1970: the year 10399, one that overflows Spark's microseconds, the ends of what a
#: kernel keeps, and what ought to be harmless.
TIMES = (266_000_000_000, 9_300_000_000_000, 2**63 - 1, -(2**63), -(2**40), 0, -1)


@BOTH_ENGINES
def test_photos_of_any_time_are_featurized(photos: Path, any_time: Path, tmp_path: Path) -> None:
    """Times out of range are the nearest in it, which the ledger tells; nothing is done twice."""
    source, out = shutil.copytree(photos, any_time / "photos"), tmp_path / "out"
    for photo, time in zip(sorted(source.rglob("*.jpg")), TIMES, strict=False):
        os.utime(photo, ns=(0, 10**9 * time))
    record = pipeline.run(str(source), out, CONFIG)
    assert (record.counts.featurized, record.counts.clamped) == (30, 5)
    assert all(check.holds for check in record.checks)
    assert {row["modification_time"].year for row in rows(out).values()} > {1678, 2261, 1970, 1969}
    assert len(pq.read_table(out / "features").to_pandas()) == 30
    assert "5 photos have a modification time outside" in (out / "report.html").read_text()
    assert pipeline.run(str(source), out, CONFIG).counts.computed == 0


def test_a_table_that_others_wrote_is_shown_whatever_its_times(result: Path) -> None:
    """``verger show`` prints a time that Python's datetime has no year for as the nearest."""
    (file,) = (result / "features").glob("*.parquet")
    table = pq.read_table(file)
    place = table.schema.get_field_index("modification_time")
    kind = table.schema.field(place).type
    times = pa.array([266_000_000_000_000_000] * len(table), pa.int64()).cast(kind)
    pq.write_table(table.set_column(place, "modification_time", times), file)
    shown = view_table(Output.at(result), "features").rows
    assert {row["modification_time"].year for row in shown} == {2261}


def test_a_result_with_labels_of_another_form_gets_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier version stored as macOS spelt it: no photo is computed again, and the two
    classes that print alike become one in every table.
    """
    first, second, *_ = sorted(photos.iterdir())
    source, out = tmp_path / "in", tmp_path / "out"
    for folder, form in ((first, "NFC"), (second, "NFD")):
        shutil.copytree(folder, source / normalize(form, "Pêche"))
    with monkeypatch.context() as earlier:
        for room in ("source.listing", "result.ledger", "files.tables"):
            earlier.setattr(f"verger.{room}.normal_labels", lambda labels: labels)
        pipeline.run(str(source), out, CONFIG)
    assert len({row["label"] for row in rows(out).values()}) == 2
    assert set(read_labelled(Output.at(out)).labels) == {"P\xeache"}
    before = {path: row["features"] for path, row in rows(out).items()}
    found = pipeline.run(str(source), out, CONFIG)
    assert found.counts.computed == 0
    assert all(check.holds for check in found.checks)
    assert {path: row["features"] for path, row in rows(out).items()} == before
    for table in ("features", "pca"):
        assert {row["label"] for row in rows(out, table).values()} == {"P\xeache"}
    names = {path.name for path in (out / "features").iterdir()}
    pipeline.run(str(source), out, CONFIG)
    assert {path.name for path in (out / "features").iterdir()} == names


def test_labels_that_people_read_as_one_are_told(photos: Path, tmp_path: Path) -> None:
    """In the record, which the terminal prints, and on the page."""
    first, second, *_ = sorted(photos.iterdir())
    source = tmp_path / "in"
    for folder, name in ((first, "Apple"), (second, "apple ")):
        shutil.copytree(folder, source / name)
    record = pipeline.run(str(source), tmp_path / "out", CONFIG)
    (note,) = record.notices
    assert "'Apple' (5 photos) and 'apple ' (5 photos)" in note
    assert "differ only by case, blanks or form" in (tmp_path / "out" / "report.html").read_text()
