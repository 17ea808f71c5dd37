"""Whether an authenticated update counts, and how much. Looks at the state, changes nothing.

The checks run from cheap and certain to dear and statistical; the first that fails gives the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation import codecs
from aggregation.defences import anomaly
from aggregation.fold.events import Update
from aggregation.fold.rejections import RejectionReason
from aggregation.partitioning import partition_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import Delta, Measured
    from aggregation.fold.state import PartitionState

CODEC_SHOWN_MAX: Final = 64
"""Characters of a codec's name in a verdict: a device may write any."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An update that counts: with which staleness, weight (units of 1/65536), clip factor and scores.

    ``delta`` is of the weights; ``buffers`` are the device's values of the layout's buffers, float32[B].
    """

    delta: Delta
    buffers: npt.NDArray[np.float32]
    measured: Measured
    staleness: int
    weight: int
    clip: float
    norm_deviations: float
    cosine: float


@dataclass(frozen=True, slots=True)
class RejectedUpdate:
    """An update that does not count. ``scored`` is true when it got as far as its anomaly scores."""

    rejection: RejectionReason
    detail: str
    scored: bool = False
    norm: float = 0.0
    norm_deviations: float = 0.0
    cosine: float = 0.0


def admit(state: PartitionState, update: Update) -> Admitted | RejectedUpdate:
    """Judge one update against the state of its partition."""
    denied = _not_ours(state, update) or _wrong_base(state, update) or _wrong_form(state, update)
    if denied:
        return denied
    weights, scales = len(state.layout.trainable.tensors), update.scales
    delta = codecs.view_delta(update.codec, update.data[:weights], scales[:weights], state.layout.trainable)
    buffers = codecs.view_values(update.data[weights:])
    if not codecs.is_finite(delta) or not codecs.are_finite(buffers, scales[weights:]):
        return RejectedUpdate(
            RejectionReason.NOT_FINITE, "a scale or an element is NaN, infinite, or a scale is negative"
        )
    below = codecs.below_zero(buffers, state.layout.buffers)
    if below:
        return RejectedUpdate(
            RejectionReason.OUT_OF_RANGE, f"buffer {below} has an element below 0, none of it may be"
        )
    return _judge_content(state, update, delta, buffers)


def _not_ours(state: PartitionState, update: Update) -> RejectedUpdate | None:
    if update.device_id in state.revoked:
        return RejectedUpdate(RejectionReason.REVOKED, f"device {update.device_id} was revoked")
    if update.certificate_serial in state.revoked:
        return RejectedUpdate(RejectionReason.REVOKED, f"certificate {update.certificate_serial} was revoked")
    if update.task != state.task:
        return RejectedUpdate(
            RejectionReason.WRONG_TASK, f"it is for the task {update.task!r}, this log is {state.task!r}"
        )
    if update.region != state.region:
        return RejectedUpdate(
            RejectionReason.WRONG_REGION,
            f"it is for the region {update.region!r}, this log is {state.region!r}",
        )
    home = partition_of(update.device_id, state.partitions)
    if home != state.partition:
        return RejectedUpdate(
            RejectionReason.WRONG_PARTITION,
            f"its device belongs to partition {home}, this is {state.partition}",
        )
    return None


def _wrong_base(state: PartitionState, update: Update) -> RejectedUpdate | None:
    base, version = update.base_version, state.version
    if base > version:
        return RejectedUpdate(
            RejectionReason.FUTURE_BASE,
            f"base version {base}, this partition has only seen version {version}",
        )
    if base < state.oldest_base:
        allowed = state.policy.staleness.versions_max
        detail = f"base version {base} is {version - base} versions old, the policy allows {allowed}"
        if base < state.floor:
            detail += f", and no base below {state.floor}"
        return RejectedUpdate(RejectionReason.TOO_STALE, detail)
    expected = state.models.get(base)
    if expected is None:
        return RejectedUpdate(RejectionReason.UNKNOWN_BASE, f"this partition never saw a version {base}")
    if expected != update.base_sha256:
        detail = f"version {base} is {expected[:12]}, the update was trained on {update.base_sha256[:12]}"
        return RejectedUpdate(RejectionReason.UNKNOWN_BASE, detail)
    if update.device_id in state.counted.get(base, ()):
        return RejectedUpdate(
            RejectionReason.DUPLICATE, f"device {update.device_id} has already contributed to version {base}"
        )
    return None


def _wrong_form(state: PartitionState, update: Update) -> RejectedUpdate | None:
    layout = state.layout
    if update.codec not in state.policy.updates.codecs:
        detail = f"codec {update.codec[:CODEC_SHOWN_MAX]}, the policy takes {', '.join(state.policy.updates.codecs)}"
        return RejectedUpdate(RejectionReason.WRONG_LAYOUT, detail)
    if update.names != layout.names:
        return RejectedUpdate(
            RejectionReason.WRONG_LAYOUT,
            f"{len(update.names)} tensors, not the model's {len(layout.names)} by name and order",
        )
    if update.shapes != layout.shapes:
        return RejectedUpdate(RejectionReason.WRONG_LAYOUT, "a tensor's shape is not the model's")
    weights = len(layout.trainable.tensors)
    problem = codecs.wrong_data(
        update.codec, update.data[:weights], update.scales[:weights], layout.trainable
    ) or codecs.wrong_values(update.data[weights:], update.scales[weights:], layout.buffers)
    return RejectedUpdate(RejectionReason.WRONG_LAYOUT, problem) if problem else None


def _judge_content(
    state: PartitionState, update: Update, delta: Delta, buffers: npt.NDArray[np.float32]
) -> Admitted | RejectedUpdate:
    limits, layout = state.policy.updates, state.layout.trainable
    measured = codecs.measure(delta, layout, state.reference)
    norm = measured.norm
    if norm > limits.norm_max:
        return RejectedUpdate(
            RejectionReason.NORM_EXCEEDED,
            f"norm {norm:.6g}, the policy allows {limits.norm_max:g}",
            norm=norm,
        )
    cosine = measured.cosine
    scored = anomaly.score(state.policy.anomaly, state.history, norm, cosine)
    if scored.problem:
        return RejectedUpdate(
            RejectionReason.ANOMALOUS,
            scored.problem,
            scored=True,
            norm=norm,
            norm_deviations=scored.norm_deviations,
            cosine=cosine,
        )
    staleness = state.version - update.base_version
    clip = limits.norm_clip / norm if norm > limits.norm_clip else 1.0
    weight = state.policy.staleness.weights[staleness]
    return Admitted(delta, buffers, measured, staleness, weight, clip, scored.norm_deviations, cosine)
