"""Small files that would take gigabytes: refused by their numbers, before they take the memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.results import run_record
from verger.files.folder import Folder
from verger.files.tables import open_parquet, part_of, read_part
from verger.result.output import Output
from verger.schema import FEATURES, MEASURES, REJECTED, arrow_schema


def _rows(n: int, path: pa.Array, features: pa.Array) -> pa.Table:
    """Return a table of features, all columns but two of them plain."""
    plain = {
        "label": pa.array(["a"] * n),
        "width": pa.array(np.ones(n, np.int32)),
        "height": pa.array(np.ones(n, np.int32)),
        "length": pa.array(np.ones(n, np.int64)),
        "modification_time": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * n),
        "truncated": pa.array([False] * n),
        **dict.fromkeys(MEASURES, pa.array([0.5] * n, pa.float32())),
    }
    columns = plain | {"path": path, "features": features}
    schema = arrow_schema(FEATURES)
    return pa.Table.from_arrays([columns[name] for name in FEATURES], schema=schema)


def _paths(n: int) -> pa.Array:
    return pa.array([str(i) for i in range(n)])


def _vectors(n: int, dimension: int) -> pa.Array:
    ends = np.arange(0, n * dimension + 1, dimension, dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.zeros(n * dimension, np.float32))


def _huge_text(target: Path) -> None:
    """Write one path of a megabyte, 6,000 times: 6 GB as texts."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(6000, np.int32), ["x" * 1_000_000])
    table = _rows(6000, _paths(6000), _vectors(6000, 1))
    fields = [f.with_type(texts.type) if f.name == "path" else f for f in table.schema]
    table = table.set_column(0, "path", texts)
    # Without Arrow's own schema the file says that the column is of texts.
    pq.write_table(table.cast(pa.schema(fields)), target, store_schema=False, compression="gzip")


def _null_bomb(target: Path) -> None:
    """Write lists of 200 million nulls in all, which run lengths keep in a few bytes."""
    schema = arrow_schema(FEATURES)
    n, each = 100, 2_000_000
    with pq.ParquetWriter(target, schema, use_dictionary=False) as writer:
        nulls = pa.nulls(each, pa.float32())
        one = pa.ListArray.from_arrays(np.array([0, each], np.int32), nulls)
        writer.write_table(_rows(n, _paths(n), pa.concat_arrays([one] * n)))


def _long_list(target: Path) -> None:
    """Write one row whose list has a hundred million equal numbers."""
    table = _rows(1, _paths(1), _vectors(1, 100_000_000))
    pq.write_table(table, target, use_dictionary=True, compression="zstd")


def _page_bomb(codec: str, target: Path) -> None:
    """Write 300 MB of zeros, which the codec brings down to a few kB."""
    table = _rows(3000, _paths(3000), _vectors(3000, 25_000))
    pq.write_table(table, target, use_dictionary=False, compression=codec)


def _many_rows(target: Path) -> None:
    """Write 30 million rows that are all the same."""
    schema = arrow_schema(REJECTED)
    n = 1_000_000
    texts = pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), ["x"])
    times = pa.array(np.zeros(n, np.int64)).cast(schema.field("modification_time").type)
    columns = {"length": pa.array(np.ones(n, np.int64)), "modification_time": times}
    arrays = [columns.get(name, texts) for name in REJECTED]
    table = pa.Table.from_arrays(arrays, list(REJECTED))
    with pq.ParquetWriter(target, table.schema, store_schema=False) as writer:
        for _ in range(30):
            writer.write_table(table)


def _delta_texts(target: Path) -> None:
    """Write paths by what each adds to the one before: 6,000 of 20 kB."""
    paths = pa.array(["x" * 20_000 + str(i) for i in range(6000)])
    table = _rows(6000, paths, _vectors(6000, 1))
    pq.write_table(
        table, target, use_dictionary=False, column_encoding={"path": "DELTA_BYTE_ARRAY"}
    )


