"""Vectors of ``fluvial/policy/v6``: bases of windows, control variates, mixed models; older policies beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from aggregation import codecs
from aggregation.codecs import EncodedTensor
from aggregation.fold.bases import Base
from aggregation.layout import Layout
from aggregation.merges import Bucket
from aggregation.optimizers import OPTIMIZERS
from aggregation.policy import Policy, policy_from_mapping
from aggregation.server.lateness import MergedWindows, lateness_under
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.mixing import mixed_bases
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums, add_windows
from aggregation.weights.fixed_point import weight_after
from schemas import avro
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.objects import sha256_hex
from tests import factories
from tests.factories import (
    BUFFERED,
    LAYOUT,
    HashRandom,
    delta,
    devices,
    encoded,
    tick_bytes,
    update_bytes,
    worker_signer,
)
from tests.vectors import learning, numbers
from tests.vectors.learning import V5, V6
from tests.vectors.replaying import Log
from tests.vectors.shares import barrier, update
from tests.vectors.writing import plain, wholes

VARIED: Final = BUFFERED.with_control()
"""Weights, buffers and control variates."""
PLAIN_VARIED: Final = LAYOUT.with_control()
Values = npt.NDArray[np.float32]


def varied(**sections: Any) -> Policy:
    """A policy of v6 in which everything happens soon."""
    small: dict[str, Any] = {
        "format": V6,
        "window": {"updates_max": 6, "records_max": 100},
        "staleness": {"versions_max": 2},
        "updates": {"norm_clip": 0.5, "codecs": ["int8", "float32", "int4"]},
        "shares": {"per_version": 8, "saved_max": 8},
    }
    for name, keys in sections.items():
        small[name] = small.get(name, {}) | keys if isinstance(keys, dict) else keys
    return policy_from_mapping(small)


# -- logs


def moves(seed: int, factor: float, layout: Layout = VARIED) -> Values:
    """Values whose control variates' changes are so much larger."""
    values = delta(seed, layout)
    values[layout.model_parameters :] *= np.float32(factor)
    return values


def varied_tensors(values: Values, codec: str) -> list[EncodedTensor]:
    """An update of ``VARIED`` as it travels."""
    size = VARIED.model_parameters
    generator = cast("np.random.Generator", HashRandom(4))
    changes = codecs.encode_delta(values[size:], VARIED.control, codec, generator)
    return [*encoded(values[:size], codec, 3, BUFFERED), *changes]


def spoiled(tensors: list[EncodedTensor], at: int, **changed: Any) -> list[EncodedTensor]:
    """The tensors with another one at a place, from the end where that is below 0."""
    return [*tensors[: at % len(tensors)], replace(tensors[at], **changed), *tensors[at % len(tensors) + 1 :]]


