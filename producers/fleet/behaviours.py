"""How a device can misbehave, and what the pipeline makes of each: the fleet's repertoire and the tests' table.

Every behaviour is a small function from an honest contribution to what gets appended, mostly one record. ``expected``
of a ``Behaviour`` holds the outcomes that its last record may get, the likeliest first; earlier records are honest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs import CodecName, EncodedTensor, data_bytes, encode_update
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from producers.sdk.updates import (
    Author,
    Outcome,
    Publication,
    choose_codec,
    honest_record,
    seal_update,
    update_record,
)
from schemas.avro import HEADER_BYTES, MARKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregation.layout import Layout
    from producers.sdk.bases import Base

ATTACK_FACTOR: Final = 5.0
NORM_FACTOR: Final = 2.0
_ATTACK_PURPOSE: Final = 1
_ADAPTIVE_SEED: Final = 15
"""All adaptive attackers push the same way: they are one."""


OUTLIERS: Final = tuple(
    reason.outcome
    for reason in (
        RejectionReason.ANOMALOUS,
        RejectionReason.QUARANTINED,
        RejectionReason.TOO_STALE,
        RejectionReason.OVER_SHARE,
    )
)
"""What may become of a well-formed update that its own device signed, besides that it counts."""


class Behaviour(Enum):
    """What a device does, and which outcomes its record may get.

    An attack is well-formed: what becomes of it is the policy's defence's. Under ``guide`` it is ``anomalous`` once
    there is a guide that it points against, and its device comes into quarantine; an adaptive one points past it.
    """

    HONEST = ("honest", ACCEPTED, *OUTLIERS)
    SIGN_FLIP = ("sign_flip", *OUTLIERS, ACCEPTED)
    NOISE = ("noise", *OUTLIERS, ACCEPTED)
    ADAPTIVE = ("adaptive", ACCEPTED, *OUTLIERS)
    BAD_SIGNATURE = ("bad_signature", RejectionReason.BAD_SIGNATURE.outcome)
    REPLAY = ("replay", RejectionReason.DUPLICATE.outcome, RejectionReason.TOO_STALE.outcome)
    STALE_BASE = ("stale_base", RejectionReason.TOO_STALE.outcome)
    WRONG_REGION = ("wrong_region", RejectionReason.WRONG_REGION.outcome)
    TRUNCATED = ("truncated", RejectionReason.UNDECODABLE.outcome)
    NOT_A_NUMBER = ("not_a_number", RejectionReason.NOT_FINITE.outcome, RejectionReason.TOO_STALE.outcome)
    UNKNOWN_SCHEMA = ("unknown_schema", RejectionReason.UNKNOWN_SCHEMA.outcome)
    WRONG_LAYOUT = ("wrong_layout", RejectionReason.WRONG_LAYOUT.outcome, RejectionReason.TOO_STALE.outcome)
    FORGED_BARRIER = ("forged_barrier", RejectionReason.BAD_SIGNATURE.outcome)
    WRONG_TASK = ("wrong_task", RejectionReason.WRONG_TASK.outcome)
    WRONG_PARTITION = ("wrong_partition", RejectionReason.WRONG_PARTITION.outcome)
    FUTURE_BASE = ("future_base", RejectionReason.FUTURE_BASE.outcome)
    UNKNOWN_BASE = ("unknown_base", RejectionReason.UNKNOWN_BASE.outcome, RejectionReason.TOO_STALE.outcome)
    STOLEN_ID = ("stolen_id", RejectionReason.BAD_SIGNATURE.outcome)
    NORM_EXCEEDED = (
        "norm_exceeded",
        RejectionReason.NORM_EXCEEDED.outcome,
        RejectionReason.TOO_STALE.outcome,
    )

    def __init__(self, label: str, *expected: str) -> None:
        self.label = label
        self.expected = expected

    @property
    def is_attack(self) -> bool:
        """Whether it is a well-formed update with a harmful content."""
        return self in ATTACKS


@dataclass(frozen=True, slots=True)
class Round:
    """One device's honest contribution, from which every behaviour is made."""

    author: Author
    base: Base
    layout: Layout
    codec: CodecName
    outcome: Outcome
    created_at_ms: int

    def record(self) -> dict[str, Any]:
        """The honest ClientUpdate."""
        return honest_record(
            self.author,
            self.base,
            self.layout,
            codec=self.codec,
            outcome=self.outcome,
            created_at_ms=self.created_at_ms,
        )

    def encoded(self, record: dict[str, Any]) -> Publication:
        """A ClientUpdate, rightly signed, addressed to where it belongs."""
        return self.author.publication(seal_update(self.author, record), record["update_id"])

    def described(self, tensors: list[EncodedTensor], codec: CodecName) -> dict[str, Any]:
        """A ClientUpdate of any tensors."""
        return update_record(
            self.author,
            self.base,
            tensors,
            self.layout,
            codec=codec,
            outcome=self.outcome,
            created_at_ms=self.created_at_ms,
        )

    @property
    def delta(self) -> npt.NDArray[np.float32]:
        """The honest delta of the weights."""
        return self.outcome.delta[: self.layout.trainable.parameters]

    def with_delta(self, delta: npt.NDArray[np.float32], codec: CodecName = "") -> Publication:
        """A rightly signed update of any delta of the weights, with honest buffers: neither clipped nor checked."""
        codec = codec or choose_codec(self.base.policy, self.codec)
        update = np.concatenate([delta, self.outcome.delta[delta.size :]])
        tensors = encode_update(update, self.layout, codec, self.author.rng(self.base.version))
        return self.encoded(self.described(tensors, codec))


