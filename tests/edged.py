"""A small federation with edges below its regions: the real worker, uplink and downlink of each, in this process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.certificates import Role
from schemas.topics import Topic, topics_of_edge, updates_topic
from stream_apps.edge.downlink import Downlink, Ways
from stream_apps.edge.place import EdgeStand
from stream_apps.edge.progress import Progress
from stream_apps.edge.uplink import Uplink
from stream_apps.process_context import ProcessContext
from stream_apps.worker.region import RegionWorker
from tests import factories
from tests.factories import REGION, edge_signer, signer
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class RunningEdge:
    """One process of an edge, as far as its loops go; its notes lie in ``folder``."""

    federation: EdgedFederation
    name: str
    folder: Path
    root: str = REGION

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """A fresh process: nothing is remembered but what was noted and what stands in logs."""
        one = self.federation
        genesis, clock = one.genesis, one.clock
        self.context = ProcessContext.of(
            genesis=genesis,
            store=one.objects,
            writer=one.writer,
            key_pair=signer(self.name, Role.WORKER, "w-1", issuer=self.root),
            name=self.name,
            open_reader=one.open_reader,
            trust=genesis.trust.of_edges(),
            clock=clock,
        )
        stand, sha256 = EdgeStand(genesis, self.name), self.context.genesis_sha256.hex()

        def progress(of: str) -> Progress:
            return Progress(self.folder / f"{of}.json", sha256)

        self.uplink = Uplink(
            stand,
            self.context.trust,
            one.signer(edge_signer(self.name, issuer=self.root)),
            reader=one.open_reader("up"),
            writer=one.writer,
            clock=clock,
            progress=progress("windows"),
        )
        self.downlink = Downlink(
            stand,
            self.context.trust,
            Ways(one.open_reader("down"), one.open_reader("own"), one.writer, clock),
            barriers=progress("barriers"),
            announcements=progress("announcements"),
        )
        self.uplink.begin(one.policy)
        self.worker = RegionWorker(
            self.context,
            self.name,
            lambda closed, encoded: self.uplink.publish(closed, encoded, one.policy.updates.bytes_max),
        )
        self.folded = asyncio.run(self.worker.resume([0]))[0]

    def forget(self) -> None:
        """Lose the notes, as a machine with another disk would."""
        for note in self.folder.iterdir():
            note.unlink()

    def work(self) -> None:
        """Take what came down, fold what is new, publish what closed."""
        self.downlink.look()
        topic = updates_topic(self.federation.task, self.name)
        if records := self.federation.records(topic, 0)[self.folded :]:
            asyncio.run(self.worker.process_all(records))
            self.folded += len(records)
        stopped = self.worker.partitions[0].stopped
        if stopped is not None:
            raise stopped

    def close(self) -> None:
        """Close the open window by the clock."""
        self.work()
        self.federation.clock.sleep(self.federation.policy.window.seconds_max)
        asyncio.run(self.worker.tick([0]))
        self.work()


@dataclass
class EdgedFederation(SmallFederation):
    """With an edge process for each name in ``edges``, each above those below it."""

    edges: tuple[str, ...] = ("eu.e1",)
    folder: Path = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.running = {name: RunningEdge(self, name, self.folder / name) for name in self.edges}

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The task's and the edges'."""
        own = [topic for edge in self.edges for topic in topics_of_edge(self.task, edge)]
        return tuple({topic.name: topic for topic in (*super().topics, *own)}.values())

    def send_below(self, edge: str, *devices: str, seed: int = 0, **changed: Any) -> None:
        """Updates of devices below an edge."""
        for number, device in enumerate(devices):
            by = signer(edge, Role.DEVICE, device, issuer=REGION)
            self.append(edge, 0, self.update(edge, device, seed=seed + number, by=by, **changed))

    def settle_edges(self) -> None:
        """Close every edge's window, those of the deepest first, and let all take what came down."""
        for name in reversed(self.edges):
            self.running[name].close()
        self.close_windows()

    def round(self, below: int = 3, *, seed: int | None = None) -> None:
        """A version of updates from regions and edges."""
        seed = 1000 * (self.version + 1) if seed is None else seed
        for name in self.edges:
            self.running[name].work()
            self.send_below(name, *factories.devices(below), seed=seed)
            seed += 100
        self.send(2, seed=seed)
        self.settle_edges()
        self.fold()
        self.merge()
        for name in self.edges:
            self.running[name].work()
