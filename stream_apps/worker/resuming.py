"""Where a partition goes on: from its own progress, or from what others have published if that is further."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

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
        partitions=genesis.regions[place.region].partitions,
        layout=context.layout,
        policy=context.policy,
        model_sha256=genesis.model_sha256,
    )


async def resume_from(place: PartitionPlace, own: PartitionState) -> Resumed:
    """Compare ``own``, which stays as it is, with what is published. Waits for outages to end.

    What others have published is a claim. So one goes on from a state a few windows back, and folds those again; and
    where somebody signed another window than the one that we closed last, from before it: what comes of the log counts.
    """
    point = await place.retry(f"read the output of {place}", lambda: _read_resume_point(place))
    furthest = point.furthest
    if furthest is not None and furthest.aggregate.next_offset > point.end:
        log.error("%s ends at offset %d; %s says more", place, point.end, furthest)
        return Resumed(own, log_was_cut(str(place), point.end, furthest.aggregate.next_offset))
    state = own
    if point.contradicts(own):
        log.error("%s: another window %d than ours is signed: it is folded again", place, own.sequence - 1)
        state = first_state(place)
    base = point.base
    if base is not None and base.aggregate.sequence >= state.sequence:
        restore = partial(_restored, place, own, base.aggregate)
        state = await place.retry(f"resume {place}", restore, UNREADABLE)
    if state is not own:
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

    def read() -> PublishedVerdicts:
        with place.open_reader("verdicts") as reader:
            return read_published_verdicts(
                reader, place.task, place.region, place.partition, state.next_offset
            )

    return await place.retry(f"read the verdicts of {place}", read)


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
