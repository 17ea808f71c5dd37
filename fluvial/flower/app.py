"""A Flower app as the four functions of a task file: ``model``, ``train``, ``evaluate`` and ``data``.

A device is a node of Flower's: its examples stay where the app loads them, by ``partition-id`` and ``num-partitions``,
or by what ``fluvial device run --data "partition-id=3 num-partitions=10"`` says. Fluvial has a number in their place.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from fluvial.flower.process import AppProcess
from learning.config import TrainConfig
from learning.datasets import Dataset, Examples
from schemas.task_metric import LOSS, usable_names

DEVICES_MAX: Final = 10_000
NO_LOSS: Final = 0.0
"""What stands for the loss of an app that reports none."""
_LOSS_NAME: Final = re.compile(r"loss$", re.IGNORECASE)
_WORD: Final = re.compile(r"""([^\s=]+)=("[^"]*"|'[^']*'|\S+)""")
_CENTRAL: Final = -1
"""In place of a node: the app's own evaluation."""
Model = dict[str, NDArray[Any]]


class FlowerApp:
    """A Flower app, unmodified, as the functions of a task.

    client: ``module:attribute`` of a ClientApp, a ``client_fn(context)``, or a (NumPy)Client. server: of its ServerApp,
    which says what the first model is, how clients are told to train, and how it evaluates a model, if it does; "" for
    none. folder: the app's, or a file in it. devices: how many nodes there are. run_config: ``context.run_config``.

    Raises UsageProblem FLV-2261 for what cannot be an app.
    """

    def __init__(
        self,
        client: str,
        *,
        server: str = "",
        folder: str | Path,
        devices: int,
        run_config: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        place = Path(folder)
        self._where = str(place)
        for reference in [client, *([server] if server else [])]:
            check_reference(reference)
        if not 1 <= devices <= DEVICES_MAX:
            raise UsageProblem(
                "FLV-2261",
                f"devices is {devices}, and has to be from 1 to {DEVICES_MAX}",
                where=self._where,
                hint="set devices= in the task file",
            )
        self._devices = devices
        self._server = server
        self._central = False
        self._names: list[str] = []
        self._nodes: list[dict[str, Any]] = []
        self._known: tuple[bytes, dict[str, float]] | None = None
        opening = {
            "client": client,
            "server": server,
            "folder": str((place.parent if place.is_file() else place).resolve()),
            "run_config": dict(run_config or {}),
            "nodes": devices,
        }
        self._process = AppProcess(opening, self._where)

    def model(self) -> Model:
        """The first model: a dict of arrays by the names that the app gives them, in its order.

        Raises EnvironmentProblem FLV-2260, UsageProblem FLV-2261 and FLV-2263: the app cannot be used.
        """
        document, arrays = self._process.open()
        self._names = [str(name) for name in document["names"]]
        self._central = bool(document["central"])
        return dict(zip(self._names, arrays, strict=True))

    def train(self, model: Model, data: Examples, config: TrainConfig) -> dict[str, float]:
        """One node's training, in place. UsageProblem FLV-2208 when the client raises, FLV-2262 for a bad reply."""
        node = self._node(data)
        request = self._request("train", model, node, config.version)
        request["seed"] = int(np.random.SeedSequence([config.seed, config.version]).generate_state(1)[0])
        document, arrays = self._process.ask(request, list(model.values()), "FLV-2208")
        self._take(model, document["names"], arrays, _called(node))
        return _with_loss(document["metrics"])

    def evaluate(self, model: Model, data: Examples) -> dict[str, float]:
        """The app's own evaluation of a model, else that of a node whose partition no device has.

        Raises UsageProblem FLV-2209 when it fails, or where there is none.
        """
        node = self._node(data)
        request = self._request("evaluate", model, node, 0)
        sha = hashlib.sha256(repr(node).encode())
        for array in model.values():
            sha.update(np.ascontiguousarray(array).tobytes())
        if self._known is None or self._known[0] != sha.digest():
            document, _ = self._process.ask(request, list(model.values()), "FLV-2209")
            self._known = sha.digest(), _with_loss(document["metrics"])
        return dict(self._known[1])

    def data(self) -> Dataset:
        """A part a device: the number of its partition. Held out is one more, or what the app evaluates on itself."""
        parts = {f"client-{number}": _partition(number) for number in range(self._devices)}
        return Dataset(parts=parts, test=_partition(_CENTRAL if self._central else self._devices))

    def local_data(self, path: str) -> Examples:
        """A real node: ``path`` is its node_config as Flower's ``--node-config`` has it, ``key=value key=value``.

        Raises UsageProblem FLV-2234.
        """
        self._nodes.append(parse_node_config(path, self._where))
        return _partition(_CENTRAL - len(self._nodes))

    def _node(self, data: Examples) -> dict[str, Any] | None:
        number = int(data.x.reshape(-1)[0])
        if number == _CENTRAL:
            return None
        if number < _CENTRAL:
            return self._nodes[_CENTRAL - number - 1]
        return {"partition-id": number, "num-partitions": self._devices + (not self._central)}

    def _request(self, what: str, model: Model, node: dict[str, Any] | None, version: int) -> dict[str, Any]:
        return {"do": what, "node": node, "version": version, "seed": 0, "names": list(model)}

    def _take(self, model: Model, names: Sequence[str], arrays: Sequence[NDArray[Any]], who: str) -> None:
        """Check all, then change: the model has what the client returned, or is as it was. UsageProblem FLV-2262."""
        problem = _differs(model, names, arrays)
        if problem:
            raise UsageProblem(
                "FLV-2262",
                f"{who} returned no update of the model: {problem}",
                where=self._where,
                hint="the client has to return all arrays that it was sent, in the same shapes, with finite numbers; "
                "this device sits the round out, the others go on",
            )
        for name, array in zip(names, arrays, strict=True):
            if model[name].dtype.kind == "f":
                model[name] = array.astype(model[name].dtype)


def check_reference(reference: str) -> None:
    """UsageProblem FLV-2261 unless it is ``module:attribute``."""
    module, _, attribute = reference.partition(":")
    if all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        return
    raise UsageProblem(
        "FLV-2261",
        f"{reference!r} is no module:attribute",
        hint="write it as Flower's pyproject.toml does, for example package.client_app:app",
    )


def parse_node_config(text: str, where: str) -> dict[str, Any]:
    """``partition-id=0 num-partitions=10 data-path=/srv/x`` as a dict; values are TOML's, else texts. FLV-2234."""
    found: dict[str, Any] = {}
    if _WORD.sub("", text).strip() or not text.strip():
        raise UsageProblem(
            "FLV-2234",
            f"{text!r} is no node config of a Flower app",
            where=where,
            hint="write it as for Flower's --node-config: partition-id=0 num-partitions=10",
        )
    for key, value in _WORD.findall(text):
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def _partition(number: int) -> Examples:
    return Examples(np.array([[number]], np.int64), np.zeros(1, np.float32))


def _called(node: Mapping[str, Any] | None) -> str:
    words = " ".join(f"{key}={value}" for key, value in (node or {}).items())
    return f"the client of {words}"


def _differs(model: Model, names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> str:
    """What keeps arrays from being an update of ``model``, naming the first that differs; "" for nothing."""
    if len(arrays) != len(model):
        return f"{len(arrays)} arrays, and the model has {len(model)}"
    for name, array in zip(names, arrays, strict=True):
        if name not in model:
            return f"an array {name!r}, and the model's are {', '.join(list(model)[:6])}"
        if array.shape != model[name].shape:
            return f"{name} of shape {list(array.shape)}, and the model's is {list(model[name].shape)}"
        if model[name].dtype.kind == "f" and not np.isfinite(array).all():
            broken = int(np.count_nonzero(~np.isfinite(array)))
            return f"{name} with {broken} of {array.size} numbers NaN or infinite"
    return ""


def _with_loss(reported: Mapping[str, float]) -> dict[str, float]:
    """Its numbers under names that a record can have, the loss first: what is called so, else what ends so."""
    name = LOSS if LOSS in reported else next((one for one in reported if _LOSS_NAME.search(one)), "")
    kept, _ = usable_names({key: value for key, value in reported.items() if key != name})
    kept.pop(LOSS, None)
    return {LOSS: float(reported[name]) if name else NO_LOSS, **kept}
