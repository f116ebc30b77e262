"""Secrets are replaced: passwords in connection strings, and those that the process knows.

The configuration shows a DSN without its password already. This catches the rest: in a driver's error, a user's log
call, the repr of a local value in a traceback.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

_MIN_SECRET_CHARS = 4
_STARS = "***"

# user:password@ of a URL. A password may hold an @ of its own: everything up to the last one before the host's end.
_URL = re.compile(r"(postgres(?:ql)?://[^\s/@:'\"]*):[^\s'\"]*@", re.IGNORECASE)
# ?password=…, and password=… of a keyword DSN, bare or quoted.
_KEYWORD = re.compile(
    r"""(\b(?:ssl)?password["']?\s*[=:]\s*)("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s&'",;)}\]]+)""",
    re.IGNORECASE,
)

# A plain search is far cheaper than the expression.
_SPELLINGS = ("password", "PASSWORD", "Password")

_known: tuple[str, ...] = ()


def register_secret(text: str) -> None:
    """Replace this text, and its percent-encoded, quoted and JSON forms, in everything that is written from now on.

    Texts of fewer than four letters are left alone: replacing them in every word would reveal them.
    """
    global _known  # noqa: PLW0603 - one set of secrets for the process
    if len(text) < _MIN_SECRET_CHARS:
        return
    forms = {text, quote(text, safe=""), quote(text), repr(text)[1:-1], json.dumps(text)[1:-1]}
    # The longest first: one form may hold another.
    _known = tuple(sorted({*_known, *forms}, key=len, reverse=True))


def redact(text: str) -> str:
    """Return `text` without secrets."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, _STARS)
    if "://" in text:
        text = _URL.sub(rf"\1:{_STARS}@", text)
    if any(spelling in text for spelling in _SPELLINGS):
        text = _KEYWORD.sub(_keep_quotes, text)
    return text


def _keep_quotes(match: re.Match[str]) -> str:
    value = match[2]
    quotes = value[0] if value[0] in "\"'" else ""
    return f"{match[1]}{quotes}{_STARS}{quotes}"
