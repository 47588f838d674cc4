"""Photos with a flaw are found by the columns of ``features``, and an older table lacks some."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa

from support.results import write_vectors
from verger.files.tables import Piece, join_pieces, read_part, stored_schema, write_part
from verger.job.report.flaws import look_for_flaws
from verger.job.validate_files import check_files, look_at_files
from verger.result.clock import Clock
from verger.result.journal import BatchWriter, Start, start_attempt
from verger.result.output import Output
from verger.schema import FEATURES, MEASURES, OUTCOMES, arrow_schema

#: A light engine: the driver does what a few files hold.
ENGINE = SimpleNamespace(n_cores=1)
OLDER = tuple(name for name in FEATURES if name not in MEASURES)


def row(path: str, width: int, height: int, *measures: float | None) -> dict[str, object]:
    sizes = {"path": path, "label": "a", "width": width, "height": height}
    return sizes | dict(zip(MEASURES, measures or (0.5, 0.2, 0.1), strict=True))


def test_each_flaw_is_found_in_the_photo_that_has_it(tmp_path) -> None:
    """The worst first, and of an unmeasured photo those of its size alone."""
    rows = [row(f"plain{i}", 120, 130) for i in range(9)] + [
        row("dark", 120, 120, 0.1, 0.01, 0.001),
        row("darker", 120, 120, 0.01, 0.01, 0.0),
        row("light", 120, 120, 0.97, 0.02, 0.0),
        row("uniform", 120, 120, 0.5, 0.01, 0.0),
        row("blurry", 120, 120, 0.5, 0.2, 0.019),
        row("small", 29, 40),
        row("large", 481, 500),
        row("long", 120, 400),
        row("unmeasured", 301, 120, None, None, None),
        row("odd", 120, 120, float("nan"), float("inf"), float("-inf")),
    ]
    folder, schema = Output.at(tmp_path).folder, stored_schema(FEATURES, "f00d")
    parts = [
        write_part(
            folder, f"{i}.parquet", pa.Table.from_pylist(some, arrow_schema(FEATURES)), schema
        )
        for i, some in enumerate((rows[:11], rows[11:]))
    ]
    pieces = [Piece(part.name, part.rows) for part in parts]
    pieces[0] = replace(pieces[0], without=("plain0",))
    found = look_for_flaws(ENGINE, folder, pieces)
    assert [(row["path"], row["flaw"]) for row in found.table.to_pylist()] == [
        ("darker", "dark"),
        ("dark", "dark"),
        *((name, name) for name in ("light", "uniform", "blurry", "small", "large", "long")),
        ("unmeasured", "long"),
    ]
    assert found.table.to_pylist()[-2]["value"] == 400 / 120
    assert (found.n_photos, found.n_measured) == (18, 17)
    worst = look_for_flaws(ENGINE, folder, pieces, most=1)
    assert worst.table["path"].to_pylist()[0] == "darker"
    assert (len(worst.table), worst.counts) == (7, found.counts)
    assert found.counts["dark"] == found.counts["long"] == 2


def test_a_result_of_before_is_read_and_valid(tmp_path) -> None:
    """No photo of it is measured; its columns are those that it had."""
    output = write_vectors(tmp_path / "out", [[1.0, 2.0]], [[3.0, 4.0]], columns=OLDER)
    parts = output.parts("features")
    found = look_for_flaws(ENGINE, output.folder, [Piece(p.name, p.rows) for p in parts])
    assert (found.n_photos, found.n_measured, found.counts) == (2, 0, {})
    files = look_at_files(ENGINE, output, {"features": parts}, {"features": 2})["features"]
    assert all(check.holds for check in check_files(output, "features", parts, files, FEATURES))


def test_a_run_goes_on_from_batches_of_before(tmp_path) -> None:
    """Their photos have no measures in the result, and those of new batches have."""
    output = Output.at(tmp_path / "out")
    start = Start(source="/p", contract_hash="f00d", contract={}, fresh=True, overwrite=False)
    attempt = start_attempt(output, start)
    writer = BatchWriter.of(attempt)
    outcome = {"features": [1.0, 2.0], "truncated": False, "brightness": 0.5}
    for key, kept in (
        ("1", replace(writer, features_schema=stored_schema(OLDER, "f00d"))),
        ("2", writer),
    ):
        rows = pa.RecordBatch.from_pylist([outcome | {"path": key}], arrow_schema(OUTCOMES))
        kept.commit(key, [rows], Clock())
    pieces = [Piece(b.features.name, 1) for b in attempt.batches()]
    assert "brightness" not in read_part(output.folder, pieces[0].name).schema.names
    part = join_pieces(output.folder, pieces, "joined.parquet", writer.features_schema)
    joined = read_part(output.folder, part.name)
    assert tuple(joined.schema.names) == FEATURES
    assert joined["brightness"].to_pylist() == [None, 0.5]
