"""TIFF's tags that say what its samples are: those that Pillow leaves out or reads half."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

from PIL import ExifTags, Image, ImagePalette, TiffImagePlugin, UnidentifiedImageError

from verger.features.preprocess.directory import (
    byte_order,
    holds_its_pixels,
    read_entries,
    value_of,
)
from verger.features.preprocess.layout import Layout, low_bytes, rawmodes, set_rawmodes
from verger.features.preprocess.pillow import register_formats
from verger.features.preprocess.reasons import DecodeError
from verger.features.preprocess.samples import Scale
from verger.schema import Reason

Tag = ExifTags.Base
# What the tags say of samples.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_SEPARATE_PLANES, _OTHER_INKS = 2, 2
# Compressions of black and white: there 0 is white where no tag says otherwise.
_FAX = ("tiff_ccitt", "group3", "group4")
# libtiff gives every sample in this machine's byte order; Pillow takes these for the file's.
_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}


def open_tiff(content: bytes) -> Image.Image:
    """Open a TIFF, by libtiff where Pillow's own reader would mistake the order of its samples.

    Pillow knows some greys only with black at 0: then the tag of the opened image still says what
    the file says, but its samples are not inverted.

    Raises
    ------
    UnidentifiedImageError
        If it is cut off.
    DecodeError
        'unsupported format', if it is whole, and Pillow knows no such samples or compression.
    """
    try:
        return _open_with_any_white(content)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError) as err:
        if holds_its_pixels(content):
            raise _unsupported("samples or a compression that Pillow does not know") from err
        raise


def _open_with_any_white(content: bytes) -> Image.Image:
    try:
        return _open(content)
    except UnidentifiedImageError:
        image = _open(_with_black_at_0(content))
        if not isinstance(image, TiffImagePlugin.TiffImageFile) or len(image.getbands()) > 1:
            raise
        image.tag_v2[Tag.PhotometricInterpretation] = _WHITE_IS_ZERO
        return image


def _open(content: bytes) -> Image.Image:
    for by_libtiff in (False, True):
        TiffImagePlugin.READ_LIBTIFF = by_libtiff  # pillow_settings restores it
        try:
            image = Image.open(io.BytesIO(content), formats=register_formats())
        except UnidentifiedImageError:
            if by_libtiff:
                raise
            continue
        if by_libtiff or not isinstance(image, TiffImagePlugin.TiffImageFile) or _is_plain(image):
            break
    return image


def _with_black_at_0(content: bytes) -> bytes:
    """Return a TIFF that says white is 0 as one that says black is."""
    for entry in read_entries(content) or ():
        if entry.tag == Tag.PhotometricInterpretation and not any(entry.value):
            one = _BLACK_IS_ZERO.to_bytes(2, byte_order(content))
            return content[: entry.place] + one + content[entry.place + 2 :]
    raise UnidentifiedImageError


# Compressions that Pillow hands on to libtiff, which may be built without them.
_OPTIONAL = ("webp", "tiff_raw_16", "tiff_thunderscan", "tiff_sgilog", "tiff_sgilog24")


def load_tiff(image: TiffImagePlugin.TiffImageFile, content: bytes) -> None:
    """Decode a TIFF.

    Raises
    ------
    DecodeError
        'unsupported format', if it is whole, and libtiff has no decoder for it.
    """
    try:
        image.load()
    except OSError as err:
        packing = image.info["compression"]
        if packing in _OPTIONAL and holds_its_pixels(content):
            raise _unsupported(f"libtiff does not decode {packing}") from err
        raise


def _is_plain(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow reads the samples in the order in which they are stored.

    Its own reader, for files without compression, takes planes of 16 bits for 8, forgets in planes
    which grey is white, and takes colour differences for as many as the pixels.
    """
    tags = image.tag_v2
    if not image.tile or image.tile[0].codec_name == "libtiff":
        return True
    if tags.get(Tag.PlanarConfiguration, 1) != 1 or tags.get(Tag.FillOrder, 1) != 1:
        return False
    if image.mode != "YCbCr":
        return True
    n_bytes = sum(tags.get(Tag.StripByteCounts) or tags.get(Tag.TileByteCounts) or ())
    is_full = n_bytes == 3 * image.width * image.height
    sampling = tags.get(Tag.YCbCrSubSampling, (1, 1) if is_full else (2, 2))
    black_white = tags.get(Tag.ReferenceBlackWhite, _FULL_RANGE)
    return (
        sampling == (1, 1)
        and tuple(map(float, black_white)) == _FULL_RANGE
        and Tag.YCbCrCoefficients not in tags
    )


