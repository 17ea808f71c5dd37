"""One partition's state, as values that compare, and a ``Site`` that drives its fold from bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aggregation.fold.events import Barrier, Effect, Event, Verdict, WindowClosed
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from schemas.records import decode_record
from tests.factories.certificates import trust
from tests.factories.task import LAYOUT, NOW_MS, REGION, TASK, model_sha, policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from schemas.certificates import Trust


def state_of(
    rules: Policy | None = None, *, partition: int = 0, partitions: int = 1, layout: Layout = LAYOUT
) -> PartitionState:
    """A partition's state before offset 0."""
    return initial(
        task=TASK,
        region=REGION,
        partition=partition,
        partitions=partitions,
        layout=layout,
        policy=rules or policy(),
        model_sha256=model_sha(0),
    )


def snapshot(state: PartitionState) -> dict[str, Any]:
    """Everything a state holds, as values that compare and that later folding does not change."""
    window = state.window
    return {
        "next_offset": state.next_offset,
        "version": state.version,
        "floor": state.floor,
        "policy": state.policy,
        "policy_sha256": state.policy_sha256,
        "reference": state.reference and (state.reference.q.tobytes(), state.reference.scales),
        "reference_sha256": state.reference_sha256,
        "models": dict(state.models),
        "counted": {version: set(devices) for version, devices in state.counted.items()},
        "revoked": set(state.revoked),
        "norms": state.history.values(),
        "sequence": state.sequence,
        "previous_sha256": state.previous_sha256,
        "window.first_offset": window.first_offset,
        "window.counts": {outcome: count for outcome, count in window.counts.items() if count},
        "window.weight_total": window.weight_total,
        "window.staleness": (window.staleness_total, window.staleness_max),
        "window.update_bytes": window.update_bytes,
        "window.sums": None if window.sums is None else window.sums.tobytes(),
        "window.contributors": window.contributors.hexdigest(),
        "window.histograms": window.counting.closed(),
        "superseded": dict(state.superseded),
        "shares": [(device, replace(share)) for device, share in state.shares],
        "quarantined": dict(state.shares.quarantined),
        "usual": state.usual,
        "edges": dict(state.edges),
        "guide": (state.guide_sha256, state.guide and (state.guide.q.tobytes(), state.guide.scales)),
    }


@dataclass
class Site:
    """One partition, driven from bytes: appends records to a log, decodes and folds them, keeps the
    effects."""

    state: PartitionState = field(default_factory=state_of)
    trust: Trust = field(default_factory=trust)
    log: list[bytes | None] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def event(self, value: bytes | None, timestamp_ms: int = NOW_MS) -> Event:
        """What a record says; objects of a barrier are filled in (the policy in force, no reference)."""
        event = decode_record(value, timestamp_ms, self.trust, self.state.policy)
        if isinstance(event, Barrier):
            fields = {name: getattr(event, name) for name in event.__slots__}
            event = Barrier(**(fields | {"policy": self.state.policy}))
        return event

    def append(self, value: bytes | None, timestamp_ms: int = NOW_MS) -> Verdict:
        """Append one record, fold it, check the state's rules; returns its verdict."""
        return self.fold(self.event(value, timestamp_ms))

    def fold(self, event: Event) -> Verdict:
        """Fold one event at the next offset."""
        effects = fold_into(self.state, self.state.next_offset, event)
        self.state.validate()
        self.effects += effects
        verdict = effects[0]
        assert isinstance(verdict, Verdict)
        return verdict

    @property
    def closed(self) -> list[WindowClosed]:
        """The windows that have closed so far."""
        return [effect for effect in self.effects if isinstance(effect, WindowClosed)]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts so far, one an offset."""
        return [effect for effect in self.effects if isinstance(effect, Verdict)]


def windows_tile(closed: Iterable[WindowClosed]) -> bool:
    """Whether windows are numbered from 0 and each begins where the one before ended."""
    expected_offset = 0
    for number, window in enumerate(closed):
        if (window.sequence, window.first_offset) != (number, expected_offset):
            return False
        expected_offset = window.next_offset
    return True