def perform(behaviour: Behaviour, turn: Round) -> list[Publication]:
    """What a device of this behaviour appends in one round, in order."""
    return _ACTIONS[behaviour](turn)


def _honest(turn: Round) -> list[Publication]:
    return [turn.encoded(turn.record())]


def _sign_flip(turn: Round) -> list[Publication]:
    return [turn.with_delta((-ATTACK_FACTOR * turn.delta).astype(np.float32))]


def _noise(turn: Round) -> list[Publication]:
    noise = turn.author.rng(turn.base.version, _ATTACK_PURPOSE).normal(size=turn.delta.size)
    honest_norm = float(np.linalg.norm(turn.delta))
    noise *= ATTACK_FACTOR * honest_norm / float(np.linalg.norm(noise))
    return [turn.with_delta(noise.astype(np.float32))]


def _adaptive(turn: Round) -> list[Publication]:
    """What passes for honest and is not: of an ordinary length, nearly across what honest devices do.

    The attackers know the policy, and their own honest update for what a guide would say. They all push one way that is
    none of the task's.
    """
    honest = turn.delta.astype(np.float64)
    way = np.random.default_rng(_ADAPTIVE_SEED).normal(size=honest.size)
    norm = float(np.linalg.norm(honest))
    if norm == 0.0:
        return _honest(turn)
    toward = honest / norm
    way -= (way @ toward) * toward
    way /= float(np.linalg.norm(way))
    leaning = turn.base.policy.defence.guide_cosine_min / 2.0
    mixed = leaning * toward + float(np.sqrt(1.0 - leaning * leaning)) * way
    return [turn.with_delta((norm * mixed).astype(np.float32))]


def _norm_exceeded(turn: Round) -> list[Publication]:
    """All mass in one element, so that quantizing keeps the norm."""
    delta = np.zeros_like(turn.delta)
    delta[0] = NORM_FACTOR * turn.base.policy.updates.norm_max
    return [turn.with_delta(delta)]


def _bad_signature(turn: Round) -> list[Publication]:
    """The last byte of an envelope is the signature's last."""
    honest = turn.encoded(turn.record())
    return [replace(honest, value=honest.value[:-1] + bytes([honest.value[-1] ^ 1]))]


def _replay(turn: Round) -> list[Publication]:
    return _honest(turn) * 2


def _stale_base(turn: Round) -> list[Publication]:
    """A base just beyond the policy's bound; before there is one so old, a version below 0 counts as too old, too.

    Where bases are welcome for a time, one below 0 always.
    """
    staleness = turn.base.policy.staleness
    version = -1 if staleness.seconds_max > 0.0 else turn.base.version - staleness.versions_max - 1
    return [turn.encoded(turn.record() | {"base_version": version})]


def _future_base(turn: Round) -> list[Publication]:
    return [turn.encoded(turn.record() | {"base_version": turn.base.version + 1_000_000})]


def _unknown_base(turn: Round) -> list[Publication]:
    return [turn.encoded(turn.record() | {"base_sha256": "0" * 64})]


def _wrong_region(turn: Round) -> list[Publication]:
    """The honest bytes in another region's log; where there is one region only, a claim to be of another."""
    others = sorted(turn.author.genesis.regions.keys() - {turn.author.region})
    record = turn.record()
    if not others:
        return [turn.encoded(record | {"region": "elsewhere"})]
    value = seal_update(turn.author, record)
    return [
        turn.author.publication(value, record["update_id"], region=others[turn.base.version % len(others)])
    ]


