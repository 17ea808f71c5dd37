"""A Flower app in a process of its own, in the interpreter that has ``flwr``: it answers the frames of ``wire``.

Standard library, numpy and flwr only: that interpreter need not have Fluvial. What the app prints goes to standard
error. When the other side is gone this process ends, whatever the app is doing.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import queue
import random
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from fluvial.flower.records import Refused, arrays_of, numbers, weighed
from fluvial.flower.strategies import LEGACY, Training
from fluvial.flower.wire import Arrays, Document, FrameError, read_frame, write_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES_MAX: Final = 10_000
"""Clients whose contexts are kept; of more, those are given up that came first."""


class Host:
    """One app: its client, and what its ServerApp says about training, if it has one."""

    def __init__(self, request: Document) -> None:
        """Import the app. Raises Refused."""
        self._folder = request["folder"]
        self._run_config = dict(request["run_config"])
        self._nodes = int(request["nodes"])
        self._contexts: dict[str, Any] = {}
        try:
            import flwr.app
            import flwr.clientapp
        except ImportError as error:
            raise Refused("flwr", f"{type(error).__name__}: {error}") from error
        self._flower = flwr.app
        logging.getLogger("flwr").setLevel(logging.WARNING)  # importing it has set another
        _say_who_we_are()
        sys.path.insert(0, self._folder)
        self._client = self._client_app(_found(request["client"]), request["client"])
        self._legacy = getattr(self._client, "_call", None) is not None
        self._training = Training(self._flower, _found(request["server"]), self._context("server"), self._nodes) \
            if request["server"] else None  # fmt: skip

    def open(self) -> tuple[Document, Arrays]:
        """The first model: what the ServerApp begins with, else what a client's ``get_parameters`` gives."""
        record = self._training.first if self._training else None
        if record is None and self._legacy:
            config = self._flower.ConfigRecord({})
            node = {"partition-id": 0, "num-partitions": self._nodes}
            reply = self._call("get_parameters", {"getparametersins.config": config}, node, 0)
            record = next(iter(reply.array_records.values()), None)
        if record is None or not len(record):
            raise Refused("model", "neither its ServerApp nor its client says what the first model is")
        central = bool(self._training and self._training.central)
        names = [str(name) for name in record]
        return {"names": names, "central": central, "legacy": self._legacy}, arrays_of(record)

    def train(self, request: Document, arrays: Arrays) -> tuple[Document, Arrays]:
        """One client's training from a model."""
        kind, content = self._content("train", request, arrays)
        reply = self._call(kind, content, request["node"], request["version"])
        records = reply.array_records
        if len(records) != 1:
            raise Refused("reply", f"it has {len(records)} records of arrays, and a model is one")
        record = next(iter(records.values()))
        names = request["names"] if self._legacy else [str(name) for name in record]
        told = self._metrics(reply) | weighed(self._told(reply), self._weighed_by)
        return {"names": names, "metrics": told}, arrays_of(record)

    def evaluate(self, request: Document, arrays: Arrays) -> tuple[Document, Arrays]:
        """What the app, or one client, says of a model."""
        if request["node"] is None:
            assert self._training is not None
            return {"metrics": self._training.evaluate(self._record(request, arrays), request["version"])}, []
        kind, content = self._content("evaluate", request, arrays)
        return {"metrics": self._metrics(self._call(kind, content, request["node"], request["version"]))}, []

    def _client_app(self, found: Any, name: str) -> Any:
        from flwr.client import Client, NumPyClient
        from flwr.clientapp import ClientApp

        if isinstance(found, ClientApp):
            return found
        if isinstance(found, type) and issubclass(found, (Client, NumPyClient)):
            return ClientApp(client_fn=lambda context: _as_client(found()))  # noqa: ARG005 (Flower's signature)
        if isinstance(found, (Client, NumPyClient)):
            return ClientApp(client_fn=lambda context: _as_client(found))  # noqa: ARG005
        if inspect.isfunction(found) and len(inspect.signature(found).parameters) == 1:
            return ClientApp(client_fn=found)
        raise Refused(
            "app",
            f"{name} is {type(found).__name__}, and has to be a ClientApp, a client_fn(context), or a (NumPy)Client",
        )

    def _record(self, request: Document, arrays: Arrays) -> Any:
        named = dict(zip(request["names"], (self._flower.Array(array) for array in arrays), strict=True))
        return self._flower.ArrayRecord(named)

    def _content(self, what: str, request: Document, arrays: Arrays) -> tuple[str, dict[str, Any]]:
        """A message's type and records, as the app's own strategy makes them, else as FedAvg does."""
        record, version = self._record(request, arrays), int(request["version"])
        if self._legacy:
            config = self._training.legacy_config(what, version) if self._training else {}
            prefix = f"{LEGACY[what]}ins"
            return what, {
                f"{prefix}.parameters": record,
                f"{prefix}.config": self._flower.ConfigRecord(config),
            }
        made = self._training.message(what, version, record) if self._training else None
        if made is not None:
            return made
        return what, {"arrays": record, "config": self._flower.ConfigRecord({"server-round": version + 1})}

    def _call(self, kind: str, content: Mapping[str, Any], node: Mapping[str, Any], version: int) -> Any:
        message = self._flower.Message(
            content=self._flower.RecordDict(dict(content)),
            dst_node_id=_node_id(node),
            message_type=kind,
            group_id=str(version + 1),
        )
        reply = self._client(message, self._context(json.dumps(node, sort_keys=True), node))
        if not isinstance(reply, self._flower.Message):
            raise Refused("reply", f"it is no Message but {type(reply).__name__}")
        if reply.has_error():
            raise Refused("raised", f"it answers with an error: {reply.error.reason}")
        return reply.content

    def _context(self, key: str, node: Mapping[str, Any] | None = None) -> Any:
        """A client's context, whose state it finds again in its next round, as long as this process lives."""
        if key not in self._contexts:
            if len(self._contexts) >= NODES_MAX:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[key] = self._flower.Context(
                run_id=1,
                node_id=_node_id(node) if node else 0,
                node_config=dict(node or {}),
                state=self._flower.RecordDict(),
                run_config=self._run_config,
            )
        return self._contexts[key]

    @property
    def _weighed_by(self) -> tuple[str, ...]:
        """What a reply may call the number of its examples."""
        own = self._training.weighed_by if self._training else "num-examples"
        return tuple(dict.fromkeys((own, "num-examples", "num_examples")))

    def _metrics(self, reply: Any) -> dict[str, float]:
        """Every number of a reply by name; of a list, each with its place."""
        found: dict[str, float] = {}
        for record in self._told(reply):
            found |= numbers(record, self._weighed_by)
        return found

    @staticmethod
    def _told(reply: Any) -> list[Any]:
        """The records of a reply that say something: no arrays, and no status."""
        said = [record for name, record in reply.config_records.items() if not name.endswith(".status")]
        return [*reply.metric_records.values(), *said]


