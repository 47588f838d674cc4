"""No flipped bit of a table's file ends a validation: it is found, or all rows can be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from verger.files.folder import Folder
from verger.files.tables import iter_part, stored_schema, write_part
from verger.job.validate import _look_at, _types
from verger.schema import FEATURES


def test_a_flipped_bit_of_any_byte_is_a_finding(tmp_path: Path) -> None:
    """Headers of pages, values, statistics, footer: one bit of every byte, one at a time."""
    folder = Folder(str(tmp_path))
    schema = stored_schema(FEATURES, "ab" * 32)
    row = {
        "label": "a",
        "features": [1.0] * 8,
        "width": 3,
        "height": 3,
        "length": 5,
        "modification_time": 0,
        "truncated": False,
    }
    table = pa.Table.from_pylist([row | {"path": f"/a/{i}.jpg"} for i in range(20)], schema)
    written = write_part(folder, "part.parquet", table, schema)
    whole = folder.read("part.parquet")
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (tmp_path / "part.parquet").write_bytes(flipped)
        look = _look_at(folder, "part.parquet", 8)
        assert look["sha256"] != written.sha256
        if look.get("problem") is None and look["types"] == _types("features"):
            for batch in iter_part(folder, "part.parquet", ["path", "label"]):
                batch.to_pylist()
