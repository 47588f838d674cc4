"""What all peers share: the job they are given, and photos to features by onnxruntime.

A peer is one file with ``main(job)``, started as a process of its own::

    python benchmarks/peers/ray_data.py PHOTOS OUT MODEL.onnx --cores 2

It writes Parquet files with ``path``, ``label`` and ``features`` to OUT/features. Decoding,
micro-batches and the session are the same lines for all of them, so that engines are compared
and nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
from PIL import Image

#: Photos per call of the model, as in Verger.
MICRO_BATCH = 1
#: Photos that a peer hands to a worker at once.
CHUNK = 32


@dataclass(frozen=True)
class Job:
    """Photos in, Parquet out.

    Attributes
    ----------
    photos : Path
        One folder a class.
    out : Path
        Made by the peer.
    model : Path
        ONNX graph that takes normalised (n, size, size, 3) float32; ``model.json`` beside it
        holds ``size``, ``mean`` and ``std``.
    weights : Path or None
        Keras' weights of the same model, for the notebook's way.
    cores : int
        Processes that compute.
    decoded : bool
        Decode before the clock starts; for the limit alone.
    """

    photos: Path
    out: Path
    model: Path
    weights: Path | None
    cores: int
    decoded: bool

    @property
    def features(self) -> Path:
        return self.out / "features"

    def paths(self) -> list[str]:
        return sorted(str(path) for path in self.photos.glob("*/*.jpg"))


class Featurizer:
    """Bytes of photos to features in one thread: bare Pillow, bare onnxruntime."""

    def __init__(self, model: str | Path) -> None:
        import onnxruntime as ort

        card = json.loads(Path(model).with_suffix(".json").read_text())
        self.size = card["size"]
        self._std = np.array(card["std"], np.float32)
        self._shift = np.array(card["mean"], np.float32) / self._std
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def decode(self, content: bytes) -> np.ndarray:
        """Return (size, size, 3) uint8."""
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return np.asarray(image.resize((self.size, self.size)))

    def infer(self, pixels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return (n, n_features) float32 of (n, size, size, 3) uint8."""
        image = np.asarray(pixels).astype(np.float32)
        image /= self._std  # in place: new arrays would cost a photo 6 % more
        image -= self._shift
        return self._session.run(None, {self._input: image})[0]

    def __call__(self, contents: Sequence[bytes]) -> np.ndarray:
        """Return (n, n_features) float32 of n >= 1 photos."""
        parts = [contents[i : i + MICRO_BATCH] for i in range(0, len(contents), MICRO_BATCH)]
        return np.concatenate([self.infer([self.decode(c) for c in part]) for part in parts])


def to_lists(features: np.ndarray) -> Any:
    """Return (n, n_features) float32 as a pyarrow array of n lists."""
    import pyarrow as pa

    offsets = np.arange(0, features.size + 1, features.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, features.ravel())


def to_table(paths: Sequence[str], features: np.ndarray) -> Any:
    """Return a pyarrow Table ``path``, ``label``, ``features``."""
    import pyarrow as pa

    labels = [path.rsplit("/", 2)[-2] for path in paths]
    return pa.table({"path": list(paths), "label": labels, "features": to_lists(features)})


def run(main: Callable[[Job], float | None]) -> None:
    """Do one job from the command line.

    The seconds that ``main`` returns, if any, are those without starting up; they go to
    OUT/work.json.
    """
    parser = argparse.ArgumentParser()
    for name in ("photos", "out", "model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--decoded", action="store_true")
    job = Job(**vars(parser.parse_args()))
    job.out.mkdir(parents=True)
    seconds = main(job)
    if seconds is not None:
        (job.out / "work.json").write_text(json.dumps({"seconds": seconds}))
