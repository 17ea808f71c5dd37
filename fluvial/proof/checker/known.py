"""Which versions of records a policy's format knows: schemas/meaning.md. All others are of an unknown schema to it."""

from __future__ import annotations

from typing import Any, Final

from fluvial.proof.checker.wire import Signer

FIRST_FORMAT: Final = "fluvial/policy/v1"
"""Of a document that does not say its format."""
UPDATES: Final = {FIRST_FORMAT: 1} | {f"fluvial/policy/v{number}": 2 for number in (2, 3, 4, 5, 6)}
"""The newest version of ClientUpdate that a policy's format takes."""
SINCE: Final = {
    3: {"Guide": 1, "GuideAnnouncement": 1, "Barrier": 2, "RegionalAggregate": 2, "PartitionState": 2},
    4: {"RegionalAggregate": 3},
    5: {"Pardon": 1},
    6: {"RegionalAggregate": 4, "PartitionState": 3},
}
"""The first versions of records that came with a policy's format, by its number."""
WITH_EDGES: Final = {"EdgeAggregate": 1}
"""The same of policies under which a task has edges."""
GUARDIANS_SINCE: Final = 3
COHORTS_SINCE: Final = 6


def newest_update(policy: dict[str, Any]) -> int:
    """The newest version of ClientUpdate that the policy takes."""
    return UPDATES[_format_of(policy)]


def is_later(policy: dict[str, Any], kind: str, version: int) -> bool:
    """Whether the policy's format does not know that version of a record, wherever it is named."""
    number = number_of(policy)
    later = [records for since, records in SINCE.items() if since > number]
    later += [] if knows_edges(policy) else [WITH_EDGES]
    return any(kind in records and version >= records[kind] for records in later)


def is_new_to(policy: dict[str, Any], signer: Signer) -> bool:
    """Whether to the policy such a certificate is none: guardians came with v3, cohorts with v6, edges by a key."""
    return (
        (signer.role == "guardian" and number_of(policy) < GUARDIANS_SINCE)
        or (signer.cohort != "" and number_of(policy) < COHORTS_SINCE)
        or (signer.is_of_an_edge and not knows_edges(policy))
    )


def knows_edges(policy: dict[str, Any]) -> bool:
    """Whether regions of the policy's tasks may have edges below them."""
    return bool(policy.get("edges", {}).get("updates_max", 0) > 0)


def number_of(policy: dict[str, Any]) -> int:
    """The number of the policy's format."""
    return int(_format_of(policy).rpartition("v")[2])


def _format_of(policy: dict[str, Any]) -> str:
    return str(policy.get("format", FIRST_FORMAT))
