"""Which HTTP proxy a request goes through, by the variables that curl, Go and Python share.

``http_proxy`` or ``https_proxy`` by the scheme of the URL, else ``all_proxy``; ``no_proxy`` lists who is asked
directly. The small letters go before the capitals. As in Go, this machine itself is never asked through a proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_LOCAL: Final = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
SCHEMES: Final = frozenset({"http", "https"})
"""Of proxies that we can speak with. SOCKS would need another library."""


def proxy_of(environ: Mapping[str, str], endpoint: str, *, secure: bool) -> tuple[str, str]:
    """The proxy for ``endpoint`` (host:port) and the variable that named it; ("", "") for none."""
    scheme = "https" if secure else "http"
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]").rstrip(".").lower()
    value, source = _first(environ, f"{scheme}_proxy", "all_proxy")
    if not value or is_local(host) or _is_excepted(host, port, _first(environ, "no_proxy")[0]):
        return "", ""
    return (value if "://" in value else f"http://{value}"), source


def is_proxy(value: str) -> bool:
    """Whether ``value`` is the URL of a proxy that we can speak with."""
    try:
        url = urlsplit(value)
        return url.scheme in SCHEMES and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return False


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """An empty variable in small letters counts: it takes back the one in capitals."""
    for name in names:
        for spelled in (name, name.upper()):
            if spelled in environ:
                if environ[spelled].strip():
                    return environ[spelled].strip(), spelled
                break
    return "", ""


def is_local(host: str) -> bool:
    """Whether the host is this machine itself, by its name or address."""
    address = _address(host)
    return address.is_loopback if address is not None else host in _LOCAL or host.endswith(".localhost")


def _is_excepted(host: str, port: str, no_proxy: str) -> bool:
    return any(_matches(host, port, entry) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(host: str, port: str, entry: str) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if _address(entry.strip("[]")) is None:
        name, colon, wanted = entry.rpartition(":")
        if colon and wanted.isdigit():
            if wanted != port:
                return False
            entry = name
    entry = entry.strip("[]").removeprefix("*").strip(".")
    return host == entry or (address is None and bool(entry) and host.endswith(f".{entry}"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
