"""A decoder that does what the photo says: it hangs, crashes or grows on purpose."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

from verger.features.preprocess import Photo, decode_photo


def obey(content: bytes, **options: Any) -> Photo:
    """Do what the first word of a photo says, then decode what follows it."""
    word, _, photo = content.partition(b" ")
    if word in _DEEDS:
        _DEEDS[word]()
        content = photo
    return decode_photo(content, **options)


def _hang() -> None:
    for _ in iter(int, 1):
        pass


def _grow() -> None:
    held = []
    while True:
        held.append(bytes(64 << 20))


def _take() -> None:
    assert len(bytes(24 * 50_000_000)) > 0


def _keep() -> None:
    _kept.append(bytes(300 << 20))


def _crash_if_used() -> None:
    """Crash in a process that an earlier photo has spoilt."""
    if _kept:
        ctypes.string_at(0)


_kept: list[bytes] = []
_DEEDS: dict[bytes, Callable[[], Any]] = {
    b"hang": _hang,
    b"sleep": lambda: time.sleep(600),
    b"crash": lambda: ctypes.string_at(0),
    b"exit": lambda: os._exit(0),
    b"grow": _grow,
    b"take": _take,
    b"keep": _keep,
    b"spoil": lambda: _kept.append(b""),
    b"crash-if-spoilt": _crash_if_used,
    b"tell": lambda: print_id(),
}


def print_id() -> None:
    """Tell a test this process' id, by the file that the environment names."""
    with open(os.environ["DECODER_ID"], "w") as file:
        file.write(str(os.getpid()))
    _hang()
