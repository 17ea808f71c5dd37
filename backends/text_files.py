"""Text files that people write: what an editor puts before the first letter is not part of them."""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32's little-endian mark begins with UTF-16's, so it is looked for first."""


def plain_utf8(data: bytes) -> bytes:
    """The bytes of a text file as UTF-8 without a byte order mark; without a mark they are left as they are.

    Windows' Notepad writes a mark before UTF-8, and its PowerShell writes UTF-16 for ``>``.
    Raises UnicodeDecodeError: there is a mark, and what follows is not of its encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :] if encoding == "utf-8" else data.decode(encoding).encode()
    return data
