"""Where Kafka and the object store are, and the limits that every part must share.

Settings are frozen and validated once, by ``backends.environment``, which reads them: a wrong value stops the start, it
never surfaces in the middle of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from backends.logging_setup import LogFormat
from backends.proxies import without_password
from schemas.access import AccessRole

StoreKind = Literal["minio", "file", "s3"]
Addressing = Literal["auto", "path", "virtual"]
Encryption = Literal["", "AES256", "aws:kms", "aws:kms:dsse"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

ADMIN: Final = "admin"
StackRole = AccessRole | Literal["admin"]
"""As whom a process speaks to a local stack that is secured. The administrator alone may do all."""

DEFAULT_HOME: Final = Path(".fluvial")
DEFAULT_BUCKET: Final = "fluvial"
UPDATE_BYTES_MAX_DEFAULT: Final = 8 * 1024 * 1024
# Certificate, signature, Avro framing and Kafka's batch header: about 2 KiB in practice, bounded generously.
ENVELOPE_BYTES_MAX: Final = 64 * 1024
# Kafka counts message sizes in a signed 32-bit integer; half of that leaves room for the broker's own sums.
UPDATE_BYTES_LIMIT: Final = 1024 * 1024 * 1024

TRACE_RATIO_DEFAULT: Final = 0.1
TraceRatio = Annotated[float, msgspec.Meta(ge=0, le=1)]
UpdateBytesMax = Annotated[int, msgspec.Meta(ge=1024, le=UPDATE_BYTES_LIMIT)]


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where objects live.

    ``kind`` "minio" is the local stack's server, "s3" any other server that speaks S3 with conditional writes,
    "file" a folder on this machine. ``endpoint`` is ``host:port`` with no scheme; ``secure`` chooses https.
    Without keys, a store of kind "s3" is opened with what boto3 finds, in ``profile`` where one is named. ``ca_file``
    has the CAs that may vouch for the server, PEM; without, those of the system may. ``addressing``: whether the bucket
    stands in the URL's path or its host. ``encryption`` and ``kms_key`` are asked of the server for what is written.
    ``session_token`` belongs to keys that were issued for a while; ``proxy`` is the URL of the proxy to ask through.
    """

    kind: StoreKind
    endpoint: str = ""
    bucket: str = DEFAULT_BUCKET
    access_key: str = ""
    secret_key: str = ""
    secure: bool = False
    region: str = "us-east-1"
    path: Path | None = None
    session_token: str = ""
    proxy: str = ""
    profile: str = ""
    ca_file: Path | None = None
    addressing: Addressing = "auto"
    encryption: Encryption = ""
    kms_key: str = ""

    def shown(self) -> StoreSettings:
        """The same with every secret masked."""
        return msgspec.structs.replace(
            self,
            secret_key="***" if self.secret_key else "",
            session_token="***" if self.session_token else "",
            proxy=without_password(self.proxy),
        )

    def __repr__(self) -> str:
        """Everything but the secrets, so that a log line or a traceback never holds one."""
        shown = self.shown()
        fields = ", ".join(f"{name}={getattr(shown, name)!r}" for name in self.__struct_fields__)
        return f"StoreSettings({fields})"

    @property
    def url(self) -> str:
        """The address for humans: a URL, or the folder of a file store."""
        if self.kind == "file":
            return str(self.path)
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


class KafkaSecurity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a client gets into Kafka: what it asks of the broker's certificate, and how it says who it is.

    The files are PEM. ``ca_file`` is whom we trust, the system's CAs without one. With ``certificate_file`` the client
    has a certificate of its own (mutual TLS); ``key_file`` is its key, in the same file without one.
    ``sasl_username`` and ``sasl_password`` are for PLAIN and SCRAM. For OAUTHBEARER, tokens come from
    ``oauth_token_url`` by OpenID Connect's client credentials, or from ``oauth_callback``: ``module:function``, which
    returns a token and the second since 1970 at which it ends. ``oauth_ca_file`` is whom we trust there.
    """

    security_protocol: SecurityProtocol = "PLAINTEXT"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str = ""
    sasl_mechanism: SaslMechanism = ""
    sasl_username: str = ""
    sasl_password: str = ""
    oauth_token_url: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_scope: str = ""
    oauth_ca_file: Path | None = None
    oauth_callback: str = ""

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted, and the broker has to show a certificate."""
        return self.security_protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether the client says who it is by SASL."""
        return self.security_protocol.startswith("SASL")

    def shown(self) -> KafkaSecurity:
        """The same with every secret masked."""
        masked = {name: "***" for name in KAFKA_SECRETS if getattr(self, name)}
        return msgspec.structs.replace(self, **masked)

    def __repr__(self) -> str:
        """Everything but the secrets, so that a log line or a traceback never holds one."""
        shown = self.shown()
        fields = ", ".join(f"{name}={getattr(shown, name)!r}" for name in self.__struct_fields__)
        return f"KafkaSecurity({fields})"


KAFKA_SECRETS: Final = ("key_password", "sasl_password", "oauth_client_secret")
KAFKA_UNSECURED: Final = KafkaSecurity()


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How private keys are opened, those of signers and, where they are others, those of CAs.

    ``passphrase`` is that of encrypted key files, ``pin`` the user's of a PKCS#11 token, ``module`` the file of its
    PKCS#11 library. A CA whose passphrase or PIN is the same needs no ``ca_`` of its own.
    """

    passphrase: str = ""
    pin: str = ""
    ca_passphrase: str = ""
    ca_pin: str = ""
    module: Path | None = None

    def of_authority(self) -> KeySettings:
        """The same for a CA's key."""
        return msgspec.structs.replace(
            self, passphrase=self.ca_passphrase or self.passphrase, pin=self.ca_pin or self.pin
        )

    def shown(self) -> KeySettings:
        """The same with every secret masked."""
        masked = {name: "***" for name in KEY_SECRETS if getattr(self, name)}
        return msgspec.structs.replace(self, **masked)

    def __repr__(self) -> str:
        """Everything but the secrets, so that a log line or a traceback never holds one."""
        shown = self.shown()
        fields = ", ".join(f"{name}={getattr(shown, name)!r}" for name in self.__struct_fields__)
        return f"KeySettings({fields})"


