"""Secrets, hidden in everything that Verger prints or writes down.

The one place that decides what a secret is, by the name that stands before it
(``spark.ssl.keyPassword=...``) or by its form (``https://user:password@host``,
``Authorization: Bearer ...``), as Spark's ``spark.redaction.regex`` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from verger.errors import ConfigError

#: What is written instead of a secret.
HIDDEN = "(hidden)"

_WORDS = (
    r"secret|passw(?:or)?d|passphrase|pwd|token|credential|authorization|cookie"
    r"|(?:access|account|private|encryption|signing|api)[._-]?key|key[._-]?pass"
    r"|signature|database_url|connection[._-]?string"
)
#: Names of settings, variables and headers whose values are secrets; Spark reads it too.
SECRET_NAMES = rf"(?i){_WORDS}|[.]sas[.]|(?:^|[._-])(?:pat|sig|auth|pass)$"
_SECRET_NAME = re.compile(SECRET_NAMES)

# The password ends at the last @ of the word. Digits and a slash after the colon are a port. A path
# object has made one slash of the two. The user of abfss and wasbs is a container, and a file has
# none.
# Without the bounds, the time would grow with the square of a text's length.
_USERINFO = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]{0,30}:/{1,3})[^\s/@:?#'\"]{0,500}:(?!\d+(?:[/?#]|$))[^\s'\"]{0,2000}@"
    r"|\b((?!(?:abfss?|wasbs?|file):)[a-z][a-z0-9+.-]{1,30}:/{1,3})[^\s/@:?#'\"]{1,2000}@"
    r"|\b(jdbc:[a-z]{1,30}:[a-z]{1,30}:)[^\s/@:'\"]{1,500}/[^\s'\"]{0,2000}@"
)
# name=value, "name": "value" and name: value. Of a colon without quotes only what is never prose.
_NAME = re.compile(r"(?<![\w.-])(?P<name>[\w.-]+)(?:[\]'\"\\]*\s*=|[\]'\"\\]+\s*:)\s*")
# A value ends at a space, since a password may hold any other sign; between quotes, at the closing
# one; a list or a table, at the end of the text.
_VALUE = re.compile(
    r"\\*(?:\"(?:[^\"\\]|\\[\s\S]?)*\"?[^\s,;&}\]]*|'(?:[^'\\]|\\[\s\S]?)*'?[^\s,;&}\]]*)"
    rf"|{re.escape(HIDDEN)}|[\[{{][\s\S]*|\S*"
)
# In an address, digits and a slash may be a port and a folder, or the beginning of a password.
_ADDRESS_USERINFO = re.compile(r"(?is)^([a-z][a-z0-9+.-]+:/{1,3})[^/@]*:.*@|^(jdbc:).*@")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_SCHEMES = re.compile(r"(?i)\b(Bearer|Basic)(\s+)[A-Za-z0-9+/=._~-]{8,}")
_HEADER = re.compile(r"(?i)(?<![\w./-])(?P<name>authorization|cookie2?|\w+-[\w-]*)\s*:\s*")
_LINE, _ALL = re.compile(r"[^\r\n]*"), re.compile(r"[\s\S]*")
_GITHUB = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")


def is_secret(name: str) -> bool:
    """Whether what has this name (a setting, a variable, a header) is nobody's business."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Hide the secrets in a text; what has none comes back as it is."""
    text = _SCHEMES.sub(rf"\1\2{HIDDEN}", _redact_userinfo(text))
    text = _hide(text, _HEADER, _LINE)
    # Where the whole of name=value stands between quotes, the value ends at the closing one.
    text = _QUOTED.sub(lambda found: _hide(found[0][:-1], _NAME, _ALL) + found[0][-1], text)
    return _GITHUB.sub(HIDDEN, _hide(text, _NAME, _VALUE))


def _redact_userinfo(text: str) -> str:
    return _USERINFO.sub(lambda found: f"{found[1] or found[2] or found[3]}{HIDDEN}@", text)


def _hide(text: str, names: re.Pattern[str], values: re.Pattern[str]) -> str:
    """Hide the values that follow secret names."""
    shown, done = "", 0
    for found in names.finditer(text):
        if found.start() < done or not is_secret(found["name"]):
            continue
        value = values.match(text, found.end())
        if value and value[0]:
            shown, done = shown + text[done : found.end()] + HIDDEN, value.end()
    return shown + text[done:]


def redact_setting(name: str, value: str) -> str:
    """Return the value of a setting as it may be shown: hidden by its name, or by its form."""
    return HIDDEN if is_secret(name) else redact(value)


def redact_json(value: Any) -> Any:
    """Hide the secrets in a JSON value, at any depth: all that has a secret name is hidden."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if item is not None and is_secret(str(key)) else redact_json(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_json(item) for item in value]
    return value


def refuse_secret(name: str, address: str) -> None:
    """Refuse an address that holds a password or a key: addresses are written to ``run.json``.

    Raises
    ------
    ConfigError
        Its text shows the address without the secret.
    """
    shown = _ADDRESS_USERINFO.sub(
        lambda found: f"{found[1] or found[2]}{HIDDEN}@", _redact_userinfo(address)
    )
    if "://" in shown:  # before the first of these marks, token=12 is the name of a folder
        place = re.split("[?#;]", shown, maxsplit=1)[0]
        shown = place + redact(shown[len(place) :])
    if shown != address:
        raise ConfigError(
            f"{name}={shown}: no password and no key in an address, which is written to run.json "
            "(what stands before an @ is taken for one); "
            "give them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
            "profile), or by --conf"
        )
