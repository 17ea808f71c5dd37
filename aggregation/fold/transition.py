"""The fold: one record in, effects out. Everything the system promises rests on this function being pure.

``fold_into(state, offset, event)`` looks at nothing but its arguments. It checks all, then changes: a refused
record leaves the state as it was but for the offset and the window's counts. Sums are exact integers, so the
updates of a window give the same bits in any order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

import numpy as np

from aggregation import codecs
from aggregation.defences import BY_SQUARES, defence_named, square_count
from aggregation.errors import IntegrityProblem
from aggregation.fold.admission import Admitted, RejectedUpdate, admit
from aggregation.fold.bases import Base
from aggregation.fold.edges import CLIP, count_edge, judge_edge, move_place
from aggregation.fold.elsewhere import control_elsewhere
from aggregation.fold.events import (
    Barrier,
    EdgeAggregate,
    Effect,
    Event,
    Pardon,
    Parked,
    RejectedRecord,
    Revoke,
    Skip,
    Tick,
    Update,
    Verdict,
    WindowClosed,
)
from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED
from aggregation.fold.shares import Share, Shares
from aggregation.fold.state import NO_SHA256, OpenWindow, PartitionState
from aggregation.merges import Bucket, bucket_of
from aggregation.policy import Policy
from aggregation.reasons import NOTHING, Reason, because
from aggregation.weights.staleness import WEIGHT_ONE

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.codecs import Delta


def fold_into(state: PartitionState, offset: int, event: Event) -> tuple[Effect, ...]:
    """Fold the record at ``offset`` into ``state``.

    Returns its verdict and, when a window closed, that window.

    A lower offset than ``state.next_offset`` was folded before: no effects. A higher one is a gap in the log:
    ``IntegrityProblem`` (FLV-3001), state unchanged.
    """
    if offset < state.next_offset:
        return ()
    if offset > state.next_offset:
        raise IntegrityProblem(
            "FLV-3001",
            f"gap in the log: expected offset {state.next_offset}, got {offset}",
            where=f"partition {state.region}[{state.partition}] of task {state.task}",
            hint="records were deleted or compacted: check the topic's retention with `fluvial doctor`, "
            "then restore them",
        )
    match event:
        case Update():
            effects = _fold_update(state, offset, event)
        case EdgeAggregate():
            effects = _fold_edge(state, offset, event)
        case RejectedRecord(rejection, why, device_id):
            effects = _refuse(state, Verdict(offset, rejection.outcome, why, device_id))
        case Parked():
            effects = _fold_skipped(state, offset, event)
        case Barrier() | Tick() | Revoke() | Skip() | Pardon():
            effects = _fold_control(state, offset, event)
        case _:
            assert_never(event)
    return effects


def _fold_control(
    state: PartitionState, offset: int, event: Barrier | Tick | Revoke | Skip | Pardon
) -> tuple[Effect, ...]:
    match event:
        case Barrier():
            return _fold_barrier(state, offset, event)
        case Tick():
            return _fold_tick(state, offset, event)
        case Revoke():
            return _fold_revoke(state, offset, event)
        case Skip():
            return _fold_skip(state, offset, event)
        case Pardon():
            return _fold_pardon(state, offset, event)
        case _:
            assert_never(event)


def _fold_update(state: PartitionState, offset: int, update: Update) -> tuple[Effect, ...]:
    judged = admit(state, update)
    match judged:
        case Admitted():
            _count(state, offset, update, judged)
            verdict = Verdict(
                offset,
                ACCEPTED,
                NOTHING
                if judged.clip == 1.0
                else because(Reason.ACCEPTED_CLIPPED, judged.measured.norm, judged.clip_to),
                update.device_id,
                update.update_id,
                update.base_version,
                judged.staleness,
                judged.weight,
                judged.clip,
                judged.measured.norm,
                judged.norm_deviations,
                judged.cosine,
            )
            state.next_offset = offset + 1
            return (verdict, *_close_if_full(state))
        case RejectedUpdate():
            if judged.scored:
                _remember_scored(state, update, judged.norm, judged.share, accepted=False)
            verdict = Verdict(
                offset,
                judged.rejection.outcome,
                judged.because,
                update.device_id,
                update.update_id,
                update.base_version,
                norm=judged.norm,
                norm_deviations=judged.norm_deviations,
                cosine=judged.cosine,
            )
            return _refuse(state, verdict)
        case _:
            assert_never(judged)


def _fold_edge(state: PartitionState, offset: int, event: EdgeAggregate) -> tuple[Effect, ...]:
    judged = judge_edge(state, event)
    why = judged.because
    verdict = Verdict(offset, why.reason.outcome, why, event.edge, base_version=event.window.version)
    if judged.moves:
        move_place(state, event)
    if not judged.counts:
        return _refuse(state, verdict)
    count_edge(state, offset, event, judged)
    state.next_offset = offset + 1
    taken = replace(verdict, staleness=judged.staleness, weight=judged.weight, clip=CLIP)
    return (taken, *_close_if_full(state))


def _count(state: PartitionState, offset: int, update: Update, admitted: Admitted) -> None:
    window, layout, buckets = state.window, state.layout, state.policy.merge.buckets
    if window.sums is None:
        window.sums = np.zeros(layout.sum_elements_of(buckets), dtype=np.int64)
        window.buckets = (Bucket(),) * buckets
    weights = layout.trainable.parameters
    bucket = bucket_of(state.models[state.version], update.device_id, buckets)
    codecs.accumulate_into(
        window.sums[bucket * weights : (bucket + 1) * weights],
        admitted.delta,
        admitted.measured,
        layout.trainable,
        weight=admitted.weight / WEIGHT_ONE,
        clip=admitted.clip,
        exponent=state.policy.fixed_point.exponent,
    )
    control = layout.control.parameters
    values = window.sums[buckets * weights : window.sums.size - control]
    codecs.accumulate_values_into(values, admitted.buffers, admitted.weight)
    if admitted.control is not None:
        _count_control(state, window.sums[window.sums.size - control :], admitted.control, admitted.weight)
    window.buckets = tuple(
        one.plus(admitted.weight) if place == bucket else one for place, one in enumerate(window.buckets)
    )
    base = update.base_version
    window.bases[base] = window.bases.get(base, Base(base)).plus(admitted.weight)
    window.counts[ACCEPTED] += 1
    window.cohorts[update.certified_cohort] += 1
    window.weight_total += admitted.weight
    window.staleness_total += admitted.staleness
    window.staleness_max = max(window.staleness_max, admitted.staleness)
    window.update_bytes += update.record_bytes
    window.add_contributor(offset, admitted.weight, admitted.clip, update.signature)
    _remember_scored(state, update, admitted.measured.norm, admitted.share, accepted=True)
    if state.policy.counts_shares:
        guided = admitted.compared and defence_named(state.policy.defence.kind).guided
        own = None if admitted.share is None else admitted.share.total
        norm, by_squares = admitted.measured.norm, state.policy.defence.usual_norm_by == BY_SQUARES
        squares = square_count(norm, admitted.clip_to) if by_squares else 1
        window.counting.add(norm, admitted.cosine if guided else None, own, squares)


def _count_control(state: PartitionState, sums: npt.NDArray[np.int64], control: Delta, weight: int) -> None:
    """Add an update's control delta, clipped by its own norm: nothing else looks at it. See ``layout.CONTROL``."""
    layout, clip_to = state.layout.control, state.policy.control.norm_clip
    measured = codecs.measure(control, layout)
    codecs.accumulate_into(
        sums,
        control,
        measured,
        layout,
        weight=weight / WEIGHT_ONE,
        clip=clip_to / measured.norm if measured.norm > clip_to else 1.0,
        exponent=state.policy.fixed_point.exponent,
    )


