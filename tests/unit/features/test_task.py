"""What a task of a run does with its share, as far as it needs no photo."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from verger.features.task import cut_images
from verger.schema import arrow_schema


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
