"""Files of tables: what footers say, how rows are grouped, what a damaged file is called."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verger.errors import SchemaError
from verger.files.folder import Folder
from verger.files.tables import (
    ROWS_PER_FILE,
    Piece,
    contract_in,
    group_pieces,
    iter_part,
    part_name,
    read_part,
    stored_schema,
    write_part,
)
from verger.schema import FEATURES, PCA, REJECTED


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.mark.parametrize("columns", [FEATURES, PCA, REJECTED], ids=["features", "pca", "rejected"])
def test_a_file_says_its_contract_its_rows_and_its_sum(
    folder: Folder, columns: tuple[str, ...]
) -> None:
    """What is noted of a file is what is on the disk, and its footer names the contract."""
    schema = stored_schema(columns, "f00d")
    part = write_part(folder, "t/x.parquet", schema.empty_table(), schema)
    content = folder.read("t/x.parquet")
    assert (part.rows, part.size) == (0, len(content))
    assert part.sha256 == hashlib.sha256(content).hexdigest()
    metadata = pq.read_metadata(folder.address("t/x.parquet"))
    assert contract_in(metadata) == ("none" if columns == REJECTED else "f00d")
    assert pq.read_schema(folder.address("t/x.parquet")).names == list(columns)


def test_a_file_of_somebody_else_names_no_contract(tmp_path: Path) -> None:
    """A Parquet file without our footer, or with another's, is of no contract."""
    for metadata in ({}, {"org.apache.spark.sql.parquet.row.metadata": "{"}):
        table = pa.table({"features": [[1.0]]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "x.parquet")
        assert contract_in(pq.read_metadata(tmp_path / "x.parquet")) == "none"


def test_no_two_files_have_one_name() -> None:
    """A name is never used twice, so that a file once published never changes."""
    assert len({part_name("features") for _ in range(1000)}) == 1000


@given(st.lists(st.integers(1, 2 * ROWS_PER_FILE), max_size=30))
def test_files_are_joined_to_a_good_size(rows: list[int]) -> None:
    """Groups keep the order, lose nothing, and hold no more than a file's rows, or one piece."""
    pieces = [Piece(str(i), n) for i, n in enumerate(rows)]
    groups = group_pieces(pieces)
    assert [piece for group in groups for piece in group] == pieces
    for group in groups:
        assert len(group) == 1 or sum(piece.rows for piece in group) <= ROWS_PER_FILE
    for one, other in pairwise(groups):
        assert sum(piece.rows for piece in one) + other[0].rows > ROWS_PER_FILE


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_a_file_that_cannot_be_read_is_named(folder: Folder, content: bytes | None) -> None:
    """A missing or damaged file is an error with its address, whichever way it is read."""
    if content is not None:
        folder.write("x.parquet", content)
    with pytest.raises(SchemaError, match=r"x\.parquet: cannot be read"):
        read_part(folder, "x.parquet")
    with pytest.raises(SchemaError, match=r"x\.parquet: cannot be read"):
        list(iter_part(folder, "x.parquet", ["path"]))
