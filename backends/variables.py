"""The FLUVIAL_ variables: those that mean something, those that nobody reads, and those that say given settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from backends.settings import Settings

PREFIX: Final = "FLUVIAL_"
PARENT: Final = "FLUVIAL_PARENT_"
"""Of an edge's second connection, see ``backends.parent_settings``."""

_HERE: Final = frozenset(
    PREFIX + name
    for name in (
        "BOOTSTRAP_SERVERS",
        "CACHE",
        "CRASH_AT",
        "DASHBOARDS",  # read by docker-compose.yml alone
        "FLOWER_PYTHON",
        "HOME",
        "KAFKA_CA_FILE",
        "KAFKA_CERTIFICATE_FILE",
        "KAFKA_KEY_FILE",
        "KAFKA_KEY_PASSWORD",
        "KAFKA_KEY_PASSWORD_FILE",
        "KAFKA_OAUTH_CALLBACK",
        "KAFKA_OAUTH_CA_FILE",
        "KAFKA_OAUTH_CLIENT_ID",
        "KAFKA_OAUTH_CLIENT_SECRET",
        "KAFKA_OAUTH_CLIENT_SECRET_FILE",
        "KAFKA_OAUTH_SCOPE",
        "KAFKA_OAUTH_TOKEN_URL",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SASL_PASSWORD_FILE",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SECURITY_PROTOCOL",
        "KEY_CA_PASSPHRASE",
        "KEY_CA_PASSPHRASE_FILE",
        "KEY_CA_PIN",
        "KEY_CA_PIN_FILE",
        "KEY_MODULE",
        "KEY_PASSPHRASE",
        "KEY_PASSPHRASE_FILE",
        "KEY_PIN",
        "KEY_PIN_FILE",
        "LOG_FORMAT",
        "OTLP_ENDPOINT",
        "PRICES",
        "STORE_ACCESS_KEY",
        "STORE_ACCESS_KEY_FILE",
        "STORE_ADDRESSING",
        "STORE_BUCKET",
        "STORE_CA_FILE",
        "STORE_ENCRYPTION",
        "STORE_ENDPOINT",
        "STORE_KIND",
        "STORE_KMS_KEY",
        "STORE_PATH",
        "STORE_PROFILE",
        "STORE_REGION",
        "STORE_SECRET_KEY",
        "STORE_SECRET_KEY_FILE",
        "STORE_SECURE",
        "STORE_SESSION_TOKEN",
        "STORE_SESSION_TOKEN_FILE",
        "TRACEBACK",
        "TRACE_RATIO",
        "UPDATE_BYTES_MAX",
    )
)
KNOWN: Final = _HERE | {f"{PARENT}BOOTSTRAP_SERVERS"}
_OF_PARENT: Final = frozenset(
    PARENT + name.removeprefix(PREFIX) for name in _HERE if name.startswith(f"{PREFIX}KAFKA_")
)
_OF_A_CLUSTER: Final = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Kubernetes sets these for every service of a namespace, so for one called ``fluvial-…`` as well."""


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What is set and means nothing here, by name, each with the variable that may be meant ("" for none)."""
    found = {}
    for name in sorted(environ):
        ours = name.upper().startswith(PREFIX) and name not in KNOWN | _OF_PARENT
        if ours and not _OF_A_CLUSTER.fullmatch(name):
            found[name] = _meant(name.upper())
    return found


def variables_of(settings: Settings) -> dict[str, str]:
    """What makes a process reach what ``settings`` say, by the same way in, whatever its home says.

    Secrets are among it. The store's proxy is not: that has variables of its own, which child processes inherit.
    """
    found = {
        f"{PREFIX}BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        f"{PREFIX}UPDATE_BYTES_MAX": str(settings.update_bytes_max),
    }
    for group, struct in (("KAFKA", settings.kafka), ("STORE", settings.store)):
        for field in msgspec.structs.fields(struct):
            name, value = f"{PREFIX}{group}_{field.name.upper()}", getattr(struct, field.name)
            if value != field.default and name in KNOWN:
                found[name] = str(value)
    return found


def _meant(name: str) -> str:
    """The known one that has all words of ``name`` and the fewest more, else the most alike; "" for none."""
    words = set(name.split("_"))
    longer = sorted((known for known in KNOWN if words <= set(known.split("_"))), key=len)
    near = longer or difflib.get_close_matches(name, sorted(KNOWN), n=1, cutoff=0.75)
    return near[0] if near else ""