def _remember_scored(
    state: PartitionState, update: Update, norm: float, share: Share | None, *, accepted: bool
) -> None:
    policy = state.policy
    state.counted.add(update.base_version, update.device_id)
    if share is not None:
        state.shares.take(update.device_id, share, accepted=accepted, defence=policy.defence)
    if not policy.counts_shares or defence_named(policy.defence.kind).remembers_norms:
        state.history.append(norm, policy.defence.history_updates)
    state.bound_counted()


def _refuse(state: PartitionState, verdict: Verdict) -> tuple[Effect, ...]:
    state.window.counts[verdict.outcome] += 1
    state.next_offset = verdict.offset + 1
    return (verdict, *_close_if_full(state))


def _fold_barrier(state: PartitionState, offset: int, barrier: Barrier) -> tuple[Effect, ...]:
    elsewhere = control_elsewhere(state, offset, barrier)
    if elsewhere:
        return _refuse(state, elsewhere)
    if not state.applies(barrier):
        state.next_offset = offset + 1
        why = because(Reason.BARRIER_BEHIND, barrier.version, state.version)
        return (Verdict(offset, CONTROL, why), *_close_if_full(state))
    if barrier.policy is None or (barrier.reference is None) != (barrier.reference_sha256 == ""):
        raise ValueError("the caller has to load the objects that a barrier names before it is folded")
    _check_scale(state, barrier.policy)
    state.next_offset = offset + 1
    closed = _close(state) if state.window.records else _close_if_full(state)
    state.version = barrier.version
    state.floor = max(state.floor, min(barrier.floor, barrier.version))
    state.policy, state.policy_sha256 = barrier.policy, barrier.policy_sha256
    state.reference, state.reference_sha256 = barrier.reference, barrier.reference_sha256
    state.supersede(barrier.version, barrier.timestamp_ms)
    state.models[barrier.version] = barrier.model_sha256
    _take_usual(state, barrier)
    state.forget_old_bases()
    state.shares.forget_before(state.version)
    if not state.policy.counts_shares:
        state.shares = Shares()
    if not state.policy.says_bases:
        state.edges = {}  # a snapshot of such a policy has no room for them
    why = because(Reason.BARRIER, barrier.version, barrier.reason)
    return (Verdict(offset, CONTROL, why), *closed)


