"""Which versions of records a policy's format knows. A later one is to it what it was to the Fluvial that wrote it.

So workers old and new give one verdict, and a log audits alike for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from schemas.avro import Schema

UPDATE_SCHEMAS: Final = {
    "fluvial/policy/v1": 1,
    "fluvial/policy/v2": 2,
    "fluvial/policy/v3": 2,
    "fluvial/policy/v4": 2,
    "fluvial/policy/v5": 2,
    "fluvial/policy/v6": 2,
}
"""The newest ClientUpdate that a policy's format takes; a newer one is of an unknown schema."""
SINCE_POLICY_V3: Final = {"Guide": 1, "GuideAnnouncement": 1} | dict.fromkeys(
    ("Barrier", "RegionalAggregate", "PartitionState"), 2
)
"""The first version of a record that policies before v3 do not know: to them it is an unknown schema, for ever."""
SINCE_POLICY_V4: Final = {"RegionalAggregate": 3}
"""The same of policies before v4."""
SINCE_POLICY_V5: Final = {"Pardon": 1}
"""The same of policies before v5."""
SINCE_POLICY_V6: Final = {"RegionalAggregate": 4, "PartitionState": 3}
"""The same of policies before v6."""
WITH_EDGES: Final = {"EdgeAggregate": 1}
"""The same of policies under which a task has no edges."""


def is_later(schema: Schema, policy: Policy) -> bool:
    """Whether a record is of a schema that the policy's format does not take."""
    if schema.name == "ClientUpdate":
        return schema.version > UPDATE_SCHEMAS[policy.format]
    return is_unknown(schema, policy)


def is_unknown(schema: Schema, policy: Policy) -> bool:
    """Whether a schema is later than all that the policy's format knows, whatever stands where it is named."""
    not_yet = (
        (policy.counts_shares, SINCE_POLICY_V3),
        (policy.says_buckets, SINCE_POLICY_V4),
        (policy.knows_pardons, SINCE_POLICY_V5),
        (policy.says_bases, SINCE_POLICY_V6),
        (policy.knows_edges, WITH_EDGES),
    )
    return any(
        schema.version >= since.get(schema.name, schema.version + 1) for known, since in not_yet if not known
    )
