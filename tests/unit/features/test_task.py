"""What a task of a run does with its share, as far as it needs no photo."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from verger.features.outcomes import read_rows
from verger.features.task import cut_images, to_arrow
from verger.schema import IMAGES, arrow_schema


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 15))
def test_batches_are_cut_by_count_whatever_arrow_sends(sizes: list[int], n: int) -> None:
    """Batch i holds rows i * n to (i + 1) * n, however long the Arrow batches are."""
    schema = arrow_schema(("path",))
    names = iter(str(i) for i in range(sum(sizes)))
    arrow = [
        pa.RecordBatch.from_pylist([{"path": next(names)} for _ in range(k)], schema) for k in sizes
    ]
    found = [
        (number, path)
        for number, batch in cut_images(arrow, n)
        for path in batch["path"].to_pylist()
    ]
    assert found == [(i // n, str(i)) for i in range(sum(sizes))]


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_row_has_a_time_whatever_a_data_frame_holds(micros: int) -> None:
    """Spark holds the years -290307 to 294246, Python's datetime 1 to 9999."""
    schema = arrow_schema((*IMAGES, "content"))
    row = {"path": "/a.jpg", "modification_time": micros, "length": 3, "content": b"abc"}
    ((found, content),) = read_rows(pa.RecordBatch.from_pylist([row], schema))
    assert content == b"abc"
    (batch,) = to_arrow([found])
    (time,) = batch["modification_time"].to_pylist()
    assert 1678 <= time.year <= 2261
    assert (batch["modification_time"].cast(pa.int64())[0].as_py() == micros) == (
        -9_214_560_000_000_000 <= micros <= 9_214_646_399_999_000
    )
