"""One photo's bytes to the pixels that a model takes. No Spark in here.

The rule is the notebook's (``convert("RGB")``, ``resize((224, 224))``, ``preprocess_input``) plus
what it left out: the EXIF turn, transparency, 16-bit greys and a bound on the pixels. Every
part of it is named in the feature contract, and :data:`PREPROCESS_VERSION` counts its changes.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from verger.config import MAX_PIXELS
from verger.schema import Reason

#: Raised by one whenever the same bytes would give other pixels; part of the contract.
PREPROCESS_VERSION = 1

#: Formats that photos come in. Pillow knows more: some start another program (EPS), decode before
#: their size can be looked at (ICO), or come out black where they are cut off (JPEG 2000).
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "PPM",
)  # fmt: skip

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

    def __reduce__(self) -> tuple[type[DecodeError], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; pixels come or they do not
            image.load()
            rgb = to_rgb(turn_upright(image))
            resized = resize_image(rgb, size)
    except MemoryError as err:
        raise DecodeError(Reason.TOO_MANY_PIXELS, "out of memory while decoding") from err
    except Exception as err:  # Pillow's plug-ins raise anything on hostile bytes
        raise DecodeError(_decode_reason(err, content), _one_line(err)) from err
    return Photo(np.asarray(resized), rgb.width, rgb.height)


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(content: bytes, max_pixels: int) -> Image.Image:
    if not content:
        raise DecodeError(Reason.EMPTY, "0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_known_formats())
    except UnidentifiedImageError as err:
        raise DecodeError(_unidentified_reason(content), "no decoder knows these bytes") from err
    except Exception as err:  # Pillow's plug-ins raise anything on hostile bytes
        raise DecodeError(_decode_reason(err, content), _one_line(err)) from err
    if image.width * image.height > max_pixels:
        detail = f"{image.width}x{image.height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)
    return image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn a photo as its EXIF says; EXIF that cannot be read turns nothing.

    Only the one tag is read: Pillow's ``exif_transpose`` writes the whole block anew, and gives
    up the photo where any other tag is odd.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a block of noise raises anything
        return image
    return image.transpose(turn) if turn is not None else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparent pixels onto white.

    16-bit greys keep their high byte: Pillow's own conversion clips them, and every photo
    brighter than 255/65535 would come out white. Mode ``I`` of a PGM is 16 bits too.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = np.asarray(image)
        transparent = image.info.get("transparency")
        high = (grey >> 8).astype(np.uint8)
        if isinstance(transparent, int):
            high[grey == transparent] = 255
        return Image.fromarray(high).convert("RGB")
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


_TRUNCATED_WORDS = (
    "truncated", "not processed", "unexpected end", "premature", "eof", "cannot load this image",
    "could not create decoder object", "broken data stream", "failed to decode",
)  # fmt: skip
_UNSUPPORTED_WORDS = ("unsupported", "not supported", "not available")


def _decode_reason(err: Exception, content: bytes) -> Reason:
    text = str(err).lower()
    if isinstance(err, EOFError) or any(word in text for word in _TRUNCATED_WORDS):
        # A decoder says the same of a photo that was cut off and of noise behind a good header.
        return Reason.TRUNCATED
    if isinstance(err, NotImplementedError) or any(word in text for word in _UNSUPPORTED_WORDS):
        return Reason.UNSUPPORTED_FORMAT
    return Reason.TRUNCATED if content.startswith(_PHOTO_MAGIC) else Reason.NOT_AN_IMAGE


# First bytes of photos, though this Pillow may not find one behind them.
_PHOTO_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
# JPEG XL and JPEG 2000, bare and in their containers.
_UNSUPPORTED_MAGIC = (
    b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)  # fmt: skip


def _unidentified_reason(content: bytes) -> Reason:
    if content[4:12] in (b"ftypavif", b"ftypavis") and "AVIF" in _known_formats():
        return Reason.TRUNCATED
    if content[4:8] == b"ftyp" or content.startswith(_UNSUPPORTED_MAGIC):
        return Reason.UNSUPPORTED_FORMAT
    if content.startswith(_PHOTO_MAGIC) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP"):
        return Reason.TRUNCATED
    return Reason.NOT_AN_IMAGE


def _one_line(err: Exception, limit: int = 200) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text[:limit]
