"""What tests of whole runs share: a configuration, a bucket of photos, the rows of a result."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import fs

from verger import Config
from verger.files.folder import Folder

CONFIG = Config(model="efficientnet_lite0", components=5)


def rows(out: Path, table: str = "features") -> dict[str, dict[str, Any]]:
    """Read a table as any other program does; no path may be there twice."""
    found = pq.read_table(out / table).to_pylist()
    by_path = {row["path"]: row for row in found}
    assert len(by_path) == len(found)
    return by_path


def stored_rows(folder: Folder, table: str = "features") -> dict[str, Any]:
    """Read a table of a result in a bucket, likewise."""
    found: dict[str, Any] = {}
    for entry in folder.files(table):
        with folder.open(entry.name) as file:
            found |= {row["path"]: row for row in pq.read_table(file).to_pylist()}
    return found


def new_bucket(address: str, out: str | Path | None = None) -> str:
    """Return the name of a bucket that no other test has, with a copy of a folder as ``out``.

    moto keeps one memory for all servers of a process, so a name of one's own choice is taken as
    soon as another test chooses it too, in an order that only some runs of the suite have.
    """
    s3 = _open(address)
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3.create_dir(bucket)
    if out is not None:
        fs.copy_files(str(out), f"{bucket}/out", destination_filesystem=s3)
    return bucket


def fill_bucket(address: str, photos: Path) -> tuple[str, dict[str, Path]]:
    """Copy photos to ``raw/`` of a new bucket, by names that are hard to handle.

    Returns
    -------
    str
        The name of the bucket.
    dict
        Photos by their names below ``raw/``.
    """
    bucket, s3 = new_bucket(address), _open(address)
    names = {f"{p.parent.name} é+#%/{p.name}": p for p in photos.rglob("*.jpg")}
    for name, photo in names.items():
        with s3.open_output_stream(f"{bucket}/raw/{name}") as stream:
            stream.write(photo.read_bytes())
    return bucket, names


def _open(address: str) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=address, region="eu-west-3", allow_bucket_creation=True
    )
