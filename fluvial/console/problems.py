"""The console's own errors, and which status of HTTP each error of Fluvial has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import (
    AccessProblem,
    ConnectionProblem,
    EnvironmentProblem,
    FluvialError,
    IntegrityProblem,
    TimeoutProblem,
    UsageProblem,
)
from backends.object_store import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS: Final = {
    "FLV-2401": 404,
    "FLV-2402": 404,
    "FLV-6204": 404,
    "FLV-6205": 404,
    "FLV-6503": 404,
    "FLV-6504": 409,
    "FLV-6505": 400,
    "FLV-6506": 403,
    "FLV-6507": 401,
    "FLV-6508": 503,
    "FLV-6509": 503,
    "FLV-6510": 429,
}
RETRY_AFTER_SECONDS: Final = {429: "1", 503: "5"}


def status_of(error: FluvialError) -> int:
    """The status of HTTP. An outage is 502: the console answers, what stands behind it does not."""
    if error.error_id in _STATUS:
        return _STATUS[error.error_id]
    if isinstance(error, ObjectNotFound):
        return 404
    if isinstance(error, ConnectionProblem | AccessProblem | TimeoutProblem | IntegrityProblem):
        return 502
    return 400 if isinstance(error, UsageProblem) else 500


def document_of(error: FluvialError, command: str = "fluvial") -> dict[str, Any]:
    """What the page gets. ``command`` calls ``fluvial`` for the console's home: hints can be copied as they are."""
    problem = f"{error.message} ({error.where})" if error.where else error.message
    hint = error.hint.replace("`fluvial ", f"`{command} ")
    return {"error": {"id": error.error_id, "problem": problem, "hint": hint}}


def open_to_others(host: str) -> UsageProblem:
    """An address beyond this machine without token and TLS."""
    return UsageProblem(
        "FLV-6501",
        f"the console does not listen on {host} without a token and TLS: others could read everything",
        hint="give `--token`, `--tls-cert` and `--tls-key`, or leave `--host` out and come through `ssh -L`",
    )


def tls_files(reason: str) -> UsageProblem:
    """Certificate or key cannot be used."""
    return UsageProblem(
        "FLV-6501",
        f"the console cannot use its certificate: {reason}",
        hint="`--tls-cert` and `--tls-key` belong together: both in PEM, the key without a passphrase",
    )


def port_taken(host: str, port: int, reason: str) -> EnvironmentProblem:
    """Another program, or another console, has the port."""
    return EnvironmentProblem(
        "FLV-6502",
        f"the console cannot listen on port {port}: {reason}",
        where=f"{host}:{port}",
        hint="another console may be there already; choose another with `--port N`, or 0 for a free one",
    )


def nothing_there(what: str, hint: str) -> UsageProblem:
    """What was asked for is not where was looked."""
    return UsageProblem("FLV-6503", what, hint=hint)


def audit_runs() -> UsageProblem:
    """There is one audit at a time."""
    return UsageProblem(
        "FLV-6504",
        "an audit runs already, and there is one at a time",
        hint="wait until it has ended; on the command line `fluvial audit` runs beside it",
    )


def wrong_query(name: str, value: str, expected: str) -> UsageProblem:
    """A value in the address that is not what it has to be."""
    return UsageProblem(
        "FLV-6505",
        f"{name}={value[:80]!r}: expected {expected}",
        hint="see docs/console.md for what each address takes",
    )


def strange_host(host: str) -> UsageProblem:
    """The browser was led here under another name."""
    return UsageProblem(
        "FLV-6506",
        f"the host {host[:80]!r} is not one of this console's",
        hint="open it as http://127.0.0.1, or start it with `--allow-host NAME`",
    )


def token_wanted(hint: str) -> UsageProblem:
    """The operator's token is missing, or is another."""
    return UsageProblem(
        "FLV-6507",
        "this needs the operator's token, and it was not given or is another one",
        hint=hint,
    )


def too_many_viewers(viewers_max: int) -> ConnectionProblem:
    """Every place for a viewer is taken: somebody has to go."""
    return ConnectionProblem(
        "FLV-6508",
        f"{viewers_max} viewers are connected, which is as many as this console serves",
        hint="close a tab, or start a second console with `fluvial console --port 0`",
    )


def budget_spent(what: str, most: int) -> ConnectionProblem:
    """A request would read more than one page."""
    return ConnectionProblem(
        "FLV-6509",
        f"this would read more than {most} {what} for one answer",
        hint="the command line has no such bound: see `fluvial --help`",
    )


def busy(most: int) -> ConnectionProblem:
    """Too many requests wait for a reader."""
    return ConnectionProblem(
        "FLV-6510",
        f"{most} requests wait already",
        hint="try again in a second",
    )


def away(source: str, reason: str) -> ConnectionProblem:
    """Kafka or the store does not answer, as the last look at it saw."""
    return ConnectionProblem(
        "FLV-3100" if source == "kafka" else "FLV-4002",
        f"{source} is away: {reason}",
        hint="see whether the stack runs with `fluvial doctor`, or start it with `fluvial up`",
    )


def defect(kind: str) -> Mapping[str, Any]:
    """The answer to a defect of ours."""
    return {
        "error": {
            "id": "FLV-9000",
            "problem": f"a defect in Fluvial: {kind}",
            "hint": "please report it with what the console wrote to its terminal",
        }
    }
