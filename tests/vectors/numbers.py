"""Vectors of numbers: codecs, norms, cosines, scores, sums, buffers, merges and optimizers."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from aggregation import codecs
from aggregation.codecs import Direction
from aggregation.defences import NormHistory, Seen, Usual, defence_named
from aggregation.layout import Layout
from aggregation.merges import MERGES, Bucket
from aggregation.optimizers import OPTIMIZERS
from aggregation.policy import Policy, ServerPolicy, policy_from_mapping
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.totals import WindowSums, add_windows
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.fixed_point import WEIGHT_ONE, weight_after
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.objects import sha256_hex
from tests.factories import BUFFERED, LAYOUT, HashRandom, delta
from tests.vectors.writing import document, number, numbers, plain, wholes

Int64Array = npt.NDArray[np.int64]
EXPONENT: Final = 32
ROBUST: Final = tuple(name for name, merge in MERGES.items() if merge.robust)
"""Merges that have buckets."""
CONES: Final = [
    (0.9, 1.0, 0.5),
    (0.9, -1.0, 0.0),
    (0.5, 1.0, 0.0),
    (0.0, -1.0, 0.5),
    (1.0, 0.1, 1.0),
    (0.9, 0.2, 1.0),
]
"""(``step_cosine_min``, how much of a guide is along the first window, and how much aside)."""
ODD_NAMES: Final = Layout.of(
    [("b", ()), ('é"\\/\n\x01\x7f\u2028', (2, 3)), ("B", (1,)), ("a.b c", (1, 1, 2))]
)
"""Names that a header in JSON has to escape, and ones whose order is that of bytes."""


def layout_of(layout: Layout) -> list[dict[str, Any]]:
    """A layout as vectors have it."""
    return [
        {"name": one.name, "shape": list(one.shape), "section": one.section, "nonnegative": one.nonnegative}
        for one in layout.tensors
    ]


def codec_cases() -> dict[str, Any]:
    """What a tensor's bytes are: its levels, or why they are none."""
    floats = np.array([0.0, -0.0, 1.0, -1.5, 1e-45, 3.4028235e38, np.nan, np.inf], dtype="<f4")
    rows = [
        ("int8", 4, bytes([0, 1, 127, 129]), 0.5),
        ("int8", 2, bytes([128, 255]), 0.5),
        ("int8", 3, bytes(2), 0.5),
        ("int8", 1, b"\1", -1.0),
        ("int8", 1, b"\1", float("nan")),
        ("int8", 1, b"\1", -0.0),
        ("float32", 6, floats[:6].tobytes(), 1.0),
        ("float32", 1, floats[6:7].tobytes(), 1.0),
        ("float32", 1, floats[7:].tobytes(), 1.0),
        ("float32", 1, floats[2:3].tobytes(), 0.5),
        ("float32", 1, floats[2:3].tobytes(), -1.0),
        ("float32", 1, floats[2:3].tobytes(), float("inf")),
        ("float32", 2, bytes(4), 1.0),
        ("int4", 4, bytes([0x10, 0x7F]), 0.25),
        ("int4", 3, bytes([0x97, 0x0E]), 0.25),
        ("int4", 3, bytes([0x97, 0x1E]), 0.25),
        ("int4", 2, bytes([0x87]), 0.25),
        ("int4", 2, bytes([0x78]), 0.25),
        ("int4", 1, bytes([0x08]), 0.25),
        ("int4", 2, bytes(2), 0.25),
    ]
    cases = []
    for codec, elements, data, scale in rows:
        layout = Layout.of([("t", (elements,))])
        case: dict[str, Any] = {
            "codec": codec,
            "elements": elements,
            "scale": number(scale),
            "data": data.hex(),
        }
        refused = "wrong_layout" if codecs.wrong_data(codec, [data], [scale], layout) else ""
        if not refused and not codecs.is_finite(codecs.view_delta(codec, [data], (scale,), layout)):
            refused = "not_finite"
        if refused:
            case["refused"] = refused
        else:
            case["levels"] = numbers(codecs.CODECS[codec].decode(data)[:elements])
        cases.append(case)
    return document(
        "a tensor's bytes: its levels, an element is scale times its level; or the refusal", cases
    )


def _direction(seed: int, layout: Layout) -> Direction:
    return codecs.direction_of(delta(seed, layout).astype(np.float64), layout)


def _tensors(tensors: list[codecs.EncodedTensor]) -> list[dict[str, Any]]:
    return [{"name": one.name, "scale": number(one.scale), "data": one.data.hex()} for one in tensors]


