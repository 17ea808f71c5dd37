"""The real fold as a defence: ``fold_into`` a partition of each region, ``merge`` for the versions, a policy's rules.

Nothing is decided here. What is left out is what travels: signatures, Avro, objects. Barriers carry what the merger's
would, so the partitions hear of versions, steps and guides as they do in production.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation import codecs
from aggregation.defences.peers import Peers
from aggregation.fold.events import Barrier, Tick, Update, Verdict, WindowClosed
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.server.merge import Checkpoint, Step, add_sums, merge
from aggregation.weights.staleness import WEIGHT_ONE
from fluvial.arena.attacks.shape import Rules, Sent
from fluvial.arena.versions import ACCEPTED, Versions
from schemas.snapshots import encode_state

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from fluvial.arena.perceptron import Floats
    from fluvial.arena.world import World

TASK: Final = "arena"
REGIONS: Final = ("a", "b")
CODEC: Final = "float32"


class FoldDefence(Versions):
    """A partition in each of two regions, whose windows one merge makes versions of."""

    def __init__(self, world: World, policy: Policy) -> None:
        super().__init__(world.first, policy.staleness.versions_max)
        self._policy = policy
        self._layout = world.model.layout
        self._shas = {0: _sha(world.first)}
        self._states = {
            region: initial(
                task=TASK,
                region=region,
                partition=0,
                partitions=1,
                layout=self._layout,
                policy=policy,
                model_sha256=self._shas[0],
            )
            for region in REGIONS
        }
        self._checkpoint = Checkpoint(world.first, {})
        self._closed: list[WindowClosed] = []
        self._rng = np.random.default_rng(0)
        self._accepted = 0
        self.rules = rules_of(policy)
        self.guided = False
        self._folded: dict[tuple[str, int], Sent] = {}

    @property
    def state_bytes(self) -> int:
        """All partitions' snapshots."""
        return sum(len(encode_state(state)) for state in self._states.values())

    def offer(self, sent: Sent, now: float) -> None:  # noqa: ARG002 (no policy of v2 asks for the time)
        """Fold it where its device belongs."""
        state = self._states[sent.device[0]]
        tensors = codecs.encode_delta(sent.delta, self._layout, CODEC, self._rng)
        update = Update(
            task=TASK,
            region=state.region,
            device_id=sent.device,
            certificate_serial=sent.device,
            base_version=sent.base,
            base_sha256=self._shas.get(sent.base, ""),
            update_id=f"{sent.device}-{sent.base}",
            num_examples=1,
            codec=CODEC,
            names=self._layout.names,
            shapes=self._layout.shapes,
            scales=tuple(tensor.scale for tensor in tensors),
            data=tuple(tensor.data for tensor in tensors),
            signature=b"",
        )
        self._fold(state, update, sent)

    def _fold(self, state: PartitionState, event: Update | Barrier | Tick, sent: Sent | None = None) -> None:
        for effect in fold_into(state, state.next_offset, event):
            match effect:
                case Verdict():
                    if sent is not None:
                        self._judged(sent, effect)
                case WindowClosed():
                    if effect.accepted:
                        self._closed.append(effect)

    def _judged(self, sent: Sent, verdict: Verdict) -> None:
        sent.outcome = verdict.outcome
        if verdict.outcome == ACCEPTED:
            self._accepted += 1
            sent.staleness = verdict.staleness
            sent.weight = verdict.weight / WEIGHT_ONE
            weights = self._policy.staleness.weights
            sent.share = verdict.weight / weights[min(verdict.staleness, len(weights) - 1)]

    def due(self) -> bool:
        """See ``Defence``."""
        return self._accepted >= self._policy.buffer.updates

    def waiting(self) -> int:
        """See ``Defence``."""
        return self._accepted

    def step(self, guide: Floats | None, now: float) -> None:  # noqa: ARG002 (no policy of v2 has a guide)
        """Close what is open by Ticks, merge all of it, and tell the partitions by barriers."""
        for state in self._states.values():
            if state.window.records:
                self._fold(state, Tick(TASK, state.region, 0, state.window.first_offset))
        closed, self._closed, self._accepted = self._closed, [], 0
        made = self._merge(closed)
        self._checkpoint = made.checkpoint
        self.add(made.checkpoint.model)
        self._shas[self.version] = _sha(made.checkpoint.model)
        self._shas.pop(self.oldest_base - 2, None)
        for state in self._states.values():
            self._fold(state, self._barrier(state.region, made))

    def _merge(self, closed: list[WindowClosed]) -> Step:
        return merge(
            self._checkpoint,
            add_sums([one.sums for one in closed if one.sums is not None], self._layout.sum_elements),
            updates=sum(one.accepted for one in closed),
            weight_total=sum(one.weight_total for one in closed),
            policy=self._policy,
            layout=self._layout,
        )

    def _barrier(self, region: str, made: Step) -> Barrier:
        return Barrier(
            task=TASK,
            region=region,
            version=self.version,
            manifest_sha256="",
            model_sha256=self._shas[self.version],
            reference_sha256=self._shas[self.version],
            policy_sha256=self._policy.sha256,
            floor=0,
            reason="version",
            policy=self._policy,
            reference=made.reference,
        )

    def tick(self) -> None:
        """Nothing waits, so no window that is open would change a version."""


def rules_of(policy: Policy) -> Rules:
    """What an attacker reads in a policy."""
    cosine_min = policy.defence.cosine_min if policy.defence.kind == Peers.name else -1.0
    return Rules(policy.updates.norm_clip, cosine_min)


def _sha(model: Floats) -> str:
    return hashlib.sha256(model.tobytes()).hexdigest()
