"""Asynchronous federated learning in one process, in float arithmetic: `fluvial run --simulate`.

The rules are those of the real pipeline (FedBuff, Nguyen et al. 2022, arXiv:2106.06639, algorithm 1),
without its logs, signatures and exact integers, so a run takes seconds; its numbers are close to, not equal
to, the real ones.

- A device fetches the newest version v, trains on its own examples at its own pace, and delivers its delta.
- A delta against version b that arrives at version v has staleness tau = v − b and weight 1 / √(1 + tau).
- K accepted deltas make a version: w ← w + server_learning_rate · (Σ weight · delta) / K. A device
  contributes once a version.
- Deltas are clipped to the norm C. Refused: a cosine with the last global step under `cosine_min`, or a
  robust z-score of the norm above `norm_z_max`: z = (‖delta‖ − median) / (1.4826 · MAD) over the last 64
  accepted norms.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from aggregation.policy import Policy
from learning.config import TrainConfig
from learning.datasets import Examples
from learning.partition import split_among_devices
from learning.task import Task
from learning.tensors import Flat, initial_parameters
from learning.training import evaluate_parameters, train_locally

_NORMS_KEPT = 64
_NORMS_NEEDED = 16  # before that many norms are known, none is called an outlier
_MAD_TO_SIGMA = 1.4826  # for a normal distribution
_ATTACK_FACTOR = 5.0
_COUNT_MAX = 100_000
_SPEED_SPREAD_MAX = 3.0


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """What to simulate. Raises UsageProblem FLV-2216 if a value is out of bounds.

    devices: all of them, attackers included. attackers: the last so many; in turn sign-flip ×5 and noise of
    5× the honest norm.
    versions: to make. buffer_updates: K. alpha: Dirichlet concentration. clip_norm: C, None for no clipping.
    speed_spread: sigma of the log-normal training time. staleness_versions_max: older deltas are refused.
    """

    devices: int = 40
    attackers: int = 0
    versions: int = 30
    buffer_updates: int = 20
    alpha: float = 1.0
    seed: int = 0
    examples_min: int = 8
    server_learning_rate: float = 1.0
    clip_norm: float | None = None
    cosine_min: float = -0.5
    norm_z_max: float = 4.0
    staleness_versions_max: int = 8
    speed_spread: float = 0.5

    def __post_init__(self) -> None:
        rules = {
            "devices": 1 <= self.devices <= _COUNT_MAX,
            "attackers": 0 <= self.attackers < self.devices,
            "versions": 1 <= self.versions <= _COUNT_MAX,
            "buffer_updates": 1 <= self.buffer_updates <= _COUNT_MAX,
            "alpha": math.isfinite(self.alpha) and self.alpha > 0,
            "seed": self.seed >= 0,
            "server_learning_rate": math.isfinite(self.server_learning_rate)
            and self.server_learning_rate > 0,
            "clip_norm": self.clip_norm is None or (math.isfinite(self.clip_norm) and self.clip_norm > 0),
            "staleness_versions_max": self.staleness_versions_max >= 0,
            "speed_spread": 0 <= self.speed_spread <= _SPEED_SPREAD_MAX,
        }
        for name, holds in rules.items():
            if not holds:
                raise UsageProblem(
                    "FLV-2216",
                    f"simulation setting {name} = {getattr(self, name)!r} is out of bounds",
                    hint="fewer attackers than devices, and counts, rates and norms above zero",
                )


def simulation_under(policy: Policy, **choices: Any) -> SimulationConfig:
    """What a policy says, as far as a simulation knows it, with `choices` (devices, versions, …) on top.

    Taken over: K, server learning rate, norm_clip, staleness bound, anomaly bounds. Not simulated: momentum,
    adam, staleness kinds other than 1/√(1+τ), deadlines.
    """
    taken_over: dict[str, Any] = {
        "buffer_updates": policy.buffer.updates,
        "server_learning_rate": policy.server.learning_rate,
        "clip_norm": policy.updates.norm_clip,
        "staleness_versions_max": policy.staleness.versions_max,
        "cosine_min": policy.anomaly.cosine_min if policy.anomaly.enabled else -math.inf,
        "norm_z_max": policy.anomaly.norm_deviations_max if policy.anomaly.enabled else math.inf,
    }
    return SimulationConfig(**taken_over | choices)


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """One delivered update. cosine: with the last global step, None before there is one."""

    version: int
    device: int
    honest: bool
    staleness_versions: int
    norm: float
    cosine: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One new version: its metrics on the held-out examples, and the norm of the global step that made it."""

    version: int
    metrics: dict[str, float]
    step_norm: float
    updates: int
    staleness_mean: float


