"""A broker that answers and refuses us, told apart from one that is away: which error of a client's is which.

An outage is waited for; a refusal (AccessProblem) is not, for it stays. Only what is certain is a refusal: a
certificate or a password that was looked at and rejected, a missing permission, a protocol that the listener does not
speak. A connection that only breaks is an outage.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

from aiokafka import errors

from aggregation.errors import AccessProblem

_WRONG_NAME: Final = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OF_OUR_CERTIFICATE: Final = (
    "CERTIFICATE",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
    "HANDSHAKE_FAILURE",
)
"""Alerts by which a broker says that it does not take ours; with none, Java says ``bad certificate``."""
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
_OTHER_TLS: Final = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "INSUFFICIENT_SECURITY")

TOPIC_DENIED: Final = errors.TopicAuthorizationFailedError.errno
GROUP_DENIED: Final = errors.GroupAuthorizationFailedError.errno
CLUSTER_DENIED: Final = errors.ClusterAuthorizationFailedError.errno


def refusal_in(error: BaseException, action: str, where: str) -> AccessProblem | None:
    """The refusal that is behind an error of aiokafka's or of TLS; None where it may be an outage."""
    for one in _chain(error):
        if isinstance(one, AccessProblem):
            return one
        if isinstance(one, ssl.SSLCertVerificationError):
            return _broker_unverified(one, where)
        if isinstance(one, ssl.SSLError) and (found := _tls_refusal(one, where)) is not None:
            return found
        if isinstance(one, errors.SaslAuthenticationFailed):
            return _sasl_refused(str(one.args[0]) if one.args else "no reason given", where)
        if isinstance(one, errors.UnsupportedSaslMechanismError):
            return _sasl_refused("it does not offer this mechanism of SASL", where)
        if isinstance(one, errors.IllegalSaslStateError):
            return other_protocol("it does not ask for SASL, and we are set to it", where)
        code = getattr(one, "errno", None)
        if isinstance(one, errors.KafkaError) and (denied := denied_of(code, action, where)) is not None:
            return denied
    return None


def denied_of(code: int | None, action: str, where: str) -> AccessProblem | None:
    """The refusal behind Kafka's error code, where it is one of a missing permission (ACL)."""
    hint = "`fluvial task acls` prints what each role needs, for whoever administers the cluster"
    if code == TOPIC_DENIED:
        return AccessProblem(
            "FLV-3115", f"cannot {action}: Kafka permits us not enough on that topic", where=where, hint=hint
        )
    if code == GROUP_DENIED:
        return AccessProblem(
            "FLV-3116",
            f"cannot {action}: Kafka does not permit us this consumer group",
            where=where,
            hint=hint,
        )
    if code == CLUSTER_DENIED:
        return AccessProblem(
            "FLV-3117",
            f"cannot {action}: Kafka does not permit us this on the cluster",
            where=where,
            hint=hint,
        )
    return None


def other_protocol(why: str, where: str) -> AccessProblem:
    """FLV-3114: the listener speaks otherwise than we are set to."""
    return AccessProblem(
        "FLV-3114",
        f"Kafka's listener speaks another protocol: {why}",
        where=where,
        hint="set FLUVIAL_KAFKA_SECURITY_PROTOCOL to what this listener speaks (PLAINTEXT, SSL, SASL_PLAINTEXT or "
        "SASL_SSL), or take the port of another listener; a process that runs since before `fluvial up --secure` or "
        "`--insecure` has to be started again",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _broker_unverified(error: ssl.SSLCertVerificationError, where: str) -> AccessProblem:
    if error.verify_code in _WRONG_NAME:
        return AccessProblem(
            "FLV-3111",
            f"the broker's certificate is for another name: {error.verify_message}",
            where=where,
            hint="reach it by a name that stands in its certificate (`subjectAltName`), by FLUVIAL_BOOTSTRAP_SERVERS "
            "and by the broker's advertised.listeners",
        )
    return AccessProblem(
        "FLV-3110",
        f"the broker's certificate is not one that we trust: {error.verify_message}",
        where=where,
        hint="FLUVIAL_KAFKA_CA_FILE names the CA that issued it, in PEM; without it the system's CAs are trusted",
    )


def _tls_refusal(error: ssl.SSLError, where: str) -> AccessProblem | None:
    reason = error.reason or ""
    if "ALERT" in reason and any(part in reason for part in _OF_OUR_CERTIFICATE):
        return AccessProblem(
            "FLV-3112",
            f"the broker refuses our certificate: {_words(reason)}",
            where=where,
            hint="FLUVIAL_KAFKA_CERTIFICATE_FILE and FLUVIAL_KAFKA_KEY_FILE name a certificate that has not expired, "
            "of a CA that the broker trusts (its ssl.truststore)",
        )
    if any(part in reason for part in _NO_TLS):
        return other_protocol("it does not speak TLS, and we are set to it", where)
    if any(part in reason for part in _OTHER_TLS):
        return other_protocol(f"no version of TLS is common to both ({_words(reason)})", where)
    return None


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _sasl_refused(why: str, where: str) -> AccessProblem:
    return AccessProblem(
        "FLV-3113",
        f"Kafka refuses who we say we are: {why}",
        where=where,
        hint="compare FLUVIAL_KAFKA_SASL_MECHANISM, FLUVIAL_KAFKA_SASL_USERNAME and its password (or the token's "
        "client) with what the broker was told",
    )
