"""Where a partition goes on: from its own progress, or from what others have published if that is further."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aggregation.errors import IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.state import PartitionState
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from backends.outages import UNREADABLE
from backends.revocations import revoked_from
from schemas.windows import restore_state, state_names
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.resume_point import (
    PublishedVerdicts,
    ResumePoint,
    divergence,
    log_was_cut,
    read_published_verdicts,
    read_resume_point,
)

log = logging.getLogger("fluvial.worker")


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a partition goes on, or why it cannot (``problem``)."""

    state: PartitionState
    problem: IntegrityProblem | None = None


def first_state(place: PartitionPlace) -> PartitionState:
    """The state before offset 0, as the genesis document says."""
    context = place.context
    genesis = context.genesis
    return partition_state.initial(
        task=genesis.task,
        region=place.region,
        partition=place.partition,
        partitions=genesis.regions[place.region].partitions,
        layout=context.layout,
        policy=context.policy,
        model_sha256=genesis.model_sha256,
    )


async def resume_from(place: PartitionPlace, own: PartitionState) -> Resumed:
    """Compare ``own``, which stays as it is, with the newest published window. Waits for outages to end."""
    point = await place.retry(f"read the output of {place}", lambda: _read_resume_point(place))
    published = await place.retry(f"resume {place}", lambda: _published_state(place, own, point), UNREADABLE)
    if published is None:
        return Resumed(own, problem=contradiction(own, point))
    log.info(
        "%s resumes at offset %d, version %d",
        place,
        published.next_offset,
        published.version,
        extra=place.fields(published.next_offset, published),
    )
    return Resumed(published)


async def published_verdicts(place: PartitionPlace, state: PartitionState) -> PublishedVerdicts:
    """The verdicts that stand already from ``state.next_offset`` on. Waits for outages to end."""
    trust = place.context.trust

    def read() -> PublishedVerdicts:
        with place.open_reader("verdicts") as reader:
            found = read_published_verdicts(reader, trust, place.task, place.head, state.next_offset)
            if found.longer:
                found = found.without(state.revoked)
            if found.longer:  # seldom: an operator may have revoked the voucher where we have not folded yet
                found = found.without(revoked_from(reader, trust, place.task, place.slot, state.next_offset))
            return found

    return await place.retry(f"read the verdicts of {place}", read)


def is_further(own: PartitionState, point: ResumePoint) -> bool:
    """Whether others have published a window that ``own`` has not closed."""
    return point.newest is not None and point.newest.sequence >= own.sequence


def contradiction(own: PartitionState, point: ResumePoint) -> IntegrityProblem | None:
    """FLV-3002 where two published windows, or the newest one and our own of that sequence, are not the same."""
    if point.conflict is not None:
        return divergence(*point.conflict)
    newest = point.newest
    if newest is None or newest.sequence != own.sequence - 1 or newest.sha256 == own.previous_sha256:
        return None
    return divergence(newest, own.previous_sha256)


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


def _read_resume_point(place: PartitionPlace) -> ResumePoint:
    with place.open_reader("resume") as reader:
        return read_resume_point(reader, place.context.trust, place.task, place.region, place.partition)


def _published_state(place: PartitionPlace, own: PartitionState, point: ResumePoint) -> PartitionState | None:
    if point.newest is None or point.conflict is not None or not is_further(own, point):
        return None
    return _restored(place, own, point.newest)


def _restored(place: PartitionPlace, own: PartitionState, aggregate: Aggregate) -> PartitionState:
    store, layout = place.context.store, place.context.layout
    data = store.get_object(aggregate.state_sha256)
    policy_sha256, reference_sha256 = state_names(data)
    return restore_state(
        data,
        aggregate,
        partitions=own.partitions,
        layout=layout,
        policy=load_policy(place, policy_sha256, own),
        reference=store.reference(reference_sha256, layout),
    )
