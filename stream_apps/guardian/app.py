"""The guardian.

::

    fl.<task>.models                    announcements of all regions
        │  follow: one actor
        ▼
    Making.hear                         the newest announced version
        │  guide_when_behind (task): one at a time, on a thread
        ▼
    Making.guide_newest                 a round on the root set from that version's model, as a device trains
        ├─▶ object store      the guide in its signed envelope, under its hash
        └─▶ fl.<task>.guides  an announcement of it, for mergers

The root set is read at the start, held against what the task's held-out examples have, and never leaves this process.
It resumes at the newest guide that was announced under its key, and ends when an operator revokes that. Two guardians
at once are harmless: a merger takes one.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import faust
from faust.types import TP

from aggregation.errors import UsageProblem
from backends.kafka.faust.transport import create_app, raw_topic, records_in
from backends.object_store import StoreUnavailable
from backends.observer import UNOBSERVED, Observer
from backends.outages import retry_through_outage
from backends.settings import Settings
from learning.root_set_limits import EXAMPLES
from schemas.access import own_group
from schemas.certificates import CONTROL, Role
from schemas.envelope import KeyPair
from schemas.topics import models_topic
from stream_apps.credentials import own_identity, require_not_revoked, require_valid
from stream_apps.guardian.making import Making
from stream_apps.process_context import ProcessContext, open_process_context
from stream_apps.running import say_stop, tell
from stream_apps.task_program import task_program

if TYPE_CHECKING:
    from learning.root_set import RootSet
    from learning.task import Task

LOOK_EVERY_S: Final = 0.1
AGAIN_AFTER_S: Final = 1.0
"""So long after a model that could not be read the newest one is tried."""
ANNOUNCEMENT_BYTES: Final = 2048

log = logging.getLogger("fluvial.guardian")


@dataclass(frozen=True, slots=True)
class RootSetAsked:
    """Which root set a guardian was asked to use. ``examples``: so many held-out ones, where there is no other.

    ``path``: that of examples of one's own. ``accept_coverage``: guide by it whatever it lacks. ``settings`` were given
    over the CONFIG of the task's code.
    """

    examples: int = EXAMPLES
    path: str = ""
    accept_coverage: bool = False
    seed: int = 0
    settings: Mapping[str, Any] | None = None


def build_app(
    settings: Settings,
    *,
    task: str,
    name: str,
    genesis_sha256: str,
    reference_here: str,
    key_pair: KeyPair,
    asked: RootSetAsked,
    data_folder: Path,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of one guardian; ``reference_here`` is where this machine's task.json says that its code is.

    UsageProblem: FLV-3220, the task is not guided; FLV-2251, the root set covers too little; FLV-3203, the key; and
    what loading the task and its data raises.
    """
    context = open_process_context(settings, task, genesis_sha256, key_pair, name, observer=observer)
    require_guided(context)
    identity = own_identity(key_pair, context.trust, region=CONTROL, role=Role.GUARDIAN)
    require_valid(identity)
    making = _making(settings, context, reference_here, asked)
    making.resume()

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        observer.adopted(making.guided, context.genesis.partitions)
        return dict.fromkeys(assigned, making.heard)

    app = create_app(
        own_group(task, "guardian", f"{name}-{uuid.uuid4().hex[:8]}"),
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=ANNOUNCEMENT_BYTES,
    )
    tell(app, observer)

    async def end(error: Exception) -> None:
        say_stop(log, "the guardian stops after version %d.\n%s", making.guided, error)
        await app.crash(error)

    @app.agent(raw_topic(app, models_topic(task)), name="follow")
    async def follow(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            for record in records_in(event.message):
                making.hear(record)

    @app.task
    async def guide_when_behind() -> None:
        while not app.should_stop:
            try:
                require_valid(identity)
                require_not_revoked(identity, making.revoked)
                done = await asyncio.shield(asyncio.create_task(asyncio.to_thread(making.guide_newest)))
            except Exception as error:  # noqa: BLE001 (it is said, and ends the process)
                await end(error)
                return
            await app.sleep(AGAIN_AFTER_S if making.is_behind and not done else LOOK_EVERY_S)

    return app


def require_guided(context: ProcessContext) -> None:
    """UsageProblem FLV-3220 where the task's policy takes no guides."""
    if not context.genesis.is_guided:
        raise UsageProblem(
            "FLV-3220",
            f"no merger takes a guide: the policy of {context.genesis.task} has the defence "
            f"{context.policy.defence.kind}",
            hint='create the task with POLICY = {"defence": {"kind": "guide"}} in its task file, see docs/defences.md',
        )


def checked_root_set(task: Task, asked: RootSetAsked) -> RootSet:
    """The root set, told. UsageProblem FLV-2251 where it covers too little, unless that is accepted, which is told."""
    from learning.root_set import coverage_problems, require_coverage, root_set_of

    root = root_set_of(task, examples=asked.examples, path=asked.path)
    if not asked.accept_coverage:
        require_coverage(root)
    log.info("the root set: %d examples, %s", len(root.examples), root.origin)
    for problem in coverage_problems(root):
        log.warning("accepted as it is (--accept-coverage): honest devices may be refused, for %s", problem)
    if root.held_out is None:
        log.warning("the task has no held-out examples here: what the root set lacks of them is not known")
    if root.shared:
        log.warning("the evaluator evaluates on these, too: what it says is a little too good from now on")
    return root


def _making(settings: Settings, context: ProcessContext, reference_here: str, asked: RootSetAsked) -> Making:
    from learning.binding import bind
    from learning.task import load_task

    reference = task_program(settings, context.store, context.genesis, reference_here, log)
    loaded = load_task(reference, asked.settings or {})
    task = retry_through_outage(
        "read the frozen tensors",
        lambda: bind(loaded, context.genesis, context.store.get_object),
        (StoreUnavailable,),
    )
    return Making(context, task, checked_root_set(task, asked), seed=asked.seed)
