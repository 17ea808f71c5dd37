"""Each algorithm of docs/learning.md, on a recorded log: the signed versions are what the paper's formula gives.

A federation lives in memory, with updates and windows that come late. Then the audit and the independent checker find
nothing, and every version's model is close to that of the twin, which reads the log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.layout import Layout
from fluvial.proof.audit import audit_task
from schemas.checkpoints import decode_model
from schemas.manifests import CONTROL_GENESIS
from schemas.objects import model_key
from tests.learned import EXAMPLES_MAX, V6, VERSIONS, lived, lived_alone, policy_of, recorded
from tests.small_federation import SmallFederation
from tests.unit.aggregation.papers import twins
from tests.unit.fluvial.proof.checked_copy import copy_of

Floats = npt.NDArray[np.float64]
Twin = Callable[[Floats, twins.Log], Iterator[Floats]]


def models_of(one: SmallFederation) -> list[Floats]:
    """Every version's, from 0 on."""
    keys = [model_key(one.task, version) for version in range(one.version + 1)]
    return [decode_model(one.objects.store.get(key), one.layout).astype(np.float64) for key in keys]


def require(one: SmallFederation, twin: Twin) -> None:
    """The audit and the checker find nothing, and the twin comes to the same models."""
    audit = audit_task(one.settings, one.task_file, sources=one.sources, jobs=1)
    assert audit.identical, audit.findings.shown
    assert [str(said) for said in copy_of(one).check().violations] == []
    first, *made = models_of(one)
    expected = list(twin(first, recorded(one)))
    assert len(expected) == len(made) == VERSIONS
    for version, (got, wanted) in enumerate(zip(made, expected, strict=True), 1):
        moved = float(np.max(np.abs(wanted - first)))
        assert moved > 1e-4, f"version {version} has not moved: nothing is shown"
        assert np.max(np.abs(got - wanted)) < 2e-6, version


SCHEDULES: dict[str, tuple[dict[str, Any], twins.Rate]] = {
    "constant": ({"kind": "constant"}, twins.constant(0.8)),
    "step": ({"kind": "step", "versions": 2, "factor": 0.3}, twins.step(0.8, 2, 0.3)),
    "cosine": ({"kind": "cosine", "versions": 5, "factor": 0.1}, twins.cosine(0.8, 5, 0.1)),
    "warm-up": (
        {"kind": "cosine", "versions": 4, "factor": 0.0, "warmup_versions": 3},
        twins.warmed(0.8, 3, twins.cosine(0.8, 4, 0.0)),
    ),
}
SLOW_LANE = {"constant", "cosine"}
"""Tried in the others as well."""
ADAPTIVE = {"rate": 0.05, "beta_1": 0.9, "beta_2": 0.95, "tau": 1e-3}


def keys(kind: str) -> dict[str, Any]:
    """The section ``server`` of an adaptive optimizer."""
    names = {"learning_rate": "rate", "beta_1": "beta_1", "beta_2": "beta_2", "adaptivity": "tau"}
    return {"optimizer": kind} | {key: ADAPTIVE[name] for key, name in names.items()}


def test_fedavg_in_rounds_weighs_by_examples() -> None:
    """McMahan et al. 2017, algorithm 1."""
    policy = policy_of(buffer={"mode": "rounds"}, weights={"by": "examples", "examples_max": EXAMPLES_MAX})
    one = lived(policy)
    require(one, lambda model, log: twins.fedavg(model, log, EXAMPLES_MAX))
    assert sum(manifest.counts.get("round_over", 0) for manifest in one.manifests) > 10
    assert sum(manifest.dropped for manifest in one.manifests) > 0
    weights = [manifest.weight_total for manifest in one.manifests]
    assert all(
        weight < 65_536 * manifest.accepted for weight, manifest in zip(weights, one.manifests, strict=True)
    )


@pytest.mark.parametrize(
    ("staleness", "s"),
    [
        ({"kind": "polynomial", "exponent": 0.5}, twins.polynomial(0.5)),
        ({"kind": "hinge", "hinge_slope": 2.0, "hinge_versions": 1}, twins.hinge(2.0, 1)),
    ],
    ids=["polynomial", "hinge"],
)
def test_fedbuff_weighs_by_staleness(staleness: dict[str, Any], s: Callable[[int], float]) -> None:
    """Nguyen et al. 2022, algorithm 1; Xie, Koyejo, Gupta 2019, section 5.2."""
    one = lived(policy_of(staleness=staleness, server={"learning_rate": 0.7}), away=False)
    require(one, lambda model, log: twins.fedbuff(model, log, s, 0.7))
    assert max(manifest.staleness_max for manifest in one.manifests) == 3


