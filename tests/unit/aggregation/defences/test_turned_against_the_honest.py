"""What turned the detector of v2 against the honest, or off, under later defaults: nobody honest is refused."""

from __future__ import annotations

import numpy as np
import pytest

from aggregation.codecs import direction_of
from aggregation.defences import DEFENCES, Histograms, Usual
from aggregation.policy import Policy
from tests.factories import LAYOUT, Site, barrier, delta, devices, encoded, policy, state_of, update

V3 = policy(format="fluvial/policy/v3", window={"updates_max": 1000})
V4 = policy(format="fluvial/policy/v4", window={"updates_max": 1000})
V2 = policy(window={"updates_max": 1000})
STEP = delta(1)


class Task:
    """One partition whose barriers say what is usual in it, as the merger would."""

    def __init__(self, rules: Policy) -> None:
        self.rules, self.site = rules, Site(state_of(rules))
        self.version = 0
        self.next_version()

    def next_version(self) -> None:
        """A barrier, with the last step as a direction to be held against."""
        usual = self.site.state.window.counting.closed().usual
        self.version += 1
        step = direction_of(STEP.astype(np.float64), LAYOUT)
        self.site.fold(barrier(self.version, self.rules, step, usual=usual))

    def send(self, device: str, factor: float, *, base: int | None = None, seed: int = 0) -> str:
        """An update of the last step times ``factor``; what becomes of it."""
        values = (factor * STEP + (delta(seed + 500, size=0.02) if factor else 0.0)).astype(np.float32)
        at = self.version if base is None else base
        return self.site.fold(
            update(device, base=at, tensors=encoded(values, "float32", seed), codec="float32")
        ).outcome


def test_tiny_updates_of_two_devices_make_no_honest_one_an_outlier() -> None:
    """42 of them made 32 of the next 60 honest updates ``anomalous``."""
    task = Task(V3)
    for n in range(21):
        for evil in devices(2):
            task.send(evil, 0.0001, base=max(0, task.version - n))
        if n < 20:
            task.next_version()
    honest = [task.send(name, 1.0, seed=n) for n, name in enumerate(devices(60, start=100))]
    assert set(honest) == {"accepted"}
    longest = max(verdict.norm for verdict in task.site.verdicts)
    assert all(v.clip * v.norm >= 0.5 * min(V3.updates.norm_clip, longest) for v in task.site.verdicts[-60:])


@pytest.mark.parametrize(("rules", "honest_say"), [(V3, False), (V4, True)], ids=["v3", "v4"])
def test_fast_devices_that_send_next_to_nothing_do_not_say_what_is_usual(
    rules: Policy, *, honest_say: bool
) -> None:
    """18 of the 20 updates of each version are theirs, whatever their shares: starvation, in the arena."""
    task, honest = Task(rules), 0.0
    for n in range(6):
        for evil in devices(18):
            task.send(evil, 0.01, seed=n)
        slow = [task.send(name, 1.0, seed=n) for name in devices(2, start=100 + 2 * n)]
        assert slow == ["accepted", "accepted"]
        honest = task.site.verdicts[-1].norm
        task.next_version()
    usual = task.site.state.usual.norm
    assert (usual > 0.8 * honest) == honest_say
    assert honest_say or usual < 0.25 * honest


def test_updates_of_zeros_switch_nothing_off() -> None:
    """42 of them switched the detector off; here they are refused, count nowhere, and a long one is clipped as ever."""
    task = Task(V3)
    for n, name in enumerate(devices(30, start=100)):
        assert task.send(name, 0.3, seed=n) == "accepted"
    task.next_version()
    usual = task.site.state.usual
    assert {task.send(name, 0.0) for name in devices(42, start=200)} == {"anomalous"}
    task.next_version()
    assert usual.norm > 0
    assert (
        task.site.state.usual == Usual()
    )  # of a version of zeros nothing is known; the merge pools over versions
    task.site.state.usual = usual
    assert task.send("d-0900", 300.0) == "accepted"
    verdict = task.site.verdicts[-1]
    assert verdict.clip * verdict.norm == pytest.approx(max(1.5 * usual.norm, 0.5 * V3.updates.norm_clip))


@pytest.mark.parametrize("rules", [V2, V3], ids=["v2", "v3"])
def test_a_task_that_has_converged_goes_on(rules: Policy) -> None:
    """Every update of a converged convex task points against the last step, at a cosine of -0.98."""
    task = Task(rules)
    outcomes = {task.send(name, -1.0, seed=n) for n, name in enumerate(devices(24))}
    assert outcomes == {"accepted" if rules is V3 else "anomalous"}


def test_by_default_nobody_is_refused_for_the_direction_or_the_length_of_an_update() -> None:
    assert V3.defence.kind == next(iter(DEFENCES))
    task = Task(V3)
    task.site.state.usual = Histograms(norms=((8176, 840),)).usual
    for n, factor in enumerate((1.0, -1.0, 50.0, 0.001, -50.0)):
        assert task.send(f"d-1{n:03d}", factor, seed=n) == "accepted"
