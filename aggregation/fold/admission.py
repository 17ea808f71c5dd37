"""Whether an authenticated update counts, and how much. Looks at the state, changes nothing.

The checks run from cheap and certain to dear and statistical; the first that fails gives the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from aggregation import codecs
from aggregation.defences import Seen, defence_named
from aggregation.fold.events import EdgeAggregate, Update
from aggregation.fold.rejections import REJECTIONS
from aggregation.partitioning import partition_of
from aggregation.policy import BY_EXAMPLES
from aggregation.reasons import Because, Reason, because
from aggregation.selection import Candidate, is_selected, selection_named
from aggregation.weights.examples import by_examples
from aggregation.weights.fixed_point import WEIGHT_FRACTION_BITS, WEIGHT_ONE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import Delta, Measured
    from aggregation.fold.rejections import RejectionReason
    from aggregation.fold.shares import Share
    from aggregation.fold.state import PartitionState
    from aggregation.layout import Layout

CODEC_SHOWN_MAX: Final = 64
"""Characters of a codec's name in a verdict: a device may write any."""
SHA256_SHOWN: Final = 12
"""Characters of a hash in a verdict."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An update that counts: with which staleness, weight (units of 1/65536), clip factor and scores.

    ``delta`` is of the weights; ``buffers`` are the device's values of the layout's buffers, float32[B]; ``control`` is
    the delta of its control variates, None in a layout without them. ``clip_to`` is
    the norm that ``clip`` clips to. ``share`` is the device's entry before this update; None where none is kept.
    ``compared``: whether there was a direction that ``cosine`` is with.
    """

    delta: Delta
    buffers: npt.NDArray[np.float32]
    measured: Measured
    staleness: int
    weight: int
    clip: float
    clip_to: float
    norm_deviations: float
    cosine: float
    compared: bool = False
    share: Share | None = None
    control: Delta | None = None


@dataclass(frozen=True, slots=True)
class RejectedUpdate:
    """An update that does not count. ``scored`` is true when it got as far as its anomaly scores."""

    because: Because
    scored: bool = False
    norm: float = 0.0
    norm_deviations: float = 0.0
    cosine: float = 0.0
    share: Share | None = None

    @property
    def rejection(self) -> RejectionReason:
        """What its reason leads to."""
        return REJECTIONS[self.because.reason.outcome]


def admit(state: PartitionState, update: Update) -> Admitted | RejectedUpdate:
    """Judge one update against the state of its partition."""
    why = (
        not_ours(state, update, update.device_id)
        or wrong_base(state, update.base_version, update.base_sha256, update.timestamp_ms)
        or _may_not_answer(state, update)
    )
    if why:
        return RejectedUpdate(why)
    share = _share_of(state, update)
    denied = _over_share(state, update, share) or _wrong_form(state, update)
    if denied:
        return denied
    content = _content_of(state.layout, update)
    if not content.is_finite:
        return RejectedUpdate(because(Reason.NO_NUMBER))
    below = codecs.below_zero(content.buffers, state.layout.buffers)
    if below:
        return RejectedUpdate(because(Reason.BELOW_ZERO, below))
    return _judge_content(state, update, content, share)


class _Content(NamedTuple):
    """What an update of the right form holds, section by section; ``scales`` are the buffers'."""

    delta: Delta
    buffers: npt.NDArray[np.float32]
    scales: tuple[float, ...]
    control: Delta | None

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers."""
        return (
            codecs.is_finite(self.delta)
            and codecs.are_finite(self.buffers, self.scales)
            and (self.control is None or codecs.is_finite(self.control))
        )


def _content_of(layout: Layout, update: Update) -> _Content:
    weights, buffers, control = _sections_of(layout)
    data, scales, codec = update.data, update.scales, update.codec
    return _Content(
        codecs.view_delta(codec, data[weights], scales[weights], layout.trainable),
        codecs.view_values(data[buffers]),
        scales[buffers],
        codecs.view_delta(codec, data[control], scales[control], layout.control)
        if layout.control.tensors
        else None,
    )


def _sections_of(layout: Layout) -> tuple[slice, slice, slice]:
    """Where weights, buffers and control variates stand among an update's tensors."""
    weights = len(layout.trainable.tensors)
    model = weights + len(layout.buffers.tensors)
    return slice(weights), slice(weights, model), slice(model, None)


def not_ours(state: PartitionState, event: Update | EdgeAggregate, name: str) -> Because | None:
    """Why a record of a device or an edge of that name does not belong here, or is of who was revoked."""
    if name in state.revoked:
        return because(Reason.DEVICE_REVOKED, name)
    if (event.signer or event.certificate_serial) in state.revoked:
        return because(Reason.CERTIFICATE_REVOKED, event.certificate_serial)
    if event.task != state.task:
        return because(Reason.ANOTHER_TASK, event.task, state.task)
    if event.region != state.region:
        return because(Reason.ANOTHER_REGION, event.region, state.region)
    home = partition_of(name, state.partitions)
    if home != state.partition:
        return because(Reason.ANOTHER_PARTITION, home, state.partition)
    return None


