"""A hook of MkDocs: roles of docstrings such as ``:func:`x``` become plain code."""

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Drop the names of roles, which Markdown does not know."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)
