"""Pillow's plug-ins and its global settings, which hold only while one photo is decoded."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image

#: Formats that photos come in; HEIF only with the package ``pillow_heif``. Pillow reads more, but
#: some start another program (EPS), decode before their size is known (ICO), or come out black
#: where they are cut off (JPEG 2000).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "PPM")

# Held while Pillow decodes, because its settings are global.
_lock = threading.Lock()


def _renew_lock() -> None:
    """Give a forked child a free lock: the thread that held it does not exist there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@cache
def register_formats() -> tuple[str, ...]:
    """Register the plug-ins of Pillow and of ``pillow_heif`` in this process, once.

    A process that decodes nothing but JPEGs never needs them.

    Returns
    -------
    tuple of str
        Those of :data:`FORMATS` that this process can decode.
    """
    try:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    except ImportError:  # not installed, or installed without its library
        pass
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def pillow_settings(max_pixels: int, *, load_truncated: bool) -> Iterator[None]:
    """Set Pillow's global settings for one photo, and restore the process' own after it.

    Threads that decode by Verger wait for one another.

    Parameters
    ----------
    max_pixels : int
        Pillow's own bound instead of its default: a GIF allocates before Verger can check it.
    load_truncated : bool
        Whether Pillow fills in what is missing of a photo that was cut off.
    """
    values: dict[tuple[str, str], object] = {
        ("PIL.Image", "MAX_IMAGE_PIXELS"): max_pixels,
        ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"): load_truncated,
        # Whether TIFFs without compression go through libtiff; chosen for each of them.
        ("PIL.TiffImagePlugin", "READ_LIBTIFF"): False,
        # One process a core, one thread a process. Each thread takes address space, which is
        # bounded where photos are decoded in a process of their own.
        ("PIL.AvifImagePlugin", "DEFAULT_MAX_THREADS"): 1,
    }
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        loaded = {key: sys.modules[key[0]] for key in values if key[0] in sys.modules}
        before = {key: getattr(module, key[1]) for key, module in loaded.items()}
        try:
            for key, module in loaded.items():
                setattr(module, key[1], values[key])
            yield
        finally:
            for key, module in loaded.items():
                setattr(module, key[1], before[key])
