"""Policies: every limit and every choice that decides what the logs mean. One module a format."""

from aggregation.policy.v1 import (
    SUM_LIMIT,
    UPDATE_BYTES_LIMIT,
    AnomalyPolicy,
    BufferPolicy,
    FixedPointPolicy,
    Policy,
    ServerPolicy,
    StalenessPolicy,
    UpdatesPolicy,
    WindowPolicy,
    policy_from_canonical,
    policy_from_mapping,
    policy_from_toml,
)

__all__ = [
    "SUM_LIMIT",
    "UPDATE_BYTES_LIMIT",
    "AnomalyPolicy",
    "BufferPolicy",
    "FixedPointPolicy",
    "Policy",
    "ServerPolicy",
    "StalenessPolicy",
    "UpdatesPolicy",
    "WindowPolicy",
    "policy_from_canonical",
    "policy_from_mapping",
    "policy_from_toml",
]
