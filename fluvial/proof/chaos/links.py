"""A TCP proxy between every process of a run and the broker and the store, and what can go wrong on such a link.

Toxiproxy does the work, spoken to over its HTTP API. Kafka's clients go where the broker tells them to, so every
process has a listener of its own at the broker, which advertises that process's proxy. One process can be cut off
alone, or all at once.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import urllib3

from aggregation.errors import EnvironmentProblem
from fluvial.local import ports
from fluvial.local.kafka import Listener
from fluvial.proof.chaos.schedule import BROKER, STORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backends.settings import Settings
    from fluvial.processes.supervisor import Supervisor

READY_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 5.0
LATENCY_MS: Final = 400
JITTER_MS: Final = 300
BANDWIDTH_KB_PER_S: Final = 64
PROXIES: Final = "proxies"
_HTTP_OK_MAX: Final = 299

Service = Literal["broker", "store"]


@dataclass(frozen=True, slots=True)
class Link:
    """The ports of one process: its listener at the broker, and its proxies to broker and store."""

    process: str
    listener_port: int
    broker_port: int
    store_port: int

    @property
    def listener(self) -> Listener:
        """The broker's listener behind this link."""
        return Listener(_listener_name(self.process), self.listener_port, self.broker_port)

    def proxy(self, service: Service) -> str:
        """The proxy's name."""
        return f"{self.process}.{service}"


def choose_links(processes: Sequence[str]) -> list[Link]:
    """A link for each process, on ports that are free now. EnvironmentProblem FLV-1013."""
    taken: set[int] = set()

    def port() -> int:
        chosen = ports.choose(avoid=frozenset(taken))
        taken.add(chosen)
        return chosen

    return [Link(process, port(), port(), port()) for process in processes]


class Links:
    """The proxies of a run. ``store_upstream`` "" when the store is a folder."""

    def __init__(self, links: Sequence[Link], settings: Settings) -> None:
        """Proxies to the broker's listeners and to the store of ``settings``; ``start`` makes them."""
        self._links = {link.process: link for link in links}
        self._store = settings.store.endpoint if settings.store.kind != "file" else ""
        self._api = ""
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=REQUEST_TIMEOUT_S))

    def start(self, binary: Path, supervisor: Supervisor) -> None:
        """Start the server as a child, and make every proxy.

        Raises EnvironmentProblem: FLV-6406, it does not answer.
        """
        port = ports.choose()
        self._api = f"http://{ports.LOOPBACK}:{port}"
        supervisor.start_command(PROXIES, [str(binary), "-host", ports.LOOPBACK, "-port", str(port)])
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ports.is_listening(port):
            if time.monotonic() > deadline:
                raise _no_answer(
                    f"it does not listen after {READY_TIMEOUT_S:.0f} s", supervisor.log_tail(PROXIES)
                )
            supervisor.check()
            time.sleep(0.05)
        for link in self._links.values():
            self._make(link.proxy("broker"), link.broker_port, f"{ports.LOOPBACK}:{link.listener_port}")
            if self._store:
                self._make(link.proxy("store"), link.store_port, self._store)

    def through(self, process: str, settings: Settings) -> Settings:
        """The settings of a process that takes its link: other addresses, the same way in."""
        link, store = self._links[process], settings.store
        if self._store:
            store = msgspec.structs.replace(store, endpoint=f"{ports.LOOPBACK}:{link.store_port}")
        return msgspec.structs.replace(
            settings, bootstrap_servers=f"{ports.LOOPBACK}:{link.broker_port}", store=store
        )

    def break_(self, mode: str, service: Service, process: str | None) -> list[str]:
        """Break the link of one process, or of all with None; the names of the proxies, for ``mend``.

        ``cut`` closes connections and refuses new ones; ``black-hole`` swallows what is sent, either way;
        ``lost-answers`` lets requests through and swallows the answers; ``slow`` adds latency and narrows the way.
        """
        chosen = [self._links[process]] if process is not None else list(self._links.values())
        names = [link.proxy(service) for link in chosen]
        for name in names:
            match mode:
                case "cut":
                    self._call("POST", f"/proxies/{name}", {"enabled": False})
                case "black-hole":
                    for stream in ("upstream", "downstream"):
                        self._add(name, "timeout", stream, {"timeout": 0})
                case "lost-answers":
                    self._add(name, "timeout", "downstream", {"timeout": 0})
                case "slow":
                    self._add(name, "latency", "downstream", {"latency": LATENCY_MS, "jitter": JITTER_MS})
                    self._add(name, "bandwidth", "upstream", {"rate": BANDWIDTH_KB_PER_S})
                case _:
                    message = f"no such network fault: {mode}"
                    raise ValueError(message)
        return names

    def mend(self, names: Sequence[str]) -> None:
        """Whole links again."""
        for name in names:
            for toxic in self._call("GET", f"/proxies/{name}/toxics"):
                self._call("DELETE", f"/proxies/{name}/toxics/{toxic['name']}")
            self._call("POST", f"/proxies/{name}", {"enabled": True})

    def mend_all(self) -> None:
        """Whole links, all of them."""
        self._call("POST", "/reset")

    def _make(self, name: str, port: int, upstream: str) -> None:
        self._call(
            "POST", "/proxies", {"name": name, "listen": f"{ports.LOOPBACK}:{port}", "upstream": upstream}
        )

    def _add(self, proxy: str, kind: str, stream: str, attributes: dict[str, int]) -> None:
        body = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._call("POST", f"/proxies/{proxy}/toxics", body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = (
                self._pool.request(method, self._api + path, json=body)
                if body is not None
                else (self._pool.request(method, self._api + path))
            )
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(str(error)) from error
        if answer.status > _HTTP_OK_MAX:
            raise _no_answer(
                f"{method} {path} got HTTP {answer.status}: {answer.data.decode('utf-8', 'replace')}"
            )
        return json.loads(answer.data) if answer.data else None


def _no_answer(reason: str, where: str = "") -> EnvironmentProblem:
    return EnvironmentProblem(
        "FLV-6406",
        f"the proxies of this run do not do what they are told: {reason}",
        where=where,
        hint="repeat the command, or leave network faults out: `fluvial chaos --faults kill,pause,disk`",
    )


def _listener_name(process: str) -> str:
    return "LINK_" + "".join(letter if letter.isalnum() else "_" for letter in process.upper())


def service_of(name: str) -> Service:
    """The service that a fault's detail names."""
    if name == BROKER:
        return "broker"
    if name == STORE:
        return "store"
    message = f"no such service: {name}"
    raise ValueError(message)