KEY_SECRETS: Final = ("passphrase", "pin", "ca_passphrase", "ca_pin")
NO_KEY_SETTINGS: Final = KeySettings()
"""Of plain files, which need none."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a process must know about the world outside it.

    ``log_format`` is that of the long-running processes.
    ``otlp_endpoint`` is the URL of an OTLP/HTTP collector, without ``/v1/traces``; "" means that nothing is traced.
    ``trace_ratio`` is how many of all updates' traces are kept.
    """

    home: Path
    bootstrap_servers: str
    store: StoreSettings
    kafka: KafkaSecurity = KAFKA_UNSECURED
    key: KeySettings = NO_KEY_SETTINGS
    update_bytes_max: UpdateBytesMax = UPDATE_BYTES_MAX_DEFAULT
    log_format: LogFormat = "human"
    otlp_endpoint: str = ""
    trace_ratio: TraceRatio = TRACE_RATIO_DEFAULT

    @property
    def message_bytes_max(self) -> int:
        """The limit of one Kafka record, in bytes: for broker, producers and consumers alike."""
        return message_bytes_max(self.update_bytes_max)


class StackFile(msgspec.Struct, frozen=True, kw_only=True):
    """``<home>/stack.json``: what the local stack is and where it answers. Only ``fluvial up`` writes it."""

    store_kind: Literal["minio", "file"]
    running: bool = False
    kafka_port: int = 0
    controller_port: int = 0
    store_port: int = 0
    prometheus_port: int = 0
    prometheus: bool = False
    cluster_id: str = ""
    bucket: str = DEFAULT_BUCKET
    update_bytes_max: UpdateBytesMax = UPDATE_BYTES_MAX_DEFAULT
    secured: bool = False
    """Whether Kafka has mutual TLS and ACLs; a home that was made before it could be has not."""
    store_secured: bool = False
    """Whether MinIO runs with TLS, and each role has keys: if ``secured``, from the first ``up`` that knew how to."""


class CredentialsFile(msgspec.Struct, frozen=True, kw_only=True):
    """``<home>/credentials.json``: random keys of the local object store, the administrator's. Mode 600.

    Where the store is secured, each role has such a file of its own beside it.
    """

    store_access_key: str
    store_secret_key: str

    def __repr__(self) -> str:
        return f"CredentialsFile(store_access_key={self.store_access_key!r}, store_secret_key='***')"


def message_bytes_max(update_bytes_max: int) -> int:
    """The record limit, in bytes, that carries an update of ``update_bytes_max`` bytes in its envelope."""
    return update_bytes_max + ENVELOPE_BYTES_MAX


def stack_path(home: Path) -> Path:
    """Where ``StackFile`` lives."""
    return home / "stack.json"


def store_keys_folder(home: Path) -> Path:
    """Where each role's keys of a secured local stack's MinIO are."""
    return home / "store-keys"


def credentials_path(home: Path, role: StackRole = ADMIN) -> Path:
    """Where the ``CredentialsFile`` of a role lives."""
    return home / "credentials.json" if role == ADMIN else store_keys_folder(home) / f"{role}.json"


def tls_folder(home: Path) -> Path:
    """The folder of the local stack's certificates; see ``fluvial.local.tls_keys``."""
    return home / "tls"


def stack_ca(home: Path) -> Path:
    """Whom the clients of a secured local stack trust, PEM."""
    return tls_folder(home) / "ca.pem"


def stack_security(home: Path, role: StackRole) -> KafkaSecurity:
    """How a role gets into the Kafka of a local stack that is secured."""
    return KafkaSecurity(
        security_protocol="SSL", ca_file=stack_ca(home), certificate_file=tls_folder(home) / f"{role}.pem"
    )


def file_store_path(home: Path) -> Path:
    """The folder of the local stack's file store."""
    return home / "data" / "objects"