def _take_usual(state: PartitionState, barrier: Barrier) -> None:
    """What the barrier says is usual, and its guide, if that is for a young version that this log knows."""
    guide, state.usual = barrier.guide, barrier.usual
    usable = (
        guide is not None
        and 0 <= barrier.version - guide.version <= state.policy.defence.guide_versions_max
        and state.models.get(guide.version) == guide.model_sha256
        and guide.signer not in state.revoked
    )
    state.guide = guide.direction if guide is not None and usable else None
    state.guide_sha256 = barrier.guide_sha256 if usable else NO_SHA256


def _check_scale(state: PartitionState, policy: Policy) -> None:
    """Sums of one task have to add: a barrier whose policy counts in another unit stops the partition (FLV-3006)."""
    if policy.fixed_point != state.policy.fixed_point:
        raise IntegrityProblem(
            "FLV-3006",
            f"a barrier changes fixed_point.exponent from {state.policy.fixed_point.exponent} to "
            f"{policy.fixed_point.exponent}, which never changes within a task",
            where=f"partition {state.region}[{state.partition}] of task {state.task}",
            hint="a new exponent is a new task that starts from a checkpoint",
        )


def _fold_tick(state: PartitionState, offset: int, tick: Tick) -> tuple[Effect, ...]:
    elsewhere = control_elsewhere(state, offset, tick)
    if elsewhere:
        return _refuse(state, elsewhere)
    state.next_offset = offset + 1
    if tick.window_first_offset != state.window.first_offset or not state.window.records:
        why = because(Reason.TICK_BEHIND, tick.window_first_offset)
        return (Verdict(offset, CONTROL, why), *_close_if_full(state))
    why = because(Reason.TICK, tick.window_first_offset)
    return (Verdict(offset, CONTROL, why), *_close(state))


def _fold_revoke(state: PartitionState, offset: int, revoke: Revoke) -> tuple[Effect, ...]:
    elsewhere = control_elsewhere(state, offset, revoke)
    if elsewhere:
        return _refuse(state, elsewhere)
    state.next_offset = offset + 1
    state.revoked.update(revoke.named)
    why = because(Reason.REVOKE, revoke.device_id, revoke.certificate_serial, revoke.reason)
    return (Verdict(offset, CONTROL, why), *_close_if_full(state))


def _fold_skip(state: PartitionState, offset: int, skip: Skip) -> tuple[Effect, ...]:
    """A Skip acts where the record stands that it names; here it changes nothing, whether it parked that one or not."""
    elsewhere = control_elsewhere(state, offset, skip)
    if elsewhere:
        return _refuse(state, elsewhere)
    state.next_offset = offset + 1
    why = because(Reason.SKIP, skip.offset, skip.reason)
    return (Verdict(offset, CONTROL, why), *_close_if_full(state))


def _fold_pardon(state: PartitionState, offset: int, pardon: Pardon) -> tuple[Effect, ...]:
    elsewhere = control_elsewhere(state, offset, pardon)
    if elsewhere:
        return _refuse(state, elsewhere)
    state.next_offset = offset + 1
    lifted = state.shares.lift(pardon.device_id, pardon.until)
    reason = Reason.PARDON if lifted else Reason.PARDON_OF_NOTHING
    why = because(reason, pardon.device_id, pardon.until, pardon.reason)
    return (Verdict(offset, CONTROL, why), *_close_if_full(state))


def _fold_skipped(state: PartitionState, offset: int, skipped: Parked) -> tuple[Effect, ...]:
    if skipped.skip_offset <= offset:
        raise ValueError(f"the Skip at offset {skipped.skip_offset} cannot name the record at {offset}")
    why = because(Reason.PARKED, skipped.skip_offset, skipped.reason)
    return _refuse(state, Verdict(offset, PARKED, why))


def _close_if_full(state: PartitionState) -> tuple[WindowClosed, ...]:
    limits, window = state.policy.window, state.window
    # Records of any verdict, control ones too: anybody can copy an old, validly signed barrier into the log
    # again.
    seen = state.next_offset - window.first_offset
    full = window.accepted >= limits.updates_max or seen >= limits.records_max
    return _close(state) if full else ()


def _close(state: PartitionState) -> tuple[WindowClosed]:
    window = state.window
    closed = WindowClosed(
        sequence=state.sequence,
        first_offset=window.first_offset,
        next_offset=state.next_offset,
        version=state.version,
        policy_sha256=state.policy_sha256,
        counts=dict(sorted(window.counts.items())),
        accepted=window.accepted,
        weight_total=window.weight_total,
        staleness_total=window.staleness_total,
        staleness_max=window.staleness_max,
        update_bytes=window.update_bytes,
        contributors_sha256=window.contributors.hexdigest(),
        sums=window.sums,
        histograms=window.counting.closed() if state.policy.counts_shares else None,
        buckets=_buckets_of(state) if state.policy.says_buckets else None,
        bases=tuple(sorted(window.bases.values())) if state.policy.says_bases else None,
        model_sha256=state.models[state.version],
    )
    state.sequence += 1
    state.window = OpenWindow(first_offset=state.next_offset)
    return (closed,)


def _buckets_of(state: PartitionState) -> tuple[Bucket, ...]:
    return state.window.buckets or (Bucket(),) * state.policy.merge.buckets
