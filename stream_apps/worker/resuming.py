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

    def read() -> PublishedVerdicts:
        with place.open_reader("verdicts") as reader:
            return read_published_verdicts(
                reader, place.task, place.region, place.partition, state.next_offset
            )

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
    """FLV-3204 where the log ends before what was folded or judged of it."""
    judged = max(state.next_offset, standing.judged)
    return log_was_cut(str(place), standing.end, judged) if judged > standing.end else None


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
