"""The field's algorithms as their papers have them: plain numpy in binary64, over what stands in a log.

Each takes the first model float64[P] and, of each version, the windows that it merged; it gives the model after every
version. None of them knows of integers, of policies' tables, or of the order of our operations. Where this project
does otherwise than a paper, it says so here, and docs/learning.md does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tests.learned import Sent, Window

Floats = npt.NDArray[np.float64]
Log = list[list["Window"]]
Rate = Callable[[int], float]
"""Of the step number t, from 0 on."""


def updates_of(windows: list[Window]) -> list[Sent]:
    """All of a version's updates."""
    return [sent for window in windows for sent in window.updates]


def means(log: Log) -> Iterator[Floats]:
    """Of each version the mean delta, every update alike."""
    for windows in log:
        yield np.mean([sent.change for sent in updates_of(windows)], axis=0)


# -- who counts how much


def fedavg(model: Floats, log: Log, examples_max: int) -> Iterator[Floats]:
    """McMahan et al. 2017, algorithm 1: x_{t+1} = the sum of n_k / n times x_k, over those who trained x_t.

    n_k counts up to ``examples_max``; that bound is this project's.
    """
    for parent, windows in enumerate(log):
        cohort = [sent for sent in updates_of(windows) if sent.base == parent and sent.newest == parent]
        n = np.array([min(max(sent.examples, 1), examples_max) for sent in cohort], dtype=np.float64)
        local = np.array([model + sent.change for sent in cohort])
        model = (n / n.sum()) @ local
        yield model


def fedbuff(model: Floats, log: Log, s: Callable[[int], float], rate: float) -> Iterator[Floats]:
    """Nguyen et al. 2022, algorithm 1: x_{t+1} = x_t + rate / K times the sum of s(tau_k) delta_k."""
    for windows in log:
        buffer = updates_of(windows)
        model = model + rate / len(buffer) * np.sum(
            [s(sent.staleness) * sent.change for sent in buffer], axis=0
        )
        yield model


def fedasync(model: Floats, log: Log, alpha: float, s: Callable[[int], float]) -> Iterator[Floats]:
    """Xie, Koyejo, Gupta 2019, algorithm 1: x_t = (1 - alpha_t) x_{t-1} + alpha_t x_new, alpha_t = alpha s(tau).

    Of deltas, which is this project's (ADR 49): x_new is x_{t-1} and what the device has changed, not its whole model.
    """
    for windows in log:
        (sent,) = updates_of(windows)
        mixed = alpha * s(sent.staleness)
        model = (1 - mixed) * model + mixed * (model + sent.change)
        yield model


def mixing(models: list[Floats], sent: Sent, alpha: float, s: Callable[[int], float]) -> Floats:
    """Xie, Koyejo, Gupta 2019, algorithm 1, as published: x_new is the device's whole model, trained from x_tau."""
    mixed = alpha * s(sent.staleness)
    return (1 - mixed) * models[-1] + mixed * (models[sent.base] + sent.change)


def fedasync_of_models(model: Floats, log: Log, alpha: float, s: Callable[[int], float]) -> Iterator[Floats]:
    """The same for every version, of one update each."""
    models = [model]
    for windows in log:
        (sent,) = updates_of(windows)
        models.append(mixing(models, sent, alpha, s))
        yield models[-1]


def buffered_mixing(model: Floats, log: Log, s: Callable[[int], float]) -> Iterator[Floats]:
    """The same of a buffer: the mean of what each of its updates by itself would make of the model."""
    models = [model]
    for windows in log:
        models.append(np.mean([mixing(models, sent, 1.0, s) for sent in updates_of(windows)], axis=0))
        yield models[-1]


def scaffold(model: Floats, log: Log, devices: int) -> Iterator[Floats]:
    """Karimireddy et al. 2020, algorithm 1, lines 16 and 17: x = x + mean of dy_i, c = c + |S| / N · mean of dc_i.

    The model is x and c, one behind the other, of as many elements; the global rate is 1.
    """
    half = model.size // 2
    x, c = model[:half], model[half:]
    for windows in log:
        buffer = np.array([sent.change for sent in updates_of(windows)])
        x = x + buffer[:, :half].mean(axis=0)
        c = c + len(buffer) / devices * buffer[:, half:].mean(axis=0)
        yield np.concatenate([x, c])


