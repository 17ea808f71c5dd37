"""Where a partition goes on: from its own progress, or from what others have published if that is further."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.fold import state as partition_state
from aggregation.fold.state import PartitionState
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from backends.outages import UNREADABLE
from backends.revocations import revoked_from, serials_of
from schemas.edges import partitions_of
from schemas.windows import direction_of_guide, restore_state, state_names
from stream_apps.published import Claim
from stream_apps.worker.merged_windows import manifests_are_signed, merged_bases
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.resume_point import (
    PublishedVerdicts,
    ResumePoint,
    WindowsReadBack,
    log_was_cut,
    read_published_verdicts,
    read_resume_point,
)

log = logging.getLogger("fluvial.worker")


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a partition goes on, or why it cannot (``problem``); ``standing`` windows need not be published again."""

    state: PartitionState
    problem: IntegrityProblem | None = None
    standing: Mapping[int, frozenset[str]] = field(default_factory=dict)


def first_state(place: PartitionPlace) -> PartitionState:
    """The state before offset 0, as the genesis document says."""
    context = place.context
    genesis = context.genesis
    return partition_state.initial(
        task=genesis.task,
        region=place.region,
        partition=place.partition,
        partitions=partitions_of(genesis, place.region),
        layout=context.layout,
        policy=context.policy,
        model_sha256=genesis.model_sha256,
    )


async def resume_from(place: PartitionPlace, own: PartitionState) -> Resumed:
    """Compare ``own``, which stays as it is, with what is published. Waits for outages to end.

    What others have published is a claim. So one goes on from a state that a version holds and a few windows back, and
    folds those behind it again; and where somebody signed another window than the one that we closed last, from before
    it: what comes of the log counts. In tasks whose manifests nobody signs any window may be that state.
    """
    found = await place.retry(f"read the output of {place}", lambda: _read_resume_point(place, own))
    point = found.point
    furthest = point.furthest
    if furthest is not None and furthest.aggregate.next_offset > point.end:
        log.error("%s ends at offset %d; %s says more", place, point.end, furthest)
        return Resumed(own, log_was_cut(str(place), point.end, furthest.aggregate.next_offset))
    state = own
    if point.contradicts(own):
        log.error("%s: another window %d than ours is signed: it is folded again", place, own.sequence - 1)
        state = first_state(place)
    restored = await _best_base(place, own, state, found)
    state = state if restored is None else restored
    if state is not own or furthest is not None:
        log.info(
            "%s resumes at offset %d, version %d",
            place,
            state.next_offset,
            state.version,
            extra=place.fields(state.next_offset, state),
        )
    return Resumed(state, standing=point.standing(state))


async def published_verdicts(place: PartitionPlace, state: PartitionState) -> PublishedVerdicts:
    """The verdicts that stand already from ``state.next_offset`` on. Waits for outages to end."""
    trust = place.context.trust

    def read() -> PublishedVerdicts:
        with place.open_reader("verdicts") as reader:
            found = read_published_verdicts(reader, trust, place.task, place.head, state.next_offset)
            if found.longer:
                found = found.without(serials_of(state.revoked))
            if found.longer:  # seldom: an operator may have revoked the voucher where we have not folded yet
                found = found.without(
                    revoked_from(
                        reader, trust, place.task, place.slot, state.next_offset, known=state.revoked
                    )
                )
            return found

    return await place.retry(f"read the verdicts of {place}", read)


def cut(place: PartitionPlace, state: PartitionState, standing: PublishedVerdicts) -> IntegrityProblem | None:
    """FLV-3204 where the log ends before what was folded of it, by a published window or by a worker's word."""
    reached, voucher = max(standing.longer, key=lambda one: one[0], default=(0, None))
    if state.next_offset > standing.end and state.next_offset >= reached:
        return log_was_cut(str(place), standing.end, state.next_offset)
    return log_was_cut(str(place), standing.end, reached, voucher) if reached > standing.end else None


def warn_of_unvouched(place: PartitionPlace, state: PartitionState, standing: PublishedVerdicts) -> None:
    """Say that verdicts stand for offsets that the log does not have, and that no worker vouches for them.

    They stop nobody: whoever may write to the topic can have written them.
    """
    place.context.observer.unvouched(place.slot, standing.unvouched)
    if standing.unvouched:
        log.error(
            "%s ends at offset %d, and %d verdicts stand for offsets behind it for which no worker vouches. Either "
            "somebody planted them, or the log lost its newest records: see docs/runbooks/truncated-log.md",
            place,
            standing.end,
            standing.unvouched,
            extra=place.fields(standing.end, state),
        )


def load_policy(place: PartitionPlace, sha256: str, current: PartitionState) -> Policy:
    """The policy of that hash; nearly always it is the current one."""
    return current.policy if sha256 == current.policy_sha256 else place.context.store.policy(sha256)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was published, and the windows whose states one may go on from, the best first."""

    point: ResumePoint
    bases: tuple[Claim, ...]


def _read_resume_point(place: PartitionPlace, own: PartitionState) -> _Found:
    """A window beyond the log's end is passed over where an operator has revoked who signed it: then it is a lie."""
    trust = place.context.trust
    where = (trust, place.task, place.region, place.partition)
    with place.open_reader("resume") as reader:
        bases: tuple[Claim, ...]
        if manifests_are_signed(trust):
            windows = WindowsReadBack(reader, *where)
            bases = merged_bases(place, reader, windows, own.revoked)
            # The end after the windows: meanwhile others may append and fold.
            _, end = reader.bounds(place.updates, place.partition)
            point = ResumePoint(windows.known, end)
        else:
            point = read_resume_point(reader, *where)
            bases = (point.base,) if point.base else ()
        if point.furthest is None or point.furthest.aggregate.next_offset <= point.end:
            return _Found(point, bases)
        revoked = revoked_from(reader, trust, place.task, place.slot, own.next_offset, known=own.revoked)
        return _Found(point.without_beyond(revoked | serials_of(own.revoked)), bases)


async def _best_base(
    place: PartitionPlace, own: PartitionState, state: PartitionState, found: _Found
) -> PartitionState | None:
    """The state after the best base that is further than ``state``; None: ``state`` is what one goes on from.

    A state that is missing, or is none, is waited for where it is the only one; else an older one does as well.
    """
    for base in found.bases:
        if base.aggregate.sequence < state.sequence:
            break
        restore = partial(_restored, place, own, base.aggregate)
        if not manifests_are_signed(place.context.trust):
            return await place.retry(f"resume {place}", restore, UNREADABLE)
        try:
            return await place.retry(f"resume {place}", restore)
        except IntegrityProblem as problem:
            log.warning("%s: no state after %s: %s", place, base, problem.message)
        except UsageProblem as problem:  # it names a policy that is none: so the state is none
            log.warning("%s: no state after %s: %s", place, base, problem.message)
    return None


def _restored(place: PartitionPlace, own: PartitionState, aggregate: Aggregate) -> PartitionState:
    store, layout = place.context.store, place.context.layout
    data = store.get_object(aggregate.state_sha256)
    policy_sha256, reference_sha256, guide_sha256 = state_names(data)
    return restore_state(
        data,
        aggregate,
        partitions=own.partitions,
        layout=layout,
        policy=load_policy(place, policy_sha256, own),
        reference=store.reference(reference_sha256, layout),
        guide=direction_of_guide(store.guide(guide_sha256, layout, place.context.trust)),
    )
