"""Verger: folders and buckets of photos into feature tables that can be trusted, with Spark.

::

    import verger

    verger.load_model("mobilenet_v2").predict("apple.jpg")      # no Spark, no Java

    spark = verger.get_session()
    images = verger.read_images(spark, "photos/")
    features, rejected = verger.split_outcomes(verger.featurize(images))

Names are loaded when they are first used, so that ``import verger`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verger.config import Config, load_config
    from verger.contract import FeatureContract
    from verger.errors import VergerError
    from verger.features import featurize, split_outcomes
    from verger.ml import PCA, ImageFeaturizer
    from verger.model import Model, load_model
    from verger.model.int8 import quantize
    from verger.pipeline import run
    from verger.predict import Predictor
    from verger.reduce import fit_pca, sum_moments
    from verger.session import get_session
    from verger.source import list_photos, read_images

_HOMES = {
    "Config": "config",
    "load_config": "config",
    "FeatureContract": "contract",
    "VergerError": "errors",
    "featurize": "features",
    "split_outcomes": "features",
    "PCA": "ml",
    "ImageFeaturizer": "ml",
    "Model": "model",
    "load_model": "model",
    "Predictor": "predict",
    "quantize": "model.int8",
    "run": "pipeline",
    "fit_pca": "reduce",
    "sum_moments": "reduce",
    "get_session": "session",
    "list_photos": "source",
    "read_images": "source",
}

__all__ = [
    "PCA",
    "Config",
    "FeatureContract",
    "ImageFeaturizer",
    "Model",
    "Predictor",
    "VergerError",
    "featurize",
    "fit_pca",
    "get_session",
    "list_photos",
    "load_config",
    "load_model",
    "quantize",
    "read_images",
    "run",
    "split_outcomes",
    "sum_moments",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'verger' has no attribute {name!r}")
    return getattr(import_module(f"verger.{_HOMES[name]}"), name)
