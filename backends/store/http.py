"""Connections to an object store: direct, or through the proxy that its settings name."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import urllib3

from backends.object_store import StoreRefused, StoreUnavailable
from backends.settings import StoreSettings
from backends.store.s3_errors import other_protocol, unavailable

HANDSHAKE_TIMEOUT_S: Final = 3.0


def open_pool(settings: StoreSettings, **options: Any) -> urllib3.PoolManager:
    """A pool of connections by ``settings.proxy`` and ``settings.ca_file``; ``options`` are urllib3's."""
    if settings.ca_file is not None:
        options |= {"ca_certs": str(settings.ca_file), "cert_reqs": "CERT_REQUIRED"}
    if not settings.proxy:
        return urllib3.PoolManager(**options)
    url = urlsplit(settings.proxy)
    headers = None
    if url.username is not None:
        headers = urllib3.make_headers(
            proxy_basic_auth=f"{unquote(url.username)}:{unquote(url.password or '')}"
        )
    return urllib3.ProxyManager(settings.proxy, proxy_headers=headers, **options)


def broken_off(reason: str, settings: StoreSettings, where: str) -> StoreUnavailable | StoreRefused:
    """Our error for a connection that was made and came to nothing: FLV-4002, or FLV-4114 where TLS is spoken there.

    A server of TLS hangs up on who speaks without, as one does that goes away: so it is asked.
    """
    if not settings.secure and not settings.proxy and _speaks_tls(settings.endpoint):
        return other_protocol(secure=False, where=where)
    return unavailable(reason, where)


def _speaks_tls(endpoint: str) -> bool:
    """Whether a handshake comes about; with whom is of no interest, and nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = urlsplit(f"//{endpoint}")
    try:
        with (
            socket.create_connection((address.hostname, address.port), HANDSHAKE_TIMEOUT_S) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False
