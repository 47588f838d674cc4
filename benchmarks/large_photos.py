"""Large JPEGs: how much faster a reduced DCT scale is, and what it does to the features.

    python benchmarks/large_photos.py DIR [--weights FILE] [--model NAME]

DIR holds large pictures (any format, at least 3 megapixels). Each is brought to 12, 24 and 48
megapixels, given the noise of a sensor, and saved as a camera's JPEG (quality 92, 4:2:0); then it
is decoded whole and at the reduced scales that the margins 1 to 4 allow. Features are those of
the model, speed is of decoding and resizing on one core. Writes benchmarks/LARGE_PHOTOS.md.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

import verger
from verger.features.model import Model
from verger.features.preprocess import decode, decode_photo

HERE = Path(__file__).parent
MEGAPIXELS = (12, 24, 48)
WHOLE = 10**6  # a margin that no photo has
RULE = decode.DCT_MARGIN
MARGINS = (WHOLE, 4, 3, 2, 1)
MEAN_COSINE, WORST_COSINE = 0.999, 0.995

Result = dict[tuple[int, int], list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--model", default="mobilenet_v2")
    arguments = parser.parse_args()
    model = verger.load_model(arguments.model, weights=arguments.weights)
    pictures = list(find_pictures(arguments.folder))
    result: Result = {(mp, margin): [] for mp in MEGAPIXELS for margin in MARGINS}
    for number, path in enumerate(pictures):
        for mp in MEGAPIXELS:
            measure(as_taken(path, mp, seed=number), model, mp, result)
        print(f"{number + 1} of {len(pictures)}: {path.name}", flush=True)
    report = render(result, len(pictures), model.contract.model)
    (HERE / "LARGE_PHOTOS.md").write_text(report)
    print(report)


def find_pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures of at least 3 megapixels, each once, though a copy may lie beside it."""
    Image.MAX_IMAGE_PIXELS = None
    seen = set()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or path.is_symlink():
            continue
        with Image.open(path) as image:
            if image.width * image.height < 3e6:
                continue
            key = np.asarray(image.convert("L").resize((16, 16))).tobytes()
        if key not in seen:
            seen.add(key)
            yield path


def as_taken(path: Path, megapixels: int, *, seed: int) -> bytes:
    """Return a picture as a camera would have taken it."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    scale = (megapixels * 1e6 / (rgb.width * rgb.height)) ** 0.5
    size = round(rgb.width * scale), round(rgb.height * scale)
    pixels = np.asarray(rgb.resize(size, Image.Resampling.LANCZOS), np.int16)
    noise = np.random.default_rng(seed).normal(0, 3, pixels.shape[:2]).astype(np.int16)
    noisy = np.clip(pixels + noise[:, :, None], 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=92, subsampling="4:2:0")
    return buffer.getvalue()


def measure(content: bytes, model: Model, mp: int, result: Result) -> None:
    """Decode one photo at every margin, in turns; keep seconds and cosine to the whole one."""
    whole = None
    for margin in MARGINS:
        decode.DCT_MARGIN = margin
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            decode_photo(content, size=model.contract.input_size)
            seconds.append(time.perf_counter() - start)
        features = model.predict(content).astype(np.float64)
        whole = features if whole is None else whole
        cosine = features @ whole / np.linalg.norm(features) / np.linalg.norm(whole)
        result[mp, margin].append((statistics.median(seconds), float(cosine)))


def render(result: Result, n: int, model: str) -> str:
    lines = [
        "# Large photos: JPEGs at a reduced DCT scale",
        "",
        f"{n} pictures, each as a camera's JPEG of 12, 24 and 48 megapixels (quality 92, 4:2:0,",
        "sensor noise). Milliseconds are the median over the pictures, for one core to decode and",
        f"resize a photo to 224x224; cosines are between the features ({model}) of a photo at the",
        "reduced scale and of the same photo decoded whole.",
        f"Asked for: a mean of at least {MEAN_COSINE}, and no photo below {WORST_COSINE}.",
        "",
        "| megapixels | shorter side at least | ms a photo | times faster | mean cosine "
        "| worst cosine | good enough |",
        "|---|---|---|---|---|---|---|",
    ]
    for mp in MEGAPIXELS:
        whole_ms = 1000 * statistics.median(s for s, _ in result[mp, WHOLE])
        for margin in MARGINS:
            ms = 1000 * statistics.median(s for s, _ in result[mp, margin])
            cosines = [cosine for _, cosine in result[mp, margin]]
            mean, worst = statistics.mean(cosines), min(cosines)
            what = "whole" if margin == WHOLE else f"{margin} x input"
            good = "yes" if mean >= MEAN_COSINE and worst >= WORST_COSINE else "no"
            figures = f"{ms:.0f} | {whole_ms / ms:.1f} | {mean:.5f} | {worst:.5f}"
            lines.append(f"| {mp} | {what} | {figures} | {good} |")
    lines += [
        "",
        f"The contract's rule is {RULE} x input. Python {platform.python_version()}, Pillow "
        f"{PIL.__version__}.",
        "Command: `python benchmarks/large_photos.py DIR --weights FILE`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
