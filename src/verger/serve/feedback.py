"""What visitors say about answers: one line of a CSV file each, and the photo if they tick that."""

from __future__ import annotations

import csv
import hashlib
import io
import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from verger.errors import ConfigError
from verger.features.outcomes import Decoding
from verger.features.preprocess import DecodeError, decode_full_size
from verger.files.folder import Folder
from verger.serve.limits import Refused

#: Columns of the file. ``path`` is empty where the photo was not to be kept.
COLUMNS = ("path", "label", "prediction", "time")
#: Longest label, in characters; most pixels of a kept photo; largest file, in bytes; most photos.
MOST_LABEL, MOST_PIXELS, MOST_BYTES, MOST_PHOTOS = 100, 16_000_000, 100_000_000, 10_000


@dataclass(frozen=True)
class Feedback:
    """The file, and beside it the folder of kept photos, ``FILE`` with ``-photos`` for its suffix.

    Attributes
    ----------
    file : path
    labels : collection of str
        Those of the classifier; others are taken too.

    Raises
    ------
    ConfigError
        If the file can't be written, or is another one.
    """

    file: Path
    labels: Collection[str] = field(default=(), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", self.file.expanduser().absolute())
        try:
            with self.file.open("a+", encoding="utf-8", newline="") as file:
                file.seek(0)
                head = next(csv.reader(file), None)
                if head is None:
                    csv.writer(file, lineterminator="\n").writerow(COLUMNS)
        except (OSError, ValueError, csv.Error) as err:
            raise ConfigError(f"--feedback {self.file}: cannot be written: {err}") from err
        if head not in (None, list(COLUMNS)):
            raise ConfigError(
                f"--feedback {self.file}: is no file of feedback, whose first line is "
                f"{','.join(COLUMNS)}; name another"
            )

    @property
    def photos(self) -> Path:
        """Folder of the photos that visitors let us keep."""
        return self.file.with_name(f"{self.file.stem}-photos")

    def add(self, label: str, prediction: str, photo: bytes, decoding: Decoding) -> None:
        """Write one line; an empty photo is one that is not to be kept.

        Parameters
        ----------
        label : str
            What the visitor says it is.
        prediction : str
            What the page said; empty for unknown.
        photo : bytes
            Kept as a JPEG without metadata, such as the place where it was taken.
        decoding : Decoding

        Raises
        ------
        Refused
            If the label or the photo is none, or there is no room.
        """
        label = label.strip()
        self._check(label, prediction)
        picture = _clean(photo, decoding) if photo else b""
        with self._lock:
            if self.file.stat().st_size > MOST_BYTES:
                raise _full()
            place = self._keep(picture) if picture else ""
            self._append(place, label, prediction, datetime.now(UTC).isoformat(timespec="seconds"))

    def _check(self, label: str, prediction: str) -> None:
        if prediction and prediction not in self.labels:
            raise Refused(422, "not a label", "prediction must be one of the classifier's labels")
        if label in self.labels:
            return
        # A cell that begins so is a formula to a spreadsheet.
        if not 1 <= len(label) <= MOST_LABEL or not label.isprintable() or label[0] in "=+-@":
            raise Refused(422, "not a label", f"label must be 1 to {MOST_LABEL} plain characters")

    def _append(self, *cells: str) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        with self.file.open("a+b") as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - 1))
            is_cut = file.read(1) not in (b"", b"\n")  # by an editor
            file.write(b"\n" * is_cut + line.getvalue().encode())

    def _keep(self, picture: bytes) -> str:
        self.photos.mkdir(exist_ok=True)
        name = f"{hashlib.sha256(picture).hexdigest()[:16]}.jpg"
        place = self.photos / name
        if not place.exists():
            if sum(1 for _ in self.photos.iterdir()) >= MOST_PHOTOS:
                raise _full()
            Folder(str(self.photos)).write(name, picture)
        return str(place)


def _full() -> Refused:
    return Refused(503, "full", "no more feedback is taken; tell whoever runs this page")


def _clean(photo: bytes, decoding: Decoding) -> bytes:
    """Return a photo as a JPEG of its pixels alone, decoded first where it can do no harm."""
    decoding = replace(decoding, max_pixels=min(MOST_PIXELS, decoding.max_pixels))
    try:
        decoding.decode(photo, 16)
        pixels = decode_full_size(photo, max_pixels=decoding.max_pixels)
    except DecodeError as err:
        raise Refused(422, err.reason.value, err.detail) from err
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()
