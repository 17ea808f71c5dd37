"""Text that somebody else wrote, as it may be shown: on a terminal, in a log, on a page.

A record's key, an update's id, a task's name in an update: anybody chose them, and a terminal obeys what it is sent. So
what moves the cursor, names the window, fills the clipboard, or turns the order of letters round is shown as what it
is. ``fluvial/console/static/dom.js`` does the same for pages.
"""

from __future__ import annotations

import re
from typing import Final

_OBEYED: Final = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u115f\\u1160"
    "\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\ufff0-\\ufffb\\ud800-\\udfff\\U000110bd\\U000110cd"
    "\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
"""Control characters but for the tab and the end of a line, marks of direction and of format, what has no width, halves
of pairs. All of Unicode's categories Cc, Cf, Zl and Zp, but for those two."""
_LINES: Final = re.compile(f"[{_OBEYED}]")
_ENDS: Final = {"\t": "\\t", "\n": "\\n"}
_ONE_LINE: Final = re.compile(f"[\\t\\n{_OBEYED}]")


def printable(text: str) -> str:
    r"""The text with ``\x1b`` and its like in the place of what a terminal obeys. Lines stay; twice is as once."""
    return text if text.isascii() and text.isprintable() else _LINES.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""The same, and ``\n`` in the place of the end of a line: what has to be one line cannot become two."""
    return text if text.isascii() and text.isprintable() else _ONE_LINE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _ENDS:
        return _ENDS[found[0]]
    if code <= 0xFF:  # noqa: PLR2004
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
