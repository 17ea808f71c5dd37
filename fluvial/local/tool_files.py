"""How tools that people bring along get into a secured local stack: a file for each kind of client.

::

    <home>/tls/kcat.conf             for kcat and whatever else is made of librdkafka, with the rights of a reader
    <home>/tls/admin.properties      for Kafka's own tools (``--command-config``), as the administrator

They name the certificates beside them, and hold no key themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.settings import ADMIN, stack_ca, tls_folder
from fluvial.local.names import java_property
from fluvial.local.tls_keys import write_private

if TYPE_CHECKING:
    from pathlib import Path


def kcat_file(home: Path) -> Path:
    """``kcat -F``, or KCAT_CONFIG."""
    return tls_folder(home) / "kcat.conf"


def properties_file(home: Path) -> Path:
    """``--command-config`` of Kafka's tools."""
    return tls_folder(home) / "admin.properties"


def write_tool_files(home: Path) -> None:
    """Write both anew: the home may have been moved."""
    reader, admin = (str(tls_folder(home) / f"{role}.pem") for role in ("reader", ADMIN))
    kcat = {
        "security.protocol": "ssl",
        "ssl.ca.location": str(stack_ca(home)),
        "ssl.certificate.location": reader,
        "ssl.key.location": reader,
    }
    java = {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": java_property(str(stack_ca(home))),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": java_property(admin),
    }
    for path, lines in ((kcat_file(home), kcat), (properties_file(home), java)):
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        write_private(path, text.encode())
