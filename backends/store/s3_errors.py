"""What an S3 server's answers mean to us: which to wait for, which never change by waiting, and what to do."""

from __future__ import annotations

import re
from typing import Final

from aggregation.errors import ConnectionProblem
from backends.object_store import ObjectNotFound, StoreFull, StoreRefused, StoreUnavailable, wrong_key

_REFUSED: Final = frozenset(
    {
        "401",
        "403",  # to a HEAD
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "KMS.DisabledException",
        "KMS.NotFoundException",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_FULL: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_CLASH: Final = frozenset({"XMinioObjectExistsAsDirectory", "XMinioParentIsObject"})
_BUSY: Final = frozenset(
    {
        "IncompleteBody",  # a connection that was cut in the middle of a PUT, or a disk that took only a part
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
    }
)
NO_SUCH_OBJECT: Final = frozenset({"NoSuchKey", "404"})
"""An answer to a HEAD has no body: then its status is all that there is."""
TAKEN: Final = frozenset({"PreconditionFailed"})
CONFLICTS: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_URLLIB3_OBJECT: Final = re.compile(
    r"^(HTTPS?ConnectionPool\(.*?\): |<?[\w.]*Connection\w*(\(.*?\)| object at \w+>): )"
)
_NO_TLS: Final = "WRONG_VERSION_NUMBER"
"""What OpenSSL calls an answer that is no record of TLS."""
_HTTP_SERVER_ERROR: Final = 500
_HTTP_STORAGE_FULL: Final = 507


def from_answer(code: str, status: int, text: str, key: str, where: str) -> Exception:
    """Our error for a server's answer: its code, HTTP status and message, about ``key`` in the store ``where``."""
    if code in NO_SUCH_OBJECT:
        return ObjectNotFound(key, where=where)
    if code == "NoSuchBucket":
        return no_bucket(key, where)
    if code == "AccessDenied":
        return not_permitted(key, where)
    if code in _REFUSED:
        clock = " (this machine's clock is off)" if code == "RequestTimeTooSkewed" else ""
        return refused(f"the store refuses our keys: {code}{clock}", where)
    if code in _CLASH:
        return wrong_key(key, "a key that is not also a prefix of other keys")
    if code in _FULL or status == _HTTP_STORAGE_FULL:
        return StoreFull(
            "FLV-4004",
            f"the object store is full: {code}",
            where=where,
            hint="make room on the store's disk; work goes on by itself once there is some",
        )
    if code in _BUSY or status >= _HTTP_SERVER_ERROR:
        return unavailable(f"{code}: {text}" if code else f"HTTP {status}", where)
    return ConnectionProblem(
        "FLV-4007",
        f"the store refuses the request for {key!r}: HTTP {status}, {code}: {text}",
        where=where,
        hint="check that the server speaks S3 with conditional writes: `fluvial doctor`",
    )


def unavailable(reason: str, where: str) -> StoreUnavailable:
    """FLV-4002: worth waiting for."""
    return StoreUnavailable(
        "FLV-4002",
        f"the object store does not serve: {reason}",
        where=where,
        hint="see its state with `fluvial doctor`, start the local one with `fluvial up`",
    )


def refused(reason: str, where: str) -> StoreRefused:
    """FLV-4003: whatever we ask, we are not let in."""
    return StoreRefused(
        "FLV-4003",
        reason,
        where=where,
        hint="compare the keys and where they come from with `fluvial config show --sources`",
    )


def not_permitted(key: str, where: str) -> StoreRefused:
    """FLV-4003: our keys are known, and may not do this."""
    return StoreRefused(
        "FLV-4003",
        f"the store does not permit it to our keys (AccessDenied): {key!r}",
        where=where,
        hint="see whose keys they are with `fluvial config show --sources`; what each role needs is printed by "
        "`fluvial task acls --format minio`, and a local stack gets it by `fluvial up`",
    )


def not_trusted(reason: str, where: str) -> StoreRefused:
    """FLV-4009: whoever answers there does not prove that it is the store; FLV-4114: it does not even speak TLS."""
    if _NO_TLS in reason:
        return other_protocol(secure=True, where=where)
    return StoreRefused(
        "FLV-4009",
        f"the store's certificate is not accepted: {reason}",
        where=where,
        hint="name the CA that issued it in FLUVIAL_STORE_CA_FILE, and the store by a name that stands in it",
    )


def other_protocol(*, secure: bool, where: str) -> StoreRefused:
    """FLV-4114: one side speaks TLS, the other does not. ``secure``: that we do."""
    said = (
        "it does not speak TLS, and we are set to it" if secure else "it speaks TLS, and we are not set to it"
    )
    return StoreRefused(
        "FLV-4114",
        f"the object store is spoken to in the wrong protocol: {said}",
        where=where,
        hint=f"set FLUVIAL_STORE_SECURE={str(not secure).lower()}, or the scheme of FLUVIAL_STORE_ENDPOINT; a process "
        "that runs since before `fluvial up --secure` or `--insecure` has to be started again",
    )


def no_bucket(bucket: str, where: str) -> ConnectionProblem:
    """FLV-4006."""
    return ConnectionProblem(
        "FLV-4006",
        f"the store has no such bucket: {bucket!r}",
        where=where,
        hint="`fluvial up` makes it on the local stack; elsewhere make it with your store's own tool",
    )


def conflict_lasts(key: str, attempts: int, where: str) -> StoreUnavailable:
    """FLV-4002: conditional writes of one key met each other every time."""
    return StoreUnavailable(
        "FLV-4002",
        f"the store answered 409 to {attempts} conditional writes of {key!r} in a row",
        where=where,
        hint="repeat the call; if it lasts, `fluvial doctor` tries the store's conditional writes",
    )


def shortly(error: BaseException) -> str:
    """The innermost reason in words, without the Python object that urllib3 puts in front."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    return _URLLIB3_OBJECT.sub("", str(inner)) or type(inner).__name__
