"""One photo's bytes to the pixels that a model takes. No Spark in here.

The rule is the notebook's (``convert("RGB")``, ``resize((224, 224))``, ``preprocess_input``) plus
what it left out: the EXIF turn, transparency, samples of other than 8 bits, a bound on the pixels,
and large JPEGs at a reduced scale. Every part of it is named in the feature contract, and
:data:`PREPROCESS_VERSION` counts its changes.

A photo that was cut off is never passed as whole. Missing bytes are noticed in every format,
and so is a JPEG that something closed with an end marker after it was cut
(:mod:`verger.features.preprocess.jpeg` says which of these nobody can tell). What cannot be
noticed are bytes replaced by as many others: an uncompressed picture whose rest is zeros is a
picture that is black there.
"""

from verger.features.preprocess.decode import (
    DCT_MARGIN,
    PREPROCESS_VERSION,
    Photo,
    decode_full_size,
    decode_photo,
)
from verger.features.preprocess.pillow import FORMATS, register_formats
from verger.features.preprocess.pixels import normalize, to_rgb
from verger.features.preprocess.reasons import DecodeError
from verger.features.preprocess.resizing import SQUARE, Resizing, resize_image
from verger.features.preprocess.views import CROPS, cut_views, n_views

__all__ = [
    "CROPS",
    "DCT_MARGIN",
    "FORMATS",
    "PREPROCESS_VERSION",
    "SQUARE",
    "DecodeError",
    "Photo",
    "Resizing",
    "cut_views",
    "decode_full_size",
    "decode_photo",
    "n_views",
    "normalize",
    "register_formats",
    "resize_image",
    "to_rgb",
]
