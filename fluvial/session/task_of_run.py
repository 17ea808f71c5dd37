"""The task that a run trains: made for it, or standing there already and trained further."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from aggregation.errors import UsageProblem
from backends.programs import find_program
from backends.tasks import write_task_file
from fluvial.session.going_on import free_task_name, refuse_what_is_fixed, standing_of

if TYPE_CHECKING:
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.session.going_on import Further
    from fluvial.session.plan import RunPlan
    from fluvial.terminal.output import Output


def task_of_run(plan: RunPlan, settings: Settings, output: Output) -> tuple[RunPlan, TaskFile]:
    """(the plan, with regions and versions as they are in the task that stands there, the task).

    Raises what ``create_task``, ``standing_of`` and ``refuse_what_is_fixed`` raise.
    """
    if plan.further is None:
        return plan, _created(plan, settings, output)
    return _further(plan, plan.further, settings, output)


def _further(plan: RunPlan, further: Further, settings: Settings, output: Output) -> tuple[RunPlan, TaskFile]:
    standing = standing_of(settings, further.file)
    # Every process finds it for itself: here the user hears that his changed file is not what goes on.
    find_program(
        settings.home, standing.genesis, standing.store.get_object, further.file.reference, say=output.say
    )
    refuse_what_is_fixed(further, standing.genesis.partitions)
    file = msgspec.structs.replace(
        further.file, settings=dict(plan.given), devices=plan.devices, alpha=plan.alpha
    )
    if file != further.file:
        write_task_file(settings.home, file)
    wanted = standing.head + plan.versions
    output.say(f"going on with the task {file.task} at version {standing.head}, up to version {wanted}")
    return dataclasses.replace(
        plan, regions=standing.genesis.partitions, first_version=standing.head, versions=wanted
    ), file


def _created(plan: RunPlan, settings: Settings, output: Output) -> TaskFile:
    try:
        return _create(plan, plan.name, settings, output)
    except UsageProblem as problem:
        # A task of this name that was made otherwise and never trained is nobody's loss: this run's is called anew.
        if problem.error_id not in {"FLV-2403", "FLV-2406"} or plan.named:
            raise
        return _create(plan, free_task_name(settings.home, plan.name), settings, output)


def _create(plan: RunPlan, name: str, settings: Settings, output: Output) -> TaskFile:
    from fluvial.local.create import create_task

    return create_task(
        settings,
        reference=plan.reference,
        name=name,
        regions=dict(plan.regions),
        policy_text=plan.policy_text,
        policy_defaults=plan.policy_defaults,
        seed=plan.seed,
        given=plan.given,
        split=(plan.devices, plan.alpha),
        origin=plan.origin,
        output=output,
    )
