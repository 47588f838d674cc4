"""Which JPEGs are whole, which were cut off and closed again, and which no libjpeg decodes.

``tests/data/jpeg`` has what Pillow does not write: 64x48 pixels by libjpeg-turbo's ``cjpeg -quality
60``, with ``-arithmetic``, ``-arithmetic -progressive``, ``-scans`` of one component each, and
``-scans`` of a progressive script that leaves out the coefficients from 21 on; and 24x16 pixels,
lossless, by imagecodecs' ``jpeg8_encode(..., lossless=True)``.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.corpus import encoded
from verger.features.preprocess import DecodeError, decode_full_size, decode_photo
from verger.schema import Reason

DATA = Path(__file__).parents[2] / "data" / "jpeg"
RARE = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.jpg"))}


def photo(mode: str = "RGB") -> Image.Image:
    """Return a small photo with grain everywhere, so that every block takes some bits."""
    rng = np.random.default_rng(7)
    colors = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 48))
    grain = rng.integers(-30, 31, (48, 64, 3))
    pixels = np.clip(np.asarray(colors) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(photo(mode), "JPEG", quality=60, **options)


#: Files that begin each coefficient's bits to end them, so that a cut between two scans shows.
FINISHED = {
    "baseline": jpeg(),
    "grey": jpeg("L"),
    "restarts": jpeg(restart_marker_blocks=2),
    "progressive": jpeg(progressive=True),
    "progressive grey": jpeg("L", progressive=True),
    "progressive CMYK": jpeg("CMYK", progressive=True),
    "progressive, restarts": jpeg(progressive=True, restart_marker_blocks=1),
    "progressive, rare restarts": jpeg(progressive=True, restart_marker_blocks=9),
} | {name: RARE[name] for name in ("arithmetic", "arithmetic-progressive", "one-scan-a-component")}


def reason_of(content: bytes, **options: Any) -> Reason:
    with pytest.raises(DecodeError) as caught:
        decode_photo(content, size=16, **options)
    return caught.value.reason


def first_scan(content: bytes) -> int:
    """Return where the data of the first scan begin."""
    start = content.index(b"\xff\xda") + 2
    return start + int.from_bytes(content[start : start + 2])


def closed(content: bytes) -> bytes:
    return content.rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("content", (FINISHED | RARE).values(), ids=FINISHED | RARE)
@pytest.mark.parametrize("size", [2, 16, 32], ids=["an eighth", "small", "full"])
def test_whole_jpegs_of_every_coding_decode(content: bytes, size: int) -> None:
    """A whole JPEG has the pixels that libjpeg decodes, whatever its coding and its scans."""
    pillow = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode_full_size(content), pillow)
    found = decode_photo(content, size=size)
    assert (found.width, found.height) == pillow.shape[1::-1]
    expected = np.asarray(Image.fromarray(pillow).resize((size, size)))
    np.testing.assert_allclose(found.pixels, expected, atol=0 if size == 32 else 40)


@pytest.mark.parametrize("content", FINISHED.values(), ids=FINISHED)
def test_jpegs_closed_behind_a_cut_anywhere_are_truncated(content: bytes) -> None:
    """An end marker makes no JPEG whole, wherever in its scans it was cut.

    Within its last 18 bytes it may lack zeros if it is arithmetic-coded, and the few bits of its
    last blocks otherwise.
    """
    ends = range(first_scan(content) + 2, len(content) - 2 - 18)
    passed = []
    for end in ends:
        try:
            decode_photo(closed(content[:end]), size=16)
        except DecodeError as err:
            assert err.reason is Reason.TRUNCATED  # noqa: PT017 - either is right
        else:
            passed.append(end)
    assert not passed


@pytest.mark.parametrize("name", ["progressive", "arithmetic", "one-scan-a-component"])
def test_closed_jpegs_can_be_accepted_in_part(name: str) -> None:
    """With ``accept_truncated`` they give what there is, and are marked."""
    content = FINISHED[name]
    half = closed(content[: (first_scan(content) + len(content)) // 2])
    assert decode_photo(half, size=16, accept_truncated=True).truncated


def test_a_band_left_out_is_told_from_a_scan_cut_short() -> None:
    """A script without the last coefficients is whole; its last scan cut short is not.

    Cut exactly between two scans it is a JPEG of fewer bands, which libjpeg decodes without a
    warning: that passes.
    """
    content = RARE["band-left-out"]
    last = content.rindex(b"\xff\xda")
    for end in range(last + 12, len(content) - 20):
        assert reason_of(closed(content[:end])) is Reason.TRUNCATED
    between = content[: content.rindex(b"\xff\xc4")]
    assert not decode_photo(closed(between), size=16).truncated


def test_chroma_without_detail_is_a_band_left_out() -> None:
    """Scans of the second and third component's detail may be missing, all of them."""
    scan_of_chroma = re.compile(
        rb"\xff\xda\0\x08\x01[\x02\x03].*?(?=\xff[\xc4\xda\xd9])", re.DOTALL
    )
    grey, n_left_out = scan_of_chroma.subn(b"", jpeg(progressive=True))
    assert n_left_out == 4  # of each component the first bits, and the last
    pillow = Image.open(io.BytesIO(grey)).convert("RGB").resize((32, 32))
    np.testing.assert_array_equal(decode_photo(grey, size=32).pixels, np.asarray(pillow))


