"""Federated learning on the log: what people run (the ``fluvial`` command) and what they import.

::

    from fluvial import Device, Task, load_model, simulate

    with Device.open(task="digits", region="eu", key=Path("device.pem")) as device:  # a device maker's program
        base = device.fetch()
        trained = my_training(device.arrays(base))  # arrays by name; any framework, or none
        receipt = device.publish(base, device.contribution(base, trained, num_examples=100, loss=0.3))
        print(device.verdict(receipt).outcome)

    model = load_model("digits")  # the newest version: arrays by name, and with torch the user's own module
    task = load_task("mine.py")   # a task file: what is learned

Everything here loads when it is first asked for, so ``import fluvial`` takes a moment and no torch. What a name needs
is one of the extras: ``pip install 'fluvial[device]'`` for ``Device`` and ``load_model``, ``'fluvial[learning]'`` for
tasks, ``'fluvial[all]'`` for simulating and for the local stack.

The packages that Fluvial is made of keep out of the way of a user's modules of the same names: see ``_siblings``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fluvial._siblings import own_module, settle

if TYPE_CHECKING:
    from backends.environment import load_settings
    from backends.settings import Settings
    from fluvial.flower.app import FlowerApp
    from fluvial.reading.models import Model, load_model
    from fluvial.session.simulation import simulate
    from learning.adapters import lora, without_lora
    from learning.config import TrainConfig
    from learning.datasets import Dataset, Examples
    from learning.estimators import fitted
    from learning.helpers import fit, personal_score, score
    from learning.task import Task, load_task
    from producers.sdk.conditions import Conditions
    from producers.sdk.device import Device
    from producers.sdk.updates import Contribution

settle()

__all__ = [
    "Conditions",
    "Contribution",
    "Dataset",
    "Device",
    "Examples",
    "FlowerApp",
    "Model",
    "Settings",
    "Task",
    "TrainConfig",
    "fit",
    "fitted",
    "load_model",
    "load_settings",
    "load_task",
    "lora",
    "personal_score",
    "score",
    "simulate",
    "without_lora",
]

_HOMES: Final = {
    "Conditions": "producers.sdk.conditions",
    "Contribution": "producers.sdk.updates",
    "Dataset": "learning.datasets",
    "Device": "producers.sdk.device",
    "Examples": "learning.datasets",
    "FlowerApp": "fluvial.flower.app",
    "Model": "fluvial.reading.models",
    "Settings": "backends.settings",
    "Task": "learning.task",
    "TrainConfig": "learning.config",
    "fit": "learning.helpers",
    "fitted": "learning.estimators",
    "load_model": "fluvial.reading.models",
    "load_settings": "backends.environment",
    "load_task": "learning.task",
    "lora": "learning.adapters",
    "personal_score": "learning.helpers",
    "score": "learning.helpers",
    "simulate": "fluvial.session.simulation",
    "without_lora": "learning.adapters",
}


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial' has no attribute {name!r}; it offers {', '.join(__all__)}")
    try:
        found: object = getattr(own_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from fluvial.extras import extra_with

        extra = extra_with(error.name)
        if extra is None:
            raise
        raise ImportError(
            f"fluvial.{name} needs the package {error.name}, which is not installed: pip install 'fluvial[{extra}]'",
            name=error.name,
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