def control() -> Log:
    """Control variates in every codec: clipped by their own norm, added in no bucket, and what is wrong with some."""
    one = varied(merge={"kind": "krum", "buckets": 3}, control={"norm_clip": 0.3, "devices": 10})
    older = varied(format=V5)
    log, names = Log(one, VARIED), iter(devices(40))
    for each in (one, older):
        log.keep(each.canonical())

    def send(
        note: str,
        factor: float = 1.0,
        codec: str = "int8",
        base: int = 0,
        at: int | None = None,
        **changed: Any,
    ) -> None:
        tensors = varied_tensors(moves(len(log.records), factor), codec)
        if at is not None:
            tensors = spoiled(tensors, at, **changed)
        fields: dict[str, Any] = {"base": base, "tensors": tensors, "codec": codec, "layout": VARIED}
        log.add(update_bytes(next(names), **fields), note)

    send("its change is longer than may be: clipped")
    send("the same in float32", codec="float32")
    send("the same in int4", codec="int4")
    send("short: as it is", 0.01, "float32")
    send("of no length", 0.0)
    send("a scale over levels that are 0", 0.0, at=-1, scale=1e300)
    send("an infinite norm: it adds nothing", at=-1, scale=1e300)
    send("a scale below 0", at=-1, scale=-1.0)
    send("a scale that is no number", at=-2, scale=float("nan"))
    send("an element that is none", codec="float32", at=-3, data=np.float32(np.inf).tobytes())
    send("too short", at=-1, data=b"\0")
    send("a level that int4 has not", codec="int4", at=-1, data=b"\x08" + bytes(3))
    send("a scale in float32", codec="float32", at=-2, scale=2.0)
    send("a buffer is too short, and so is a control variate: that of the buffer is said", at=3, data=b"")
    send("a control variate below 0 beside a variance below 0", at=4, data=np.full(3, -1, "<f4").tobytes())
    send("another shape", at=-1, shape=(1, 7))
    send("called as its weight is", at=-1, name="out.weight")
    good = varied_tensors(moves(1, 1.0), "int8")
    log.add(update_bytes(next(names), tensors=good[:5], layout=VARIED), "without control variates")
    log.add(
        update_bytes(next(names), tensors=[*good[:3], *good[5:], *good[3:5]], layout=VARIED), "before buffers"
    )
    log.add(barrier(1, older), "v5: what there is of v6 has no limit of its own")
    send("clipped as weights are", base=1)
    send("a version late, and clipped as weights are", 30.0, "float32")
    log.add(barrier(2, one), "v6 again")
    send("two versions late", base=0)
    send("clipped by its own norm again", base=2)
    log.add(tick_bytes(len(log.records) - 3), "closes the window")
    return log


def bases() -> Log:
    """Windows of one, two and three bases, by examples; one without an update; and v5, which says none."""
    by_examples = {"weights": {"by": "examples", "examples_max": 40}, "server": {"mixing": True}}
    one, older = varied(**by_examples), varied(format=V5)
    log, names, value = Log(one), iter(devices(30)), delta(5)
    for each in (one, older):
        log.keep(each.canonical())
    log.add(update(next(names), 0, value, num_examples=7), "of version 0, by seven examples of 40")
    log.add(update(next(names), 0, value, "int4", num_examples=100), "of version 0")
    for version in (1, 2):
        log.add(barrier(version, one), "closes the window: of one base")
        for base in range(version, -1, -1):
            log.add(update(next(names), base, value, num_examples=20 + base), f"of version {base}")
    log.add(update(next(names), 2, value, num_examples=1), "of version 2")
    log.add(update(next(names), 1, value, num_examples=1), "of version 1")
    log.add(update(next(names), 0, value, num_examples=1), "of version 0; fills the window")
    log.add(b"junk", "refused")
    log.add(barrier(3, one), "closes a window without a base")
    log.add(update(next(names), 3, value), "of version 3")
    log.add(barrier(4, older), "v5; closes a window of before")
    log.add(update(next(names), 3, value), "no window says that it is of version 3")
    log.add(barrier(5, one), "v6 again; closes a window that names none")
    log.add(update(next(names), 3, value), "of version 3")
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


def unknown() -> Log:
    """To a policy of v5 what came with v6 is of an unknown schema, wherever it is named."""
    old, new = varied(format=V5), varied()
    log, names, by = Log(old, LAYOUT), devices(9), worker_signer()
    for one in (old, new):
        log.keep(one.canonical())
    later = {"RegionalAggregate": 4, "PartitionState": 3}
    headers = {name: avro.schemas_for(name)[first - 1].header for name, first in later.items()}

    def add_all(when: str) -> None:
        for name, header in headers.items():
            log.add(header, f"no envelope, but a {name} {when}")
            fields = {"kind": "Tick", "payload": header, "certificate": by.certificate, "signature": b""}
            log.add(avro.encode("SignedEnvelope", fields), f"one that is called a Tick {when}")
            log.add(by.sign_payload(name, header), f"one in an envelope {when}")

    add_all("under v5")
    log.add(update(names[0], 0, delta(1)), "counts")
    log.add(barrier(1, new), "brings v6; closes a window of before")
    add_all("under v6")
    log.add(update(names[0], 1, delta(1)), "counts")
    log.add(barrier(2, old), "brings v5 back; closes a window with bases")
    log.add(update(names[0], 2, delta(1)), "counts")
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