@dataclass(slots=True)
class SimulationResult:
    """What happened. parameters: float32[P] of the last version."""

    parameters: Flat
    versions: list[VersionFacts] = field(default_factory=list)
    updates: list[UpdateFacts] = field(default_factory=list)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many updates got which verdict: accepted, too_stale, anomalous."""
        return dict(Counter(update.verdict for update in self.updates))

    def curve(self, metric: str = "accuracy") -> list[float]:
        """One metric over the versions; a version whose task does not report it gives NaN."""
        return [facts.metrics.get(metric, math.nan) for facts in self.versions]


def simulate(
    task: Task,
    config: SimulationConfig | None = None,
    *,
    train_config: TrainConfig | None = None,
    on_version: Callable[[VersionFacts], None] | None = None,
) -> SimulationResult:
    """Run `task` until `config.versions` versions are made; the same arguments give the same result.

    on_version is called after each new version, for live progress.
    Raises UsageProblem: what loading data and training raise, and FLV-2216, FLV-2212.
    """
    return _Run(task, config or SimulationConfig(), train_config or task.config).to_the_end(on_version)


class _Run:
    """The state of one simulation. Time is a number; the queue holds (arrival, device, base version)."""

    def __init__(self, task: Task, config: SimulationConfig, train_config: TrainConfig) -> None:
        self.task, self.config, self.train_config = task, config, train_config
        data = task.data()
        self.held_out: Examples = data.test
        self.shards = split_among_devices(
            data.train, config.devices, config.alpha, config.seed, config.examples_min
        )
        self.random = np.random.default_rng([config.seed, 1])
        self.pace = np.exp(self.random.normal(0.0, config.speed_spread, config.devices))
        self.models: dict[int, Flat] = {0: initial_parameters(task, config.seed)}
        self.version = 0
        self.last_step: NDArray[np.float32] | None = None
        self.norms: deque[float] = deque(maxlen=_NORMS_KEPT)
        self.buffer: list[tuple[float, int, Flat]] = []  # weight, staleness, clipped delta
        self.in_flight: list[tuple[float, int, int]] = []
        self.waiting: list[int] = []  # have delivered for the current version
        self.result = SimulationResult(self.models[0])

    def to_the_end(self, on_version: Callable[[VersionFacts], None] | None) -> SimulationResult:
        for device in range(self.config.devices):
            self._send_off(device, 0.0)
        while self.version < self.config.versions:
            if not self.in_flight:  # everybody waits: the deadline merges what there is
                self._make_version(0.0, on_version)
                continue
            now, device, base = heapq.heappop(self.in_flight)
            self._deliver(device, base)
            if base == self.version:
                self.waiting.append(device)
            else:
                self._send_off(device, now)
            if len(self.buffer) >= self.config.buffer_updates:
                self._make_version(now, on_version)
        self.result.parameters = self.models[self.version]
        return self.result

    def _send_off(self, device: int, now: float) -> None:
        duration = self.pace[device] * self.random.uniform(0.8, 1.2)
        heapq.heappush(self.in_flight, (now + duration, device, self.version))

    def _deliver(self, device: int, base: int) -> None:
        honest = device < self.config.devices - self.config.attackers
        # Trained on arrival: nothing the device does between fetch and delivery depends on others.
        trained = train_locally(
            self.task, self.models[base], self.shards[device], self.train_config.at(seed=device, version=base)
        )
        delta = trained.delta if honest else self._attack(trained.delta, flips_sign=device % 2 == 0)
        norm, cosine, staleness = float(np.linalg.norm(delta)), self._cosine(delta), self.version - base
        verdict = self._judge(norm, cosine, staleness)
        self.result.updates.append(
            UpdateFacts(self.version, device, honest, staleness, norm, cosine, verdict)
        )
        if verdict == "accepted":
            self.norms.append(norm)
            clip = self.config.clip_norm
            clipped = delta if clip is None or norm <= clip else delta * np.float32(clip / norm)
            self.buffer.append((1.0 / math.sqrt(1.0 + staleness), staleness, clipped))

    def _attack(self, delta: Flat, *, flips_sign: bool) -> Flat:
        if flips_sign:
            return np.asarray(-_ATTACK_FACTOR * delta, dtype=np.float32)
        noise = self.random.normal(size=len(delta))
        noise *= _ATTACK_FACTOR * float(np.linalg.norm(delta)) / float(np.linalg.norm(noise))
        return noise.astype(np.float32)

    def _cosine(self, delta: Flat) -> float | None:
        if self.last_step is None:
            return None
        lengths = float(np.linalg.norm(self.last_step)) * float(np.linalg.norm(delta))
        return float(self.last_step @ delta) / lengths if lengths > 0 else 0.0

    def _judge(self, norm: float, cosine: float | None, staleness: int) -> str:
        if staleness > self.config.staleness_versions_max:
            return "too_stale"
        if cosine is not None and cosine < self.config.cosine_min:
            return "anomalous"
        if len(self.norms) >= _NORMS_NEEDED:
            known = np.array(self.norms)
            median = float(np.median(known))
            sigma = _MAD_TO_SIGMA * float(np.median(np.abs(known - median)))
            if sigma > 0 and (norm - median) / sigma > self.config.norm_z_max:
                return "anomalous"
        return "accepted"

    def _make_version(self, now: float, on_version: Callable[[VersionFacts], None] | None) -> None:
        if not self.buffer:
            raise UsageProblem(
                "FLV-2217",
                f"version {self.version + 1} cannot be made: every update for {self.version} was refused "
                f"({self.result.verdicts})",
                hint="lower cosine_min, raise norm_z_max, or use fewer attackers",
            )
        step = np.zeros_like(self.models[self.version])
        for weight, _, delta in self.buffer:
            step += np.float32(weight) * delta
        step *= np.float32(self.config.server_learning_rate / len(self.buffer))
        staleness_mean = float(np.mean([staleness for _, staleness, _ in self.buffer]))
        updates = len(self.buffer)
        self.version += 1
        self.models[self.version] = self.models[self.version - 1] + step
        live = {base for _, _, base in self.in_flight} | {self.version}
        self.models = {version: model for version, model in self.models.items() if version in live}
        self.last_step, self.buffer = step, []
        facts = VersionFacts(
            version=self.version,
            metrics=evaluate_parameters(self.task, self.models[self.version], self.held_out),
            step_norm=float(np.linalg.norm(step)),
            updates=updates,
            staleness_mean=staleness_mean,
        )
        self.result.versions.append(facts)
        returning, self.waiting = self.waiting, []
        for device in returning:
            self._send_off(device, now)
        if on_version is not None:
            on_version(facts)
