"""An edge: an aggregator below a region, on a Kafka of its own.

::

    fl.<task>.updates.<parent>[p]  ──downlink──▶  fl.<task>.updates.<edge>[0]      Barriers and Revokes, as they are
    models of the parent           ──downlink──▶  fl.<task>.models.<edge>          announcements, after their barriers
    fl.<task>.updates.<edge>[0]    ──the worker of any region──▶                   verdicts, sums, aggregates
    each closed window             ──uplink────▶  fl.<task>.updates.<parent>[p]    one signed EdgeAggregate

The edge's log is folded as every partition's is; what goes up is what that gives, and an audit walks down to see it.
Two processes of one edge share its one partition: one works, the other waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import faust

from aggregation.errors import FluvialError, UsageProblem
from aggregation.fold.events import WindowClosed
from aggregation.policy import Policy
from aggregation.regions import is_edge
from backends.kafka.reading import LogReader
from backends.kafka.topic_settings import await_right_topics
from backends.kafka.writing import LogWriter
from backends.observer import UNOBSERVED, Observer
from backends.settings import Settings
from schemas.certificates import Role
from schemas.envelope import KeyPair
from schemas.manifests import Genesis
from schemas.windows import EncodedWindow
from stream_apps.credentials import own_identity, require_valid
from stream_apps.edge.downlink import Downlink, Ways, run_in_thread
from stream_apps.edge.place import EdgeStand
from stream_apps.edge.progress import Progress
from stream_apps.edge.uplink import Uplink
from stream_apps.process_context import ProcessContext, open_process_context
from stream_apps.worker.app import app_of
from stream_apps.worker.region import RegionWorker

JOIN_S_MAX: Final = 5.0
"""How long an ending process waits for what is being copied; what is cut off is copied by the next one."""

log = logging.getLogger("fluvial.edge")


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """The two keys of an edge: one for its own log, as a worker of any region has, and one for the log above."""

    worker: KeyPair
    edge: KeyPair


def build_app(
    settings: Settings,
    parent: Settings,
    *,
    task: str,
    edge: str,
    name: str,
    genesis_sha256: str,
    keys: EdgeKeys,
    data_folder: Path,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of one edge process; ``settings`` reach its own Kafka, ``parent`` that of the log above.

    UsageProblem FLV-6460 (no edge of this task), FLV-6461 (the task has no edges), FLV-3203 (keys), FLV-3106 (topics).
    """
    opened = open_process_context(settings, task, genesis_sha256, keys.worker, name, observer=observer)
    context = replace(opened, trust=opened.trust.of_edges())
    require_edge(context.genesis, edge)
    identity = own_identity(keys.worker, context.trust, region=edge, role=Role.WORKER)
    own = own_identity(keys.edge, context.trust, region=edge, role=Role.EDGE)
    for one in (identity, own):
        require_valid(one)
    stand = EdgeStand(context.genesis, edge)
    await_right_topics(settings, [stand.models])
    links = _Links(context, stand, keys.edge, parent, data_folder)
    worker = RegionWorker(context, edge, links.hand_on)
    app = app_of(worker, settings, identity, data_folder=data_folder, assigned_to=links.assigned)

    async def ending(*_: object, **__: object) -> None:
        await links.assigned(has_any=False)

    app.on_before_shutdown.connect(ending, weak=False)
    return app


def require_edge(genesis: Genesis, edge: str) -> None:
    """UsageProblem FLV-6460 unless ``edge`` is below a region of the task; FLV-6461 where the task has no edges."""
    regions = ", ".join(sorted(genesis.regions))
    if not is_edge(edge, genesis.regions):
        raise UsageProblem(
            "FLV-6460",
            f"{edge!r} is no edge of the task {genesis.task}: expected a region, a dot and a label, such as "
            f"{min(genesis.regions)}.e1",
            hint=f"the task's regions are: {regions}",
        )
    require_taken(genesis.task, genesis.first_policy)


def require_taken(task: str, policy: Policy) -> None:
    """UsageProblem FLV-6461 where a policy has no edges: the log above would refuse what is sent, and all behind it."""
    if not policy.knows_edges:
        raise UsageProblem(
            "FLV-6461",
            f"the policy of {task} has edges.updates_max = 0: no log above takes an edge's windows",
            hint="make a task whose policy says `[edges]` and `updates_max`, see docs/edges.md",
        )


class _Links:
    """Both links of the process. They work while it has the edge's partition."""

    def __init__(
        self, context: ProcessContext, stand: EdgeStand, key: KeyPair, parent: Settings, folder: Path
    ) -> None:
        self._context = context
        self._policy: Policy = context.policy
        self._stopped: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None
        name, sha256 = context.name, context.genesis_sha256.hex()

        def progress(of: str) -> Progress:
            return Progress(folder / f"{of}.json", sha256)

        reader = LogReader(parent, f"fluvial-{name}-above")
        self._uplink = Uplink(
            stand,
            context.trust,
            key.of_task(context.genesis.domain),
            reader=reader,
            writer=LogWriter(parent, f"fluvial-{name}-up", give_up=False, observer=context.observer),
            clock=context.clock,
            progress=progress("windows"),
        )
        self._downlink = Downlink(
            stand,
            context.trust,
            Ways(
                LogReader(parent, f"fluvial-{name}-down"),
                context.open_reader("copies"),
                context.writer,
                context.clock,
            ),
            barriers=progress("barriers"),
            announcements=progress("announcements"),
        )

    def hand_on(self, closed: WindowClosed, encoded: EncodedWindow) -> None:
        """Each window, in sequence."""
        if self._problem is not None:
            raise self._problem
        policy = self._policy
        if closed.policy_sha256 != policy.sha256:
            policy = self._context.store.policy(closed.policy_sha256)
        require_taken(self._context.genesis.task, policy)
        self._uplink.publish(closed, encoded, policy.updates.bytes_max)

    async def assigned(self, has_any: bool) -> None:  # noqa: FBT001 (one fact, which a callback takes)
        """Begin or end to work; at the end, once what is under way is done."""
        if has_any and self._stopped is None:
            await asyncio.to_thread(self._uplink.begin, self._policy)
            self._stopped = threading.Event()
            self._thread = run_in_thread(self._downlink, self._stopped, self._failed)
        elif not has_any and self._stopped is not None:
            self._stopped.set()
            self._stopped = None
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join, JOIN_S_MAX)

    def _failed(self, error: Exception) -> None:
        """Without what comes down the edge stands still: the next window says so, and the process ends."""
        traced = None if isinstance(error, FluvialError) else error
        log.error("nothing comes down to this edge any more.\n%s", error, exc_info=traced)
        self._problem = error
