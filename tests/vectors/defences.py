"""Vectors of the defences: what is usual, and what each kind makes of an update."""

from __future__ import annotations

import json
from typing import Any, Final

from aggregation.defences import BY_SQUARES, NormHistory, Seen, Usual, defence_named, square_count
from aggregation.defences.usual import (
    Histogram,
    Histograms,
    cosine_bucket,
    median,
    norm_bucket,
    norm_of_bucket,
    pooled,
    share_count,
)
from aggregation.policy import policy_from_mapping
from aggregation.weights.fixed_point import WEIGHT_FRACTION_BITS, WEIGHT_ONE
from tests.vectors.writing import document, number

NORM_CLIP: Final = 2.0
WEIGHT: Final = 46_341
"""The staleness weight of the cases of defences."""
PEERS: Final[dict[str, Any]] = {"history_updates_min": 4, "norm_deviations_max": 6.0, "cosine_min": -0.5}
FLOOR: Final[dict[str, Any]] = {"norm_clip_floor": 0.25, "norm_clip_medians": 1.5}
NORMS: Final = [1.0, 2.0, 3.0, 4.0]
COSINES: Final = [
    -1.0,
    -0.015625,
    -0.0156250001,
    -0.0,
    0.0,
    5e-324,
    -5e-324,
    0.015624999,
    0.5,
    0.9999999,
    1.0,
]
MEASURED: Final = [
    (3.0, 1.5),
    (1.5, 1.5),
    (1.4999999999999998, 1.5),
    (0.9375, 1.0),
    (0.9374999999999999, 1.0),
    (0.7, 1.5),
    (0.3125, 1.0),
    (0.31249999999999994, 1.0),
    (0.1875, 1.0),
    (0.01, 1.5),
    (5e-324, 1.5),
    (5e-324, 5e-324),
    (1.0, 0.0),
    (1e-12, 1e12),
    (2.2250738585072014e-308, 1.7e308),
]
"""Norms, and what they are clipped to."""
INFINITE: Final = float("inf")
TINY: Final = 5e-324

Case = tuple[str, dict[str, Any], Seen, Usual, list[float]]


def seen(norm: float, cosine: float = 0.0, *, compared: bool = False, share: int = 1) -> Seen:
    """What a defence is shown."""
    return Seen(norm, cosine, compared, share, NORM_CLIP)


def _clipping(kind: str) -> list[Case]:
    usual = Usual(norm=0.75)
    return [
        (kind, FLOOR, seen(3.0), Usual(), []),
        (kind, FLOOR, seen(1.0), usual, []),
        (kind, FLOOR, seen(0.75), usual, []),
        (kind, FLOOR, seen(0.1), usual, []),
        (kind, FLOOR, seen(3.0), Usual(norm=0.5), []),
        (kind, FLOOR, seen(3.0), Usual(norm=TINY), []),
        (kind, {"norm_clip_floor": 0.0}, seen(3.0), Usual(norm=1e-3), []),
        (kind, {"norm_clip_floor": 1.0}, seen(3.0), usual, []),
        (kind, FLOOR, seen(3.0), Usual(norm=INFINITE), []),
        (kind, FLOOR, seen(3.0), Usual(norm=float("nan")), []),
        (kind, FLOOR, seen(3.0), Usual(norm=-1.0), []),
        (kind, FLOOR, seen(0.0), usual, []),
    ]


def _fairness(kind: str) -> list[Case]:
    rows = [
        (1, 1),
        (2, 1),
        (3, 2),
        (2, 3),
        (8, 1),
        (120, 7),
        (1, 0),
        (5, -1),
        (5, (1 << 63) - 1),
        (1, -(1 << 63)),
    ]
    return [(kind, {}, seen(1.0, share=own), Usual(share=usual), []) for own, usual in rows]


def _agreement() -> list[Case]:
    rows = [
        (0.5, 32, 0.0),
        (0.25, 32, 0.0),
        (0.25, 32, -0.1),
        (0.0, 32, -0.1),
        (-0.1, 32, -0.1),
        (-0.10000000000000002, 32, -0.1),
        (0.7, 32, -0.1),
        (1.0, 0, -0.1),
        (0.3, 0, 0.0),
        (-0.05, 0, -0.1),
        (0.3, -20, -0.1),
        (0.3, -6, -0.1),
        (0.3, 64, 1.0),
        (1.0, 64, 1.0),
        (0.3333333333333333, 21, -1.0),
        (0.9, (1 << 63) - 1, -0.1),
        (0.9, -(1 << 63), -0.1),
    ]
    cases: list[Case] = [
        ("guide", {"guide_cosine_min": least}, seen(1.0, cosine, compared=True), Usual(cosine=usual), [])
        for cosine, usual, least in rows
    ]
    at_once = Usual(norm=0.75, cosine=32, share=1)
    together = [(0.2, 3), (0.01, 8), (-0.0999, 120), (0.6, 1)]
    cases += [
        ("guide", FLOOR, seen(1.0, cosine, compared=True, share=share), at_once, [])
        for cosine, share in together
    ]
    cases.append(("guide", FLOOR, seen(0.0, 0.0, compared=True), at_once, []))
    cases.append(("guide", FLOOR, seen(1.0, -0.5), at_once, []))
    return cases