def norm_cases() -> dict[str, Any]:
    """Norm, cosine, and what an update adds to the sums, for every codec."""
    layout = LAYOUT.trainable
    cases = []
    for n, (codec, size, weight, clip_at) in enumerate(
        [
            ("int8", 0.1, 65536, 1000.0),
            ("int8", 0.1, 46341, 0.1),
            ("int4", 0.1, 37837, 0.2),
            ("float32", 0.1, 65536, 1000.0),
            ("float32", 3.0, 32768, 0.4),
            ("int8", 1e-30, 1, 3.0),
            ("float32", 0.0, 65536, 3.0),
            ("int8", 0.0, 65536, 3.0),
        ]
    ):
        rng = cast("np.random.Generator", HashRandom(n))
        tensors = codecs.encode_delta(delta(n, layout, size=size), layout, codec, rng)
        if size == 0.0 and codec == "int8":  # a scale over zeros counts for nothing, however large
            tensors = [codecs.EncodedTensor(one.name, one.shape, 1e300, one.data) for one in tensors]
        viewed = codecs.view_delta(
            codec, [one.data for one in tensors], tuple(one.scale for one in tensors), layout
        )
        measured = codecs.measure(viewed, layout)
        reference = _direction(90 + n, layout)
        clip = clip_at / measured.norm if measured.norm > clip_at else 1.0
        sums = np.zeros(layout.parameters, dtype=np.int64)
        codecs.accumulate_into(
            sums, viewed, measured, layout, weight=weight / 65536, clip=clip, exponent=EXPONENT
        )
        rules = codecs.CODECS[codec]
        cases.append(
            {
                "codec": codec,
                "tensors": _tensors(tensors),
                "squares": numbers(rules.squares(viewed.flat, layout)),
                "norm": measured.norm,
                "reference": encode_direction(reference).hex(),
                "reference_norm": reference.norm,
                "dots": numbers(rules.dots(viewed.flat, reference.q, layout)),
                "cosine": codecs.cosine(viewed, measured.norm, reference, layout),
                "norm_clip": clip_at,
                "clip": clip,
                "weight": weight,
                "added": wholes(sums),
            }
        )
    return document(
        "norm, cosine with a direction (its file), clip factor, and what is added to the sums",
        cases,
        layout=layout_of(layout),
        exponent=EXPONENT,
    )


def score_cases() -> dict[str, Any]:
    """Robust deviations over a history: medians are the upper of the middle two."""
    rows: list[tuple[list[float], float, float]] = [
        ([1.0, 2.0, 3.0, 4.0], 9.0, 0.0),
        ([1.0, 2.0, 3.0, 4.0, 100.0], 9.0, 0.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 0.0),
        ([1.0, 1.0, 1.0, 1.0], 1.59, 0.0),
        ([1.0, 1.0, 1.0, 1.0], 1.7, 0.0),
        ([0.0, 0.0, 0.0, 0.0], 5.0, 0.0),
        ([1.0, 2.0, 3.0], 900.0, 0.0),
        ([0.1, 0.2, 0.30000000000000004, 0.7, 1.1, 1.3], 2.9, 0.25),
        ([1.0, 2.0, 3.0, 4.0], 2.0, -0.5),
        ([1.0, 2.0, 3.0, 4.0], 2.0, -0.5000000000000001),
    ]
    rules = policy_from_mapping({"defence": {"kind": "peers", "history_updates_min": 4}}).defence
    cases = []
    for history, norm, cosine in rows:
        found = defence_named("peers").judge(
            rules, Seen(norm, cosine, compared=True), Usual(), NormHistory(history)
        )
        cases.append(
            {
                "history": history,
                "norm": norm,
                "cosine": cosine,
                "norm_deviations": number(found.norm_deviations),
                "anomalous": bool(found.problem),
            }
        )
    limits = {"history_updates_min": 4, "norm_deviations_max": 6.0, "cosine_min": -0.5}
    return document(
        "scores of a norm over a history, oldest first, and whether they are anomalous", cases, **limits
    )


