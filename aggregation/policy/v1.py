"""The policy of a task: every limit and every choice that decides what the logs mean, in one document.

People write TOML (``docs/policy.md`` explains each key); the system speaks canonical JSON (RFC 8785), whose
SHA-256 names the policy in barriers, aggregates and manifests. Staleness weights are computed once, when the
TOML is read, and stand in the canonical document as integers.

A policy that has an unknown key, contradicts itself or could overflow is refused here, with the key, the
value and the bound.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args

import msgspec
import rfc8785

from aggregation.errors import UsageProblem
from aggregation.weights.staleness import WEIGHT_ONE, staleness_weights

VERSIONS_MAX_LIMIT = 10_000
UPDATE_BYTES_LIMIT = 64 << 20
SUM_LIMIT = (1 << 63) - 1
INT8_MAGNITUDE_MAX = 128
CodecName = Literal["int8", "float32"]
"""The names of this format are its own and frozen, whatever members the families get later."""
CODECS: tuple[CodecName, ...] = get_args(CodecName)
POLICIES_CACHED_MAX = 32
"""A task has few policies, and every partition and version asks for the same ones."""


class UpdatesPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one update may be."""

    bytes_max: int = 8 << 20
    norm_clip: float = 3.0
    norm_max: float = 1000.0
    codecs: tuple[CodecName, ...] = CODECS


class StalenessPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much an update counts whose base is not the newest version.

    ``weights`` is derived; see ``staleness``.
    """

    kind: Literal["constant", "polynomial", "hinge"] = "polynomial"
    versions_max: int = 20
    exponent: float = 0.5
    hinge_versions: int = 4
    hinge_slope: float = 1.0
    weights: tuple[int, ...] = ()


class WindowPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a partition's window closes."""

    updates_max: int = 64
    records_max: int = 10_000
    seconds_max: float = 2.0


class BufferPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the merger makes a version: FedBuff's K, or a deadline."""

    updates: int = 20
    seconds_max: float = 10.0


class ServerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server optimizer; see ``optimizers`` for the formulas and their sources."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 0.001
    divide_by: Literal["updates", "weights"] = "updates"


class AnomalyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a well-formed, well-signed update is refused as an outlier; see ``anomaly`` for the scores."""

    enabled: bool = True
    norm_deviations_max: float = 6.0
    cosine_min: float = -0.5
    history_updates: int = 64
    history_updates_min: int = 8


class FixedPointPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sums count in units of 2**-exponent. Fixed for the life of a task."""

    exponent: int = 32


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy.

    Build it with ``policy_from_toml``, ``policy_from_mapping`` or ``policy_from_canonical``.
    """

    updates: UpdatesPolicy = UpdatesPolicy()
    staleness: StalenessPolicy = StalenessPolicy()
    window: WindowPolicy = WindowPolicy()
    buffer: BufferPolicy = BufferPolicy()
    server: ServerPolicy = ServerPolicy()
    anomaly: AnomalyPolicy = AnomalyPolicy()
    fixed_point: FixedPointPolicy = FixedPointPolicy()

    def canonical(self) -> bytes:
        """The canonical JSON document (RFC 8785): the bytes that ``sha256`` names."""
        return _canonical(self)

    @property
    def sha256(self) -> str:
        """SHA-256 of ``canonical()``, hex."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def updates_per_version_max(self) -> int:
        """The most updates that one version can hold.

        The buffer may be one short when a full window arrives.
        """
        return self.buffer.updates - 1 + self.window.updates_max


@lru_cache(maxsize=POLICIES_CACHED_MAX)
def _canonical(policy: Policy) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(policy))