def test_fedasync_mixes_one_update_after_another() -> None:
    """Xie, Koyejo, Gupta 2019, algorithm 1, of deltas."""
    sections: dict[str, Any] = {
        "buffer": {"updates": 1},
        "window": {"updates_max": 1},
        "server": {"learning_rate": 0.6},
    }
    one = lived_alone(policy_of(staleness={"kind": "polynomial", "exponent": 0.5}, **sections))
    require(one, lambda model, log: twins.fedasync(model, log, 0.6, twins.polynomial(0.5)))
    assert [manifest.accepted for manifest in one.manifests] == [1] * VERSIONS
    assert max(manifest.staleness_max for manifest in one.manifests) > 0


def test_fedasync_mixes_whole_models() -> None:
    """Xie, Koyejo, Gupta 2019, algorithm 1."""
    sections: dict[str, Any] = {"buffer": {"updates": 1}, "window": {"updates_max": 1}}
    server = {"learning_rate": 0.6, "mixing": True}
    policy = policy_of(V6, staleness={"kind": "polynomial", "exponent": 0.5}, server=server, **sections)
    one = lived_alone(policy)
    require(one, lambda model, log: twins.fedasync_of_models(model, log, 0.6, twins.polynomial(0.5)))
    assert max(manifest.staleness_max for manifest in one.manifests) > 1
    with pytest.raises(AssertionError):
        require(one, lambda model, log: twins.fedasync(model, log, 0.6, twins.polynomial(0.5)))


def test_a_buffer_mixes_whole_models_too() -> None:
    """The mean of what algorithm 1 makes of each update."""
    policy = policy_of(V6, staleness={"kind": "hinge", "hinge_versions": 1}, server={"mixing": True})
    one = lived(policy, away=False)
    require(one, lambda model, log: twins.buffered_mixing(model, log, twins.hinge(1.0, 1)))
    assert max(manifest.staleness_max for manifest in one.manifests) == 3


def test_scaffold_moves_the_servers_control_variate_by_its_updates() -> None:
    """Karimireddy et al. 2020, algorithm 1, lines 16 and 17."""
    policy = policy_of(V6, control={"devices": 50, "norm_clip": 100.0})
    layout = Layout.of([("hidden.weight", (3, 5)), ("out.weight", (7,))]).with_control()
    one = lived(policy, layout=layout, document_format=CONTROL_GENESIS)
    require(one, lambda model, log: twins.scaffold(model, log, 50))
    with pytest.raises(AssertionError):
        require(one, lambda model, log: twins.scaffold(model, log, 49))


@pytest.mark.parametrize("kind", ["adam", "yogi", "adagrad"])
def test_the_adaptive_optimizers_are_those_of_the_paper(kind: str) -> None:
    """Reddi et al. 2021, algorithm 2."""
    one = lived(policy_of(server=keys(kind)))
    require(one, lambda model, log: twins.adaptive(model, log, kind, **ADAPTIVE))


@pytest.mark.parametrize("tau_c", [2, pytest.param(9, marks=pytest.mark.long)])
def test_fadas_goes_slower_where_delays_are_large(tau_c: int) -> None:
    """Wang et al. 2024, algorithm 1."""
    one = lived(policy_of(server=keys("amsgrad") | {"learning_rate": 0.4, "delay_versions_max": tau_c}))
    rest = {"beta_1": ADAPTIVE["beta_1"], "beta_2": ADAPTIVE["beta_2"], "epsilon": ADAPTIVE["tau"]}
    require(one, lambda model, log: twins.fadas(model, log, rate=0.4, tau_c=tau_c, **rest))
    assert any(said.version < manifest.version - 1 for manifest in one.manifests for said in manifest.inputs)


@pytest.mark.parametrize("ahead", ["momentum", "nesterov"])
def test_momentum_is_the_papers(ahead: str) -> None:
    """Hsu, Qi, Brown 2019; Sutskever et al. 2013."""
    nesterov = ahead == "nesterov"
    one = lived(policy_of(server={"momentum": 0.8, "learning_rate": 0.5, "nesterov": nesterov}))
    twin = twins.nesterov if nesterov else twins.fedavgm
    require(one, lambda model, log: twin(model, log, 0.5, 0.8))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW_LANE else name for name in SCHEDULES]
)
def test_a_schedule_is_a_function_of_the_version(name: str) -> None:
    """Loshchilov and Hutter 2017, equation 5; Goyal et al. 2017, section 2.2."""
    schedule, rate = SCHEDULES[name]
    one = lived(policy_of(schedule=schedule, server={"learning_rate": 0.8}), lag=False, away=False)
    require(one, lambda model, log: twins.gradient_step(model, log, rate))


def test_a_twin_of_another_rule_is_told_apart() -> None:
    """What the tests above would say if the signed versions went by another formula."""
    one = lived(policy_of(server=keys("adam")))
    with pytest.raises(AssertionError):
        require(one, lambda model, log: twins.adaptive(model, log, "yogi", **ADAPTIVE))
