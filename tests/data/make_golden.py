"""Make the golden numbers that the tests hold Verger to, by Keras itself.

    python tests/data/make_golden.py [--check] WEIGHTS.h5 PHOTOS

with ``pip install -e '.[reference]'``, the real MobileNetV2 weights without top and the folder
``Test`` of Fruits-360. It writes

- ``src/verger/model/golden.npz``: features of Verger's golden photo, ``mobilenet_v2`` by Keras with
  the real weights, ``efficientnet_lite0`` by Verger's own graph (its proof is the 1000-class top,
  ``tests/unit/features/test_efficientnet_lite0.py``);
- ``tests/data/golden_photos.npz``: Keras' features of 24 real photos, with the real weights;
- ``tests/data/golden_random.npz``: Keras' features of the golden photo, with the random weights
  that ``tests/support/weights.py`` writes, so that a machine without the real weights
  proves as much.

With ``--check`` nothing is written: Keras' numbers are compared with the files and with Verger's.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from PIL import Image

from support.weights import write_random_weights
from verger.features.model import golden_pixels, load_model

HERE = Path(__file__).parent

N_PHOTOS = 24


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    arguments = parser.parse_args()
    for path, arrays in by_keras(arguments.weights, arguments.photos).items():
        if arguments.check:
            compare(path, arrays)
        else:
            np.savez_compressed(path, **arrays)


def by_keras(real: Path, photos: Path) -> dict[Path, dict[str, np.ndarray]]:
    """Return the arrays of each golden file."""
    golden = golden_pixels(224)[None]
    names = chosen(photos)
    pixels = np.stack([notebook_pixels(photos / name) for name in names])
    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder) / "random.h5"
        write_random_weights(random, seed=0)
        of_random = keras_features(random, golden)[0]
    return {
        HERE.parents[1] / "src/verger/model/golden.npz": {
            "mobilenet_v2": keras_features(real, golden)[0],
            "efficientnet_lite0": load_model("efficientnet_lite0").golden,
        },
        HERE / "golden_photos.npz": {
            "names": np.array(names),
            "features": keras_features(real, pixels),
        },
        HERE / "golden_random.npz": {"features": of_random},
    }


def compare(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Hold Keras' numbers of today to those of the file."""
    stored = np.load(path)
    for name, array in arrays.items():
        if array.dtype.kind == "U":
            assert (stored[name] == array).all(), f"{path.name}: other photos"
            continue
        difference = np.abs(stored[name] - array).max()
        print(f"{path.name} {name}: differs by {difference:.1e} from Keras today")
        assert difference <= 1e-4


def chosen(photos: Path) -> list[str]:
    """Return the names of 24 photos, spread over all classes."""
    classes = sorted(folder for folder in photos.iterdir() if folder.is_dir())
    step = len(classes) // N_PHOTOS
    folders = classes[::step][:N_PHOTOS]
    return [min(folder.glob("*.jpg")).relative_to(photos).as_posix() for folder in folders]


def notebook_pixels(path: Path) -> np.ndarray:
    """Return pixels as the notebook makes them, before preprocess_input."""
    return np.asarray(Image.open(path).convert("RGB").resize((224, 224)))


def keras_features(weights: Path, pixels: np.ndarray) -> np.ndarray:
    """Return (n, 1280) float32 by Keras' own network and preprocessing."""
    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(224, 224, 3), pooling="avg"
    )
    network.load_weights(weights)
    image = keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    return network.predict(image, verbose=0)


if __name__ == "__main__":
    main()
