"""What a Flower app's ServerApp says about training. It runs where ``flwr`` is; see ``host``.

The ServerApp is run as it is, up to where it would ask somebody to train. By then it has made the first model and its
strategy, and the strategy makes every later message, so what it tells its clients in a round is told here as well.
"""

from __future__ import annotations

import inspect
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fluvial.flower.records import Refused, arrays_of, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LEGACY: Final = {"train": "fit", "evaluate": "evaluate", "get_parameters": "getparameters"}
"""How records of a ``Client``'s messages are called, by the message's type."""
_NEEDED: Final = ("available", "train", "evaluate")
"""What a strategy may want a number of nodes for; it waits until there are so many."""


class _Begun(BaseException):
    """The ServerApp has come to where training begins. No ``except Exception`` of an app may take it."""

    def __init__(self, strategy: Any, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.strategy = strategy
        self.given = given


class Training:
    """What a ServerApp says about training: its strategy, the first model, configurations, its own evaluation."""

    def __init__(self, flower: Any, app: Any, context: Any, nodes: int) -> None:
        """Run the app's ServerApp up to where training begins. Raises Refused."""
        self._flower = flower
        self.first: Any = None
        self._given: Mapping[str, Any] = {}
        self._strategy: Any = None
        self._is_legacy = getattr(app, "_main", None) is None
        self._grid = _grid(flower, nodes)
        if self._is_legacy:
            self._begin_legacy(app, context)
        else:
            self._begin(app, context)
        needed = [int(getattr(self._strategy, f"min_{what}_nodes", 0)) for what in _NEEDED]
        self._grid.nodes = max(nodes, *needed)

    def _begin(self, app: Any, context: Any) -> None:
        try:
            with _caught_starts():
                app(self._grid, context)
        except _Begun as begun:
            self._strategy, self._given = begun.strategy, begun.given
            self.first = begun.given.get("initial_arrays")
            return
        raise Refused("app", "its ServerApp ended before it asked anybody to train")

    def _begin_legacy(self, app: Any, context: Any) -> None:
        """Of a ServerApp that is made with ``server_fn``, or with a strategy itself."""
        from flwr.server import SimpleClientManager

        make = getattr(app, "_server_fn", None)
        self._strategy = make(context).strategy if make else getattr(app, "_strategy", None)
        if self._strategy is None:
            return
        parameters = self._strategy.initialize_parameters(SimpleClientManager())
        if parameters is not None:
            loaded = [np.load(io.BytesIO(data), allow_pickle=False) for data in parameters.tensors]
            self.first = self._flower.ArrayRecord(loaded)

    @property
    def weighed_by(self) -> str:
        """The metric that counts a client's examples."""
        return str(getattr(self._strategy, "weighted_by_key", "num-examples"))

    @property
    def central(self) -> bool:
        """Whether the app evaluates a model itself, on data of its own."""
        held = (
            getattr(self._strategy, "evaluate_fn", None)
            if self._is_legacy
            else self._given.get("evaluate_fn")
        )
        return held is not None

    def legacy_config(self, what: str, version: int) -> dict[str, Any]:
        """What a legacy strategy would tell its clients in this round."""
        made = getattr(self._strategy, f"on_{LEGACY[what]}_config_fn", None)
        return dict(made(version + 1)) if made is not None else {}

    def message(self, what: str, version: int, record: Any) -> tuple[str, dict[str, Any]] | None:
        """The message that the strategy would send in this round; None where it sends none."""
        if self._strategy is None:
            return self._like_the_first(what, version, record)
        config = self._given.get(f"{what}_config")
        config = self._flower.ConfigRecord(dict(config or {}))
        configure = self._strategy.configure_train if what == "train" else self._strategy.configure_evaluate
        for message in configure(version + 1, record, config, self._grid):
            return message.metadata.message_type, dict(message.content)
        return None

    def _like_the_first(self, what: str, version: int, record: Any) -> tuple[str, dict[str, Any]] | None:
        if what != "train":
            return None
        content = dict(self._given["content"])
        for name, value in content.items():
            if isinstance(value, self._flower.ArrayRecord):
                content[name] = record
            elif isinstance(value, self._flower.ConfigRecord) and "server-round" in value:
                value["server-round"] = version + 1
        return self._given["message_type"], content

    def evaluate(self, record: Any, version: int) -> dict[str, float]:
        """What the app's own evaluation says of a model."""
        if self._is_legacy:
            from flwr.common import ndarrays_to_parameters

            made = self._strategy.evaluate(version, ndarrays_to_parameters(arrays_of(record)))
            if made is not None:
                return {"loss": float(made[0]), **numbers(made[1], set())}
        else:
            metrics = self._given["evaluate_fn"](version, record)
            if metrics is not None:
                return numbers(metrics, {self.weighed_by})
        raise Refused("evaluate", "its evaluate_fn returned nothing")


class _caught_starts:  # noqa: N801 (used as a function)
    """Within it, a strategy that starts raises ``_Begun``, also one that has a ``start`` of its own."""

    def __init__(self) -> None:
        self._were: list[tuple[type, Callable[..., Any]]] = []

    def __enter__(self) -> None:
        try:
            from flwr.serverapp.strategy import Strategy
        except ImportError:
            return
        waiting: list[type] = [Strategy]
        while waiting:
            kind = waiting.pop()
            waiting += kind.__subclasses__()
            own = kind.__dict__.get("start")
            if own is not None and all(known is not kind for known, _ in self._were):
                self._were.append((kind, own))
                kind.start = _raising(own)  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        for kind, own in self._were:
            kind.start = own  # type: ignore[attr-defined]


def _raising(own: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(own)

    def start(strategy: Any, *arguments: Any, **named: Any) -> None:
        given = dict(signature.bind(strategy, *arguments, **named).arguments)
        given |= given.pop("kwargs", {})
        raise _Begun(strategy, given)

    return start


def _begun(flower: Any, messages: Iterable[Any]) -> _Begun:
    """What the first message that trains says. Raises Refused where another comes first."""
    for message in messages:
        if message.metadata.message_type.partition(".")[0] != "train":
            break
        content = dict(message.content)
        arrays = next((one for one in content.values() if isinstance(one, flower.ArrayRecord)), None)
        kind = message.metadata.message_type
        return _Begun(None, {"initial_arrays": arrays, "content": content, "message_type": kind})
    raise Refused("app", "its ServerApp sends something else before it sends messages that train")


def _grid(flower: Any, nodes: int) -> Any:
    """A grid whose nodes are there and get no message: the first that is to be sent ends the ServerApp."""
    from flwr.serverapp import Grid

    class Nowhere(Grid):  # type: ignore[misc]
        nodes = 2

        def set_run(self, *_: Any) -> None:
            pass

        @property
        def run(self) -> Any:
            raise Refused("app", "its ServerApp asks for the run, and there is none of Flower's")

        def create_message(self, *arguments: Any, **named: Any) -> Any:
            return flower.Message(*arguments, **named)

        def get_node_ids(self) -> list[int]:
            return list(range(1, self.nodes + 1))

        def push_messages(self, messages: Any) -> Any:
            raise _begun(flower, messages)

        def pull_messages(self, message_ids: Any) -> Any:  # noqa: ARG002 (Flower's signature)
            return []

        def send_and_receive(self, messages: Any, *, timeout: Any = None) -> Any:  # noqa: ARG002
            raise _begun(flower, messages)

    made = Nowhere()
    made.nodes = max(2, nodes)
    return made
