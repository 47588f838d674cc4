"""One photo's bytes to the pixels that a model takes. No Spark in here.

The rule is the notebook's (``convert("RGB")``, ``resize((224, 224))``, ``preprocess_input``) plus
what it left out: the EXIF turn, transparency, 16-bit greys, a bound on the pixels, and large
JPEGs at a reduced scale. Every part of it is named in the feature contract, and
:data:`PREPROCESS_VERSION` counts its changes.

A photo that was cut off is never passed as whole. Missing bytes are noticed in every format,
and so is a JPEG that something closed with an end marker after it was cut. What cannot be
noticed are bytes replaced by as many others: an uncompressed picture whose rest is zeros is a
picture that is black there.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from verger.config import MAX_PIXELS
from verger.features.preprocess.jpeg import JPEG_MAGIC, Jpeg, is_deep_jpeg, without_cut_segment
from verger.schema import Reason

#: Raised by one whenever the same bytes would give other pixels; part of the contract.
PREPROCESS_VERSION = 2

#: How many times the model's input the shorter side of a JPEG must still measure where it is
#: decoded at a reduced scale; benchmarks/LARGE_PHOTOS.md compares 1 to 4.
DCT_MARGIN = 2

#: Formats that photos come in; HEIF where the package ``pillow_heif`` is. Pillow knows more: some
#: start another program (EPS), decode before their size can be looked at (ICO), or come out black
#: where they are cut off (JPEG 2000).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "PPM")

# Verger's bound (max_pixels) is set for each photo, and refuses; Pillow's own warns of it wherever
# a photo is opened in this process, the notebook's cells included.
Image.MAX_IMAGE_PIXELS = None

# Held while Pillow decodes: how many pixels it takes, and whether it takes photos that were cut
# off, are global values.
_pillow_lock = threading.Lock()


def _renew_lock() -> None:
    """Give a forked child a lock that nobody holds: the holding thread was not copied."""
    global _pillow_lock
    _pillow_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


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
    truncated : bool
        The file was cut off or broken: a part of the pixels is Pillow's filling, grey or black.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    truncated: bool = False


def decode_photo(
    content: bytes, *, size: int, max_pixels: int = MAX_PIXELS, accept_truncated: bool = False
) -> Photo:
    """Decode, turn and resize one photo.

    Parameters
    ----------
    content : bytes
        The file as it is: any format that Pillow reads, the first frame of an animation.
    size : int
        Height and width of the result in pixels.
    max_pixels : int
        Largest width x height that is decoded.
    accept_truncated : bool
        Take what there is of a photo that was cut off or is broken, and mark it. Whole photos
        give the same pixels either way.

    Returns
    -------
    Photo

    Raises
    ------
    DecodeError
        With a reason of the closed list, whatever the bytes are. With ``accept_truncated`` too,
        where no pixel came: WebP, AVIF, HEIC and compressed TIFF come whole or not at all.
    """
    try:
        return _decode(content, size, max_pixels)
    except DecodeError as err:
        if not accept_truncated or err.reason is not Reason.TRUNCATED:
            raise
        reason, detail = err.reason, err.detail
    # Outside the handler, whose traceback holds the pixels of the first try.
    with suppress(DecodeError):
        photo = _decode_part(content, size, max_pixels)
        if photo is not None:
            return photo
    raise DecodeError(reason, detail)


def _decode(content: bytes, size: int, max_pixels: int) -> Photo:
    with _pillow(max_pixels, load_truncated=False):
        image = _open(content, max_pixels, size)
        with _decode_errors(is_photo=True):
            _load_whole(image, content, max_pixels)
            turn = _turn_of(image)
            seen, box = _size_seen(image, turn), _box_seen(image, turn)
            # One name for every step, so that no more than two of them are in memory.
            image = image if turn is None else image.transpose(turn)
            image = to_rgb(image)
            return Photo(np.asarray(resize_image(image, size, box)), *seen)


def _load_whole(image: Image.Image, content: bytes, max_pixels: int) -> None:
    if isinstance(image, Jpeg):
        image.load_whole(content)
    else:
        image.load()
    _check_pixels(image, max_pixels)  # a HEIC file's size is known only now


def decode_full_size(content: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode and turn one photo, and leave its size: what a program sees that shows it.

    Parameters
    ----------
    content : bytes
    max_pixels : int
        Largest width x height that is decoded.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB, transparent pixels onto white.

    Raises
    ------
    DecodeError
        As from :func:`decode_photo`.
    """
    with _pillow(max_pixels, load_truncated=False):
        image = _open(content, max_pixels, None)
        with _decode_errors(is_photo=True):
            _load_whole(image, content, max_pixels)
            turn = _turn_of(image)
            return np.asarray(to_rgb(image if turn is None else image.transpose(turn)))