LOGS: Final[dict[str, Callable[[], Log]]] = {
    "control variates": control,
    "bases": bases,
    "what v5 does not know": unknown,
}
"""Each by its name."""


# -- merges

PARENT: Final = 7
ANSWERED: Final = (
    (7, 0, 3, 3 * 65536, ((5, 1, 46341), (6, 1, 65536), (7, 1, 84731))),
    (5, 2, 2, 65536 + 46341, ((3, 1, 65536), (5, 1, 46341))),
    (6, 1, 2, 37838, ((5, 1, 37837), (6, 1, 1))),
    (2, 0, 1, 65536, ((2, 1, 65536),)),
)
"""Windows behind the parent: (version, staleness_max, updates, their weight, (base, updates, weight) of each base)."""
MIXED: Final = {"server": {"mixing": True, "learning_rate": 0.25}}
STEPS: Final[tuple[tuple[dict[str, Any], Layout, str], ...]] = (
    (MIXED, LAYOUT, "none"),
    ({"server": {"mixing": True, "divide_by": "weights", "optimizer": "adam"}}, LAYOUT, "kept"),
    (
        MIXED | {"buffer": {"late_windows": False}, "schedule": {"kind": "cosine", "versions": 20}},
        VARIED,
        "none",
    ),
    (MIXED | {"buffer": {"mode": "rounds"}}, LAYOUT, "none"),
    ({"server": {"mixing": True, "momentum": 0.5}, "staleness": {"versions_max": 1}}, LAYOUT, "kept"),
    ({"control": {"devices": 3}}, PLAIN_VARIED, "none"),
    ({"control": {"devices": 1_000_000_000}, "fixed_point": {"exponent": 40}}, VARIED, "none"),
    ({"control": {"devices": 1}, "server": {"optimizer": "yogi", "learning_rate": 1e-3}}, VARIED, "kept"),
    ({"merge": {"kind": "krum", "buckets": 3}, "control": {"devices": 7}}, VARIED, "none"),
)
"""A policy's sections, the layout, and the optimizer's state before."""


