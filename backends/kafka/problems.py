"""What Kafka's clients report, librdkafka and aiokafka, as our errors; and which of it passes by itself."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from aggregation.errors import ConnectionProblem, EnvironmentProblem, FluvialError, UsageProblem
from backends.kafka.refusals import denied_of, refusal_in

# librdkafka's own codes have an underscore and are public all the same.
ELECTING: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
AWAY: Final = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
    }
)


def passes(error: KafkaError) -> bool:
    """Whether librdkafka goes on by itself: at the end of a partition, and while a broker is away."""
    at_end = error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
    return at_end or error.retriable() or error.code() in AWAY


def problem_of(error: KafkaError, action: str, bootstrap: str) -> FluvialError:
    """FLV-3105 for a record that is too large, FLV-1024 for one that its topic refuses, FLV-3115 to FLV-3117 for what
    Kafka does not permit us, FLV-3100 for anything else.
    """
    denied = denied_of(error.code(), action, f"broker {bootstrap}")
    if denied is not None:
        return denied
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return UsageProblem(
            "FLV-3105",
            f"cannot {action}: the record is larger than the broker takes",
            hint="the limit is one setting: `fluvial config show`",
        )
    if error.code() == KafkaError.INVALID_RECORD:
        return EnvironmentProblem(
            "FLV-1024",
            f"cannot {action}: the broker refuses the record, so its topic is not configured as it has to be",
            where=f"broker {bootstrap}",
            hint="`fluvial doctor` says which topic differs, in what, and the command that mends it",
        )
    return _unanswered(error.str(), action, bootstrap)


def ended_problem(error: KafkaError, bootstrap: str) -> FluvialError:
    """FLV-3120: a producer has ended for another reason than a permission. No outage: only a new producer goes on."""
    return EnvironmentProblem(
        "FLV-3120",
        f"the producer has failed for good and takes no record any more: {error.str()}",
        where=f"broker {bootstrap}",
        hint="start this process again: it goes on where the log stands",
    )


def client_problem(error: Exception, action: str, bootstrap: str) -> FluvialError:
    """What keeps a reader from an answer; ``error`` is aiokafka's or the system's.

    FLV-3110 to FLV-3117 where a broker refuses us, FLV-3100 for anything else.
    """
    refusal = refusal_in(error, action, f"broker {bootstrap}")
    if refusal is not None:
        return refusal
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return _unanswered(str(said), action, bootstrap)


def _unanswered(why: str, action: str, bootstrap: str) -> FluvialError:
    return ConnectionProblem(
        "FLV-3100",
        f"cannot {action}: {why}",
        where=f"broker {bootstrap}",
        hint="see whether the broker runs with `fluvial doctor`, or start it with `fluvial up`",
    )
