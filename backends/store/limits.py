"""Bounds of every connection to an S3 server."""

from __future__ import annotations

from typing import Final

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 20.0
"""Of one wait for bytes, not of a whole object: a server that is just starting may leave a request unanswered."""
CONNECTIONS_MAX: Final = 32
