"""What a broker does not permit, or refuses for certain, is a problem of access; all else is an outage."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from aiokafka import errors
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import KafkaError

from aggregation.errors import AccessProblem
from backends.kafka.problems import client_problem, problem_of
from backends.kafka.refusals import refusal_in
from backends.outages import OUTAGES

DENIED = {
    errors.TopicAuthorizationFailedError: "FLV-3115",
    errors.GroupAuthorizationFailedError: "FLV-3116",
    errors.ClusterAuthorizationFailedError: "FLV-3117",
}


@pytest.mark.parametrize(("kind", "error_id"), DENIED.items())
def test_what_kafka_does_not_permit_is_no_outage(kind: Any, error_id: str) -> None:
    for problem in (
        client_problem(kind(), "read fl.t.updates.eu", "kafka:9092"),
        problem_of(KafkaError(kind.errno), "append to fl.t.updates.eu", "kafka:9092"),
    ):
        assert problem.error_id == error_id
        assert isinstance(problem, AccessProblem)
        assert not isinstance(problem, OUTAGES)
        assert "`fluvial task acls`" in problem.hint


def behind(cause: Exception) -> KafkaConnectionError:
    """As aiokafka tells of a connection that was closed while it waited."""
    error = KafkaConnectionError("Connection at kafka:9092 closed")
    error.__cause__ = cause
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "error_id"),
    [
        (behind(tls("SSLV3_ALERT_BAD_CERTIFICATE")), "FLV-3112"),
        (behind(tls("SSLV3_ALERT_CERTIFICATE_UNKNOWN")), "FLV-3112"),
        (behind(tls("TLSV13_ALERT_CERTIFICATE_REQUIRED")), "FLV-3112"),
        (behind(tls("SSLV3_ALERT_CERTIFICATE_EXPIRED")), "FLV-3112"),
        (behind(tls("TLSV1_ALERT_UNKNOWN_CA")), "FLV-3112"),
        (tls("WRONG_VERSION_NUMBER"), "FLV-3114"),
        (tls("TLSV1_ALERT_PROTOCOL_VERSION"), "FLV-3114"),
        (errors.SaslAuthenticationFailed("no such user"), "FLV-3113"),
        (errors.UnsupportedSaslMechanismError("PLAIN"), "FLV-3113"),
        (errors.IllegalSaslStateError(), "FLV-3114"),
        (behind(ConnectionResetError()), None),
        (behind(EOFError()), None),
        (behind(tls("UNEXPECTED_EOF_WHILE_READING")), None),
        (tls("TLSV1_ALERT_INTERNAL_ERROR"), None),
        (ConnectionRefusedError(), None),
        (TimeoutError(), None),
        (KafkaConnectionError("closed"), None),
    ],
    ids=repr,
)
def test_only_what_is_certain_is_a_refusal(error: Exception, error_id: str | None) -> None:
    refusal = refusal_in(error, "read", "broker kafka:9092")
    assert (refusal and refusal.error_id) == error_id
