"""Buffers from update to version: values, averaged by staleness weight, outside of all that is done with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.codecs import CODECS
from aggregation.fold.events import Update
from aggregation.fold.rejections import ACCEPTED
from aggregation.optimizers import OPTIMIZERS, initial_state
from aggregation.policy import Policy
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.totals import add_sums
from schemas.checkpoints import decode_model, decode_optimizer, decode_sums, encode_model, encode_optimizer
from tests import naive
from tests.factories import BUFFERED, LAYOUT, Site, barrier, delta, devices, encoded, policy, state_of, update

WEIGHTS = LAYOUT.parameters
Floats = npt.NDArray[np.float32]


def values(seed: int) -> Floats:
    """Statistics of every scale."""
    return (delta(seed, BUFFERED) * np.float32(10.0) ** (seed % 13 - 6)).astype(np.float32)[WEIGHTS:]


def updates(
    count: int, *, codec: str = "int8", base: Any = lambda _n: 0, factor: float = 1.0
) -> list[Update]:
    made = []
    for n, name in enumerate(devices(count)):
        whole = np.concatenate([delta(n) * np.float32(factor), values(n)])
        tensors = encoded(whole, codec, n, BUFFERED)
        made.append(update(name, base=base(n), codec=codec, tensors=tensors))
    return made


def folded(rules: Policy, made: list[Update], *, versions: int = 0) -> Site:
    site = Site(state_of(rules, layout=BUFFERED))
    for version in range(1, versions + 1):
        site.fold(barrier(version, rules))
    for one in made:
        assert site.fold(one).outcome == ACCEPTED
    return site


def version(rules: Policy, site: Site, parent: Checkpoint | None = None) -> Checkpoint:
    (window,) = site.closed
    assert window.sums is not None
    if parent is None:
        model = np.concatenate([delta(99), np.full(6, 123.0, dtype=np.float32)])
        parent = Checkpoint(model, initial_state(rules.server, WEIGHTS))
    total = add_sums([window.sums], BUFFERED.sum_elements)
    step = merge(
        parent,
        total,
        updates=window.accepted,
        weight_total=window.weight_total,
        policy=rules,
        server=rules.server,
        layout=BUFFERED,
    )
    return step.checkpoint


def rules(**sections: Any) -> Policy:
    return policy(**({"window": {"updates_max": 5}, "anomaly": {"enabled": False}} | sections))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("divide_by", ["updates", "weights"])
def test_a_versions_buffers_are_the_updates_mean_by_weight_whatever_the_policy(
    codec: str, optimizer: str, divide_by: str
) -> None:
    one = rules(
        updates={"codecs": [codec], "norm_clip": 0.01},
        server={"optimizer": optimizer, "learning_rate": 0.3, "divide_by": divide_by, "momentum": 0.9},
    )
    site = folded(one, updates(5, codec=codec, base=lambda n: n % 3), versions=2)
    found = version(one, site).model[WEIGHTS:]
    weights = [one.staleness.weights[2 - n % 3] for n in range(5)]
    for i in range(6):
        assert float(found[i]) == naive.mean_of_values([float(values(n)[i]) for n in range(5)], weights)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_weights_are_what_they_would_be_without_buffers(codec: str, optimizer: str) -> None:
    one = rules(updates={"codecs": [codec]}, server={"optimizer": optimizer})
    site, plain = folded(one, updates(5, codec=codec)), Site(state_of(one))
    for n, name in enumerate(devices(5)):
        plain.fold(update(name, codec=codec, tensors=encoded(delta(n), codec, n)))
    first, second = site.closed[0], plain.closed[0]
    assert first.sums is not None and second.sums is not None
    assert first.sums[:WEIGHTS].tobytes() == second.sums.tobytes()
    for a, b in zip(site.verdicts, plain.verdicts, strict=True):
        assert (a.norm, a.clip, a.cosine, a.norm_deviations) == (b.norm, b.clip, b.cosine, b.norm_deviations)
    parent = Checkpoint(delta(99), initial_state(one.server, WEIGHTS))
    expected = merge(
        parent,
        second.sums,
        updates=5,
        weight_total=second.weight_total,
        policy=one,
        server=one.server,
        layout=LAYOUT,
    )
    found = version(one, site)
    assert found.model[:WEIGHTS].tobytes() == expected.checkpoint.model.tobytes()
    for name, state in expected.checkpoint.optimizer.items():
        assert found.optimizer[name].tobytes() == state.tobytes()


def test_huge_buffers_neither_clip_the_weights_nor_make_an_update_an_outlier() -> None:
    one = policy(window={"updates_max": 40}, updates={"norm_clip": 1.0}, anomaly={"history_updates_min": 2})
    site = Site(state_of(one, layout=BUFFERED))
    for n, name in enumerate(devices(20)):
        whole = np.concatenate([delta(n, size=0.05), np.full(6, 1e30 if n > 10 else 1e-3, dtype=np.float32)])
        verdict = site.fold(update(name, tensors=encoded(whole, "int8", n, BUFFERED)))
        assert (verdict.outcome, verdict.clip) == (ACCEPTED, 1.0)


def test_the_order_of_updates_and_how_they_fall_into_windows_change_no_bit() -> None:
    made = updates(6, codec="float32")
    whole = folded(rules(window={"updates_max": 6}), made).closed[0]
    shuffled = folded(rules(window={"updates_max": 6}), made[::-1]).closed[0]
    parts = folded(rules(window={"updates_max": 2}), made).closed
    assert whole.sums is not None and shuffled.sums is not None
    assert whole.sums.tobytes() == shuffled.sums.tobytes()
    sums = [one.sums for one in parts if one.sums is not None]
    assert len(sums) == 3 and add_sums(sums, BUFFERED.sum_elements).tobytes() == whole.sums.tobytes()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_variance_never_falls_below_0_however_stale_the_updates_are(optimizer: str) -> None:
    """As deltas, two stale steps from 1 to 0.01 were taken from 0.01 and left −0.98."""
    one = rules(server={"optimizer": optimizer, "momentum": 0.9, "learning_rate": 1.0})
    checkpoint = Checkpoint(
        np.concatenate([delta(99), np.ones(6, dtype=np.float32)]), initial_state(one.server, WEIGHTS)
    )
    for round_number in range(6):
        made = updates(5, base=lambda n: n % 4, factor=0.1)
        checkpoint = version(one, folded(one, made, versions=3), checkpoint)
        variances = checkpoint.model[-3:]
        least, greatest = (f([values(n)[-3:] for n in range(5)], axis=0) for f in (np.min, np.max))
        assert (least <= variances).all() and (variances <= greatest).all(), round_number


def test_what_is_stored_of_a_version_has_the_sizes_of_its_sections() -> None:
    one = rules(server={"optimizer": "adam"})
    site = folded(one, updates(5))
    found = version(one, site)
    assert {name: state.shape for name, state in found.optimizer.items()} == {
        "m": (WEIGHTS,),
        "v": (WEIGHTS,),
    }
    assert decode_model(encode_model(found.model, BUFFERED), BUFFERED).tobytes() == found.model.tobytes()
    assert decode_optimizer(encode_optimizer(found.optimizer), BUFFERED).keys() == {"m", "v"}
    sums = site.closed[0].sums
    assert sums is not None and sums.shape == (BUFFERED.sum_elements,)
    assert decode_sums(sums.tobytes(), BUFFERED).tobytes() == sums.tobytes()
