"""How clients get into Kafka, in the words of librdkafka, of aiokafka and of Faust: all from ``KafkaSecurity``.

Certificates and keys are looked at here first, for both libraries: what is wrong with a file is one error, FLV-3119.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from backends.kafka.tokens import librdkafka_tokens, token_provider
from backends.settings import KafkaSecurity

if TYPE_CHECKING:
    from faust.auth import Credentials

SYSTEM_CAS: Final = "probe"
"""librdkafka looks for the system's CAs then, as Python does by itself."""


def librdkafka_security(kafka: KafkaSecurity) -> dict[str, Any]:
    """For every client of confluent-kafka; nothing where nothing is secured. UsageProblem FLV-3119: a file is wrong."""
    if kafka.security_protocol == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security.protocol": kafka.security_protocol}
    if kafka.has_tls:
        ssl_context(kafka)
        options["ssl.ca.location"] = str(kafka.ca_file or SYSTEM_CAS)
        options["ssl.endpoint.identification.algorithm"] = "https"
        if kafka.certificate_file is not None:
            options["ssl.certificate.location"] = str(kafka.certificate_file)
            options["ssl.key.location"] = str(kafka.key_file or kafka.certificate_file)
            if kafka.key_password:
                options["ssl.key.password"] = kafka.key_password
    if kafka.has_sasl:
        options["sasl.mechanism"] = kafka.sasl_mechanism
        if kafka.sasl_mechanism == "OAUTHBEARER":
            options |= librdkafka_tokens(kafka)
        else:
            options |= {"sasl.username": kafka.sasl_username, "sasl.password": kafka.sasl_password}
    return options


def aiokafka_security(kafka: KafkaSecurity) -> dict[str, Any]:
    """For every connection of aiokafka. UsageProblem FLV-3119: a file is wrong."""
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.has_tls:
        options["ssl_context"] = ssl_context(kafka)
    if kafka.has_sasl:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        if kafka.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_provider(kafka)
        else:
            options["sasl_plain_username"] = kafka.sasl_username
            options["sasl_plain_password"] = kafka.sasl_password
    return options


def faust_credentials(kafka: KafkaSecurity) -> Credentials | None:
    """For Faust's ``broker_credentials``; None where nothing is secured. UsageProblem FLV-3119: a file is wrong."""
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

    options = aiokafka_security(kafka)
    context = options.get("ssl_context")
    if not kafka.has_sasl:
        return SSLCredentials(context) if context is not None else None
    if kafka.sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    return SASLCredentials(
        username=kafka.sasl_username,
        password=kafka.sasl_password,
        mechanism=kafka.sasl_mechanism,
        ssl_context=context,
    )


def ssl_context(kafka: KafkaSecurity) -> ssl.SSLContext:
    """Whom we trust and who we are: the broker's name is always checked. UsageProblem FLV-3119: a file is wrong."""
    try:
        context = ssl.create_default_context(cafile=kafka.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("the CA file", kafka.ca_file, error) from error
    if kafka.certificate_file is not None:
        try:
            # With no password of ours OpenSSL would ask the terminal for one.
            context.load_cert_chain(kafka.certificate_file, kafka.key_file, lambda: kafka.key_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable("the client's certificate or key", kafka.certificate_file, error) from error
    return context


def _unusable(what: str, path: Path | None, error: Exception) -> UsageProblem:
    reason = (
        (error.reason or "not PEM") if isinstance(error, ssl.SSLError) else getattr(error, "strerror", "")
    )
    return UsageProblem(
        "FLV-3119",
        f"{what} for Kafka cannot be used: {str(reason or error).lower().replace('_', ' ')}",
        where=str(path),
        hint="FLUVIAL_KAFKA_CA_FILE, FLUVIAL_KAFKA_CERTIFICATE_FILE and FLUVIAL_KAFKA_KEY_FILE name files in PEM; the "
        "password of an encrypted key is FLUVIAL_KAFKA_KEY_PASSWORD",
    )
