"""Connections to an object store: direct, or through the proxy that its settings name."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from backends.settings import StoreSettings


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
