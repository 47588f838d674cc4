"""The messages of Verger's pages and plot in other languages: one catalogue."""

from __future__ import annotations

import json
from functools import cache

#: English is what the templates say; of each other language there is a catalogue.
LANGUAGES = ("en", "fr")


@cache
def messages(part: str) -> dict[str, str]:
    """Return the French of a part's messages by their English, in which ``{name}`` is filled in.

    Parameters
    ----------
    part : str
        ``page`` for what ``verger serve`` shows, ``report`` for the report, ``plot`` for its
        scree plot.
    """
    from importlib import resources  # slow to import, and most commands need no message

    text = resources.files("verger").joinpath("language.fr.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found[part]
