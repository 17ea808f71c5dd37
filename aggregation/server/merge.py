"""The merge: closed windows of all regions become one global step.

Adding windows is adding int64 (``totals``), so any grouping gives the same bits. *Which* windows go into a version is a
decision (of whoever wins the conditional PUT) and is recorded in the manifest; everything else here is derived from it.
Where the weights' sums stand in several buckets, the policy's ``merge`` makes one of them (``buckets``).

FedBuff (Nguyen et al. 2022, algorithm 1, line 10): the mean delta is the weighted sum divided by what the policy's
``server.divide_by`` names, see ``weights.divisors``. That is of the weights; buffers are no steps, a version's are the
mean of its updates' by staleness weight, see ``codecs.values``; and control variates move by themselves, see
``control``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs import Direction, Peaks, direction_between, mean_of_groups
from aggregation.errors import IntegrityProblem
from aggregation.optimizers import ServerStep, Sums, read_only
from aggregation.policy import Policy, ServerPolicy
from aggregation.server.aggregates import Aggregate
from aggregation.server.buckets import one_of
from aggregation.server.cone import turned
from aggregation.server.control import control_after
from aggregation.server.lateness import ON_TIME, Lateness
from aggregation.server.mixing import MixedBase, mix_into
from aggregation.server.totals import Total
from aggregation.weights.divisors import divisor_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aggregation.layout import Layout

PIECE_ELEMENTS: Final = 1 << 15
"""So many weights are stepped at once: what adam reads and writes of them is 1.8 MB, a processor core's own cache."""


def choose(
    waiting: Iterable[Aggregate], policy: Policy, *, deadline_passed: bool, lateness: Lateness = ON_TIME
) -> tuple[Aggregate, ...]:
    """Which aggregates make the next version: the first that hold ``buffer.updates``, or all at the deadline.

    At the deadline they have to hold ``buffer.quorum``.

    Empty when it is not time yet. Never more than ``updates_per_version_max`` updates, the bound of the
    overflow check, but for a single window that was filled under an earlier, larger policy: it is a version
    by itself. A window that is too late fills nothing and goes along: a version has an update that counts.
    """
    chosen: list[Aggregate] = []
    updates = 0
    for aggregate in waiting:
        accepted = lateness.updates_of((aggregate,))
        if updates and updates + accepted > policy.updates_per_version_max:
            return tuple(chosen)
        chosen.append(aggregate)
        updates += accepted
        if updates >= policy.buffer.updates:
            return tuple(chosen)
    return tuple(chosen) if deadline_passed and updates >= policy.buffer.quorum else ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A version's arrays: model float32[P] and the optimizer's float64 arrays by name, an element a weight."""

    model: npt.NDArray[np.float32]
    optimizer: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Step:
    """What a merge makes: the next checkpoint, and its step as a fixed-point direction for anomaly scores."""

    checkpoint: Checkpoint
    reference: Direction


def merge(
    parent: Checkpoint,
    total: npt.NDArray[np.int64] | Total,
    *,
    updates: int,
    weight_total: int,
    policy: Policy,
    server: ServerPolicy,
    layout: Layout,
    guide: Direction | None = None,
    bases: Iterable[MixedBase] | None = None,
) -> Step:
    """One global step, with the policy's ``server`` as it is for this version, see ``rates.server_at``.

    ``total`` is the exact sum over ``updates`` updates of the weight ``weight_total``, after lateness; the sums alone,
    int64[``layout.sum_elements``], where no window is late and there is one bucket. ``guide`` is the one that the
    version's manifest names, see ``cone``; ``bases`` are what the version's windows answered, see ``mixing``:
    ValueError where the policy mixes and they are not given.
    """
    if updates < 1 or weight_total < 1:
        raise IntegrityProblem(
            "FLV-3004",
            f"a version of {updates} updates with the weight {weight_total}, expected 1 or more of each",
        )
    total = total if isinstance(total, Total) else Total(total, control=layout.control.parameters)
    divisor = divisor_of(server.divide_by, updates=updates, weight_total=weight_total)
    weights = layout.trainable.parameters
    model = np.empty(layout.parameters, dtype=np.float32)
    step = ServerStep(server, parent.model[:weights], parent.optimizer, after=model[:weights])
    unit = float(1 << policy.fixed_point.exponent)
    summed = turned(one_of(total, weights, policy.merge), guide, policy, layout.trainable)
    sums = Sums(read_only(summed), 1.0 / unit, divisor)
    if policy.server.mixing:
        if bases is None:
            raise ValueError("under a policy that mixes a version goes by what its updates answered as well")
        sums = _mixed(sums, step.before, bases)
    peaks = _step_in_pieces(step, sums, layout.trainable)
    reference = direction_between(step.seen, step.before, peaks, layout.trainable)
    values = slice(weights, layout.model_parameters)
    model[values] = mean_of_groups(total.values(weight_total, weights))
    control = slice(layout.model_parameters, None)
    model[control] = control_after(parent.model[control], total.control_sums, policy)
    return Step(Checkpoint(model, step.state), reference)


def _mixed(sums: Sums, parent: npt.NDArray[np.float32], bases: Iterable[MixedBase]) -> Sums:
    """The mean delta itself, with what ``bases`` bring along."""
    delta = sums.total.astype(np.float64) * sums.one_over_unit / sums.divisor
    mix_into(delta, parent, bases, sums.divisor)
    return Sums(read_only(delta))


def _step_in_pieces(step: ServerStep, sums: Sums, trainable: Layout) -> Peaks:
    """Step every weight by its mean delta, total / unit / divisor in float64.

    One sweep: step and peaks of a piece are made while it is in the processor's cache. A direction's levels need the
    peak of their whole tensor, so they take a second, shorter sweep.
    """
    size, peaks = sums.total.size, Peaks(trainable)
    for begin in range(0, size, PIECE_ELEMENTS):
        piece = slice(begin, min(begin + PIECE_ELEMENTS, size))
        step.take(begin, sums._replace(total=sums.total[piece]))
        peaks.take(step.seen[piece], step.before[piece])
    return peaks