def _others() -> list[Case]:
    usual = Usual(0.5, 32, 1)
    return [
        ("none", {}, seen(1.0, -1.0, compared=True, share=9), usual, []),
        ("none", {}, seen(0.0), usual, []),
        ("peers", PEERS, seen(9.0, share=9), usual, NORMS),
        ("peers", PEERS, seen(2.0, -0.5, compared=True, share=9), usual, NORMS),
        ("peers", PEERS, seen(2.0, -0.5000000000000001, compared=True), usual, NORMS),
        ("peers", PEERS, seen(900.0, -0.7, compared=True), usual, NORMS),
        ("peers", PEERS, seen(900.0), usual, NORMS[1:]),
        ("peers", PEERS, seen(0.0), usual, NORMS),
    ]


def defence_cases() -> dict[str, Any]:
    """What each kind makes of an update of a norm that the policy allows."""
    rows = [*_clipping("median"), *_fairness("median"), *_clipping("guide"), *_fairness("guide")]
    cases = []
    for kind, keys, shown, usual, history in [*rows, *_agreement(), *_others()]:
        policy = policy_from_mapping({"updates": {"norm_clip": NORM_CLIP}, "defence": {"kind": kind} | keys})
        judged = defence_named(kind).judge(policy.defence, shown, usual, NormHistory(history))
        case = {
            "defence": json.loads(policy.canonical())["defence"],
            "kind": kind,
            "norm": shown.norm,
            "cosine": shown.cosine,
            "compared": shown.compared,
            "share": shown.share,
            "usual_norm": number(usual.norm),
            "usual_cosine": usual.cosine,
            "usual_share": usual.share,
            "history": history,
            "reason": judged.problem.reason.code if judged.problem else 0,
            "norm_deviations": judged.norm_deviations,
        }
        if judged.problem is None:
            clip_to = NORM_CLIP if judged.clip_to is None else min(NORM_CLIP, judged.clip_to)
            left = (
                WEIGHT
                if judged.factor == WEIGHT_ONE
                else max(1, WEIGHT * judged.factor >> WEIGHT_FRACTION_BITS)
            )
            case |= {"clip": clip_to / shown.norm if shown.norm > clip_to else 1.0, "weight": left}
        cases.append(case)
    return document(
        "defences: what an update shows and what is usual; why it is refused, or its clip factor and weight",
        cases,
        norm_clip=NORM_CLIP,
        weight=WEIGHT,
    )


def _times(by: str, norm: float, clip_to: float) -> int:
    return square_count(norm, clip_to) if by == BY_SQUARES else 1


def _written(histogram: Histogram) -> list[list[int]]:
    return [list(pair) for pair in histogram]


def usual_cases() -> dict[str, Any]:
    """Buckets, what is counted in them, medians and pools."""
    cases: list[dict[str, Any]] = []
    for norm in (
        1.0,
        1.0624999999999998,
        1.125,
        0.1,
        3.0,
        1e-300,
        TINY,
        2.2250738585072014e-308,
        1.7e308,
        1e12,
    ):
        bucket = norm_bucket(norm)
        cases.append({"norm": norm, "bucket": bucket, "middle": norm_of_bucket(bucket)})
    cases += [{"cosine": cosine, "bucket": cosine_bucket(cosine)} for cosine in COSINES]
    cases += [{"share": own, "count": share_count(own)} for own in (1, 2, 3, 4, 5, 6, 7, 8, 9, 64, 120)]
    cases += [
        {"usual_norm_by": by, "norm": norm, "clip_to": clip_to, "times": _times(by, norm, clip_to)}
        for by in ("squares", "updates")
        for norm, clip_to in MEASURED
    ]
    histograms: list[Histogram] = [
        (),
        ((7, 1),),
        ((-3, 1), (4, 1)),
        ((-3, 1), (4, 2)),
        ((1, 2), (2, 2), (9, 1)),
        ((1, 840), (2, 420), (8, 105)),
    ]
    cases += [{"histogram": _written(one), "median": median(one)} for one in histograms]
    cases += _pools()
    return document(
        "what is usual: buckets and the middle of one, counts of a share and a norm, medians, pools after a version",
        cases,
    )


def _pools() -> list[dict[str, Any]]:
    first = Histograms(
        norms=((8184, 840), (8190, 420)), cosines=((-1, 420), (20, 840)), shares=((1, 840), (2, 420))
    )
    second = Histograms(norms=((8150, 105), (8184, 105)), cosines=((-40, 105),), shares=((8, 210),))
    before, cases = Histograms(), []
    for windows in ([first], [second, first], [], [], [second]):
        after = Histograms(
            *(pooled(getattr(before, name), [getattr(one, name) for one in windows]) for name in NAMES)
        )
        usual = after.usual
        cases.append(
            {
                "before": {name: _written(getattr(before, name)) for name in NAMES},
                "windows": [{name: _written(getattr(one, name)) for name in NAMES} for one in windows],
                "pools": {name: _written(getattr(after, name)) for name in NAMES},
                "usual": {"norm": usual.norm, "cosine": usual.cosine, "share": usual.share},
            }
        )
        before = after
    against = Histograms(cosines=((-40, 3), (5, 1)))
    small = Histograms(norms=((1, 1), (2, 4)), shares=((3, 1),))
    for one in (against, small):
        after = Histograms(*(pooled(getattr(one, name), []) for name in NAMES))
        usual = after.usual
        cases.append(
            {
                "before": {name: _written(getattr(one, name)) for name in NAMES},
                "windows": [],
                "pools": {name: _written(getattr(after, name)) for name in NAMES},
                "usual": {"norm": usual.norm, "cosine": usual.cosine, "share": usual.share},
            }
        )
    return cases


NAMES: Final = ("norms", "cosines", "shares")
