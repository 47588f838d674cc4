"""How texts are written: a number with its noun, and the messages of pages and plot in French."""

from __future__ import annotations

import json
from functools import cache

#: English is what the templates say; of each other language there is a catalogue.
LANGUAGES = ("en", "fr")


def counted(n: int, one: str, many: str) -> str:
    """Return a number with what is counted, in English: ``1 photo``, ``2,000 photos``."""
    return f"{n:,} {one if n == 1 else many}"


@cache
def messages(part: str) -> dict[str, str]:
    """Return the French of a part's messages by their English, in which ``{name}`` is filled in.

    Parameters
    ----------
    part : str
        ``page`` for what ``verger serve`` shows, ``report`` for the report, ``plot`` for
        ``scree.png``.
    """
    from importlib import resources  # slow to import, and most commands need no message

    text = resources.files("verger").joinpath("language.fr.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found[part]
