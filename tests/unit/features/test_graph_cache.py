"""A graph is written once: the next start reads it, and imports next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from verger.engine.home import verger_home
from verger.features.model import Model, load_model
from verger.features.model.graph import Graph, Layer
from verger.features.model.graph_cache import cached_graph

GRAPH = Graph(b"any\nbytes", (Layer("a", "Conv2D", (3, 4, 5), 6), Layer("b", "Add", (7,))))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "home"))


def write() -> Graph:
    return GRAPH


def never() -> Graph:
    raise AssertionError("it was written before")


def test_a_graph_is_written_once() -> None:
    """The second time it comes from the cache, with its summary."""
    assert cached_graph("key", write) == GRAPH
    assert cached_graph("key", never) == GRAPH
    assert [path.name for path in (verger_home() / "graphs").iterdir()] == ["key"]


def test_what_a_killed_process_left_is_removed() -> None:
    """The next graph that is stored removes half files that are older than an hour."""
    left = verger_home() / "graphs" / ".key.12.part"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, 0))
    cached_graph("key", write)
    assert [path.name for path in left.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"no json\n", "cut", "flipped"])
def test_a_damaged_graph_is_written_anew(damage: bytes | str) -> None:
    """Whatever has become of the file, the graph is the right one."""
    cached_graph("key", write)
    path = verger_home() / "graphs" / "key"
    content = path.read_bytes()
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else b"S"))
    assert cached_graph("key", write) == GRAPH
    assert path.read_bytes() == content


def test_without_a_cache_it_is_written_every_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache that cannot be written is no error."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "file"))
    assert cached_graph("key", write) == GRAPH


def test_the_same_model_comes_out_of_the_cache(model: Model) -> None:
    """Contract, golden vector and summary are those of a graph that was just written."""
    for _ in range(2):
        found = load_model("efficientnet_lite0")
        assert found.contract == model.contract
        assert found.onnx == model.onnx
        assert found.layers == model.layers
        np.testing.assert_array_equal(found.golden, model.golden)


def test_a_photo_needs_few_imports(photos: Path) -> None:
    """Features of a JPEG, from a graph in the cache, take neither Spark nor what writes graphs."""
    load_model("efficientnet_lite0")
    photo = next(photos.rglob("*.jpg"))
    program = f"""
        import sys, verger
        verger.load_model("efficientnet_lite0").predict({str(photo)!r})
        heavy = ("pyspark", "py4j", "pandas", "pyarrow", "onnx", "h5py", "http.client")
        print([name for name in heavy if name in sys.modules])
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
