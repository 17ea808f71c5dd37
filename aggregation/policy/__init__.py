"""Policies: every limit and every choice that decides what the logs mean. One module a format.

People write TOML (``docs/policy.md`` explains each key); the system speaks canonical JSON (RFC 8785), whose SHA-256
names the policy in barriers, aggregates and manifests. Staleness weights are computed once, when the TOML is read, and
stand in the document as integers. Read ``v6`` (the newest format), ``v5`` to ``v1`` (frozen), ``checks``,
``reading``.
"""

from aggregation.policy.checks import BY_EXAMPLES, SUM_LIMIT, UPDATE_BYTES_LIMIT, VERSIONS_MAX_LIMIT
from aggregation.policy.policy import Policy
from aggregation.policy.reading import (
    BYTE_ORDER_MARK,
    FORMATS,
    NEWEST,
    policy_from_canonical,
    policy_from_mapping,
    policy_from_toml,
)
from aggregation.policy.v2 import FixedPointPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import StalenessPolicy
from aggregation.policy.v4 import DefencePolicy, MergePolicy
from aggregation.policy.v5 import SchedulePolicy, WeightsPolicy
from aggregation.policy.v6 import (
    BufferPolicy,
    ControlPolicy,
    EdgesPolicy,
    SelectionPolicy,
    ServerPolicy,
    SharesPolicy,
)

__all__ = [
    "BYTE_ORDER_MARK",
    "BY_EXAMPLES",
    "FORMATS",
    "NEWEST",
    "SUM_LIMIT",
    "UPDATE_BYTES_LIMIT",
    "VERSIONS_MAX_LIMIT",
    "BufferPolicy",
    "ControlPolicy",
    "DefencePolicy",
    "EdgesPolicy",
    "FixedPointPolicy",
    "MergePolicy",
    "Policy",
    "SchedulePolicy",
    "SelectionPolicy",
    "ServerPolicy",
    "SharesPolicy",
    "StalenessPolicy",
    "UpdatesPolicy",
    "WeightsPolicy",
    "WindowPolicy",
    "policy_from_canonical",
    "policy_from_mapping",
    "policy_from_toml",
]
