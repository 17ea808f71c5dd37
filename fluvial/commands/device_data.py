"""What one device trains on: its own examples, its part of the task's, or a shard of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from backends.tasks import TaskFile
    from fluvial.terminal.invocation import Invocation
    from learning import Examples, Task
    from producers.sdk.device import Device


def check_choice(shard: str | None, data: str) -> tuple[int, int] | None:
    """``--shard`` as numbers; None without. UsageProblem FLV-6001: it is none, or stands beside ``--data``."""
    if shard is None:
        return None
    if data:
        raise UsageProblem(
            "FLV-6001",
            "--shard is a part of the task's data, and --data is the device's own: only one of them can be",
            hint="leave out `--shard`",
        )
    part, slash, parts = shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageProblem(
            "FLV-6001", f"--shard {shard!r}: expected I/N with 1 ≤ I ≤ N", hint="write it as `--shard 1/40`"
        )
    return int(part), int(parts)


def load_program_and_data(
    invocation: Invocation,
    file: TaskFile,
    one: Device,
    shard: tuple[int, int] | None,
    *,
    data: str,
    given: dict[str, Any],
) -> tuple[Task, Examples]:
    """The task's program, with the settings ``given``, and what the device ``one`` trains on.

    Raises what finding and loading them raises.
    """
    from backends.programs import find_program
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore
    from learning.partition import split_among_devices
    from learning.parts import part_of
    from learning.task import load_task

    store = TaskStore(open_object_store(invocation.settings().store), file.task)
    genesis, say = one.author.genesis, invocation.output.say
    program = find_program(invocation.home, genesis, store.get_object, file.reference, say=say)
    task = load_task(program, {**file.settings, **given})
    if data:
        return task, task.local_data(data)
    whole = task.data()
    if shard is not None:
        part, parts = shard
        return task, split_among_devices(whole.train, parts, 1.0, file.seed)[part - 1]
    own = part_of(whole, one.device_id)
    if own is None and whole.parts:
        say(f"note: no part of the data is called {one.device_id}: it trains on all of them")
    return task, whole.train if own is None else own