def buffer_cases() -> dict[str, Any]:
    """Ten digits of 32 bits a value and weight; and means of sums."""
    values = [0.0, -0.0, 1.0, -1.5, 1e-45, -1.1754942e-38, 1.17549435e-38, 3.4028235e38, -0.1, 123456.79]
    exact = np.array(values, dtype="<f4")
    cases: list[dict[str, Any]] = []
    for weight in (1, 46341, 65536):
        sums = np.zeros(10 * exact.size, dtype=np.int64)
        codecs.accumulate_values_into(sums, exact, weight)
        cases.append({"values": exact.tobytes().hex(), "weight": weight, "digits": wholes(sums)})
    sums = np.zeros(30, dtype=np.int64)
    rows = [([1.0, -2.5, 1e-45], 65536), ([1.0000001, 7.25, 0.0], 46341), ([3e38, -2.5000002, 1e-45], 1)]
    total = 0
    for row, weight in rows:
        codecs.accumulate_values_into(sums, np.array(row, dtype="<f4"), weight)
        total += weight
    for weight_total in (total, 1 << 40, 3):
        means = codecs.mean_of_values(sums, weight_total) if weight_total != 3 else None
        case = {"sums": wholes(sums), "weight_total": weight_total}
        if means is not None:
            cases.append(case | {"means": means.astype("<f4").tobytes().hex()})
    halves = np.zeros(20, dtype=np.int64)
    halves[4], halves[14] = 3, -5
    means = codecs.mean_of_values(halves, 1 << 25)
    cases.append(
        {"sums": wholes(halves), "weight_total": 1 << 25, "means": means.astype("<f4").tobytes().hex()}
    )
    return document("values of buffers (float32, little-endian): their digits, and the mean of sums", cases)