def test_bits_that_never_come_are_taken_for_a_cut() -> None:
    """A progressive JPEG that lacks the last scans of a usual script is 'truncated'."""
    head, *scans = jpeg(progressive=True).split(b"\xff\xda")
    for n_scans in range(1, len(scans)):
        content = b"\xff\xda".join((head, *scans[:n_scans]))
        assert reason_of(closed(content)) is Reason.TRUNCATED


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic-progressive"])
def test_arithmetic_coding_over_64_kb_decodes(name: str) -> None:
    """libjpeg takes such a scan at one go, also where it lies beyond Pillow's first 64 KB."""
    content = RARE[name]
    scan = first_scan(content)
    n_before = 65_536 - scan - 100  # 100 bytes of the scan in the first 64 KB
    comments = b"".join(
        b"\xff\xfe" + (n + 2).to_bytes(2) + bytes(n) for n in (30_000, n_before - 30_008)
    )
    large = content[:2] + comments + content[2:]
    whole = decode_photo(content, size=16)
    np.testing.assert_array_equal(decode_photo(large, size=16).pixels, whole.pixels)


def test_zeros_in_the_place_of_the_rest_are_noticed() -> None:
    """A JPEG whose rest was never written, so that its file ends in zeros, is 'truncated'."""
    content = FINISHED["baseline"]
    half = (first_scan(content) + len(content)) // 2
    assert reason_of(content[:half] + bytes(len(content) - half + 4096)) is Reason.TRUNCATED


def test_an_end_without_its_scan_is_noticed_behind_a_comment() -> None:
    """A comment that something wrote behind the cut hides nothing."""
    content = FINISHED["progressive"]
    cut = content[: content.rindex(b"\xff\xda") + 40].rstrip(b"\xff")
    assert reason_of(cut + b"\xff\xfe\0\x06ajar" + b"\xff\xd9") is Reason.TRUNCATED


# ---- what libjpeg does not decode ----------------------------------------------------------


def with_frame(place: int, value: bytes, marker: int = 0xC0) -> bytes:
    """Change the frame of a whole baseline JPEG: bytes behind its marker, and the marker."""
    content = bytearray(FINISHED["baseline"])
    start = content.index(b"\xff\xc0")
    content[start + 2 + place : start + 2 + place + len(value)] = value
    content[start + 1] = marker
    return bytes(content)


def with_lines_later() -> bytes:
    """Say the height behind the scan only, in a DNL segment (ITU-T T.81, B.2.5)."""
    content = with_frame(3, b"\0\0")
    return content[:-2] + b"\xff\xdc\0\x04\0\x30" + content[-2:]


UNDECODED = {
    "height 0 and DNL": with_lines_later(),
    "hierarchical": with_frame(0, b"", marker=0xC5),
    "hierarchical, progressive": with_frame(0, b"", marker=0xC6),
    "lossless, arithmetic": with_frame(0, b"", marker=0xCB),
    "JPEG-LS": with_frame(0, b"", marker=0xF7),
    "12 bits": with_frame(2, b"\x0c", marker=0xC1),
    "widths of 3 and 2": with_frame(9, b"\x31\0\x02\x21\x01\x03\x11"),
    "two components": with_frame(7, b"\x02"),
}


@pytest.mark.parametrize("content", UNDECODED.values(), ids=UNDECODED)
def test_jpegs_that_libjpeg_does_not_decode_are_unsupported(content: bytes) -> None:
    """A whole JPEG that no libjpeg decodes is 'unsupported format', accepted or not."""
    for accept in (False, True):
        assert reason_of(content, accept_truncated=accept) is Reason.UNSUPPORTED_FORMAT