_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def tiff_layout(image: TiffImagePlugin.TiffImageFile, content: bytes) -> Layout:
    """Tell what a TIFF's samples are.

    Raises
    ------
    DecodeError
        'unsupported format', where the tags do not say it, or Pillow cannot read it.
    """
    tags = image.tag_v2
    if _are_tags_lost(content):
        raise DecodeError(Reason.TRUNCATED, "the directory of the TIFF is cut off")
    packing = image.info["compression"]
    if Tag.PhotometricInterpretation not in tags and packing not in (*_FAX, "tiff_jpeg"):
        raise _unsupported("no tag says whether 0 is black")
    if tags.get(Tag.InkSet, 1) == _OTHER_INKS:
        raise _unsupported("its inks are not CMYK")
    planes = tags.get(Tag.PlanarConfiguration, 1)
    if planes == _SEPARATE_PLANES and not _are_planes_read(image):
        raise _unsupported(f"planes of {image.mode}")
    if image.tile[0].codec_name == "libtiff":
        set_rawmodes(image, _NATIVE)
    if image.mode in ("P", "PA") and max(tags[Tag.ColorMap]) < 256:  # 8 bits instead of 16
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[Tag.ColorMap]))
    is_deep = rawmodes(image)[0][-4:] in (";16L", ";16B", ";16N") and len(image.getbands()) > 1
    read_low = _no_low_bytes if planes == _SEPARATE_PLANES else partial(low_bytes, content)
    return Layout(
        scale=_scale(image),
        low_bytes=read_low if is_deep else None,
        is_alpha_sure=image.mode != "RGBA" or Tag.ExtraSamples in tags,
    )


def _no_low_bytes() -> Image.Image:
    raise _unsupported("planes of 16 bits, of which Pillow reads only the high 8")


#: What decides on the meaning of samples: without one of these tags the others mislead.
_TAGS = frozenset(
    {
        Tag.BitsPerSample,
        Tag.PhotometricInterpretation,
        Tag.FillOrder,
        Tag.Orientation,
        Tag.PlanarConfiguration,
        Tag.ColorMap,
        Tag.InkSet,
        Tag.ExtraSamples,
        Tag.SampleFormat,
        Tag.SMinSampleValue,
        Tag.SMaxSampleValue,
        Tag.YCbCrCoefficients,
        Tag.YCbCrSubSampling,
        Tag.ReferenceBlackWhite,
    }
)


def _are_tags_lost(content: bytes) -> bool:
    """Whether the directory, or a value of it, ends behind the end of the file: Pillow goes on."""
    entries = read_entries(content)
    return entries is None or any(
        entry.tag in _TAGS and value_of(entry, content) is None for entry in entries
    )


def _are_planes_read(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether libtiff and Pillow put the planes of this mode together."""
    if image.mode == "RGBA":
        return len(image.tag_v2.get(Tag.ExtraSamples, ())) == 1
    return len(image.getbands()) == 1 or image.mode in ("RGB", "CMYK")


def _scale(image: TiffImagePlugin.TiffImageFile) -> Scale | None:
    """Return the range of the samples; None where Pillow's 8 bits are the pixels already."""
    tags, mode = image.tag_v2, image.mode
    photometric = tags.get(Tag.PhotometricInterpretation, _WHITE_IS_ZERO)
    bits, kind = tags.get(Tag.BitsPerSample, (1,))[0], tags.get(Tag.SampleFormat, (1,))[0]
    if photometric == _PALETTE or mode == "1":
        return None
    usual = _usual_range(bits, kind)
    low, high = (
        _ends(image, tag, end)
        for tag, end in zip((Tag.SMinSampleValue, Tag.SMaxSampleValue), usual, strict=True)
    )
    is_usual = (set(low), set(high)) == ({usual[0]}, {usual[1]})
    is_deep = mode[0] in "IF" or kind == _SIGNED
    if is_usual and not is_deep:
        return None
    name = f"SMinSampleValue={low[0]:g}, SMaxSampleValue={high[0]:g}"
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise _unsupported(f"{name}: no range")
    if not is_usual and (photometric > _RGB or "a" in rawmodes(image)[0]):
        raise _unsupported(f"{name} of samples that are neither grey nor RGB")
    return Scale(
        low,
        high,
        dtype={_UNSIGNED: "uint", _SIGNED: "int", _FLOAT: "float"}[kind] + str(_stored_bits(bits)),
        widened=255 // (2**bits - 1) if bits < 8 else 1,
        white_is_low=photometric == _WHITE_IS_ZERO,
        is_inverted=mode == "L" and rawmodes(image)[0].endswith("I"),
    )


def _stored_bits(bits: int) -> int:
    return next(stored for stored in (8, 16, 32) if bits <= stored)


def _usual_range(bits: int, kind: int) -> tuple[int, int]:
    if kind == _FLOAT:
        return 0, 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == _SIGNED else (0, 2**bits - 1)


def _ends(image: TiffImagePlugin.TiffImageFile, tag: int, usual: int) -> tuple[float, ...]:
    """Return one end of the range for each band; one value of the tag is that of every colour."""
    values: Any = image.tag_v2.get(tag, ())
    try:
        ends = [float(value) for value in values]  # of bytes too
    except (TypeError, ValueError) as err:
        raise _unsupported(f"tag {tag} is no number") from err
    n_bands = len(image.getbands())
    n_samples = image.tag_v2.get(Tag.SamplesPerPixel, 1)
    if len(ends) not in (0, n_samples) and image.tile[0].codec_name == "libtiff":
        raise _unsupported(f"tag {tag} has {len(ends)} values for {n_samples} samples")
    if len(ends) == 1:
        ends *= 3 if n_bands >= 3 else 1
    return tuple((ends + [float(usual)] * n_bands)[:n_bands])


def _unsupported(detail: str) -> DecodeError:
    return DecodeError(Reason.UNSUPPORTED_FORMAT, f"TIFF: {detail}")
