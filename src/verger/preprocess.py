"""One photo's bytes to the pixels that a model takes. No Spark in here.

The rule is the notebook's (``convert("RGB")``, ``resize((224, 224))``, ``preprocess_input``) plus
what it left out: the EXIF turn, transparency, 16-bit greys and a bound on the pixels. Every
part of it is named in the feature contract, and :data:`PREPROCESS_VERSION` counts its changes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from verger.config import MAX_PIXELS
from verger.schema import Reason

#: Raised by one whenever the same bytes would give other pixels; part of the contract.
PREPROCESS_VERSION = 1

# Verger has a bound of its own (max_pixels), checked before a pixel is decoded; Pillow's
# warns where ours refuses, and is one global value for the whole process.
Image.MAX_IMAGE_PIXELS = None
# A photo that was cut off is rejected, never passed as whole with a grey rest.
ImageFile.LOAD_TRUNCATED_IMAGES = False


class DecodeError(Exception):
    """A photo that gives no pixels; becomes a row of ``rejected``, never the end of a run.

    Attributes
    ----------
    reason : Reason
        The closed list's word for it.
    detail : str
        What the decoder said.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes
    ----------
    pixels : ndarray of shape (size, size, 3), uint8
        RGB, already resized to the model's input.
    width, height : int
        Pixels of the photo as it is seen, after the EXIF turn and before the resize.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int


def decode_photo(content: bytes, *, size: int, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode, turn and resize one photo.

    Parameters
    ----------
    content : bytes
        The file as it is: any format that Pillow reads, the first frame of an animation.
    size : int
        Height and width of the result in pixels.
    max_pixels : int
        Largest width x height that is decoded.

    Returns
    -------
    Photo

    Raises
    ------
    DecodeError
        With a reason of the closed list, whatever the bytes are.
    """
    image = _open(content, max_pixels)
    try:
        image.load()
        rgb = to_rgb(ImageOps.exif_transpose(image))
        resized = resize_image(rgb, size)
    except MemoryError as err:
        raise DecodeError(Reason.TOO_MANY_PIXELS, "out of memory while decoding") from err
    except Exception as err:
        raise DecodeError(_decode_reason(err), _one_line(err)) from err
    return Photo(np.asarray(resized), rgb.width, rgb.height)


def _open(content: bytes, max_pixels: int) -> Image.Image:
    if not content:
        raise DecodeError(Reason.EMPTY, "0 bytes")
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as err:
        raise DecodeError(_unidentified_reason(content), "no decoder knows these bytes") from err
    except Exception as err:
        raise DecodeError(_decode_reason(err), _one_line(err)) from err
    if image.width * image.height > max_pixels:
        detail = f"{image.width}x{image.height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparent pixels onto white.

    16-bit greys keep their high byte: Pillow's own conversion clips them, and every photo
    brighter than 255/65535 would come out white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def resize_image(image: Image.Image, size: int) -> Image.Image:
    """Resize an RGB image to (size, size) as Pillow's ``resize`` does by default: bicubic."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def normalize(
    pixels: npt.NDArray[np.uint8], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Bring pixels to the range that the model was trained on.

    Computed as ``pixels / std - mean / std`` in float32, which for mean = std = 127.5 is to the
    bit what Keras' ``mobilenet_v2.preprocess_input`` computes.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 3), uint8
    mean, std : tuple of 1 or 3 floats
        In units of a pixel, 0 to 255.

    Returns
    -------
    ndarray of shape (n, height, width, 3), float32
    """
    spread = np.asarray(std, dtype=np.float32)
    scaled = pixels.astype(np.float32)
    scaled /= spread
    scaled -= np.asarray(mean, dtype=np.float32) / spread
    return scaled


_TRUNCATED_WORDS = ("truncated", "not processed", "unexpected end", "premature", "eof")


def _decode_reason(err: Exception) -> Reason:
    text = str(err).lower()
    if isinstance(err, EOFError) or any(word in text for word in _TRUNCATED_WORDS):
        return Reason.TRUNCATED
    if isinstance(err, NotImplementedError) or "unsupported" in text or "not available" in text:
        return Reason.UNSUPPORTED_FORMAT
    return Reason.NOT_AN_IMAGE


# First bytes of formats that are photos, though this Pillow may have no decoder for them.
_PHOTO_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


def _unidentified_reason(content: bytes) -> Reason:
    if content[4:8] == b"ftyp" or content[:4] == b"\xff\x0a" or content[:4] == b"RIFF":
        return Reason.UNSUPPORTED_FORMAT
    return Reason.TRUNCATED if content.startswith(_PHOTO_MAGIC) else Reason.NOT_AN_IMAGE


def _one_line(err: Exception, limit: int = 200) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text[:limit]
