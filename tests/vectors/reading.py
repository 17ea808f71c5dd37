"""Whether documents are read, for vectors that say so."""

from __future__ import annotations

from collections.abc import Callable

from aggregation.errors import FluvialError


def reads(decode: Callable[[bytes], object], data: bytes) -> bool:
    """Whether a reader takes the bytes; errors that are not the project's own pass through."""
    try:
        decode(data)
    except FluvialError:
        return False
    return True
