"""An exported file in onnxruntime's WebAssembly build gives the pipeline's numbers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.results import train, write_result
from verger.classify.export import app as export
from verger.classify.export.app import export_app
from verger.classify.predict import Predictor
from verger.features.model import Model
from verger.features.preprocess import decode_full_size, resize_image

HERE = Path(__file__).parent
SIZES = ((100, 100), (640, 480), (301, 262), (900, 300), (224, 224))  # height, width


def images_of(photos: Path) -> list[np.ndarray]:
    """Return rendered photos at sizes that are resized in each of the ways that there are."""
    files = sorted(photos.rglob("*.jpg"))[:: 30 // len(SIZES)]
    images = [Image.fromarray(decode_full_size(file.read_bytes())) for file in files]
    return [
        np.asarray(image.resize((width, height)))
        for image, (height, width) in zip(images, SIZES, strict=True)
    ]


def run_in_web(app: Path, images: list[np.ndarray], folder: Path) -> list[dict[str, np.ndarray]]:
    words = []
    for i, image in enumerate(images):
        file = folder / f"{i}.rgb"
        file.write_bytes(image.tobytes())
        words.append(f"{image.shape[1]},{image.shape[0]},{file}")
    command = ["node", HERE / "run.mjs", app, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return [{k: np.array(v) for k, v in answer.items()} for answer in json.loads(done.stdout)]


@pytest.mark.parametrize("method", ["logistic", "knn"])
@pytest.mark.parametrize(
    ("precision", "probability", "feature"),
    [(None, 2e-3, 0.02), ("fp16", 0.05, 0.1), ("int8", 1.0, 4.0)],
)
def test_a_browser_sees_what_the_pipeline_sees(
    photos: Path,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    precision: str | None,
    probability: float,
    feature: float,
) -> None:
    monkeypatch.setattr(export, "N_CALIBRATION", 8)
    output = write_result(tmp_path / "out", photos, model)
    found = train(output, method, "pca" if method == "logistic" else "features")
    app = tmp_path / "app.onnx"
    export_app(output.root, app, precision=precision)
    images = images_of(photos)
    session = Predictor.load(output.root).model.open()
    resized = [np.asarray(resize_image(Image.fromarray(image), 224)) for image in images]
    features = session.predict(np.stack(resized))
    for answer, vector, expected in zip(
        run_in_web(app, images, tmp_path), features, found.probabilities(features), strict=True
    ):
        np.testing.assert_allclose(answer["features"], vector, atol=feature)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=probability)
        assert answer["probabilities"].argmax() == expected.argmax()
        assert answer["probabilities"].sum() == pytest.approx(1, abs=1e-4)
