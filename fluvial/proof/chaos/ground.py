"""What a chaos run stands on: disks, a broker and a store of its own, and ways in to both; or a cluster that is there.

Of the latter only the run's own processes are hit: it may be somebody else's, too.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aggregation.errors import EnvironmentProblem, FluvialError
from backends.kafka.admin import delete_topics
from backends.settings import ADMIN
from backends.store.removing import remove_objects
from backends.tasks import task_folder
from fluvial.local import downloads
from fluvial.local.stack import LocalStack, StackPlan
from fluvial.processes.signals import undisturbed
from fluvial.proof.chaos.disks import Disks
from fluvial.proof.chaos.links import Link, choose_links
from fluvial.proof.chaos.parts import Cast
from fluvial.proof.chaos.schedule import BROKER, STORE, Kind
from fluvial.proof.chaos.ways_in import GivenWays, WaysIn
from schemas.topics import topics_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings
    from fluvial.proof.chaos.home import ChaosHome
    from fluvial.proof.chaos.plan import ChaosPlan
    from fluvial.terminal.output import Output

_STORE_IS_A_FOLDER: Final = (
    "the store is a folder here (no Go to build MinIO): it has no process, link or disk"
)
OF_PROCESSES: Final[tuple[Kind, ...]] = ("kill", "pause")
"""Kinds of faults that need nothing but the run's own processes."""
_NOT_OURS: Final = "the cluster is not the run's own: nothing but its own processes is hit"


@dataclass(slots=True)
class Ground:
    """``settings`` are those of the administrator. ``binary`` None: no proxies.

    ``kinds``: the faults that can be injected here; ``skipped``: the others, and why.
    """

    settings: Settings
    stack: LocalStack
    disks: Disks
    links: list[Link]
    ways: WaysIn | GivenWays
    binary: Path | None
    kinds: tuple[Kind, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def reader(self) -> Settings:
        """For whoever only looks."""
        return self.ways.settings(self.settings.home, "reader")


@contextlib.contextmanager
def open_ground(plan: ChaosPlan, own: ChaosHome, output: Output) -> Iterator[Ground]:
    """Disks, broker and store; gone at the end, in whatever way it comes.

    Raises FluvialError: what the stack raises; FLV-2001 to 2003, the policy is none; FLV-6405, FLV-6406.
    """
    if plan.cluster is not None:
        with _given_ground(plan, GivenWays(plan.cluster), own, output) as ground:
            yield ground
        return
    folder, skipped = own.folder, dict[str, str]()
    services = (BROKER, STORE) if "disk" in plan.kinds else ()
    store = downloads.minio_is_possible()
    crew = Cast(plan.regions, plan.workers, store=True, guided=plan.is_guided)
    binary = _proxies(plan, skipped, output)
    links = choose_links(crew.processes) if binary else []
    ways = WaysIn(plan.security, links)
    with Disks(folder / "disks", services if store else services[:1], plan.seconds, plan.devices) as disks:
        if not store and {"disk", "network", "kill", "pause"} & set(plan.kinds):
            skipped["store"] = _STORE_IS_A_FOLDER
        if disks.how == "quota":
            skipped["disk: file system"] = f"{disks.reason}: a quota on each file takes its place"
        elif services and not disks.how:
            skipped["disk"] = disks.reason
        for kind, reason in skipped.items():
            output.say(f"not possible here: {kind}: {reason}")
        stack = LocalStack(
            folder,
            "auto" if store else "file",
            output,
            plan=StackPlan(
                kafka_data=disks.data(BROKER),
                minio_data=disks.data(STORE),
                listeners=ways.listeners,
            ),
            secured=ways.has_tls,
        )
        try:
            kinds = tuple(kind for kind in plan.kinds if kind not in skipped)
            yield Ground(stack.up(), stack, disks, links, ways, binary, kinds, skipped)
        finally:
            with undisturbed():
                _end_stack(stack, disks, folder, keep=own.keep)


@contextlib.contextmanager
def _given_ground(plan: ChaosPlan, ways: GivenWays, own: ChaosHome, output: Output) -> Iterator[Ground]:
    """A cluster that is there, from which the run's task is removed at the end."""
    kinds = tuple(kind for kind in plan.kinds if kind in OF_PROCESSES)
    skipped: dict[str, str] = {kind: _NOT_OURS for kind in plan.kinds if kind not in OF_PROCESSES}
    for kind, reason in skipped.items():
        output.say(f"not possible here: {kind}: {reason}")
    settings = ways.settings(own.folder, ADMIN)
    with Disks(own.folder / "disks", (), plan.seconds, plan.devices) as disks:
        try:
            yield Ground(
                settings, LocalStack(own.folder, "file", output), disks, [], ways, None, kinds, skipped
            )
        finally:
            with undisturbed():
                # Its keys are made before anything of it is on the cluster, its task file after everything.
                if task_folder(own.folder, plan.task).is_dir():
                    _leave(plan, ways, settings, output, keep=own.keep)


def _leave(plan: ChaosPlan, ways: GivenWays, settings: Settings, output: Output, *, keep: bool) -> None:
    """Take from the cluster whatever was made of the task, also of one that was never finished."""
    if keep:
        output.say(
            f"task {plan.task} stays on the cluster with what is kept here, and no later run removes it: its topics "
            f"begin with fl.{plan.task}., its objects with {plan.task}/"
        )
        return
    try:
        table = topics_of(plan.task, plan.regions, guided=plan.is_guided)
        delete_topics(settings, [topic.name for topic in table])
        remove_objects(settings.store, f"{plan.task}/")
        ways.dismiss(plan.task, plan.regions, guided=plan.is_guided)
    except FluvialError as problem:
        output.say(f"task {plan.task} stays on the cluster, for it cannot be removed: {problem.message}")


def _proxies(plan: ChaosPlan, skipped: dict[str, str], output: Output) -> Path | None:
    """The proxies' program; without it the other faults go on, and it is said."""
    if "network" not in plan.kinds:
        return None
    try:
        return downloads.toxiproxy_binary(output)
    except EnvironmentProblem as problem:
        if set(plan.kinds) == {"network"}:
            raise
        skipped["network"] = problem.message
        return None


def _end_stack(stack: LocalStack, disks: Disks, folder: Path, *, keep: bool) -> None:
    if not keep:
        stack.end()
        return
    for service in ("kafka", "minio"):
        stack.resume(service)
    stack.down()
    for service, name in ((BROKER, "kafka"), (STORE, "minio")):
        data, usual = disks.data(service), folder / "data" / name
        if data is not None and data.is_dir():
            shutil.copytree(data, usual, dirs_exist_ok=True)