def _sums(layout: Layout, many: int, updates: int, weight: int, seed: int) -> npt.NDArray[np.int64]:
    """The sums of a window of so many buckets."""
    size, running = layout.trainable.parameters, layout.buffers.parameters
    sums = np.zeros(layout.sum_elements_of(many), dtype=np.int64)
    for b in range(many):
        parts = delta(seed + 1000 * b, layout.trainable).astype(np.float64)
        sums[b * size : (b + 1) * size] = np.rint(parts * 2.0**33).astype(np.int64)
    digits = sums[many * size : many * size + 10 * running]
    for one in range(updates if running else 0):
        codecs.accumulate_values_into(digits, delta(50 + one, layout.buffers), weight // updates)
    if layout.control.parameters:
        moved = delta(seed + 7, layout.control).astype(np.float64)
        sums[many * size + digits.size :] = np.rint(moved * 2.0**35).astype(np.int64)
    return sums


def _step_case(seed: int, sections: dict[str, Any], layout: Layout, state: str) -> dict[str, Any]:
    policy = policy_from_mapping({"format": V6} | sections)
    many, weights = policy.merge.buckets, layout.trainable.parameters
    windows, sums = [], []
    for n, (folded, staleness, updates, weight, answered) in enumerate(ANSWERED):
        buckets = (Bucket(updates, weight // many), *[Bucket(0, weight // many)] * (many - 1))
        buckets = (Bucket(updates, weight - (many - 1) * (weight // many)), *buckets[1:])
        one = factories.aggregate("eu", 0, n, accepted=updates)
        one = replace(one, version=folded, staleness_max=staleness, weight_total=weight)
        windows.append(replace(one, buckets=buckets, bases=tuple(Base(*row) for row in answered)))
        sums.append(_sums(layout, many, updates, weight, 100 * seed + n))
    taken = MergedWindows.of(windows, lateness_under(policy, PARENT))
    pairs = list(zip(windows, taken.weights, strict=True))
    counting = [(one, left) for one, left in pairs if left]
    models = {base: delta(600 + base, layout) for base in range(PARENT)}
    used: set[int] = set()

    def read(base: int) -> Values:
        used.add(base)
        return models[base][:weights]

    parent = Checkpoint(delta(700 + seed, layout), _optimizer(policy, state, weights))
    step = merge(
        parent,
        add_windows(
            [WindowSums.of(data, one, left) for data, (one, left) in zip(sums, pairs, strict=True) if left],
            weights=weights,
            elements=layout.sum_elements,
            control=layout.control.parameters,
        ),
        updates=sum(one.accepted for one, _ in counting),
        weight_total=sum(weight_after(one.weight_total, left) for one, left in counting),
        policy=policy,
        server=server_at(policy, PARENT + 1, taken.delay),
        layout=layout,
        bases=mixed_bases(pairs, policy, PARENT, read),
    )
    made = {
        "model": encode_model(step.checkpoint.model, layout),
        "optimizer": encode_optimizer(step.checkpoint.optimizer),
        "reference": encode_direction(step.reference),
    }
    buffer = {"mode": policy.buffer.mode, "late_windows": policy.buffer.late_windows}
    limits = {"versions_max": policy.staleness.versions_max, "weights": list(policy.staleness.weights)}
    rate = learning.rate_of(policy, PARENT + 1, taken.delay)
    return {
        "buffer": buffer,
        "staleness": limits,
        **{name: rate[name] for name in ("schedule", "version", "rate")},
        "control": plain({name: getattr(policy.control, name) for name in policy.control.__struct_fields__}),
        "server": plain({name: getattr(policy.server, name) for name in policy.server.__struct_fields__}),
        "exponent": policy.fixed_point.exponent,
        "state": state,
        "layout": numbers.layout_of(layout),
        "parent_model": encode_model(parent.model, layout).hex(),
        "parent_optimizer": encode_optimizer(parent.optimizer).hex(),
        "models": {str(base): encode_model(models[base], layout).hex() for base in sorted(used)},
        "windows": [
            {
                "accepted": one.accepted,
                "weight_total": one.weight_total,
                "sums": wholes(data),
                **({"buckets": [_bucket(each) for each in one.buckets]} if many > 1 else {}),
                "bases": [each._asdict() for each in one.bases],
                "weight": left,
                "weight_after": weight_after(one.weight_total, left),
                "version": one.version,
                "staleness_max": one.staleness_max,
            }
            for data, (one, left) in zip(sums, pairs, strict=True)
        ],
        **(
            {"merge": {name: getattr(policy.merge, name) for name in policy.merge.__struct_fields__}}
            if many > 1
            else {}
        ),
        **{name: data.hex() for name, data in made.items()},
        **{f"{name}_sha256": sha256_hex(data) for name, data in made.items()},
    }


def _bucket(one: Bucket) -> dict[str, int]:
    return {"accepted": one.accepted, "weight": one.weight}


def _optimizer(policy: Policy, state: str, weights: int) -> dict[str, npt.NDArray[np.float64]]:
    if state != "kept":
        return {}
    names = OPTIMIZERS[policy.server.optimizer].state_names(policy.server)
    return {name: np.abs(delta(800 + n, LAYOUT).astype(np.float64))[:weights] for n, name in enumerate(names)}


def merge_cases() -> dict[str, Any]:
    """Every merge, those of v6 with the control variates of the policy and the models that were answered."""
    made = learning.merge_cases()
    return made | {"cases": [*made["cases"], *(_step_case(seed, *row) for seed, row in enumerate(STEPS))]}
