"""How each fault is done and undone: one short script a fault, which waits by yielding.

A script does its harm, yields how long it lasts, heals, and returns in words what was done. The engine drives many of
them from one thread; at the end of a run it cuts their waits short, so that every script heals what it has broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from fluvial.proof.chaos.disks import Disks
from fluvial.proof.chaos.links import Links, service_of
from fluvial.proof.chaos.parts import Parts
from fluvial.proof.chaos.schedule import SERVICES, Fault

CRASH_WAIT_S_MAX: Final = 15.0
"""A process that has not passed its crash point by then is killed where it is."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """The harm lasts so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Until something is true, at most so long."""

    true: Callable[[], bool]
    seconds_max: float


Step = Sleep | Until | Future[int]
Script = Generator[Step, None, str]


@dataclass(slots=True)
class Trace:
    """What a script leaves for the history while it runs: when it killed, seconds since 1970 UTC."""

    killed_at: list[float] = field(default_factory=list)


class Injector:
    """Makes the script of a fault. ``links`` None: there are no proxies; ``disks`` None: no disk of ours."""

    def __init__(self, parts: Parts, links: Links | None, disks: Disks | None) -> None:
        self._parts = parts
        self._links = links
        self._disks = disks

    def script(self, fault: Fault, trace: Trace) -> Script:
        """The script of ``fault``; ValueError for a kind that cannot be injected here."""
        match fault.kind:
            case "kill" if fault.detail:
                return self._crash(fault, trace)
            case "kill":
                return self._kill(fault, trace)
            case "pause":
                return self._pause(fault)
            case "network" if self._links is not None:
                return self._network(fault, self._links)
            case "disk" if self._disks is not None:
                return self._disk(fault, self._disks)
            case _:
                message = f"{fault.kind} faults cannot be injected here"
                raise ValueError(message)

    def _kill(self, fault: Fault, trace: Trace) -> Script:
        names = self._parts.crew.names(fault.target)
        trace.killed_at.append(time.time())
        pids = [self._parts.kill(name) for name in names]
        yield Sleep(fault.seconds)
        starts = [self._parts.start_again(name) for name in names]
        yield from starts
        new = [start.result() for start in starts]
        return f"killed {_list(pids)} with -9, started again as {_list(new)}"

    def _crash(self, fault: Fault, trace: Trace) -> Script:
        name, parts = fault.target, self._parts
        trace.killed_at.append(time.time())
        parts.kill(name)
        start = parts.start_again(name, crash_at=fault.detail)
        yield start
        yield Until(lambda: not parts.is_up(name), CRASH_WAIT_S_MAX)
        if parts.is_up(name):
            said = f"{fault.detail} was not passed in time: killed where it was"
            parts.kill(name)
        else:
            said = f"ended with code {parts.exit_code(name)} at {fault.detail}"
        trace.killed_at.append(time.time())
        yield Sleep(fault.seconds)
        start = parts.start_again(name)
        yield start
        return f"{said}; started again as {start.result()}"

    def _pause(self, fault: Fault) -> Script:
        names = self._parts.crew.names(fault.target)
        pids = [self._parts.pause(name) for name in names]
        yield Sleep(fault.seconds)
        for name in names:
            self._parts.resume(name)
        return f"stopped {_list(pids)}"

    def _network(self, fault: Fault, links: Links) -> Script:
        mode, _, service = fault.detail.partition(" ")
        everybody = fault.target in SERVICES
        names = links.break_(mode, service_of(service), None if everybody else fault.target)
        yield Sleep(fault.seconds)
        links.mend(names)
        whose = f"the links of all {len(names)}" if everybody else f"the link of {fault.target}"
        return f"{mode}: {whose} to the {service}"

    def _disk(self, fault: Fault, disks: Disks) -> Script:
        name, parts, disk = fault.target, self._parts, disks[fault.target]
        pid = parts.pid(name)
        said = disk.fill(pid)
        yield Sleep(fault.seconds)
        disk.empty(pid)
        if parts.is_up(name) and disk.folder is None:
            # A broker that met the quota may live on with a log directory that it has given up.
            parts.kill(name)
        if parts.is_up(name):
            return f"disk full by {said}; it went on"
        start = parts.start_again(name)
        yield start
        return f"disk full by {said}; it ended, started again as {start.result()}"


def _list(pids: list[int]) -> str:
    return ", ".join(f"pid {pid}" for pid in pids)
