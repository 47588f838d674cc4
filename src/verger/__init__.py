"""Verger: folders and buckets of photos into feature tables that can be trusted, with Spark.

::

    import verger

    verger.load_model("mobilenet_v2").predict("apple.jpg")      # no Spark, no Java

    spark = verger.get_session()
    images = verger.read_images(spark, "photos/")
    features, rejected = verger.split_outcomes(verger.featurize(images))

Names are loaded when they are first used, so that ``import verger`` costs nothing.
``verger.__version__`` is the installed version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verger.classify.predict import Predictor
    from verger.config import Config, load_config
    from verger.engine.session import get_session
    from verger.errors import VergerError
    from verger.features.contract import FeatureContract
    from verger.features.featurize import featurize, split_outcomes
    from verger.features.model import Model, load_model
    from verger.features.model.int8 import quantize
    from verger.job.pipeline import run
    from verger.ml import PCA, ImageFeaturizer
    from verger.pca.fit import fit_pca
    from verger.pca.moments import sum_moments
    from verger.source.listing import list_photos
    from verger.source.spark_reader import read_images

_HOMES = {
    "Config": "config",
    "load_config": "config",
    "FeatureContract": "features.contract",
    "VergerError": "errors",
    "featurize": "features.featurize",
    "split_outcomes": "features.featurize",
    "PCA": "ml",
    "ImageFeaturizer": "ml",
    "Model": "features.model",
    "load_model": "features.model",
    "Predictor": "classify.predict",
    "quantize": "features.model.int8",
    "run": "job.pipeline",
    "fit_pca": "pca.fit",
    "sum_moments": "pca.moments",
    "get_session": "engine.session",
    "list_photos": "source.listing",
    "read_images": "source.spark_reader",
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


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("verger")
    if name not in _HOMES:
        raise AttributeError(f"module 'verger' has no attribute {name!r}")
    return getattr(import_module(f"verger.{_HOMES[name]}"), name)