def _decode_part(content: bytes, size: int, max_pixels: int) -> Photo | None:
    """Decode what there is of a photo; None if that is a single colour.

    A single colour cannot be told from Pillow's filling, so nothing is known of the photo.
    """
    if content.startswith(JPEG_MAGIC):
        content = without_cut_segment(content)
    with _pillow(max_pixels, load_truncated=True):
        image = _open(content, max_pixels, size)
        with _decode_errors(is_photo=True):
            image.load()
            _check_pixels(image, max_pixels)
            turn = _turn_of(image)
            seen, box = _size_seen(image, turn), _box_seen(image, turn)
            image = image if turn is None else image.transpose(turn)
            image = to_rgb(image)
            if not np.ptp(image.getextrema(), axis=1).any():  # (red, green, blue) x (min, max)
                return None
            return Photo(np.asarray(resize_image(image, size, box)), *seen, truncated=True)


def _size_seen(image: Image.Image, turn: Image.Transpose | None) -> tuple[int, int]:
    """Return width and height of the whole photo once it is turned, at whatever scale it is."""
    width, height = getattr(image, "full_size", None) or image.size
    return (height, width) if turn in _ON_ITS_SIDE else (width, height)


Box = tuple[float, float, float, float]


def _box_seen(image: Image.Image, turn: Image.Transpose | None) -> Box | None:
    """Return what a reduced photo fills of its pixels once they are turned; None for all."""
    if not isinstance(image, Jpeg) or image.extent is None:
        return None
    width, height = image.extent
    left = image.width - width if turn in _MIRRORS_X else 0.0
    top = image.height - height if turn in _MIRRORS_Y else 0.0
    if turn in _ON_ITS_SIDE:
        return top, left, top + height, left + width
    return left, top, left + width, top + height


@contextmanager
def _pillow(max_pixels: int, *, load_truncated: bool) -> Iterator[None]:
    """Set Pillow's global switches for one photo, whatever the process has set them to."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; pixels come or they do not
        # Our own check comes when a photo has been opened, and a GIF allocates before that.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, load_truncated
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _decode_errors(*, is_photo: bool) -> Iterator[None]:
    """Raise whatever a decoder raises as a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except MemoryError as err:
        raise DecodeError(Reason.TOO_MANY_PIXELS, "out of memory while decoding") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        size = str(err).partition(" exceeds")[0]
        detail = f"{size} is more than max_pixels={Image.MAX_IMAGE_PIXELS}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail) from err
    except Exception as err:  # Pillow's plug-ins raise anything on hostile bytes
        raise DecodeError(_decode_reason(err, is_photo), _one_line(err)) from err


@cache
def known_formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that this process can decode; looked up once.

    Their plug-ins are imported and set here, and not for a JPEG.
    """
    from PIL import AvifImagePlugin, PngImagePlugin

    # Pillow gives a PNG up for one long text or colour profile: 1 MiB of it unpacked. The bound
    # on all of its texts, 64 MiB, is bound enough.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    # One process a core, one thread a process; and each thread takes address space, which is
    # bounded where photos are decoded apart.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    except ImportError:  # not installed, or installed without its library
        pass
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(content: bytes, max_pixels: int, size: int | None) -> Image.Image:
    """Read a photo's header, and choose the scale at which a JPEG is decoded; None is 1/1."""
    if not content:
        raise DecodeError(Reason.EMPTY, "0 bytes")
    with _decode_errors(is_photo=content.startswith(_PHOTO_MAGIC)):
        image = _identify(content)
        _check_pixels(image, max_pixels)
        if isinstance(image, Jpeg) and size is not None:
            image.reduce_scale(DCT_MARGIN * size)
    return image


def _identify(content: bytes) -> Image.Image:
    try:
        if content.startswith(JPEG_MAGIC):
            # Not by way of Pillow's reader for MPO, which gives the photo up where the list of
            # further frames is broken.
            return Jpeg(io.BytesIO(content))
        return Image.open(io.BytesIO(content), formats=known_formats())
    except (UnidentifiedImageError, SyntaxError) as err:
        raise DecodeError(_unidentified_reason(content), "no decoder knows these bytes") from err


_TILE = (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        detail = f"{image.width}x{image.height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)
    # A TIFF may lie in tiles much larger than itself, and each is decoded as a whole.
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag) for tag in _TILE)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        detail = f"a tile of {width}x{height} is more than max_pixels={max_pixels}"
        raise DecodeError(Reason.TOO_MANY_PIXELS, detail)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_ON_ITS_SIDE = tuple(_TURNS[turn] for turn in (5, 6, 7, 8))


