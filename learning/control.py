"""SCAFFOLD's control variates on a device, by the names of the weights. No torch here.

S. P. Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020, algorithm 1, with
option II.
A step is y := y - η (g - c_i + c), and after K of them c_i' = c_i - c + (x - y) / (K η). What is published beside the
model's change is c_i' - c_i; c_i stays on the device, where its private layers are kept.

A task's devices train so where its CONFIG says ``"algorithm": "scaffold"``: the layout has a section for the server's
variates then, for ever. A task file with a loop of its own finds them in ``config.control_variates``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import UsageProblem
from aggregation.layout import CONTROL_PREFIX, DTYPE, is_control_name
from schemas.tensor_files import RawTensor, raw_tensor

if TYPE_CHECKING:
    from aggregation.layout import Layout

SCAFFOLD: Final = "scaffold"
ALGORITHM: Final = "algorithm"
"""The setting of a task's CONFIG."""
Array = npt.NDArray[np.float32]


def asks_for_control(settings: Mapping[str, Any]) -> bool:
    """Whether a task with these settings beside Fluvial's own has control variates."""
    named = settings.get(ALGORITHM, ())
    return named == SCAFFOLD or (isinstance(named, list | tuple) and SCAFFOLD in named)


@dataclass(slots=True, eq=False)
class ControlVariates:
    """One round's: ``server`` is c and ``own`` is c_i, float32 arrays in the tensors' shapes, by the weights' names.

    What trains says what it did by ``trained``, once or in parts.
    """

    server: Mapping[str, Array]
    own: Mapping[str, Array]
    _moved: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    _way: float = 0.0

    def correction(self, name: str) -> Array:
        """What is added to each gradient of one tensor: c - c_i."""
        return self.server[name] - self.own[name]

    def trained(self, moved: Mapping[str, npt.ArrayLike], *, steps: int, learning_rate: float) -> None:
        """Note ``steps`` steps of plain SGD, each with the correction; ``moved`` is x - y, before minus after, by name.

        Of tensors that are not in ``moved`` the variates stay as they are. ValueError for one that there is not.
        """
        for name, change in moved.items():
            if name not in self.server:
                raise ValueError(f"{name!r} is no tensor of the layout's weights")
            before = self._moved.get(name, 0.0)
            self._moved[name] = before + np.asarray(change, dtype=np.float64)
        self._way += steps * learning_rate

    def after(self, where: str) -> dict[str, Array]:
        """c_i' by name. UsageProblem FLV-2265 where nothing has used them."""
        if self._way <= 0.0:
            raise UsageProblem(
                "FLV-2265",
                "the task's devices train with control variates, and train() did not use them",
                where=where,
                hint='train by `fluvial.fit(..., algorithm="scaffold")`, or pass **config.extra to fit; '
                "a loop of your own says config.control_variates.trained(...)",
            )
        return {
            name: (own - self.server[name] + self._moved[name] / self._way).astype(np.float32)
            if name in self._moved
            else own
            for name, own in self.own.items()
        }


def variates_of(
    layout: Layout, flat: Array, private: Mapping[str, RawTensor] | None, where: str
) -> ControlVariates:
    """A round's variates: ``flat`` float32[C] are the server's, ``private`` has the device's own, 0 where it is new.

    ``layout`` is the task's. UsageProblem FLV-2254 where the device's own are another model's.
    """
    control, server, own = layout.control, dict[str, Array](), dict[str, Array]()
    for t, spec in enumerate(control.tensors):
        name = spec.name.removeprefix(CONTROL_PREFIX)
        server[name] = flat[control.starts[t] : control.starts[t + 1]].reshape(spec.shape)
        kept = None if private is None else private.get(spec.name)
        if kept is None:
            own[name] = np.zeros(spec.shape, dtype=np.float32)
            continue
        if (kept.shape, kept.dtype) != (spec.shape, DTYPE):
            raise UsageProblem(
                "FLV-2254",
                f"the device's control variates are of another model: {spec.name} is {kept}, expected "
                f"float32{list(spec.shape)}",
                where=where,
                hint="begin anew without them, or use those that this task's rounds gave",
            )
        own[name] = np.frombuffer(kept.data, dtype="<f4").reshape(spec.shape)
    return ControlVariates(server, own)


def kept_of(variates: Mapping[str, Array]) -> dict[str, RawTensor]:
    """A device's own variates as it keeps them beside its private layers."""
    return {CONTROL_PREFIX + name: raw_tensor(array) for name, array in variates.items()}


def layers_of(private: Mapping[str, RawTensor] | None) -> Mapping[str, RawTensor] | None:
    """What of a device's private state are layers of the model; None where it has none yet."""
    if private is None:
        return None
    found = {name: raw for name, raw in private.items() if not is_control_name(name)}
    return found or (None if len(private) else found)


def delta_of(layout: Layout, own: Mapping[str, Array], after: Mapping[str, Array]) -> Array:
    """c_i' - c_i of all tensors, float32[C] in the order of ``layout.control``."""
    names = [spec.name.removeprefix(CONTROL_PREFIX) for spec in layout.control.tensors]
    parts = [(after[name] - own[name]).reshape(-1) for name in names]
    return np.concatenate(parts).astype(np.float32)


def require_names(names: Collection[str], variates: ControlVariates | None) -> ControlVariates:
    """The round's variates, for training tensors of these names. UsageProblem FLV-2265 where it has not all of them."""
    if variates is None:
        raise UsageProblem(
            "FLV-2265",
            "the algorithm scaffold needs a task with control variates, and this one was made without them",
            hint='make it with CONFIG = {"algorithm": "scaffold"} or `--set algorithm=scaffold`: what a task\'s layout '
            "has never changes, so this is a new task",
        )
    strange = next((name for name in names if name not in variates.server), "")
    if strange:
        raise UsageProblem(
            "FLV-2265",
            f"scaffold cannot train {strange}: the task's layout has no control variate of it",
            hint="train the model that model() makes, and its own parameters",
        )
    return variates
