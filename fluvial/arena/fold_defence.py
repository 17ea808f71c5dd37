"""The real fold as a defence: ``fold_into`` a partition of each region, ``merge`` for the versions, a policy's rules.

Nothing is decided here. What is left out is what travels: signatures, Avro, objects. Barriers carry what the merger's
would, so the partitions hear of versions, steps and guides as they do in production.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation import codecs
from aggregation.codecs import direction_of
from aggregation.defences import Histograms, defence_named
from aggregation.fold.events import Barrier, Guide, Tick, Update, Verdict, WindowClosed
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.merges import bucket_of
from aggregation.server.aggregates import Aggregate
from aggregation.server.buckets import factors_of
from aggregation.server.lateness import MergedWindows, lateness_under
from aggregation.server.merge import Checkpoint, Step, merge
from aggregation.server.mixing import mixed_bases
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums, add_windows
from aggregation.weights.staleness import WEIGHT_ONE
from fluvial.arena.attacks.shape import Rules, Sent
from fluvial.arena.versions import ACCEPTED, Versions
from schemas.snapshots import encode_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.policy import Policy
    from fluvial.arena.perceptron import Floats
    from fluvial.arena.world import World

TASK: Final = "arena"
REGIONS: Final = ("a", "b")
CODEC: Final = "float32"
BASES_KEPT: Final = 400
"""Versions whose models are kept for devices that are slow; which are welcome is the fold's to say."""
ROUND_S: Final = 60.0
"""Seconds of a median round, for the rules that know time."""


class FoldDefence(Versions):
    """A partition in each of two regions, whose windows one merge makes versions of."""

    def __init__(self, world: World, policy: Policy) -> None:
        super().__init__(world.first, BASES_KEPT)
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
        self._closed: list[tuple[str, WindowClosed]] = []
        self._rng = np.random.default_rng(0)
        self._accepted = 0
        self._bucketed: list[tuple[int, Sent]] = []
        self.rules = rules_of(policy)
        self.guided = defence_named(policy.defence.kind).guided
        self._pools = Histograms()

    @property
    def oldest_base(self) -> int:
        """See ``Defence``."""
        return min(state.oldest_base for state in self._states.values())

    @property
    def state_bytes(self) -> int:
        """All partitions' snapshots."""
        return sum(len(encode_state(state)) for state in self._states.values())

    def offer(self, sent: Sent, now: float) -> None:
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
            timestamp_ms=_stamp(now),
        )
        bucket = bucket_of(state.models[state.version], sent.device, self._policy.merge.buckets)
        self._fold(state, update, sent)
        if sent.outcome == ACCEPTED:
            self._bucketed.append((bucket, sent))

    def _fold(self, state: PartitionState, event: Update | Barrier | Tick, sent: Sent | None = None) -> None:
        for effect in fold_into(state, state.next_offset, event):
            match effect:
                case Verdict():
                    if sent is not None:
                        self._judged(sent, effect)
                case WindowClosed():
                    if effect.accepted:
                        self._closed.append((state.region, effect))

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

    def step(self, guide: Floats | None, now: float) -> None:
        """Close what is open by Ticks, merge all of it, and tell the partitions by barriers."""
        for state in self._states.values():
            if state.window.records:
                self._fold(state, Tick(TASK, state.region, 0, state.window.first_offset))
        closed, self._closed, self._accepted = self._closed, [], 0
        signed = self._signed(guide)
        merged = MergedWindows.of(
            (_aggregate_of(region, one) for region, one in closed), lateness_under(self._policy, self.version)
        )
        made = self._merge([one for _, one in closed], merged, signed)
        self._checkpoint, self._pools = made.checkpoint, merged.pools(self._pools)
        self.add(made.checkpoint.model)
        self._shas[self.version] = _sha(made.checkpoint.model)
        self._shas = {v: sha for v, sha in self._shas.items() if v >= self.oldest_base}
        for state in self._states.values():
            self._fold(state, self._barrier(state.region, made, signed, now))

    def _signed(self, guide: Floats | None) -> Guide | None:
        """What a guardian would sign for the version that stands."""
        if guide is None:
            return None
        direction = direction_of(guide.astype(np.float64), self._layout)
        return Guide(self.version, self._shas[self.version], direction)

    def _merge(self, closed: list[WindowClosed], merged: MergedWindows, guide: Guide | None) -> Step:
        windows = [
            WindowSums(one.sums, one.weight_total, weight, one.buckets or ())
            for one, weight in zip(closed, merged.weights, strict=True)
            if one.sums is not None and weight
        ]
        size, elements = self._layout.trainable.parameters, self._layout.sum_elements
        total = add_windows(windows, weights=size, elements=elements)
        self._share_out(factors_of(total, size, self._policy.merge))
        return merge(
            self._checkpoint,
            total,
            updates=merged.accepted,
            weight_total=merged.weight_total,
            policy=self._policy,
            server=server_at(self._policy, self.version + 1, merged.delay),
            layout=self._layout,
            guide=None if guide is None else guide.direction,
            bases=mixed_bases(merged.pairs, self._policy, self.version, self.model),
        )

    def _share_out(self, factors: Mapping[int, float] | None) -> None:
        """What the merge leaves of each update is what it leaves of its bucket."""
        if factors is not None:
            for bucket, sent in self._bucketed:
                sent.share *= factors.get(bucket, 1.0)
        self._bucketed = []

    def _barrier(self, region: str, made: Step, guide: Guide | None, now: float) -> Barrier:
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
            usual=self._pools.usual,
            guide_sha256="" if guide is None else guide.model_sha256,
            guide=guide,
            timestamp_ms=_stamp(now),
        )

    def tick(self) -> None:
        """Nothing waits, so no window that is open would change a version."""


def rules_of(policy: Policy) -> Rules:
    """What an attacker reads in a policy."""
    defence = policy.defence
    bounds = {"peers": defence.cosine_min, "guide": defence.guide_cosine_min}
    guided = defence_named(defence.kind).guided
    return Rules(policy.updates.norm_clip, bounds.get(defence.kind, -1.0), guided=guided)


def _aggregate_of(region: str, closed: WindowClosed) -> Aggregate:
    """A window as the merge knows it, without the hashes under which its bulk would lie."""
    return Aggregate(
        task=TASK,
        region=region,
        partition=0,
        sequence=closed.sequence,
        first_offset=closed.first_offset,
        next_offset=closed.next_offset,
        version=closed.version,
        policy_sha256=closed.policy_sha256,
        counts=closed.counts,
        accepted=closed.accepted,
        weight_total=closed.weight_total,
        staleness_total=closed.staleness_total,
        staleness_max=closed.staleness_max,
        update_bytes=closed.update_bytes,
        sum_sha256="",
        state_sha256="",
        contributors_sha256=closed.contributors_sha256,
        previous_sha256="",
        sha256="",
        histograms=closed.histograms,
        buckets=closed.buckets or (),
        bases=closed.bases or (),
    )


def _stamp(now: float) -> int:
    """LogAppendTime in ms, of a moment in median rounds."""
    return round(now * ROUND_S * 1000.0)


def _sha(model: Floats) -> str:
    return hashlib.sha256(model.tobytes()).hexdigest()
