"""Whether settings of Kafka's security fit together: what is left out or contradicts itself stops the start."""

from __future__ import annotations

from collections.abc import Iterator

from backends.merging import Merge, wrong
from backends.settings import KafkaSecurity

_OF_TLS = ("ca_file", "certificate_file", "key_file", "key_password")
_OF_SASL = ("sasl_mechanism", "sasl_username", "sasl_password", "oauth_token_url", "oauth_callback")


def check_kafka(kafka: KafkaSecurity, merge: Merge) -> None:
    """UsageProblem FLV-1002 for the first setting that is missing, or that the protocol would leave unused."""
    for name, expected in _flaws(kafka):
        raise wrong(f"kafka.{name}", getattr(kafka, name) or None, expected, merge)


def _flaws(kafka: KafkaSecurity) -> Iterator[tuple[str, str]]:
    """(setting, what was expected)."""
    has_tls = [name for name in _OF_TLS if getattr(kafka, name)]
    has_sasl = [name for name in _OF_SASL if getattr(kafka, name)]
    # In silence, a password that somebody set would go unused, or over a connection that is not encrypted.
    if has_tls and not kafka.has_tls:
        yield "security_protocol", f"SSL or SASL_SSL, as {has_tls[0]} is set"
    if has_sasl and not kafka.has_sasl:
        yield "security_protocol", f"SASL_SSL, as {has_sasl[0]} is set"
    if kafka.certificate_file is None and (kafka.key_file or kafka.key_password):
        yield "certificate_file", "the certificate to the key"
    if kafka.has_sasl:
        yield from _flaws_of_sasl(kafka)


def _flaws_of_sasl(kafka: KafkaSecurity) -> Iterator[tuple[str, str]]:
    if not kafka.sasl_mechanism:
        yield "sasl_mechanism", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    elif kafka.sasl_mechanism != "OAUTHBEARER":
        needed = (("sasl_username", "a user"), ("sasl_password", "the user's password"))
        yield from ((name, expected) for name, expected in needed if not getattr(kafka, name))
    elif not kafka.oauth_callback:
        yield from (
            (name, f"{what}, or FLUVIAL_KAFKA_OAUTH_CALLBACK for a function that gives tokens")
            for name, what in (
                ("oauth_token_url", "the URL of a token endpoint"),
                ("oauth_client_id", "the client's id there"),
                ("oauth_client_secret", "the client's secret there"),
            )
            if not getattr(kafka, name)
        )
