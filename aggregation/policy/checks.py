"""What a document's types cannot say. Written for the newest format; older ones are checked by what they mean in it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Final

from aggregation.codecs import CODECS
from aggregation.defences import DEFENCES, SCORES_REMEMBERED
from aggregation.errors import UsageProblem
from aggregation.merges import BUCKETS_MAX, BYZANTINE_MAX, ITERATIONS_MAX, MERGES, merge_named
from aggregation.merges.mean import Mean
from aggregation.optimizers import OPTIMIZERS
from aggregation.optimizers.sgd import Sgd
from aggregation.policy.v6 import DocumentV6, SelectionPolicy
from aggregation.schedules import SCHEDULES
from aggregation.selection import SELECTIONS
from aggregation.selection.cohorts import Cohorts
from aggregation.selection.everybody import Everybody
from aggregation.selection.share import Share
from aggregation.selection.slots import Slots
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.divisors.weights import ByWeights
from aggregation.weights.staleness import STALENESS_KINDS, WEIGHT_ONE

VERSIONS_MAX_LIMIT: Final = 10_000
UPDATE_BYTES_LIMIT: Final = 64 << 20
SHARES_MAX: Final = 8
"""Of one device and version."""
SLOTS_MAX: Final = 10_000
COHORTS_MAX: Final = 64
"""That a policy may name."""
COHORT_PATTERN: Final = "[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?"
"""What a cohort may be called; certificates name them."""
SHARE_MIN: Final = 1e-6
"""Of all devices. With cohorts it may be nobody, where some cohort has a share."""
COHORT_WINDOW_MAX: Final = 1_000_000
EDGE_UPDATES_MAX: Final = 1_000_000
EXAMPLES_LIMIT: Final = 65_536
"""Of ``weights.examples_max``: so that an update of one example weighs something."""
BY_EXAMPLES: Final = "examples"
SUM_LIMIT: Final = (1 << 63) - 1
MAGNITUDE_MAX: Final = 128
"""The largest level of any codec: the bound of what rounding a coefficient can add to an element."""
_WRITTEN_OUT_BELOW: Final = 1e10
HINT: Final = "docs/policy.md lists every key with its unit and default"


def refused(key: str, value: object, bound: str) -> UsageProblem:
    """FLV-2002: a key whose value is out of its bounds."""
    message = f"the policy is refused: {key} = {value!r}, it has to be {bound}"
    return UsageProblem("FLV-2002", message, hint=HINT)


def _plain(bound: float) -> str:
    """A bound as it may be written into a policy: a whole one with all its digits."""
    return str(int(bound)) if float(bound).is_integer() and abs(bound) < _WRITTEN_OUT_BELOW else f"{bound:g}"


def check_weights(weights: tuple[int, ...]) -> None:
    """No weight may be 0.

    An update that counts for nothing is not accepted, and a sum of weights has to divide.
    """
    for versions, weight in enumerate(weights):
        if not 1 <= weight <= WEIGHT_ONE:
            raise refused(
                f"staleness.weights[{versions}]",
                weight,
                f"between 1 and {WEIGHT_ONE}: lower staleness.versions_max, "
                "or let the weights fall less steeply",
            )


def _check_name(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        message = f"the policy is refused: {key} has {name!r}, known are {', '.join(known)}"
        raise UsageProblem("FLV-2001", message, hint=HINT)


def check(document: DocumentV6, peers: str = "defence") -> None:
    """Check what the types cannot say: ranges, then names, then keys against each other, then overflow.

    ``peers`` is the section in which the document's format has the keys of the defence ``peers``.

    Raises UsageProblem: FLV-2001 (a name that no family has), FLV-2002 (meaning), FLV-2003 (overflow).
    """
    for key, value, low, high in ranges(document, peers):
        if not (low <= value <= high):  # NaN fails too
            raise refused(key, value, f"between {_plain(low)} and {_plain(high)}")
    if document.updates.norm_max < document.updates.norm_clip:
        raise refused(
            "updates.norm_max",
            document.updates.norm_max,
            f"at least updates.norm_clip = {document.updates.norm_clip:g}",
        )
    for codec in document.updates.codecs:
        _check_name("updates.codecs", codec, CODECS)
    if not document.updates.codecs or len(set(document.updates.codecs)) != len(document.updates.codecs):
        raise refused("updates.codecs", document.updates.codecs, f"some of {', '.join(CODECS)}, each once")
    _check_name("defence.kind", document.defence.kind, DEFENCES)
    _check_name("staleness.kind", document.staleness.kind, STALENESS_KINDS)
    _check_name("server.optimizer", document.server.optimizer, OPTIMIZERS)
    _check_name("server.divide_by", document.server.divide_by, DIVISORS)
    _check_name("merge.kind", document.merge.kind, MERGES)
    _check_name("selection.kind", document.selection.kind, SELECTIONS)
    _check_name("schedule.kind", document.schedule.kind, SCHEDULES)
    if document.window.records_max < document.window.updates_max:
        raise refused(
            "window.records_max",
            document.window.records_max,
            f"at least window.updates_max = {document.window.updates_max}",
        )
    _check_shares(document, peers)
    _check_merge(document)
    _check_selection(document)
    _check_server(document)
    _check_mean(document)
    _check_overflow(document)


def _check_shares(document: DocumentV6, peers: str) -> None:
    shares, defence = document.shares, document.defence
    if defence.history_updates_min > defence.history_updates:
        raise refused(
            f"{peers}.history_updates_min",
            defence.history_updates_min,
            f"at most {peers}.history_updates = {defence.history_updates}",
        )
    if shares.per_version and shares.saved_max < shares.per_version:
        raise refused(
            "shares.saved_max", shares.saved_max, f"at least shares.per_version = {shares.per_version}"
        )


def _check_merge(document: DocumentV6) -> None:
    merge = document.merge
    least, most = merge_named(merge.kind).buckets_min, merge_named(merge.kind).buckets_max
    if not least <= merge.buckets <= most:
        wanted = f"{least}" if least == most else f"between {least} and {most}"
        raise refused("merge.buckets", merge.buckets, f"{wanted} with merge.kind = {merge.kind!r}")
    byzantine_max = max(0, merge.buckets - 3) // 2
    if merge.byzantine > byzantine_max:
        bound = f"at most {byzantine_max}, which is (merge.buckets - 3) // 2"
        raise refused("merge.byzantine", merge.byzantine, bound)


def _check_selection(document: DocumentV6) -> None:
    selection, buffer = document.selection, document.buffer
    for key, value, unused, kinds in (
        ("share", selection.share, 1.0, (Share.name, Cohorts.name)),
        ("slots", selection.slots, 1, (Slots.name,)),
        ("cohorts", selection.cohorts, {}, (Cohorts.name,)),
    ):
        if value != unused and selection.kind not in kinds:
            wanted = " or ".join(repr(kind) for kind in kinds)
            raise refused(f"selection.{key}", value, f"left out, or selection.kind = {wanted}")
    _check_cohorts(selection)
    if selection.kind != Everybody.name and document.staleness.seconds_max <= 0.0:
        bound = f"above 0 with selection.kind = {selection.kind!r}, for lots widen with time"
        raise refused("staleness.seconds_max", document.staleness.seconds_max, bound)
    if buffer.seconds_min > buffer.seconds_max:
        bound = f"at most buffer.seconds_max = {buffer.seconds_max:g}"
        raise refused("buffer.seconds_min", buffer.seconds_min, bound)
    if buffer.quorum > buffer.updates:
        raise refused("buffer.quorum", buffer.quorum, f"at most buffer.updates = {buffer.updates}")


def _check_cohorts(selection: SelectionPolicy) -> None:
    cohorts = selection.cohorts
    if len(cohorts) > COHORTS_MAX:
        raise refused("selection.cohorts", f"{len(cohorts)} cohorts", f"at most {COHORTS_MAX} of them")
    for name, share in cohorts.items():
        if not re.fullmatch(COHORT_PATTERN, name):
            bound = "a cohort's name: 1 to 32 of a-z, 0-9, _ and -, a letter or digit at both ends"
            raise refused("selection.cohorts", name[:64], bound)
        if not 0.0 <= share <= 1.0:
            raise refused(f"selection.cohorts.{name}", share, "between 0 and 1")
    if max(selection.share, *cohorts.values(), 0.0) <= 0.0:
        raise refused(
            "selection.share", selection.share, "above 0, or the share of some cohort: else nobody is"
        )


def check_kind_of_v5(kind: str) -> None:
    """Refuse a selection that asks what no document before v6 can say, FLV-2001."""
    _check_name("selection.kind", kind, [name for name in SELECTIONS if name != Cohorts.name])


def _check_mean(document: DocumentV6) -> None:
    for key, value in (
        ("server.mixing", document.server.mixing),
        ("edges.updates_max", document.edges.updates_max),
    ):
        if value and document.merge.kind != Mean.name:
            raise refused(key, value, f"left out, or merge.kind = {Mean.name!r}")


def _check_server(document: DocumentV6) -> None:
    server = document.server
    if server.nesterov and (server.optimizer != Sgd.name or server.momentum == 0.0):
        raise refused(
            "server.nesterov", server.nesterov, f"false without {Sgd.name!r} and a momentum above 0"
        )
    if document.weights.by == BY_EXAMPLES and server.divide_by != ByWeights.name:
        raise refused(
            "server.divide_by", server.divide_by, f"{ByWeights.name!r} with weights.by = {BY_EXAMPLES!r}"
        )


def check_filled(document: DocumentV6) -> None:
    """Refuse buckets that a version cannot fill; where a policy is written, not where a document is read."""
    if document.merge.buckets > document.buffer.updates:
        raise refused(
            "merge.buckets",
            document.merge.buckets,
            f"at most buffer.updates = {document.buffer.updates}: a bucket that no update is in says nothing",
        )


def ranges(document: DocumentV6, peers: str = "defence") -> list[tuple[str, float, float, float]]:
    """(key, value, least, greatest) of every key that is a number."""
    tiny, huge = 1e-12, 1e12
    staleness, server, defence = document.staleness, document.server, document.defence
    selection = document.selection
    return [
        ("updates.bytes_max", document.updates.bytes_max, 1, UPDATE_BYTES_LIMIT),
        ("updates.norm_clip", document.updates.norm_clip, tiny, huge),
        ("updates.norm_max", document.updates.norm_max, tiny, huge),
        ("staleness.versions_max", staleness.versions_max, 0, VERSIONS_MAX_LIMIT),
        ("staleness.seconds_max", staleness.seconds_max, 0.0, 604_800.0),
        ("staleness.exponent", staleness.exponent, 0.0, 16.0),
        ("staleness.hinge_versions", staleness.hinge_versions, 0, VERSIONS_MAX_LIMIT),
        ("staleness.hinge_slope", staleness.hinge_slope, 0.0, huge),
        ("window.updates_max", document.window.updates_max, 1, 1_000_000),
        ("window.records_max", document.window.records_max, 1, 10_000_000),
        ("window.seconds_max", document.window.seconds_max, 0.01, 86_400.0),
        ("buffer.updates", document.buffer.updates, 1, 100_000_000),
        ("buffer.seconds_min", document.buffer.seconds_min, 0.0, 604_800.0),
        ("buffer.seconds_max", document.buffer.seconds_max, 0.01, 604_800.0),
        ("buffer.quorum", document.buffer.quorum, 1, 100_000_000),
        ("weights.examples_max", document.weights.examples_max, 1, EXAMPLES_LIMIT),
        ("selection.share", selection.share, 0.0 if selection.kind == Cohorts.name else SHARE_MIN, 1.0),
        ("selection.slots", selection.slots, 1, SLOTS_MAX),
        ("schedule.versions", document.schedule.versions, 1, 1_000_000_000),
        ("schedule.factor", document.schedule.factor, 0.0, 1.0),
        ("schedule.warmup_versions", document.schedule.warmup_versions, 0, 1_000_000_000),
        ("server.delay_versions_max", server.delay_versions_max, 0, VERSIONS_MAX_LIMIT),
        ("server.learning_rate", server.learning_rate, tiny, huge),
        ("server.momentum", server.momentum, 0.0, 0.999999),
        ("server.beta_1", server.beta_1, 0.0, 0.999999),
        ("server.beta_2", server.beta_2, 0.0, 0.999999),
        ("server.adaptivity", server.adaptivity, tiny, huge),
        ("shares.per_version", document.shares.per_version, 0, SHARES_MAX),
        ("shares.saved_max", document.shares.saved_max, 0, SHARES_MAX),
        ("shares.cohort_window_max", document.shares.cohort_window_max, 0, COHORT_WINDOW_MAX),
        ("control.devices", document.control.devices, 1, 1_000_000_000),
        ("control.norm_clip", document.control.norm_clip, tiny, huge),
        ("edges.updates_max", document.edges.updates_max, 0, EDGE_UPDATES_MAX),
        ("defence.norm_clip_medians", defence.norm_clip_medians, 0.1, huge),
        ("defence.norm_clip_floor", defence.norm_clip_floor, 0.0, 1.0),
        (f"{peers}.norm_deviations_max", defence.norm_deviations_max, 0.1, huge),
        (f"{peers}.cosine_min", defence.cosine_min, -1.0, 1.0),
        (f"{peers}.history_updates", defence.history_updates, 1, 100_000),
        (f"{peers}.history_updates_min", defence.history_updates_min, 2, 100_000),
        ("defence.guide_cosine_min", defence.guide_cosine_min, -1.0, 1.0),
        ("defence.step_cosine_min", defence.step_cosine_min, 0.0, 1.0),
        ("defence.guide_versions_max", defence.guide_versions_max, 1, 1000),
        ("defence.quarantine_refusals", defence.quarantine_refusals, 0, SCORES_REMEMBERED),
        ("defence.quarantine_versions", defence.quarantine_versions, 1, VERSIONS_MAX_LIMIT),
        ("merge.buckets", document.merge.buckets, 1, BUCKETS_MAX),
        ("merge.byzantine", document.merge.byzantine, 0, BYZANTINE_MAX),
        ("merge.iterations", document.merge.iterations, 1, ITERATIONS_MAX),
        ("fixed_point.exponent", document.fixed_point.exponent, 8, 48),
    ]


def _check_overflow(document: DocumentV6) -> None:
    """No sum of a version may leave int64.

    After clipping, one update adds at most ``norm_clip * 2**exponent`` to an element, plus the rounding of
    its coefficient (half a unit times the largest level, 128), plus the rounding of norm, clip and product
    (a few parts in 2**53; 2**-50 is more than all of them); a version holds ``updates_per_version_max``
    updates.
    """
    windows_max = document.window.updates_max - 1 + max(1, document.edges.updates_max)
    updates_per_version_max = document.buffer.updates - 1 + windows_max
    key, clip = max(
        ("updates.norm_clip", document.updates.norm_clip),
        ("control.norm_clip", document.control.norm_clip),
        key=lambda entry: entry[1],
    )
    clipped = math.ceil(clip * (1 << document.fixed_point.exponent))
    one_update = clipped + (clipped >> 50) + 1 + MAGNITUDE_MAX
    largest = updates_per_version_max * one_update
    if largest > SUM_LIMIT:
        raise UsageProblem(
            "FLV-2003",
            f"the policy could overflow: buffer.updates, window.updates_max and edges.updates_max allow "
            f"{updates_per_version_max} updates, which with {key} = {clip:g} "
            f"at fixed_point.exponent = {document.fixed_point.exponent} "
            f"reach {largest:.3e}, the bound is {SUM_LIMIT:.3e}",
            hint=f"lower fixed_point.exponent, {key}, buffer.updates, window.updates_max or edges.updates_max",
        )
