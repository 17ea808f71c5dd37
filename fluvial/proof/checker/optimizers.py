"""The server optimizers: from a state and the mean delta, float64[P], to the direction and the next state.

Every operation stands alone, in the order of docs/policy.md: correctly rounded, so that any machine gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
State = dict[str, Floats]
Server = dict[str, Any]


def _kept(state: State, names: set[str], like: Floats) -> State:
    """The state if it has these arrays, else zeros: another optimizer's state is forgotten."""
    return state if set(state) == names else {name: np.zeros_like(like) for name in names}


def _sgd(server: Server, state: State, delta: Floats) -> tuple[Floats, State]:
    """The velocity: momentum · velocity + delta; without momentum, delta itself. Nesterov's looks a step ahead."""
    momentum = float(server["momentum"])
    if momentum <= 0.0:
        return delta, {}
    velocity = momentum * _kept(state, {"velocity"}, delta)["velocity"] + delta
    direction = delta + momentum * velocity if server.get("nesterov", False) else velocity
    return direction, {"velocity": velocity}


def _adam(server: Server, state: State, delta: Floats) -> tuple[Floats, State]:
    """Direction m / (√v + adaptivity), without bias correction.

    m = beta_1 · m + (1 - beta_1) · delta; v = beta_2 · v + (1 - beta_2) · delta².
    """
    before = _kept(state, {"m", "v"}, delta)
    beta_1, beta_2 = float(server["beta_1"]), float(server["beta_2"])
    m = beta_1 * before["m"] + (1.0 - beta_1) * delta
    v = beta_2 * before["v"] + (1.0 - beta_2) * (delta * delta)
    return m / (np.sqrt(v) + float(server["adaptivity"])), {"m": m, "v": v}


def _yogi(server: Server, state: State, delta: Floats) -> tuple[Floats, State]:
    """Direction m / (√v + adaptivity), without bias correction.

    m = beta_1 · m + (1 - beta_1) · delta; v = v - ((1 - beta_2) · delta²) · sign(v - delta²).
    """
    before = _kept(state, {"m", "v"}, delta)
    beta_1, beta_2, squared = float(server["beta_1"]), float(server["beta_2"]), delta * delta
    m = beta_1 * before["m"] + (1.0 - beta_1) * delta
    v = before["v"] - ((1.0 - beta_2) * squared) * np.sign(before["v"] - squared)
    return m / (np.sqrt(v) + float(server["adaptivity"])), {"m": m, "v": v}


def _adagrad(server: Server, state: State, delta: Floats) -> tuple[Floats, State]:
    """Direction m / (√v + adaptivity); m as Adam's, v = v + delta²: it never falls."""
    before = _kept(state, {"m", "v"}, delta)
    beta_1 = float(server["beta_1"])
    m = beta_1 * before["m"] + (1.0 - beta_1) * delta
    v = before["v"] + delta * delta
    return m / (np.sqrt(v) + float(server["adaptivity"])), {"m": m, "v": v}


def _amsgrad(server: Server, state: State, delta: Floats) -> tuple[Floats, State]:
    """Direction m / (√v_max + adaptivity); m and v as Adam's, v_max the largest v so far."""
    before = _kept(state, {"m", "v", "v_max"}, delta)
    _, after = _adam(server, {name: before[name] for name in ("m", "v")}, delta)
    v_max = np.where(after["v"] > before["v_max"], after["v"], before["v_max"])
    return after["m"] / (np.sqrt(v_max) + float(server["adaptivity"])), after | {"v_max": v_max}


OPTIMIZERS: Final[dict[str, Callable[[Server, State, Floats], tuple[Floats, State]]]] = {
    "sgd": _sgd,
    "adam": _adam,
    "yogi": _yogi,
    "adagrad": _adagrad,
    "amsgrad": _amsgrad,
}
"""Every server optimizer that this checker knows."""
