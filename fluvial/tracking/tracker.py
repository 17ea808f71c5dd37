"""What a tracker is: anything with ``on_version``. Two more callbacks are called where it has them.

::

    class Printed:
        def on_version(self, version):             # a TrackedVersion, in order, each once
            print(version.version, version.metrics)

``simulate(task, on_version=Printed().on_version)`` tells it of a simulation, ``fluvial track --to mine.py:Printed``
of a task on a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class TrackedTask:
    """A task, as its genesis document has it. ``parameters`` are the policy's choices by dotted name, and the like."""

    name: str
    genesis_sha256: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TrackedVersion:
    """One version.

    version: from 1 on. metrics: what its evaluation says, by name; empty where nobody evaluated it. updates: accepted
    into it. refused: records refused in its windows. staleness_mean: in versions. timestamp_ms: when it was evaluated,
    or 0.
    """

    version: int
    metrics: Mapping[str, float]
    updates: int
    refused: int
    staleness_mean: float
    model_sha256: str
    manifest_sha256: str
    timestamp_ms: int


class Tracker(Protocol):
    """What every tracker has. ``on_start(task: TrackedTask) -> int | None`` and ``on_end() -> None`` are optional.

    ``on_start`` may return the last version that the tracker knows from before: it is told of later ones only.
    """

    def on_version(self, version: Any, /) -> object:
        """One version, with ``version``, ``metrics``, ``updates``, ``staleness_mean`` and ``model_sha256`` at least."""
        ...
