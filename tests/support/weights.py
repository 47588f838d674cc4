"""Random MobileNetV2 weights in each of Keras' HDF5 layouts, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from verger.features.model.mobilenet_v2 import STAGES

Layout = Literal["legacy", "legacy-old-names", "keras3"]
Layer = tuple[str, str, list[np.ndarray]]


def random_layers(seed: int) -> Iterator[Layer]:
    """Yield (class, name, tensors) in Keras' order, sized so that features stay of order 1."""
    rng = np.random.default_rng(seed)

    def conv(name: str, shape: tuple[int, ...], fan_in: int, bn: str, out: int) -> Iterator[Layer]:
        kind = "depthwise_conv2d" if name.endswith("_depthwise") else "conv2d"
        kernel = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        yield kind, name, [kernel.astype(np.float32)]
        gamma, variance = rng.uniform(0.5, 1.5, (2, out))
        beta, mean = rng.standard_normal((2, out)) * 0.3
        tensors = [a.astype(np.float32) for a in (gamma, beta, mean, variance)]
        yield "batch_normalization", bn, tensors

    yield from conv("Conv1", (3, 3, 3, 32), 27, "bn_Conv1", 32)
    channels, block = 32, 0
    for expansion, out, repeats, _ in STAGES:
        for _ in range(repeats):
            name, inner = (f"block_{block}" if block else "expanded_conv"), channels * expansion
            if block:
                shape = (1, 1, channels, inner)
                yield from conv(f"{name}_expand", shape, channels, f"{name}_expand_BN", inner)
            depthwise = f"{name}_depthwise"
            yield from conv(depthwise, (3, 3, inner, 1), 9, f"{depthwise}_BN", inner)
            yield from conv(f"{name}_project", (1, 1, inner, out), inner, f"{name}_project_BN", out)
            channels, block = out, block + 1
    yield from conv("Conv_1", (1, 1, channels, 1280), channels, "Conv_1_bn", 1280)


def write_random_weights(path: Path, *, seed: int = 0, layout: Layout = "legacy") -> None:
    """Write random weights as Keras would."""
    with h5py.File(path, "w") as file:
        if layout == "keras3":
            _write_keras3(file, seed)
        else:
            _write_legacy(file, seed, old_names=layout == "legacy-old-names")


def _write_legacy(file: h5py.File, seed: int, *, old_names: bool) -> None:
    layers = list(random_layers(seed))
    file.attrs["layer_names"] = [b"input_1", *(name.encode() for _, name, _ in layers)]
    file.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
    for kind, name, tensors in layers:
        if kind == "batch_normalization":
            variables = ["gamma", "beta", "moving_mean", "moving_variance"]
        else:
            old_depthwise = old_names and kind == "depthwise_conv2d"
            variables = ["depthwise_kernel" if old_depthwise else "kernel"]
        names = [f"{name}/{v}:0" if old_names else f"{name}/{v}" for v in variables]
        group = file.create_group(name)
        group.attrs["weight_names"] = [n.encode() for n in names]
        for dataset, tensor in zip(names, tensors, strict=True):
            group.create_dataset(dataset, data=tensor)


def _write_keras3(file: h5py.File, seed: int) -> None:
    counts: dict[str, int] = {}
    for kind, _, tensors in random_layers(seed):
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        group = file.create_group(f"layers/{kind}_{number}" if number else f"layers/{kind}")
        for i, tensor in enumerate(tensors):
            group.create_dataset(f"vars/{i}", data=tensor)
    file.create_group("layers/re_lu/vars")
