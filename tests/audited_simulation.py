"""A simulation whose logs and store are kept, and the audit of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backends.memory.log import MemoryReader
from backends.tasks import TaskFile
from fluvial.local.policies import layered_policy, quick_policy
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.sources import Sources
from fluvial.session.simulation import _Simulation
from learning.task import load_task
from producers.fleet.population import FleetConfig
from schemas.topics import updates_topic
from tests.small_federation import IN_MEMORY

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.proof.audit import AuditReport


def simulated(file: Path, *, devices: int, versions: int) -> _Simulation:
    """A simulation of the task ``file`` in one region, after so many versions."""
    task = load_task(str(file))
    simulation = _Simulation(
        task,
        FleetConfig(devices=devices, round_s=1.0),
        policy=layered_policy(task=task.policy_overrides, defaults=quick_policy(devices)),
        regions={"eu": 1},
        folder=file.parent / f"keys of {file.stem}",
        train_config=task.config,
    )
    asyncio.run(simulation.to_the_end(versions, None))
    return simulation


def audited(simulation: _Simulation) -> AuditReport:
    """The audit of all that it has logged and stored."""
    genesis = simulation.engine.genesis
    known = TaskFile(task=genesis.task, genesis_sha256=genesis.sha256, reference="", regions=("eu",))
    sources = Sources(lambda _purpose: MemoryReader(simulation.engine.log), simulation.engine.objects)
    return audit_task(IN_MEMORY, known, sources=lambda: sources, jobs=1)


def updates_of(simulation: _Simulation) -> list[bytes]:
    """What devices have published, as it stands in the log."""
    found = []
    for region, partition, offset in simulation._published:
        topic = updates_topic(simulation.engine.genesis.task, region)
        (record,) = MemoryReader(simulation.engine.log).read(topic, partition, offset, offset + 1)
        found.append(record.value or b"")
    return found
