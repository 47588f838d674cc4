"""A table for embedding-atlas: every photo, where it lies, what is near it and how it looks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.runs import rows
from verger.errors import OutputExistsError
from verger.similar.atlas import N_NEIGHBORS, PIXELS, export_atlas


def test_the_table_has_scores_neighbours_and_pictures(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "atlas.parquet"
    n = export_atlas(finished, path)
    table, scores = pq.read_table(path), rows(finished, "pca")
    assert n == len(table) == len(rows(finished))
    first = table.slice(3, 1).to_pylist()[0]
    assert [first["projection_x"], first["projection_y"]] == scores[first["path"]]["features_pca"][
        :2
    ]
    features = [rows(finished)[p]["features"] for p in table["path"].to_pylist()]
    unit = np.array(features) / np.linalg.norm(features, axis=1, keepdims=True)
    ids, distances = first["neighbors"]["ids"], first["neighbors"]["distances"]
    assert len(ids) == N_NEIGHBORS
    assert 3 not in ids
    np.testing.assert_allclose(distances, 1 - unit[ids] @ unit[3], atol=1e-4)
    assert first["image"]["path"] == first["path"]
    assert 0 < max(Image.open(io.BytesIO(first["image"]["bytes"])).size) <= PIXELS
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        export_atlas(finished, path)
