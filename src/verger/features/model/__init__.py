"""Weights to a function from pixels to features. No Spark in here.

:func:`load_model` runs on the driver and returns a :class:`Model`: plain bytes and numbers that
can be sent to other processes. :func:`open_cached` starts the :class:`ModelSession` that runs it.
"""

from verger.features.model.card import CARDS, ModelCard, find_card
from verger.features.model.golden import (
    GOLDEN_TOLERANCE,
    golden_pixels,
    golden_vector,
    published_golden,
)
from verger.features.model.load import load_model
from verger.features.model.model import N_SESSIONS, Model, open_cached
from verger.features.model.session import ModelSession, Pixels, Vector, import_onnxruntime

__all__ = [
    "CARDS",
    "GOLDEN_TOLERANCE",
    "N_SESSIONS",
    "Model",
    "ModelCard",
    "ModelSession",
    "Pixels",
    "Vector",
    "find_card",
    "golden_pixels",
    "golden_vector",
    "import_onnxruntime",
    "load_model",
    "open_cached",
    "published_golden",
]