def _as_client(one: Any) -> Any:
    return one.to_client() if hasattr(one, "to_client") else one


def _node_id(node: Mapping[str, Any]) -> int:
    """A node's id follows from its partition. 0 is nobody's: it means the server."""
    partition = node.get("partition-id", 0)
    return int(partition) + 1 if isinstance(partition, int) else 1


def _found(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise Refused("app", f"{reference} cannot be imported: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            own = ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))[:20])
            raise Refused("app", f"{module} has no {attribute}; it has {own}")
        found = getattr(found, name)
    return found


def _say_who_we_are() -> None:
    """Flower asks this process who it is before it makes a message; of versions that do not ask, nothing is told."""
    with suppress(ImportError):
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1


def _seed(seed: int) -> None:
    """Of every generator that an app may draw from; torch's, if the app has imported it."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)


def _answer(state: dict[str, Host], request: Document, arrays: Arrays) -> tuple[Document, Arrays]:
    _seed(request["seed"])
    if request["do"] == "open":
        state["host"] = Host(request)
        _seed(request["seed"])
        return state["host"].open()
    do = {"train": state["host"].train, "evaluate": state["host"].evaluate}[request["do"]]
    return do(request, arrays)


def _problem(error: BaseException, folder: str) -> Document:
    """An error as a document; the innermost frame that lies in the app's folder is where it happened."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(Path(folder).resolve())
        and "site-packages" not in frame.filename
    ]
    last = frames[-1] if frames else None
    where = f"{last.filename}:{last.lineno} in {last.name}(): {(last.line or '').strip()}" if last else ""
    kind = error.kind if isinstance(error, Refused) else "raised"
    text = str(error).strip().splitlines() or ["no message"]
    return {
        "refused": kind,
        "message": str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {text[0]}",
        "where": where,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


def _requests(stream: IO[bytes]) -> queue.Queue[tuple[Document, Arrays]]:
    """Frames as they come. At their end this process ends at once: nobody is there to hear an answer."""
    waiting: queue.Queue[tuple[Document, Arrays]] = queue.Queue(1)

    def read() -> None:
        with suppress(FrameError, OSError, ValueError):
            while (frame := read_frame(stream)) is not None:
                waiting.put(frame)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def main() -> None:
    """Answer requests until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides what an interrupt ends
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    state: dict[str, Host] = {}
    folder = ""
    requests = _requests(asked)
    while True:
        request, arrays = requests.get()
        folder = request.get("folder", folder)
        try:
            document, made = _answer(state, request, arrays)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (the app may raise anything; the other side tells)
            document, made = _problem(error, folder), []
        try:
            write_frame(answers, document, made)
        except ValueError as error:
            write_frame(answers, _problem(Refused("reply", str(error)), folder))
