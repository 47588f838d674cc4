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
SECRET_NAMES = rf"(?i){_WORDS}|[.]sas[.]|(?:^|[._-])(?:pat|sig|auth)$"
_SECRET_NAME = re.compile(SECRET_NAMES)

# The password ends at the last @ of the word. Digits and a slash after the colon are a port. A path
# object has made one slash of the two.
_USERINFO = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]*:/{1,3})[^\s/@:?#'\"]*:(?!\d+(?:[/?#]|$))[^\s'\"]*@"
    r"|\b((?:https?|s3[an]?):/{1,3})[^\s/@:?#'\"]+@"
)
# name=value, "name": "value" and name: value. Of a colon without quotes only what is never prose.
_NAMED = re.compile(
    rf"(?i)(?P<name>[\w.-]*(?:{_WORDS}|[.]sas[.])[\w.-]*|(?<![\w.-])(?:[\w.-]*[._-])?(?:pat|sig|auth))"
    r"(?P<sign>['\"]?\s*=\s*|['\"]\s*:\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)"
)
_SCHEMES = re.compile(r"(?i)\b(Bearer|Basic)(\s+)[A-Za-z0-9+/=._~-]{8,}")
_HEADER = re.compile(
    r"(?i)\b(Authorization|Cookie|X-Api-Key)(\s*:\s*)(?!Bearer\b|Basic\b)[^\s'\"]+"
)
_GITHUB = re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")


def is_secret(name: str) -> bool:
    """Whether what has this name (a setting, a variable, a header) is nobody's business."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Hide the secrets in a text; what has none comes back as it is."""
    text = _SCHEMES.sub(rf"\1\2{HIDDEN}", _redact_userinfo(text))
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _NAMED.sub(rf"\g<name>\g<sign>{HIDDEN}", text)
    return _GITHUB.sub(HIDDEN, text)


def _redact_userinfo(text: str) -> str:
    return _USERINFO.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", text)


def redact_setting(name: str, value: str) -> str:
    """Return the value of a setting as it may be shown: hidden by its name, or by its form."""
    return HIDDEN if is_secret(name) else redact(value)


def redact_json(value: Any) -> Any:
    """Hide the secrets in a JSON value, at any depth; numbers are left alone."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(item, str) and is_secret(str(key)) else redact_json(item)
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
    place, mark, query = address.partition("?")
    is_url = "://" in place
    shown = _redact_userinfo(place) + mark + (redact(query) if is_url else query)
    if shown != address:
        raise ConfigError(
            f"{name}={shown}: no password and no key in an address, which is written to run.json; "
            "give them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
            "profile), or by --conf"
        )
