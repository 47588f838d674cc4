"""How the page presents itself: its title, logo and language, as a page and as an installed app."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from verger.errors import ConfigError
from verger.features.preprocess import DecodeError, decode_full_size
from verger.language import LANGUAGES, messages

TITLE = "What is on this photo?"
#: Sides of the icons that an installed page has, in pixels.
ICONS = (192, 512)
#: Longest title, in characters, and largest file of a logo, in bytes.
MOST_TITLE, MOST_LOGO = 100, 5_000_000


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the page presents itself.

    Attributes
    ----------
    title : str or None
        Its heading, instead of the question that it asks.
    lang : str or None
        One of :data:`verger.language.LANGUAGES`; None for that of each visitor's browser.
    logo : mapping of int to bytes
        Side in pixels to a square PNG; empty without a logo.
    """

    title: str | None = None
    lang: str | None = None
    logo: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.lang not in (None, *LANGUAGES):
            raise ConfigError(f"lang={self.lang!r} must be one of {', '.join(LANGUAGES)}")
        if self.title is not None and not 1 <= len(self.title.strip()) <= MOST_TITLE:
            raise ConfigError(f"title={self.title!r} must have 1 to {MOST_TITLE} characters")

    @classmethod
    def of(
        cls, *, title: str | None = None, lang: str | None = None, logo: Path | None = None
    ) -> Look:
        """Read the logo, a photo of any format that Verger reads.

        Raises
        ------
        ConfigError
            If the logo can't be read, or another value does not fit.
        """
        return cls(title=title, lang=lang, logo=_read_logo(logo) if logo else {})

    def manifest(self) -> dict[str, Any]:
        """Return what lets a browser install the page as an app."""
        sources = (("logo" if self.logo else "static/icon") + f"-{side}.png" for side in ICONS)
        question = messages("page")[TITLE] if self.lang == "fr" else TITLE
        return {
            "name": self.title or question,
            "short_name": (self.title or "Verger")[:30],
            "start_url": "./",
            "display": "standalone",
            "background_color": "#fbfaf7",
            "theme_color": "#2f6b2f",
            "icons": [
                {"src": source, "sizes": f"{side}x{side}", "type": "image/png"}
                for source, side in zip(sources, ICONS, strict=True)
            ],
        }

    def page(self, **values: Any) -> str:
        """Return the page.

        Parameters
        ----------
        **values
            ``in_browser``, ``max_bytes``, ``labels`` (of the feedback; None without it) and, of
            a page that has no server, ``policy``.
        """
        environment = Environment(
            loader=PackageLoader("verger.serve", ""),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        own = {"title": self.title, "question": TITLE, "lang": self.lang, "logo": bool(self.logo)}
        template = environment.get_template("page.html.j2")
        return template.render(own | values, messages={"fr": messages("page")})


def _read_logo(path: Path) -> dict[int, bytes]:
    """Return a logo as square icons, with white where it is not square or transparent."""
    try:
        content = path.read_bytes()
        if len(content) > MOST_LOGO:
            raise ConfigError(f"--logo {path}: has {len(content):,} bytes, at most {MOST_LOGO:,}")
        picture = Image.fromarray(decode_full_size(content))
    except OSError as err:
        raise ConfigError(f"--logo {path}: cannot be read: {err.strerror}") from err
    except DecodeError as err:
        raise ConfigError(f"--logo {path}: {err}; give a PNG or JPEG") from err
    return {side: _icon(picture, side) for side in ICONS}


def _icon(picture: Image.Image, side: int) -> bytes:
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    icon = Image.new("RGB", (side, side), "white")
    place = ((side - width) // 2, (side - height) // 2)
    icon.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    stream = io.BytesIO()
    icon.save(stream, "PNG")
    return stream.getvalue()
