"""Text without control characters: an entry must not move a terminal's cursor nor become a blob in journalctl."""

from __future__ import annotations

import re

# Everything but tab and newline; U+2028 and U+2029 break lines in some viewers.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""Return `text` with control characters as `\x1b`; tabs and newlines stay."""
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
