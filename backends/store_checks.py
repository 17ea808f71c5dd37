"""What addresses, and the settings of an object store, must be to mean anything: FLV-1002 stops the start otherwise."""

from __future__ import annotations

import re
from typing import Final

from backends.merging import Merge, is_address, is_collector, wrong
from backends.settings import Settings, StoreSettings

_BUCKET: Final = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
_KEY: Final = "the store's key, in FLUVIAL_STORE_{}; `fluvial up` makes those of a local stack"


def check_addresses(settings: Settings, merge: Merge) -> None:
    """Raises UsageProblem: FLV-1002."""
    for server in settings.bootstrap_servers.split(","):
        if not is_address(server.strip()):
            expected = "host:port, or several with commas"
            raise wrong("bootstrap_servers", settings.bootstrap_servers, expected, merge)
    if settings.otlp_endpoint and not is_collector(settings.otlp_endpoint):
        expected = "a URL without user or query, such as http://127.0.0.1:4318"
        raise wrong("otlp_endpoint", settings.otlp_endpoint.rpartition("@")[2], expected, merge)


def check_store(store: StoreSettings, merge: Merge) -> None:
    """Raises UsageProblem: FLV-1002."""
    if store.kind == "file":
        if store.path is None:
            raise wrong("store.path", None, "a folder, for a store of kind `file`", merge)
        return
    if not is_address(store.endpoint):
        raise wrong("store.endpoint", store.endpoint, "host:port", merge)
    if not _BUCKET.match(store.bucket):
        raise wrong("store.bucket", store.bucket, "3 to 63 of a-z 0-9 . -", merge)
    _check_credentials(store, merge)
    if store.ca_file is not None and not store.ca_file.is_file():
        raise wrong("store.ca_file", str(store.ca_file), "a file of CA certificates, PEM", merge)
    if store.kms_key and not store.encryption.startswith("aws:kms"):
        raise wrong("store.kms_key", store.kms_key, "FLUVIAL_STORE_ENCRYPTION=aws:kms beside it", merge)


def _check_credentials(store: StoreSettings, merge: Merge) -> None:
    """Both keys or, for a store of kind ``s3``, none: then they come from where boto3 looks."""
    given = {"access_key": store.access_key, "secret_key": store.secret_key}
    if store.kind == "s3" and not any(given.values()) and not store.session_token:
        return
    for name, value in given.items():
        if not value:
            raise wrong(f"store.{name}", "", _KEY.format(name.upper()), merge)
    if store.profile:
        raise wrong("store.profile", store.profile, "no keys beside it: a profile has its own", merge)