def _window_of(layout: Layout, many: int, count: int, weight: int, seed: int) -> Int64Array:
    """The sums of a window of so many buckets, with ``count`` updates of buffers in each."""
    weights = layout.trainable.parameters
    sums = np.zeros(layout.sum_elements + (many - 1) * weights, dtype=np.int64)
    for b in range(many):
        parts = delta(seed + 1000 * b, layout.trainable).astype(np.float64)
        sums[b * weights : (b + 1) * weights] = np.rint(parts * 2.0**33).astype(np.int64)
    if layout.buffers.parameters:
        for one in range(count):
            values = delta(50 + one, layout)[weights:]
            codecs.accumulate_values_into(sums[many * weights :], values, weight // count * many)
    return sums


def merge_case(
    rules: Policy,
    layout: Layout,
    *,
    state: str,
    seed: int,
    left: tuple[int, ...] = (),
    guide: Direction | None = None,
    server: ServerPolicy | None = None,
) -> dict[str, Any]:
    """``left``: what lateness leaves of each window; () for a version that says nothing of it, nor has a ``guide``.

    ``server`` is the policy's as it is for this version, where that differs.
    """
    weights = layout.trainable.parameters
    model = delta(700 + seed, layout)
    optimizer: dict[str, npt.NDArray[np.float64]] = {}
    if state == "kept":
        names = OPTIMIZERS[rules.server.optimizer].state_names(rules.server)
        optimizer = {
            name: np.abs(delta(800 + n, layout).astype(np.float64))[:weights] for n, name in enumerate(names)
        }
    elif state == "another's":
        optimizer = {"velocity" if rules.server.optimizer != "sgd" else "m": np.ones(weights)}
    windows: list[dict[str, Any]] = []
    merged: list[WindowSums] = []
    updates, weight_total = 0, 0
    counted = [(3, 3 * 65536), (2, 65536 + 46341), (1, 37837), (1, 1)]
    many = rules.merge.buckets
    for n, (count, weight) in enumerate(counted[: len(left) or 2]):
        sums = _window_of(layout, many, count, weight, 900 + 10 * seed + n)
        before = weight // count * count
        buckets = (Bucket(count, before),) * many
        window = {"accepted": count * many, "weight_total": before * many, "sums": wholes(sums)}
        windows.append(window | _buckets_of(buckets))
        if left:
            windows[-1] |= {"weight": left[n], "weight_after": weight_after(before * many, left[n])}
        if not left or left[n]:
            merged.append(WindowSums(sums, before * many, left[n] if left else WEIGHT_ONE, buckets))
            updates += count * many
            weight_total += weight_after(before * many, left[n]) if left else before * many
    step = merge(
        Checkpoint(model, optimizer),
        add_windows(merged, weights=weights, elements=layout.sum_elements),
        updates=updates,
        weight_total=weight_total,
        policy=rules,
        server=server or rules.server,
        layout=layout,
        guide=guide,
    )
    made = {
        "model": encode_model(step.checkpoint.model, layout),
        "optimizer": encode_optimizer(step.checkpoint.optimizer),
        "reference": encode_direction(step.reference),
    }
    return {
        "server": plain({name: getattr(rules.server, name) for name in rules.server.__struct_fields__}),
        "exponent": rules.fixed_point.exponent,
        "state": state,
        "layout": layout_of(layout),
        "parent_model": encode_model(model, layout).hex(),
        "parent_optimizer": encode_optimizer(optimizer).hex(),
        "windows": windows,
        **_merge_of(rules),
        **_guide_of(guide, rules),
        **{name: data.hex() for name, data in made.items()},
        **{f"{name}_sha256": sha256_hex(data) for name, data in made.items()},
    }


def _buckets_of(buckets: tuple[Bucket, ...]) -> dict[str, Any]:
    if len(buckets) == 1:
        return {}
    return {"buckets": [{"accepted": one.accepted, "weight": one.weight} for one in buckets]}


def _merge_of(rules: Policy) -> dict[str, Any]:
    one = rules.merge
    return {} if one.buckets == 1 else {"merge": {name: getattr(one, name) for name in one.__struct_fields__}}


def _guide_of(guide: Direction | None, rules: Policy) -> dict[str, Any]:
    if guide is None:
        return {}
    return {"guide": encode_direction(guide).hex(), "step_cosine_min": rules.defence.step_cosine_min}


def merge_cases() -> dict[str, Any]:
    """One version by every optimizer and divisor: from its parent's files and its windows' sums to its own files."""
    rows: list[tuple[dict[str, Any], Layout, str]] = [
        ({"optimizer": "sgd"}, LAYOUT, "kept"),
        ({"optimizer": "sgd", "learning_rate": 0.1, "divide_by": "weights"}, LAYOUT, "none"),
        ({"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.5}, LAYOUT, "kept"),
        ({"optimizer": "sgd", "momentum": 0.9}, LAYOUT, "another's"),
        ({"optimizer": "adam", "learning_rate": 0.01}, LAYOUT, "none"),
        (
            {"optimizer": "adam", "learning_rate": 0.01, "divide_by": "weights", "beta_2": 0.999},
            LAYOUT,
            "kept",
        ),
        ({"optimizer": "adam", "adaptivity": 1e-8}, LAYOUT, "another's"),
        ({"optimizer": "yogi", "learning_rate": 0.01}, LAYOUT, "kept"),
        ({"optimizer": "yogi", "beta_1": 0.0}, LAYOUT, "none"),
        ({"optimizer": "adam", "learning_rate": 0.02}, BUFFERED, "kept"),
        ({"optimizer": "sgd"}, ODD_NAMES, "none"),
    ]
    cases = []
    for seed, (server, layout, state) in enumerate(rows):
        rules = policy_from_mapping({"server": server, "fixed_point": {"exponent": 32 + seed % 2}})
        kept = (
            "none"
            if state == "kept" and server["optimizer"] == "sgd" and not server.get("momentum")
            else state
        )
        cases.append(merge_case(rules, layout, state=kept, seed=seed))
    for seed, divide_by in enumerate(DIVISORS, len(rows)):
        rules = policy_from_mapping({"server": {"learning_rate": 0.5, "divide_by": divide_by}})
        left = (65536, 24105, 0, 20724) if seed % 2 else (32768, 46341, 65536, 1)
        cases.append(merge_case(rules, BUFFERED, state="none", seed=seed, left=left))
    one_late = policy_from_mapping({"server": {"learning_rate": 0.5, "divide_by": "weights"}})
    cases.append(merge_case(one_late, BUFFERED, state="none", seed=len(rows) + 2, left=(0, 46341)))
    for seed, (least, factor, aside) in enumerate(CONES, len(rows) + 3):
        rules = policy_from_mapping({"defence": {"kind": "guide", "step_cosine_min": least}})
        step = delta(900 + 10 * seed, LAYOUT) * np.float32(factor) + delta(7) * np.float32(aside)
        guide = codecs.direction_of(step.astype(np.float64), LAYOUT)
        cases.append(merge_case(rules, LAYOUT, state="none", seed=seed, left=(65536, 46341), guide=guide))
    for seed, name in enumerate(ROBUST, len(rows) + 3 + len(CONES)):
        sections = {"merge": {"kind": name, "buckets": 4}, "server": {"learning_rate": 0.5}}
        guided = {"defence": {"kind": "guide", "step_cosine_min": 0.9}} if name == ROBUST[0] else {}
        guide = codecs.direction_of(delta(7, BUFFERED.trainable).astype(np.float64), BUFFERED.trainable)
        cases.append(
            merge_case(
                policy_from_mapping(sections | guided),
                BUFFERED,
                state="none",
                seed=seed,
                left=(65536, 46341),
                guide=guide if guided else None,
            )
        )
    return document(
        "merges: the parent's files and the windows' sums, and the files that come of them", cases
    )
