"""Photos in the rows of Parquet and Arrow files: features as those of the same photos in files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from support.runs import new_bucket, rows
from verger import Config
from verger.errors import ConfigError, EmptySourceError
from verger.files.packed import path_of_row, read_row
from verger.files.reading import read_ahead
from verger.job.pipeline import run_featurize, run_validate
from verger.source.listing import list_photos

CONFIG = Config(model="efficientnet_lite0", max_error_rate=1.0, commit_every=4)


@pytest.fixture(scope="module")
def contents(photos: Path) -> list[tuple[str, bytes]]:
    files = sorted(photos.rglob("*.jpg"))[:12]
    return [(file.parent.name, file.read_bytes()) for file in files]


def hub_table(contents: list[tuple[str, bytes]]) -> pa.Table:
    """Return a table as data sets of Hugging Face have it: structures, and labels as integers."""
    names = sorted({label for label, _ in contents})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
        "thumb": {"dtype": "binary", "_type": "Value"},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    photos = [{"bytes": c, "path": f"{label}-{i}.jpg"} for i, (label, c) in enumerate(contents)]
    table = pa.table(
        {
            "thumb": pa.array([b"x"] * len(contents)),
            "image": pa.array(photos, kind),
            "label": [names.index(label) for label, _ in contents],
        }
    )
    metadata = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": metadata})


def test_rows_have_the_features_of_files(contents: list[tuple[str, bytes]], tmp_path: Path) -> None:
    """Row groups and files do not matter; broken, null and empty rows are rejected by name."""
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(hub_table(contents[:7]), folder / "a.parquet", row_group_size=3)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    bad = [{"bytes": None, "path": "x"}, {"bytes": b"", "path": "x"}, {"bytes": b"no", "path": "x"}]
    pq.write_table(pa.table({"image": pa.array([*bad, None], kind)}), folder / "b.parquet")
    record = run_featurize(str(folder), tmp_path / "out", CONFIG)
    assert (record.counts.featurized, record.counts.rejected) == (7, 4)
    assert run_validate(tmp_path / "out", CONFIG).holds
    own = tmp_path / "own"
    for i, (label, content) in enumerate(contents[:7]):
        (own / label).mkdir(parents=True, exist_ok=True)
        (own / label / f"{i}.jpg").write_bytes(content)
    run_featurize(str(own), tmp_path / "out2", CONFIG)
    found, expected = rows(tmp_path / "out"), rows(tmp_path / "out2")
    for i, (label, content) in enumerate(contents[:7]):
        row = found[path_of_row(f"{folder}/a.parquet", i)]
        assert row["features"] == expected[f"{own}/{label}/{i}.jpg"]["features"]
        assert (row["label"], row["length"]) == (label, len(content))
    reasons = [row["reason"] for _, row in sorted(rows(tmp_path / "out", "rejected").items())]
    assert reasons == ["empty", "empty", "not an image", "empty"]
    again = run_featurize(str(folder), tmp_path / "out", CONFIG)
    assert again.up_to_date


def test_files_of_arrow_and_in_buckets_are_read(
    contents: list[tuple[str, bytes]], tmp_path: Path, s3: str
) -> None:
    """As ``save_to_disk`` leaves them; a bucket's file alone may be the source."""
    table = hub_table(contents)
    with ipc.new_stream(tmp_path / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    (tmp_path / "state.json").write_text("{}")
    listing = list_photos(str(tmp_path))
    assert listing.photos["label"].to_pylist() == [label for label, _ in contents]
    found = list(read_ahead(listing.photos["path"].to_pylist()))
    assert found == [content for _, content in contents]
    (tmp_path / "packed").mkdir()
    pq.write_table(table, tmp_path / "packed" / "train.parquet", row_group_size=4)
    bucket = new_bucket(s3, tmp_path / "packed")
    remote = list_photos(f"s3://{bucket}/out/train.parquet")
    assert remote.source == f"s3://{bucket}/out/train.parquet"
    assert list(read_ahead(remote.photos["path"].to_pylist()[5:])) == found[5:]
    assert read_row(f"s3://{bucket}/out/train.parquet", 1) == found[1]


def test_labels_come_from_a_named_column_or_the_name_inside(
    contents: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    table = hub_table(contents).append_column("kind", pa.array(["k"] * len(contents)))
    pq.write_table(table, tmp_path / "train.parquet")
    path = str(tmp_path / "train.parquet")
    labels = [label for label, _ in contents]
    assert list_photos(path, label_from="column:kind").photos["label"].unique().to_pylist() == ["k"]
    named = list_photos(path, label_from=r"^(.+)-\d+\.jpg$").photos["label"].to_pylist()
    assert named == labels
    assert list_photos(path, label_from="none").photos["label"].null_count == len(contents)
    with pytest.raises(ConfigError, match=r"label_from='column:x': the columns are"):
        list_photos(path, label_from="column:x")
    pq.write_table(pa.table({"a": [b"1"], "b": [b"2"]}), tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match=r"columns \['a', 'b'\]: any may be the photos"):
        list_photos(str(tmp_path / "two.parquet"))
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "null.parquet")
    with pytest.raises(EmptySourceError, match="not one of its 1 rows has bytes"):
        list_photos(str(tmp_path / "null.parquet"))
    with pytest.raises(ConfigError, match="has no photos in Parquet"):
        list_photos(str(Path(__file__).parent), label_from="column:x", glob=["*.py"])