# A turn is a mirror of either axis, or none, or both, and then the axes may change places.
_MIRRORS_X = tuple(_TURNS[turn] for turn in (2, 3, 7, 8))
_MIRRORS_Y = tuple(_TURNS[turn] for turn in (3, 4, 6, 7))


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how a photo is turned upright; EXIF that cannot be read turns nothing.

    Only the one tag is read: Pillow's ``exif_transpose`` writes the whole block anew, and gives
    up the photo where any other tag is odd.
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a block of noise raises anything
        return None


#: Pixels that are converted at a time: three copies of them are 12 MB.
_STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparent pixels onto white.

    16-bit greys keep their high byte: Pillow's own conversion clips them, and every photo
    brighter than 255/65535 would come out white. Mode ``I`` of a PGM is 16 bits too. Inks are
    read as Adobe writes them (0 is full), whether the file says so or not, as browsers do.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _in_strips(image, _grey_16_to_rgb)
    if image.has_transparency_data:
        return _in_strips(image, _onto_white)
    return image.convert("RGB")


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a few rows at a time, so that nothing but source and result is in memory whole."""
    n_rows = max(1, _STRIP_PIXELS // image.width)
    if n_rows >= image.height:
        return convert(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, n_rows):
        box = (0, top, image.width, min(top + n_rows, image.height))
        rgb.paste(convert(image.crop(box)), box)
    return rgb


def _grey_16_to_rgb(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)  # (height, width), uint16 or int32
    transparent = image.info.get("transparency")
    high = (grey >> 8).astype(np.uint8)
    if isinstance(transparent, int):
        high[grey == transparent] = 255
    return Image.fromarray(high).convert("RGB")


def _onto_white(image: Image.Image) -> Image.Image:
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(white, seen).convert("RGB")


def resize_image(image: Image.Image, size: int, box: Box | None = None) -> Image.Image:
    """Resize an RGB image to (size, size) as Pillow's ``resize`` does by default: bicubic.

    Parameters
    ----------
    image : Image
    size : int
    box : (left, top, right, bottom), optional
        What the photo fills of it. At 1/8 of 1001 pixels that is 125.125 of 126; taken as all of
        them, features of large photos were off by up to a cosine of 0.989.
    """
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


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


_MEMORY_WORDS = ("memory", "decompressed data too large")
_TRUNCATED_WORDS = (
    "truncated",
    "not processed",
    "unexpected end",
    "premature",
    "eof",
    "cannot load this image",
    "could not create decoder object",
    "broken data stream",
    "failed to decode",
)
_UNSUPPORTED_WORDS = ("unsupported", "not supported", "not available")


def _decode_reason(err: Exception, is_photo: bool) -> Reason:
    text = str(err).lower()
    if any(word in text for word in _MEMORY_WORDS):
        return Reason.TOO_MANY_PIXELS
    if isinstance(err, EOFError) or any(word in text for word in _TRUNCATED_WORDS):
        # A decoder says the same of a photo that was cut off and of noise behind a good header.
        return Reason.TRUNCATED
    if isinstance(err, NotImplementedError) or any(word in text for word in _UNSUPPORTED_WORDS):
        return Reason.UNSUPPORTED_FORMAT
    return Reason.TRUNCATED if is_photo else Reason.NOT_AN_IMAGE


# First bytes of photos, though this Pillow may not find one behind them.
_PHOTO_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
# JPEG XL and JPEG 2000, bare and in their containers.
_UNSUPPORTED_MAGIC = (
    b"\xff\x0a",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)


# Brands of the files that hold an AVIF or a HEIC photo, behind their size and "ftyp".
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
# The box that says an AVIF's width and height. libavif refuses more pixels by itself.
_AVIF_SIZE = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_AVIF_MAX_PIXELS = 16384 * 16384


def _unidentified_reason(content: bytes) -> Reason:
    if content[4:8] == b"ftyp":
        return _unidentified_media_reason(content)
    if content.startswith(_UNSUPPORTED_MAGIC) or is_deep_jpeg(content):
        return Reason.UNSUPPORTED_FORMAT
    if content.startswith(_PHOTO_MAGIC) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP"):
        return Reason.TRUNCATED
    return Reason.NOT_AN_IMAGE


def _unidentified_media_reason(content: bytes) -> Reason:
    form = next((name for name in _BRANDS if content[8:12] in _BRANDS[name]), None)
    if form not in known_formats():
        return Reason.UNSUPPORTED_FORMAT
    size = _AVIF_SIZE.search(content, 0, 4096) if form == "AVIF" else None
    if size and int.from_bytes(size[1]) * int.from_bytes(size[2]) > _AVIF_MAX_PIXELS:
        return Reason.TOO_MANY_PIXELS
    return Reason.TRUNCATED


def _one_line(err: Exception, limit: int = 200) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text[:limit]