def policy_from_toml(text: str, *, overrides: Mapping[str, Any] | None = None) -> Policy:
    """Read a policy from TOML.

    Raises ``UsageProblem``: FLV-2001 (form), FLV-2002 (meaning), FLV-2003 (overflow).
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem("FLV-2001", f"the policy is not TOML: {error}") from error
    return policy_from_mapping(_merged(document, overrides or {}))


def policy_from_mapping(document: Mapping[str, Any]) -> Policy:
    """Read a policy from nested mappings, sections first: ``{"buffer": {"updates": 20}}``."""
    policy = _convert(document)
    _check(policy)
    staleness = policy.staleness
    weights = staleness_weights(staleness.kind, staleness, versions_max=staleness.versions_max)
    _check_weights(weights)
    if staleness.weights and staleness.weights != weights:
        raise _refused("staleness.weights", staleness.weights, "left out: it is derived from the other keys")
    return msgspec.structs.replace(policy, staleness=msgspec.structs.replace(staleness, weights=weights))


@lru_cache(maxsize=POLICIES_CACHED_MAX)
def policy_from_canonical(data: bytes) -> Policy:
    """Read a canonical document. The staleness table is taken as it stands, never computed again."""
    policy = _convert(msgspec.json.decode(data))
    _check(policy)
    if len(policy.staleness.weights) != policy.staleness.versions_max + 1:
        raise _refused(
            "staleness.weights", len(policy.staleness.weights), "staleness.versions_max + 1 entries"
        )
    _check_weights(policy.staleness.weights)
    return policy


def _check_weights(weights: tuple[int, ...]) -> None:
    """No weight may be 0.

    An update that counts for nothing is not accepted, and a sum of weights has to divide.
    """
    for versions, weight in enumerate(weights):
        if not 1 <= weight <= WEIGHT_ONE:
            raise _refused(
                f"staleness.weights[{versions}]",
                weight,
                f"between 1 and {WEIGHT_ONE}: lower staleness.versions_max, "
                "or let the weights fall less steeply",
            )


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _convert(document: Mapping[str, Any]) -> Policy:
    try:
        return msgspec.convert(document, Policy)
    except msgspec.ValidationError as error:
        raise UsageProblem(
            "FLV-2001",
            f"the policy is refused: {error}",
            hint="docs/policy.md lists every key with its unit and default",
        ) from error


def _refused(key: str, value: object, bound: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2002",
        f"the policy is refused: {key} = {value!r}, it has to be {bound}",
        hint="docs/policy.md lists every key with its unit and default",
    )


def _check(policy: Policy) -> None:
    """Check what the types cannot say: ranges, then keys against each other, then overflow."""
    for key, value, low, high in _ranges(policy):
        if not (low <= value <= high):  # NaN fails too
            raise _refused(key, value, f"between {low:g} and {high:g}")
    if policy.updates.norm_max < policy.updates.norm_clip:
        raise _refused(
            "updates.norm_max",
            policy.updates.norm_max,
            f"at least updates.norm_clip = {policy.updates.norm_clip:g}",
        )
    if not policy.updates.codecs or len(set(policy.updates.codecs)) != len(policy.updates.codecs):
        raise _refused("updates.codecs", policy.updates.codecs, f"some of {', '.join(CODECS)}, each once")
    if policy.window.records_max < policy.window.updates_max:
        raise _refused(
            "window.records_max",
            policy.window.records_max,
            f"at least window.updates_max = {policy.window.updates_max}",
        )
    if policy.anomaly.history_updates_min > policy.anomaly.history_updates:
        raise _refused(
            "anomaly.history_updates_min",
            policy.anomaly.history_updates_min,
            f"at most anomaly.history_updates = {policy.anomaly.history_updates}",
        )
    _check_overflow(policy)


def _ranges(policy: Policy) -> list[tuple[str, float, float, float]]:
    tiny, huge = 1e-12, 1e12
    staleness, server, anomaly = policy.staleness, policy.server, policy.anomaly
    return [
        ("updates.bytes_max", policy.updates.bytes_max, 1, UPDATE_BYTES_LIMIT),
        ("updates.norm_clip", policy.updates.norm_clip, tiny, huge),
        ("updates.norm_max", policy.updates.norm_max, tiny, huge),
        ("staleness.versions_max", staleness.versions_max, 0, VERSIONS_MAX_LIMIT),
        ("staleness.exponent", staleness.exponent, 0.0, 16.0),
        ("staleness.hinge_versions", staleness.hinge_versions, 0, VERSIONS_MAX_LIMIT),
        ("staleness.hinge_slope", staleness.hinge_slope, 0.0, huge),
        ("window.updates_max", policy.window.updates_max, 1, 1_000_000),
        ("window.records_max", policy.window.records_max, 1, 10_000_000),
        ("window.seconds_max", policy.window.seconds_max, 0.01, 86_400.0),
        ("buffer.updates", policy.buffer.updates, 1, 100_000_000),
        ("buffer.seconds_max", policy.buffer.seconds_max, 0.01, 604_800.0),
        ("server.learning_rate", server.learning_rate, tiny, huge),
        ("server.momentum", server.momentum, 0.0, 0.999999),
        ("server.beta_1", server.beta_1, 0.0, 0.999999),
        ("server.beta_2", server.beta_2, 0.0, 0.999999),
        ("server.adaptivity", server.adaptivity, tiny, huge),
        ("anomaly.norm_deviations_max", anomaly.norm_deviations_max, 0.1, huge),
        ("anomaly.cosine_min", anomaly.cosine_min, -1.0, 1.0),
        ("anomaly.history_updates", anomaly.history_updates, 1, 100_000),
        ("anomaly.history_updates_min", anomaly.history_updates_min, 2, 100_000),
        ("fixed_point.exponent", policy.fixed_point.exponent, 8, 48),
    ]


def _check_overflow(policy: Policy) -> None:
    """No sum of a version may leave int64.

    After clipping, one update adds at most ``norm_clip * 2**exponent`` to an element, plus the rounding of
    its coefficient (half a unit times an int8's magnitude, 128), plus the rounding of norm, clip and product
    (a few parts in 2**53; 2**-50 is more than all of them); a version holds ``updates_per_version_max``
    updates.
    """
    clipped = math.ceil(policy.updates.norm_clip * (1 << policy.fixed_point.exponent))
    one_update = clipped + (clipped >> 50) + 1 + INT8_MAGNITUDE_MAX
    largest = policy.updates_per_version_max * one_update
    if largest > SUM_LIMIT:
        raise UsageProblem(
            "FLV-2003",
            "the policy could overflow: (buffer.updates - 1 + window.updates_max) = "
            f"{policy.updates_per_version_max} updates of updates.norm_clip = {policy.updates.norm_clip:g} "
            f"at fixed_point.exponent = {policy.fixed_point.exponent} "
            f"reach {largest:.3e}, the bound is {SUM_LIMIT:.3e}",
            hint="lower fixed_point.exponent, updates.norm_clip, buffer.updates or window.updates_max",
        )