def _varint(number: int) -> bytes:
    """Write a number as the headers of a Parquet file have it."""
    number, out = number << 1, bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _lying_footer(target: Path) -> None:
    """Write a list of a hundred million nulls, whose footer says one."""
    n = 100_000_000
    lists = pa.ListArray.from_arrays(np.array([0, n], np.int32), pa.nulls(n, pa.float32()))
    pq.write_table(_rows(1, _paths(1), lists), target, use_dictionary=False, data_page_size=2**30)
    content = target.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], content[-8 - length : -8]
    told = _varint(n)
    # The first of them is the number of values. A number may be written longer than need be.
    footer = footer.replace(told, b"\x82" + b"\x80" * (len(told) - 2) + b"\x00", 1)
    target.write_bytes(body + footer + content[-8:])


def _gzip_bomb(target: Path) -> None:
    _page_bomb("gzip", target)


def _zstd_bomb(target: Path) -> None:
    _page_bomb("zstd", target)


_BOMBS = [
    _huge_text,
    _null_bomb,
    _long_list,
    _gzip_bomb,
    _zstd_bomb,
    _many_rows,
    _delta_texts,
    _lying_footer,
]

_READ = """
import resource, sys
from pathlib import Path
from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.tables import iter_part, read_part
from verger.job.validate import validate_output
from verger.cli.show import view_table
from verger.result.output import Output

name, table = sys.argv[2], sys.argv[3]
output = Output.at(sys.argv[1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 7 * 10**8,) * 2)
columns = ["path", "features"] if table == "features" else ["path"]
for read in (
    lambda: read_part(output.folder, name),
    lambda: list(iter_part(output.folder, name, columns)),
    lambda: view_table(output, table),
):
    try:
        read()
    except SchemaError as err:
        print("refused", err)
report = validate_output(None, output)
print("finding", *[check.detail for check in report.checks if not check.holds])
"""


@pytest.mark.parametrize("write", _BOMBS, ids=lambda write: write.__name__.strip("_"))
def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """Every reader refuses it with 700 MB to spend, and names the file and the numbers."""
    table = "rejected" if write is _many_rows else "features"
    name, output = f"{table}/part-0.parquet", Output.at(tmp_path)
    (tmp_path / table).mkdir()
    write(tmp_path / name)
    content = output.folder.read(name)
    assert len(content) < 4_000_000
    metadata = pq.read_metadata(tmp_path / name)
    part = part_of(name, metadata.num_rows, content)
    files = {"features": (), "rejected": ()} | {table: (part,)}
    output.write_run(run_record(files=files))
    run = [sys.executable, "-c", _READ, str(tmp_path), name, table]
    done = subprocess.run(run, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert len(refused) == 3
    assert all(name in line for line in refused), refused
    assert not any("alloc" in line for line in refused), refused
    assert name in done.stdout.split("finding")[1]


def test_equal_rows_of_a_small_file_are_read(tmp_path: Path) -> None:
    """What a run may write is no bomb: 6,000 equal vectors with equal labels compress well."""
    table = _rows(6000, _paths(6000), _vectors(6000, 1280))
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False)
    assert (tmp_path / "x.parquet").stat().st_size < 3_000_000
    assert read_part(Folder(str(tmp_path)), "x.parquet").equals(table)


def test_a_file_of_vectors_in_a_bucket_is_checked_page_by_page(tmp_path: Path) -> None:
    """It is read whole before; a footer that lies is found there, and a good file is read."""
    folder = Folder(str(tmp_path))
    pq.write_table(_rows(5, _paths(5), _vectors(5, 8)), tmp_path / "good.parquet")
    with folder.open("good.parquet") as file:
        parquet, _ = open_parquet(file, ["features"], is_near=False)
        assert parquet.read(["features"])["features"].to_pylist() == [[0.0] * 8] * 5
    _lying_footer(tmp_path / "lying.parquet")
    with folder.open("lying.parquet") as file, pytest.raises(ValueError, match="its footer says"):
        open_parquet(file, ["features"], is_near=False)