def _wrong_partition(turn: Round) -> list[Publication]:
    """The honest bytes beside their partition; a region of one partition has no other, so they stay."""
    honest = turn.encoded(turn.record())
    return [
        replace(
            honest, partition=(honest.partition + 1) % turn.author.genesis.regions[honest.region].partitions
        )
    ]


def _wrong_task(turn: Round) -> list[Publication]:
    return [turn.encoded(turn.record() | {"task": "another-task"})]


def _stolen_id(turn: Round) -> list[Publication]:
    return [turn.encoded(turn.record() | {"device_id": f"{turn.author.device_id[:62]}-x"})]


def _truncated(turn: Round) -> list[Publication]:
    honest = turn.encoded(turn.record())
    return [replace(honest, value=honest.value[: len(honest.value) // 2])]


def _unknown_schema(turn: Round) -> list[Publication]:
    honest = turn.encoded(turn.record())
    return [
        replace(honest, value=MARKER + b"\0" * (HEADER_BYTES - len(MARKER)) + honest.value[HEADER_BYTES:])
    ]


def _wrong_layout(turn: Round) -> list[Publication]:
    record = turn.record()
    first = record["tensors"][0]
    record["tensors"][0] = first | {"name": f"{first['name']}.of_another_model"}
    return [turn.encoded(record)]


def _not_a_number(turn: Round) -> list[Publication]:
    """NaN elements in the widest codec that the policy takes; one that quantizes makes them NaN scales."""
    codec = max(turn.base.policy.updates.codecs, key=lambda name: data_bytes(name, turn.layout.parameters))
    delta = turn.delta.copy()
    delta[:: max(1, delta.size // 8)] = np.nan
    return [turn.with_delta(delta, codec)]


def _forged_barrier(turn: Round) -> list[Publication]:
    """A barrier to a version far ahead, signed by a device: if it counted, every honest update would be too stale."""
    barrier = {
        "task": turn.author.genesis.task,
        "region": turn.author.region,
        "version": turn.base.version + 1_000_000,
        "manifest_sha256": "0" * 64,
        "model_sha256": "0" * 64,
        "reference_sha256": "",
        "policy_sha256": turn.base.policy.sha256,
        "floor": turn.base.version + 1_000_000,
        "reason": "rollback",
    }
    value = turn.author.signer.sign("Barrier", barrier)
    return [turn.author.publication(value, turn.author.update_id(turn.base))]


_ACTIONS: Final[dict[Behaviour, Callable[[Round], list[Publication]]]] = {
    Behaviour.HONEST: _honest,
    Behaviour.SIGN_FLIP: _sign_flip,
    Behaviour.NOISE: _noise,
    Behaviour.ADAPTIVE: _adaptive,
    Behaviour.BAD_SIGNATURE: _bad_signature,
    Behaviour.REPLAY: _replay,
    Behaviour.STALE_BASE: _stale_base,
    Behaviour.WRONG_REGION: _wrong_region,
    Behaviour.TRUNCATED: _truncated,
    Behaviour.NOT_A_NUMBER: _not_a_number,
    Behaviour.UNKNOWN_SCHEMA: _unknown_schema,
    Behaviour.WRONG_LAYOUT: _wrong_layout,
    Behaviour.FORGED_BARRIER: _forged_barrier,
    Behaviour.WRONG_TASK: _wrong_task,
    Behaviour.WRONG_PARTITION: _wrong_partition,
    Behaviour.FUTURE_BASE: _future_base,
    Behaviour.UNKNOWN_BASE: _unknown_base,
    Behaviour.STOLEN_ID: _stolen_id,
    Behaviour.NORM_EXCEEDED: _norm_exceeded,
}

ATTACKS: Final = (Behaviour.SIGN_FLIP, Behaviour.NOISE, Behaviour.ADAPTIVE)
MISBEHAVIOURS: Final = (
    Behaviour.BAD_SIGNATURE,
    Behaviour.REPLAY,
    Behaviour.STALE_BASE,
    Behaviour.WRONG_REGION,
    Behaviour.TRUNCATED,
    Behaviour.NOT_A_NUMBER,
    Behaviour.UNKNOWN_SCHEMA,
    Behaviour.WRONG_LAYOUT,
    Behaviour.FORGED_BARRIER,
)
"""What misbehaving devices of a fleet do, in turn. The other behaviours are for tests."""