def polynomial(exponent: float) -> Callable[[int], float]:
    """Xie, Koyejo, Gupta 2019, section 5.2."""
    return lambda tau: (1 + tau) ** -exponent


def hinge(slope: float, versions: int) -> Callable[[int], float]:
    """Xie, Koyejo, Gupta 2019, section 5.2."""
    return lambda tau: 1.0 if tau <= versions else 1 / (slope * (tau - versions) + 1)


# -- the server's step


def gradient_step(model: Floats, log: Log, rate: Rate) -> Iterator[Floats]:
    """x_{t+1} = x_t + rate_t delta_t: FedAvg with a server's rate (Reddi et al. 2021, algorithm 1 with SGD)."""
    for t, delta in enumerate(means(log)):
        model = model + rate(t) * delta
        yield model


def fedavgm(model: Floats, log: Log, rate: float, momentum: float) -> Iterator[Floats]:
    """Hsu, Qi, Brown 2019, section 4.3: v = beta v + delta, x = x + rate v."""
    v = np.zeros_like(model)
    for delta in means(log):
        v = momentum * v + delta
        model = model + rate * v
        yield model


def nesterov(model: Floats, log: Log, rate: float, momentum: float) -> Iterator[Floats]:
    """Sutskever, Martens, Dahl, Hinton 2013, equations 3 and 4; devices train where it looks ahead, theta + mu v.

    v = mu v + rate delta(theta + mu v), theta = theta + v. What is published is where the next one looks ahead.
    """
    theta, v = model, np.zeros_like(model)
    for delta in means(log):
        v = momentum * v + rate * delta
        theta = theta + v
        yield theta + momentum * v


def adaptive(
    model: Floats, log: Log, kind: str, *, rate: float, beta_1: float, beta_2: float, tau: float
) -> Iterator[Floats]:
    """Reddi et al. 2021, algorithm 2: FedAdagrad, FedYogi, FedAdam. v begins at 0, in the paper at tau² or more."""
    m, v = np.zeros_like(model), np.zeros_like(model)
    for delta in means(log):
        m = beta_1 * m + (1 - beta_1) * delta
        match kind:
            case "adagrad":
                v = v + delta**2
            case "yogi":
                v = v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)
            case _:
                v = beta_2 * v + (1 - beta_2) * delta**2
        model = model + rate * m / (np.sqrt(v) + tau)
        yield model


def fadas(
    model: Floats, log: Log, *, rate: float, beta_1: float, beta_2: float, epsilon: float, tau_c: int
) -> Iterator[Floats]:
    """Wang et al. 2024, algorithm 1, delay-adaptive: AMSGrad over a buffer's mean.

    rate_t = rate where the largest delay of the version is at most tau_c, else min(rate, 1 / delay). The delay is this
    project's bound: the largest staleness in any window, and how late the latest window came.
    """
    m, v, v_hat = (np.zeros_like(model) for _ in range(3))
    for parent, windows in enumerate(log):
        buffer = updates_of(windows)
        delta = np.mean([sent.change for sent in buffer], axis=0)
        m = beta_1 * m + (1 - beta_1) * delta
        v = beta_2 * v + (1 - beta_2) * delta**2
        v_hat = np.maximum(v_hat, v)
        delay = max(sent.staleness for sent in buffer) + max(
            max(0, parent - window.version) for window in windows if window.updates
        )
        step = rate if delay <= tau_c else min(rate, 1 / delay)
        model = model + step * m / (np.sqrt(v_hat) + epsilon)
        yield model


# -- rates


def constant(rate: float) -> Rate:
    """The same for ever."""
    return lambda t: rate


def step(rate: float, versions: int, factor: float) -> Rate:
    """A factor every so many steps."""
    return lambda t: rate * factor ** (t // versions)


def cosine(rate: float, versions: int, factor: float) -> Rate:
    """Loshchilov and Hutter 2017, equation 5, without restarts: from the rate to ``factor`` of it."""
    low = factor * rate
    return lambda t: low + (rate - low) * (1 + math.cos(math.pi * min(t, versions) / versions)) / 2


def warmed(rate: float, warmup: int, then: Rate) -> Rate:
    """Goyal et al. 2017, section 2.2: gradual warm-up, even steps up to the rate."""
    return lambda t: rate * (t + 1) / warmup if t < warmup else then(t - warmup)