def wrong_base(state: PartitionState, base: int, base_sha256: str, timestamp_ms: int) -> Because | None:
    """Why nothing may be made of version ``base`` with the model of that hash (hex), at a record of that time."""
    version = state.version
    if base > version:
        return because(Reason.AHEAD, base, version)
    if base < version and state.policy.in_rounds:
        return because(Reason.ROUND_OVER, base, version)
    if base < state.oldest_base:
        allowed = state.policy.staleness.versions_max
        if base < state.floor:
            return because(Reason.BELOW_FLOOR, base, version, allowed, state.floor)
        return because(Reason.STALE, base, version, allowed)
    seconds = state.stale_for_s(base, timestamp_ms)
    if seconds is not None:
        limits = state.policy.staleness
        shown = (base, version, limits.versions_max, seconds, limits.seconds_max)
        return because(Reason.STALE_FOR_LONG, *shown)
    expected = state.models.get(base)
    if expected is None:
        return because(Reason.NEVER_SEEN, base)
    if expected != base_sha256:
        return because(Reason.ANOTHER_MODEL, base, expected[:SHA256_SHOWN], base_sha256[:SHA256_SHOWN])
    return None


def _may_not_answer(state: PartitionState, update: Update) -> Because | None:
    """Why a device may not, or not again, answer a base that is a good one."""
    base, expected = update.base_version, state.models[update.base_version]
    if not _is_selected(state, update, expected):
        return because(Reason.NOT_SELECTED, update.device_id, base)
    if update.device_id in state.counted.get(base, ()):
        return because(Reason.CONTRIBUTED, update.device_id, base)
    return None


def _is_selected(state: PartitionState, update: Update, model_sha256: str) -> bool:
    """Whether the device may answer its base, see ``PartitionState.turns_of``."""
    rules = state.policy.selection
    if not selection_named(rules.kind).selective:
        return True
    turns = state.turns_of(update.base_version, update.timestamp_ms)
    if turns is None:
        return True
    base, cohort = update.base_version, update.certified_cohort
    candidate = Candidate(state.task, update.device_id, base, model_sha256, turns, cohort)
    return is_selected(rules, candidate)


def _share_of(state: PartitionState, update: Update) -> Share | None:
    limits = state.policy.shares
    return state.shares.of(update.device_id, state.version, limits) if limits.per_version else None


def _over_share(state: PartitionState, update: Update, share: Share | None) -> RejectedUpdate | None:
    device, limits, cohort = update.device_id, state.policy.shares, update.certified_cohort
    if share is not None and share.tokens < 1:
        return RejectedUpdate(because(Reason.OVER_SHARE, device, state.version, limits.per_version))
    most = limits.cohort_window_max
    if cohort and 0 < most <= state.window.cohorts[cohort]:
        return RejectedUpdate(because(Reason.COHORT_OVER_SHARE, cohort, state.version, most))
    if share is None:
        return None
    until = state.shares.quarantined.get(device)
    if until is not None and until > state.version:
        return RejectedUpdate(because(Reason.QUARANTINED, device, until))
    return None


def _wrong_form(state: PartitionState, update: Update) -> RejectedUpdate | None:
    layout = state.layout
    if update.codec not in state.policy.updates.codecs:
        taken = ", ".join(state.policy.updates.codecs)
        return RejectedUpdate(because(Reason.ANOTHER_CODEC, update.codec[:CODEC_SHOWN_MAX], taken))
    if update.names != layout.names:
        return RejectedUpdate(because(Reason.OTHER_TENSORS, len(update.names), len(layout.names)))
    if update.shapes != layout.shapes:
        return RejectedUpdate(because(Reason.OTHER_SHAPE))
    data, scales, codec = update.data, update.scales, update.codec
    weights, buffers, control = _sections_of(layout)
    problem = codecs.wrong_data(codec, data[weights], scales[weights], layout.trainable)
    problem = problem or codecs.wrong_values(data[buffers], scales[buffers], layout.buffers)
    if layout.control.tensors:
        problem = problem or codecs.wrong_data(codec, data[control], scales[control], layout.control)
    return RejectedUpdate(problem) if problem else None


def _judge_content(
    state: PartitionState,
    update: Update,
    content: _Content,
    share: Share | None,
) -> Admitted | RejectedUpdate:
    limits, layout = state.policy.updates, state.layout.trainable
    defence = defence_named(state.policy.defence.kind)
    direction = state.guide if defence.guided else state.reference
    measured = codecs.measure(content.delta, layout, direction)
    norm, cosine = measured.norm, measured.cosine
    if norm > limits.norm_max:
        return RejectedUpdate(because(Reason.NORM, norm, limits.norm_max), norm=norm)
    seen = Seen(norm, cosine, direction is not None, share.total + 1 if share else 1, limits.norm_clip)
    judged = defence.judge(state.policy.defence, seen, state.usual, state.history)
    if judged.problem:
        return RejectedUpdate(
            judged.problem,
            scored=True,
            norm=norm,
            norm_deviations=judged.norm_deviations,
            cosine=cosine,
            share=share,
        )
    staleness = state.version - update.base_version
    clip_to = limits.norm_clip if judged.clip_to is None else min(limits.norm_clip, judged.clip_to)
    return Admitted(
        content.delta,
        content.buffers,
        measured,
        staleness,
        _weight_of(state, update, staleness, judged.factor),
        clip_to / norm if norm > clip_to else 1.0,
        clip_to,
        judged.norm_deviations,
        cosine,
        direction is not None,
        share,
        content.control,
    )


def _weight_of(state: PartitionState, update: Update, staleness: int, factor: int) -> int:
    """The weight of that staleness, of it what a defence leaves, and of that what its examples count.

    An update that counts weighs at least 1/65536.
    """
    weights, by = state.policy.staleness.weights, state.policy.weights
    weight = weights[min(staleness, len(weights) - 1)]
    if factor != WEIGHT_ONE:
        weight = max(1, weight * factor >> WEIGHT_FRACTION_BITS)
    return by_examples(weight, update.num_examples, by.examples_max) if by.by == BY_EXAMPLES else weight
